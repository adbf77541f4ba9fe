"""Random numbers that are a pure function of a key and a counter: the same on every machine and in any order.

SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): the n-th number
of a key is a mix of key + n · γ, so any of them is had without the ones before it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)
MIX_MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_FIRST, _SECOND = MIX_MULTIPLIERS
_30, _27, _31, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_TWO_TO_MINUS_53 = 2.0**-53

SEED_BELOW = 2**63


@compiled
def mix(value: np.uint64) -> np.uint64:
    """A bijection of the 64-bit integers under which neighbours have nothing in common."""
    value = (value ^ (value >> _30)) * _FIRST
    value = (value ^ (value >> _27)) * _SECOND
    return value ^ (value >> _31)


@compiled
def random_bits(key: np.uint64, counter: int | np.integer) -> np.uint64:
    """64 random bits: number `counter` ≥ 0 of the key."""
    return mix(np.uint64(key) + (np.uint64(counter) + np.uint64(1)) * GOLDEN_GAMMA)


@compiled
def uniform(key: np.uint64, counter: int) -> float:
    """A float64 in [0, 1): number `counter` ≥ 0 of the key."""
    return np.float64(random_bits(key, counter) >> _11) * _TWO_TO_MINUS_53


@compiled
def uniforms(key: np.uint64, count: int) -> NDArray[np.float64]:
    """The first `count` float64 of the key, each in [0, 1): shape (count,)."""
    numbers = np.empty(count, dtype=np.float64)
    for counter in range(count):
        numbers[counter] = uniform(key, counter)
    return numbers


def whole_number(uniform: float, low: int, high: int) -> int:
    """One of low..high, both included, from a number in [0, 1)."""
    return low + int(uniform * (high - low + 1))


@compiled
def _absorb(key: np.uint64, number: np.uint64) -> np.uint64:
    return mix(key ^ mix(number + GOLDEN_GAMMA))


def derive_key(seed: int, *numbers: int) -> np.uint64:
    """A key from a seed and a path of integers; different paths give keys with nothing in common.

    Args:
        seed: in 0..2**63 − 1.
        numbers: each in 0..2**64 − 1.
    """
    key = np.uint64(mix(np.uint64(seed)))  # numba hands back an int
    for number in numbers:
        key = np.uint64(_absorb(key, np.uint64(number)))
    return key
