"""What was logged of each epoch, and what the whole training saved."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from .runs import TrainedRun

# A backward pass costs about two forward passes, so a training step about three.
_FORWARDS_OF_A_STEP = 3


class EpochFigures(NamedTuple):
    """One epoch; NaN where nothing was logged."""

    number: int
    """From 1."""
    hidden_fraction: float
    candidates: float
    moved_back: float
    visible_samples: float
    lr_scale: float
    learning_rate: float
    """The mean of those logged in it."""
    time_saved: float
    """Seconds since the training began."""


class Savings(NamedTuple):
    """What a training did, against the same epochs with nothing hidden."""

    full_samples: int
    """Samples that the same part of the training would have trained on."""
    trained_samples: int
    refreshed_samples: int
    samples_fraction: float
    """The fraction of them that was not trained on."""
    passes_fraction: float
    """The fraction of forward and backward passes saved, a backward pass counted as two forward passes."""
    seconds: float
    """Estimated seconds saved."""
    seconds_fraction: float | None
    """As a fraction of what its epochs would have taken; None where their time is not known."""


def epochs_of(log: list[dict[str, Any]]) -> list[EpochFigures]:
    """The figures of each epoch that was logged, in order.

    Args:
        log: Trainer's log history.
    """
    rates: dict[int, list[float]] = {}
    for entry in log:
        if "learning_rate" in entry and "epoch" in entry:
            rates.setdefault(_number(entry["epoch"]), []).append(float(entry["learning_rate"]))
    return [_figures(entry, rates) for entry in log if "kakurenbo/hidden_fraction" in entry]


def _number(epoch: float) -> int:
    """The number, from 1, of the epoch in which Trainer's fraction of epochs lies."""
    return max(math.ceil(epoch - 1e-6), 1)


def _figures(entry: dict[str, Any], rates: dict[int, list[float]]) -> EpochFigures:
    number = _number(entry.get("epoch", 1.0))
    logged = rates.get(number, [])
    rate = sum(logged) / len(logged) if logged else math.nan
    named = {name: float(entry.get(f"kakurenbo/{name}", math.nan)) for name in EpochFigures._fields}
    return EpochFigures(**{**named, "number": number, "learning_rate": rate})  # type: ignore[arg-type]


def savings_of(run: TrainedRun, epochs: list[EpochFigures]) -> Savings:
    """What a training saved, of its finished epochs."""
    numbers = run.numbers
    trained, refreshed = int(numbers.get("trained_samples", 0)), int(numbers.get("refreshed_samples", 0))
    full = _full_samples(run, epochs)
    seconds = float(numbers.get("time_saved", 0.0))
    spent = float(numbers.get("seconds", 0.0))
    return Savings(
        full_samples=full,
        trained_samples=trained,
        refreshed_samples=refreshed,
        samples_fraction=1 - trained / full if full else 0.0,
        passes_fraction=1 - (_FORWARDS_OF_A_STEP * trained + refreshed) / (_FORWARDS_OF_A_STEP * full) if full else 0.0,
        seconds=seconds,
        seconds_fraction=seconds / (spent + seconds) if spent > 0 else None,
    )


def _full_samples(run: TrainedRun, epochs: list[EpochFigures]) -> int:
    """As the training counted them; of an earlier release, which did not, by what it logged, or by the dataset."""
    replaced = int(run.numbers.get("replaced_samples", 0))
    if replaced >= int(run.numbers.get("trained_samples", 0)) > 0:
        return replaced
    if len(epochs) == run.epochs_done:
        drawn = [round(epoch.visible_samples / (1 - epoch.hidden_fraction)) for epoch in epochs]
        return sum(drawn)
    return run.epochs_done * len(run.ledger)
