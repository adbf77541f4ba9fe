"""Samplers of the visible and of the hidden samples. Both are global: Accelerate splits them among the ranks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sized
from itertools import chain, islice, repeat
from typing import Any, Protocol

import numpy as np
import torch
from accelerate.data_loader import SeedableRandomSampler
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler

from ..distributed.collectives import digest, from_rank_0, rank, world_size
from .random_state import RandomState, untouched_random_state

_CHUNK = 65_536

# From so many samples on a random order is not taken from its sampler one by one.
_MANY = 2**20


class SizedSampler(Sized, Protocol):
    """A sampler with a length."""

    def __iter__(self) -> Iterator[int]:
        """The ids, in order."""


class VisibleSampler(Sampler[int]):
    """The order of another sampler, less the hidden ids.

    The order of an epoch is drawn once, all of it, so the length is what is yielded, a second pass repeats the first,
    and a resumed epoch is drawn again from the generator states that it was drawn from. As long as nothing is hidden
    the draw waits for the first id, as in the sampler underneath, so that the global generators see the same calls.
    With something hidden every rank draws from the generator states of rank 0: a sampler that draws from a global
    generator would give each rank an order of its own as soon as their generators differ (by dropout, say).

    Args:
        sampler: the sampler to wrap; its `set_epoch`, if it has one, seeds the epoch.
    """

    def __init__(self, sampler: SizedSampler) -> None:
        self.sampler = sampler
        self.epoch = 0
        self.random_state: RandomState | None = None
        """The generator states from which the epoch's order was drawn; None before the draw."""
        self.repeats: Tensor | None = None
        """(N,) integers, how often the visible samples come in an epoch, at least once each; None for once. To be set
        before the epoch begins. The order with the repetitions is shuffled once more."""
        self._hidden: np.ndarray | None = None
        self._order: np.ndarray | None = None
        self._whole: np.ndarray | None = None
        self._dropped = 0

    def begin_epoch(
        self,
        epoch: int,
        hidden: Tensor,
        random_state: RandomState | None = None,
        batches_done: int = 0,
        dropped: int = 0,
    ) -> None:
        """Start an epoch; a collective call.

        Args:
            epoch: its index, from 0.
            hidden: (N,) bool, the samples to leave out; the same on every rank.
            random_state: draw the order from these generator states and leave the present ones alone: those that
                the epoch was drawn from before it was interrupted.
            batches_done: not used: a loader skips batches of indices by itself.
            dropped: leave out so many at the start of the order, trained on before in batches of another size.
        """
        self.epoch, self._dropped = epoch, dropped
        self.random_state, self._order, self._whole = None, None, None
        self._hidden = hidden.numpy().copy() if bool(hidden.any()) or self.repeats is not None else None
        if random_state is None and self._hidden is None:
            return
        if random_state is None:
            random_state = from_rank_0(RandomState.capture())
            if rank() == 0:
                self._draw()
                return
        with untouched_random_state():
            random_state.restore()
            self._draw()

    def hide_nothing(self) -> None:
        """Start anew, with all samples visible."""
        self.epoch, self._dropped, self.repeats = 0, 0, None
        self.random_state, self._order, self._whole, self._hidden = None, None, None, None

    def hide_less(self, hidden: Tensor) -> None:
        """Leave out other samples in the epoch that was begun; the rest stays in its order."""
        if self._whole is not None:
            self._hidden = hidden.numpy().copy()
            self._order = self._visible(self._whole.copy())
            return
        self.begin_epoch(self.epoch, hidden, self.random_state, dropped=self._dropped)

    def draws(self) -> np.ndarray | None:
        """How often each sample would come in the epoch with nothing hidden, (N,) integers; None for each once.

        None too as long as the order is not drawn, since nothing is hidden.
        """
        if self._whole is None or self._hidden is None:
            return None
        counts = np.bincount(self._whole, minlength=len(self._hidden))
        return None if len(self._whole) == len(counts) and counts.max(initial=0) <= 1 else counts

    @property
    def samples(self) -> int:
        """How many samples the epoch has, on all ranks together, those dropped at its start included."""
        return len(self) + self._dropped

    @property
    def full_samples(self) -> int:
        """How many samples an epoch has with nothing hidden."""
        return len(self.sampler)

    @property
    def distinct(self) -> int | None:
        """How many different samples this process draws in the epoch; None where it does not draw all of it."""
        if self._order is None or self._dropped or world_size() > 1:
            return None
        drawn = np.zeros(int(self._order.max(initial=-1)) + 1, dtype=np.bool_)
        drawn[self._order] = True
        return int(np.count_nonzero(drawn))

    def digest(self) -> int:
        """A 64-bit digest of the order, to compare it between ranks; 0 as long as it is not drawn."""
        return 0 if self._order is None else digest(self._order)

    # Accelerate hands the epoch either to the sampler or to the dataset, so there is only one if the sampler has one.
    @property
    def set_epoch(self) -> Callable[[int], None]:
        """Start an epoch with the same samples hidden; a second call with the same epoch changes nothing.

        Raises:
            AttributeError: the sampler underneath has no `set_epoch`.
        """
        if not hasattr(self.sampler, "set_epoch"):
            raise AttributeError("set_epoch")
        return self._set_epoch

    def _set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self._order, self._dropped = epoch, None, 0

    def __len__(self) -> int:
        if self._hidden is None:
            return len(self.sampler) - self._dropped
        return len(self._order if self._order is not None else self._draw())

    def __iter__(self) -> Iterator[int]:
        order = self._order if self._order is not None else self._draw()
        self._whole = None  # what the epoch hides is settled
        yield from in_chunks(order)

    def _draw(self) -> np.ndarray:
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(self.epoch)
        self.random_state = RandomState.capture()
        order = _whole_order(self.sampler)
        # Another draw need not be the same, but of those that are made here.
        if self._hidden is not None and not _draws_each_once(self.sampler):
            self._whole = order.copy()
        self._order = self._visible(order)
        return self._order

    def _visible(self, order: np.ndarray) -> np.ndarray:
        if self._hidden is not None:
            order = _without(order, self._hidden)
        if self.repeats is not None:
            order = _repeated(order, self.repeats.numpy(), self.epoch)
        return order[self._dropped :]


