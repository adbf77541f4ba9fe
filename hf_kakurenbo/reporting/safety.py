"""Whether what was hidden is still known: of samples that were hidden, how many are still predicted correctly."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..hiding import LedgerHistory


class SafetyFigures(NamedTuple):
    """One epoch; NaN for a fraction of nothing."""

    number: int
    """Of the epoch, from 1."""
    refreshed: int
    """Hidden samples that the epoch measured at its end, forward only."""
    refreshed_right: float
    """The fraction of them that was predicted correctly."""
    returned: int
    """Samples that the epoch before hid and this one trained on."""
    returned_right: float
    """The fraction of them that was predicted correctly when it did."""


def safety_of(history: LedgerHistory) -> list[SafetyFigures]:
    """The figures of each epoch that hid something, or trained on something that the one before had hidden."""
    found, before = [], None
    for row in history.rows():
        measured = ~np.isnan(row.loss)
        refreshed = row.hidden & measured
        returned = np.zeros_like(measured)
        if before is not None and before.epoch == row.epoch - 1:
            returned = before.hidden & ~row.hidden & measured
        if refreshed.any() or returned.any():
            found.append(
                SafetyFigures(
                    row.epoch + 1,
                    int(np.count_nonzero(refreshed)),
                    _fraction(row.correct, refreshed),
                    int(np.count_nonzero(returned)),
                    _fraction(row.correct, returned),
                )
            )
        before = row
    return found


def _fraction(correct: np.ndarray, of: np.ndarray) -> float:
    count = np.count_nonzero(of)
    return float(np.count_nonzero(correct & of) / count) if count else float("nan")
