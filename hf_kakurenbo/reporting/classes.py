"""What was hidden of each class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..data.labels import Labels
from ..hiding import SampleLedger


class ClassFigures(NamedTuple):
    """One class."""

    name: str
    samples: int
    hidden_now: float
    """The fraction of its samples that the last epoch hid."""
    hidden_epochs: float
    """In how many epochs one of its samples was hidden, on average."""
    accuracy: float
    """The fraction of its measured samples whose last prediction was right; NaN if none was measured."""
    never_learnt: int | None
    """How many of its samples were predicted wrongly in every epoch; None without a history."""
    unseen_epochs: int | None
    """The longest run of epochs that hid all of its samples; None without a history."""


def classes_of(ledger: SampleLedger, labels: Labels) -> list[ClassFigures]:
    """The figures of each class that has a sample, that most often hidden first.

    Args:
        ledger: the ledger.
        labels: of its samples.
    """
    count = len(labels.names)
    known = labels.values >= 0
    values = np.where(known, labels.values, count)

    def per_class(flags: np.ndarray) -> np.ndarray:
        return np.bincount(values, weights=flags, minlength=count + 1)[:count]

    samples = per_class(np.ones(len(values)))
    measured = per_class(~np.isnan(ledger.loss.numpy()))
    right, hidden = per_class(ledger.correct.numpy()), per_class(ledger.hidden.numpy())
    times = per_class(ledger.times_hidden.numpy())
    never = None if ledger.history is None else per_class(ledger.history.never_learnt())
    unseen = _unseen(ledger, values, count)
    found = [
        ClassFigures(
            name=labels.names[place],
            samples=int(samples[place]),
            hidden_now=float(hidden[place] / samples[place]),
            hidden_epochs=float(times[place] / samples[place]),
            accuracy=float(right[place] / measured[place]) if measured[place] else float("nan"),
            never_learnt=None if never is None else int(never[place]),
            unseen_epochs=None if unseen is None else int(unseen[place]),
        )
        for place in range(count)
        if samples[place]
    ]
    return sorted(found, key=lambda figures: -figures.hidden_epochs)


def _unseen(ledger: SampleLedger, values: np.ndarray, count: int) -> np.ndarray | None:
    """Of each class the longest run of epochs in which none of its samples was visible."""
    if ledger.history is None:
        return None
    run, longest = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    for row in ledger.history.rows():
        seen = np.bincount(values[~row.hidden], minlength=count + 1)[:count] > 0
        run = np.where(seen, 0, run + 1)
        longest = np.maximum(longest, run)
    return longest
