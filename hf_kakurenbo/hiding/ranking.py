"""Which samples have a loss, and which the lowest lagging one, in O(N) and without a copy of the losses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

from .ledger import SampleLedger
from .record import Where

_LARGEST = float(np.finfo(np.float32).max)

# So many losses, drawn at random, tell where the threshold must be; 4 standard deviations to either side, some 2 % of
# the losses are compared exactly.
_DRAWN = 2**16
_DEVIATIONS = 4


class _Losses(Protocol):
    """What ranking reads of a ledger."""

    def __len__(self) -> int: ...

    def parts(self) -> Iterator[slice]: ...

    def loss_at(self, where: Where) -> np.ndarray: ...


class _Among:
    """The losses of some samples; that of the others ranks last."""

    def __init__(self, ledger: SampleLedger, members: np.ndarray) -> None:
        self._ledger, self._members = ledger, members
        self.parts = ledger.parts

    def __len__(self) -> int:
        return len(self._ledger)

    def loss_at(self, where: Where) -> np.ndarray:
        return np.where(self._members[where], self._ledger.loss_at(where), np.float32(np.inf))


def has_finite_loss(ledger: SampleLedger) -> np.ndarray:
    """Which samples have one: a mask (N,) bool."""
    return np.concatenate([np.isfinite(ledger.loss_at(part)) for part in ledger.parts()])


def lowest_loss(ledger: SampleLedger, count: int, among: np.ndarray | None = None) -> np.ndarray:
    """Which of the `count` samples of lowest loss have a finite loss: a mask (N,) bool.

    A loss that is not finite ranks last; among equal losses the lower id ranks first.

    Args:
        ledger: what is known about the samples.
        count: 0..N.
        among: (N,) bool, the samples to choose from; None for all.
    """
    chosen = np.zeros(len(ledger), dtype=np.bool_)
    if count == 0:
        return chosen
    losses = ledger if among is None else _Among(ledger, among)
    threshold, below = _kth_smallest(losses, count)
    ties = count - below
    for part in losses.parts():
        loss = losses.loss_at(part)
        mask = chosen[part]
        np.less(loss, threshold, out=mask)
        mask &= loss >= -_LARGEST
        if ties:
            equal = np.flatnonzero(loss == threshold)[:ties]
            mask[equal] = True
            ties -= len(equal)
    return chosen


def _kth_smallest(ledger: _Losses, count: int) -> tuple[np.float32, int]:
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


def _bracket(ledger: _Losses, count: int) -> tuple[np.float32, np.float32]:
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


def _count(ledger: _Losses, low: np.float32, high: np.float32) -> tuple[int, int, np.ndarray, int]:
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
