"""An order of N things that takes no memory: the thing at a position is worked out when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.compiling import compiled
from ..kernels.random_numbers import mix, random_bits

_ROUNDS = 8


@compiled
def _permute(position: int, length: int, side: int, key: np.uint64) -> np.uint64:
    value = np.uint64(position)
    side_ = np.uint64(side)
    while True:
        left, right = value // side_, value % side_
        for number in range(_ROUNDS):
            left, right = right, (left + mix(random_bits(key, number) ^ right) % side_) % side_
        value = left * side_ + right
        if value < np.uint64(length):
            return value


@compiled
def _permute_in_place(positions: NDArray[np.int64], length: int, side: int, key: np.uint64) -> None:
    for index in range(len(positions)):
        positions[index] = _permute(positions[index], length, side, key)


def permute(position: int, length: int, key: np.uint64) -> int:
    """Where a position goes in the permutation of 0..length − 1 that belongs to a key.

    A Feistel network over the smallest square that holds the numbers, walked until it comes back among them (Black
    and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002). It takes time and memory that do not depend
    on the length.

    Args:
        position: in 0..length − 1.
        length: how many there are, 1..2**62.
        key: which permutation.
    """
    return int(_permute(position, length, isqrt(length - 1) + 1, key))


class _Layer(NamedTuple):
    """Blocks of numbers, one after the other: those that begin at `starts`, each of `size` numbers."""

    starts: tuple[int, ...]
    size: int
    key: np.uint64 | None = None

    @property
    def length(self) -> int:
        return len(self.starts) * self.size

    def number_at(self, position: int) -> int:
        if self.key is not None:
            position = permute(position, self.length, self.key)
        block, offset = divmod(position, self.size)
        return self.starts[block] + offset

    def numbers_at(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.key is not None:
            positions = positions.copy()
            _permute_in_place(positions, self.length, isqrt(self.length - 1) + 1, self.key)
        if self.starts == (0,):
            return positions
        return np.array(self.starts, dtype=np.int64)[positions // self.size] + positions % self.size


@dataclass(frozen=True)
class Order:
    """The numbers 0..N − 1, or some of them, in an order: shuffled and cut as often as you like, at no memory.

    `order[position]` is the number at a position. Build it with `Order.of`.
    """

    layers: tuple[_Layer, ...]

    @classmethod
    def of(cls, length: int) -> Order:
        """The numbers 0..length − 1 as they come."""
        return cls((_Layer((0,), length),))

    def __len__(self) -> int:
        return self.layers[-1].length

    def __getitem__(self, position: int) -> int:
        if not 0 <= position < len(self):
            raise IndexError(f"position {position} is out of range: there are {len(self)}.")
        for layer in reversed(self.layers):
            position = layer.number_at(position)
        return position

    def numbers_at(self, positions: range) -> NDArray[np.int64]:
        """The numbers at many positions: (len(positions),) int64."""
        numbers = np.arange(positions.start, positions.stop, positions.step, dtype=np.int64)
        for layer in reversed(self.layers):
            numbers = layer.numbers_at(numbers)
        return numbers

    def shuffled(self, key: np.uint64) -> Order:
        """The same numbers in another order."""
        return Order((*self.layers, _Layer((0,), len(self), key)))

    def section(self, start: int, stop: int) -> Order:
        """The numbers at positions start..stop − 1, as far as there are so many."""
        stop = min(stop, len(self))
        start = min(start, stop)
        return Order((*self.layers, _Layer((start,), stop - start)))

    def blocks(self, positions: Sequence[range]) -> Order:
        """The numbers at some ranges of positions, at least one, all of one length."""
        return Order((*self.layers, _Layer(tuple(block.start for block in positions), len(positions[0]))))