class HiddenSampler(Sampler[int]):
    """The hidden ids in ascending order, whatever they are when it is iterated.

    Args:
        hidden: (N,) bool, read anew each time.
        whole: the first of them come once more at the end, until their number is a multiple of this.
    """

    def __init__(self, hidden: Tensor, whole: int = 1) -> None:
        self.hidden = hidden
        self.whole = whole

    def __len__(self) -> int:
        return math.ceil(int(self.hidden.count_nonzero()) / self.whole) * self.whole

    def __iter__(self) -> Iterator[int]:
        # Not `itertools.cycle`, which keeps every id as an object of its own: they are walked through once more.
        return islice(chain.from_iterable(self._once() for _ in repeat(None)), len(self))

    def _once(self) -> Iterator[int]:
        hidden = self.hidden.numpy()
        for start in range(0, len(hidden), _CHUNK):
            yield from (np.flatnonzero(hidden[start : start + _CHUNK]) + start).tolist()


def _draws_each_once(sampler: Any) -> bool:
    """Whether a sampler is known to draw each sample once, the same way whenever it is asked."""
    is_random = type(sampler) is SeedableRandomSampler and not sampler.replacement
    return (is_random or type(sampler) is SequentialSampler) and len(sampler) == len(sampler.data_source)


def _whole_order(sampler: Any) -> np.ndarray:
    """What a sampler yields, as an array of integers."""
    is_random = type(sampler) is SeedableRandomSampler and _draws_each_once(sampler)
    if is_random and _MANY <= len(sampler) < 2**31:
        return _permutation(sampler)
    return np.fromiter(sampler, dtype=np.int64)


def _permutation(sampler: SeedableRandomSampler) -> np.ndarray:
    """The order that a random sampler yields, in 4 bytes a sample.

    The sampler itself draws two of them and makes each a list of Python integers, 36 bytes a sample.
    """
    generator = torch.Generator() if sampler.generator is None else sampler.generator
    generator.manual_seed(sampler.epoch + sampler.initial_seed)
    order: np.ndarray = torch.randperm(len(sampler), generator=generator, dtype=torch.int32).numpy()
    return order


def _without(order: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """An order less the hidden ids, in its memory."""
    end = 0
    for start in range(0, len(order), _CHUNK):
        ids = order[start : start + _CHUNK]
        visible = ids[~hidden[ids]]
        order[end : end + len(visible)] = visible
        end += len(visible)
    return order[:end]


def _repeated(order: np.ndarray, repeats: np.ndarray, epoch: int) -> np.ndarray:
    """An order in which each id comes as often as it shall, not all times in a row."""
    repeated = np.repeat(order, np.maximum(repeats[order], 1))
    np.random.default_rng(epoch).shuffle(repeated)
    return repeated


def in_chunks(ids: np.ndarray) -> Iterator[int]:
    """Python integers, a chunk at a time: a list of 100 million of them would take gigabytes."""
    for start in range(0, len(ids), _CHUNK):
        yield from ids[start : start + _CHUNK].tolist()
