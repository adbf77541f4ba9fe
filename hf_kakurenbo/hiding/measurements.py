"""What was measured, as it travels between ranks and into the ledger."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Measurements(NamedTuple):
    """Figures of n measured samples, in the order in which they were measured."""

    ids: Tensor
    """(n,) int64."""
    figures: Tensor
    """(n, 3) float32: loss, confidence, and correct as 0 or 1."""
