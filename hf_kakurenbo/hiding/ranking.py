"""Which samples have the lowest lagging loss, in O(N) and without a copy of the losses."""

from __future__ import annotations

import numpy as np

from .ledger import SampleLedger

_LARGEST = float(np.finfo(np.float32).max)

# So many losses, drawn at random, tell where the threshold must be; 4 standard deviations to either side, some 2 % of
# the losses are compared exactly.
_DRAWN = 2**16
_DEVIATIONS = 4


def lowest_loss(ledger: SampleLedger, count: int) -> np.ndarray:
    """Which of the `count` samples of lowest loss have a finite loss: a mask (N,) bool.

    A loss that is not finite ranks last; among equal losses the lower id ranks first.

    Args:
        ledger: what is known about the samples.
        count: 0..N.
    """
    chosen = np.zeros(len(ledger), dtype=np.bool_)
    if count == 0:
        return chosen
    threshold, below = _kth_smallest(ledger, count)
    ties = count - below
    for part in ledger.parts():
        loss = ledger.loss_at(part)
        mask = chosen[part]
        np.less(loss, threshold, out=mask)
        mask &= loss >= -_LARGEST
        if ties:
            equal = np.flatnonzero(loss == threshold)[:ties]
            mask[equal] = True
            ties -= len(equal)
    return chosen


def _kth_smallest(ledger: SampleLedger, count: int) -> tuple[np.float32, int]:
    """The finite loss of rank `count`, from 1, and how many finite losses are below it.

    Where there are fewer finite losses, the largest number that is finite.
    """
    low, high = _bracket(ledger, count)
    while True:
        below, at_low, inside, at_high = _count(ledger, low, high)
        rank = count - below
        if rank <= 0:
            low, high = np.float32(-_LARGEST), low
        elif rank <= at_low:
            return low, below
        elif rank <= at_low + len(inside):
            inside.partition(rank - at_low - 1)
            threshold = inside[rank - at_low - 1]
            return threshold, below + at_low + int(np.count_nonzero(inside < threshold))
        elif rank <= at_low + len(inside) + at_high or high == _LARGEST:
            return high, below + at_low + len(inside)
        else:
            low, high = high, np.float32(_LARGEST)


def _bracket(ledger: SampleLedger, count: int) -> tuple[np.float32, np.float32]:
    """Two finite losses between which that of rank `count` very probably is, from losses drawn at random."""
    total = len(ledger)
    if total <= 2 * _DRAWN:
        return np.float32(-_LARGEST), np.float32(_LARGEST)
    drawn = ledger.loss_at(np.random.default_rng(0).integers(0, total, _DRAWN))
    drawn = np.sort(np.where(np.isfinite(drawn), drawn, np.float32(_LARGEST)))
    fraction = count / total
    reach = _DEVIATIONS * (_DRAWN * fraction * (1 - fraction)) ** 0.5 + 1
    first, last = int(fraction * _DRAWN - reach), int(fraction * _DRAWN + reach)
    return (
        drawn[first] if first >= 0 else np.float32(-_LARGEST),
        drawn[last] if last < _DRAWN else np.float32(_LARGEST),
    )


def _count(ledger: SampleLedger, low: np.float32, high: np.float32) -> tuple[int, int, np.ndarray, int]:
    """How many finite losses are below `low`, how many equal it, which are between, how many equal `high`."""
    below, at_low, at_high = 0, 0, 0
    inside = [np.empty(0, dtype=np.float32)]
    for part in ledger.parts():
        loss = ledger.loss_at(part)
        below += int(np.count_nonzero((loss < low) & (loss >= -_LARGEST)))
        at_low += int(np.count_nonzero(loss == low))
        if low < high:
            inside.append(loss[(loss > low) & (loss < high)])
            at_high += int(np.count_nonzero(loss == high))
    return below, at_low, np.concatenate(inside), at_high
