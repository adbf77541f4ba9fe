"""The random numbers of `fdsl.random_numbers`, bit for bit, for tensors of counters.

torch has no arithmetic for unsigned 64-bit integers: the same bits are kept in int64, whose sums and products wrap
around alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .random_numbers import GOLDEN_GAMMA, MIX_MULTIPLIERS


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _shifted(value: Tensor, places: int) -> Tensor:
    return (value >> places) & (2 ** (64 - places) - 1)


_GAMMA = _signed(int(GOLDEN_GAMMA))
_FIRST, _SECOND = (_signed(int(multiplier)) for multiplier in MIX_MULTIPLIERS)


def keys_tensor(keys: Sequence[int | np.uint64], device: torch.device | str) -> Tensor:
    """Keys, each in 0..2**64 − 1, as the int64 of the same bits: (len(keys),)."""
    return torch.tensor([_signed(int(key)) for key in keys], dtype=torch.int64, device=device)


def random_bits_tensor(keys: Tensor, counters: Tensor) -> Tensor:
    """64 random bits for each pair of a key and a counter, both int64 and broadcast together: int64."""
    value = keys + (counters + 1) * _GAMMA
    value = (value ^ _shifted(value, 30)) * _FIRST
    value = (value ^ _shifted(value, 27)) * _SECOND
    return value ^ _shifted(value, 31)


def uniform_tensor(keys: Tensor, counters: Tensor) -> Tensor:
    """A float64 in [0, 1) for each pair of a key and a counter, both int64 and broadcast together."""
    return _shifted(random_bits_tensor(keys, counters), 11).double() * 2.0**-53
