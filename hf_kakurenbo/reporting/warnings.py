"""What a reader of the report should not overlook."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .classes import ClassFigures
from .epochs import EpochFigures, Savings
from .runs import TrainedRun
from .safety import SafetyFigures

# A class is hidden far more than the others from this many times as often on, if it has enough samples to say so.
_FAR_MORE, _ENOUGH_SAMPLES = 1.5, 20
# So many epochs in a row without any of its samples are worth a warning.
_UNSEEN_EPOCHS = 2
# Below this fraction of hidden samples still right, what is hidden is being forgotten.
_STILL_RIGHT = 0.9
_SHOWN = 5


def warnings_of(
    run: TrainedRun,
    epochs: Sequence[EpochFigures],
    savings: Savings,
    classes: Sequence[ClassFigures],
    safety: Sequence[SafetyFigures],
) -> list[str]:
    """Sentences, the gravest first; none if all is well."""
    found = [
        *_forgetting(safety),
        *_classes_unseen(classes),
        *_classes_hidden_more(classes),
        *_cost(savings),
        *_nothing_hidden(run),
        *_without_loss(run),
        *_unfinished(run, epochs),
    ]
    return list(found)


def _forgetting(safety: Sequence[SafetyFigures]) -> Iterator[str]:
    low = [epoch for epoch in safety if epoch.refreshed and epoch.refreshed_right < _STILL_RIGHT]
    if low:
        worst = min(low, key=lambda epoch: epoch.refreshed_right)
        yield (
            f"Hidden samples are being forgotten: in {_counted(len(low), 'epoch')} fewer than {_STILL_RIGHT:.0%} of "
            f"them were still predicted correctly at its end, in epoch {worst.number} {worst.refreshed_right:.1%}. "
            "Hide less (max_hidden_fraction), or only what is surer (confidence_threshold)."
        )


def _classes_unseen(classes: Sequence[ClassFigures]) -> Iterator[str]:
    found = [each for each in classes if each.unseen_epochs is not None and each.unseen_epochs >= _UNSEEN_EPOCHS]
    if found:
        longest = max(each.unseen_epochs or 0 for each in found)
        yield (
            f"{_counted(len(found), 'class', 'classes')} had no visible sample for {_UNSEEN_EPOCHS} epochs in a row or "
            f"more (at most {longest}): {_names(found)}. Set min_visible_per_class."
        )


def _classes_hidden_more(classes: Sequence[ClassFigures]) -> Iterator[str]:
    samples = sum(each.samples for each in classes)
    mean = sum(each.hidden_epochs * each.samples for each in classes) / samples if samples else 0.0
    found = [
        each
        for each in classes
        if mean > 0 and each.hidden_epochs > _FAR_MORE * mean and each.samples >= _ENOUGH_SAMPLES
    ]
    if found:
        yield (
            f"{_counted(len(found), 'class is', 'classes are')} hidden more than {_FAR_MORE:g} times as often as the "
            f"average: {_names(found)}. That is right if the model knows them better; look at their accuracy on data "
            "that was not trained on."
        )


def _cost(savings: Savings) -> Iterator[str]:
    if savings.seconds < 0:
        yield (
            f"Hiding has cost {-savings.seconds:,.1f} s more than it saved: the passes over hidden samples take longer "
            "than training on them would. Try a larger refresh_interval."
        )


def _nothing_hidden(run: TrainedRun) -> Iterator[str]:
    if not bool(run.ledger.times_hidden.any()):
        yield "Nothing was hidden in any epoch so far."


def _without_loss(run: TrainedRun) -> Iterator[str]:
    unmeasured = int(np.count_nonzero(~np.isfinite(run.ledger.loss.numpy())))
    if unmeasured:
        yield (
            f"{_counted(unmeasured, 'sample has', 'samples have')} no finite loss, and are never hidden: their labels "
            "are all masked, the model's predictions are not finite, or they were not measured yet."
        )


def _unfinished(run: TrainedRun, epochs: Sequence[EpochFigures]) -> Iterator[str]:
    if run.finished is False and run.steps is not None:
        yield (
            f"The training is not finished, or was stopped: this is what it was after {run.steps[0]:,} of "
            f"{run.steps[1]:,} updates."
        )
    if not epochs and run.epochs_done:
        yield "There is no log of the epochs beside the ledger (trainer_state.json), so their figures are missing."


def _names(classes: Sequence[ClassFigures]) -> str:
    more = f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
    return ", ".join(each.name for each in classes[:_SHOWN]) + more


def _counted(count: int, singular: str, plural: str | None = None) -> str:
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
