"""What was measured, as it travels between ranks and into the ledger."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Measurements(NamedTuple):
    """Statistics of n measured samples, in the order in which they were measured: 12 bytes each below 2³¹ samples."""

    ids: Tensor
    """(n,) int32, or int64."""
    statistics: Tensor
    """(n, 2) float32: the loss; the confidence, its sign set where the prediction was wrong (−0 counts as set)."""

    @classmethod
    def of(cls, ids: Tensor, loss: Tensor, correct: Tensor, confidence: Tensor) -> Measurements:
        """Pack the statistics of a batch, each (B,), on their own device. A confidence below 0 becomes 0."""
        confidence = confidence.float().clamp(min=0)
        return cls(ids, torch.stack([loss.float(), torch.where(correct.bool(), confidence, -confidence)], dim=1))

    @property
    def loss(self) -> Tensor:
        """(n,) float32."""
        return self.statistics[:, 0]

    @property
    def confidence(self) -> Tensor:
        """(n,) float32, 0 or above."""
        return self.statistics[:, 1].abs()

    @property
    def correct(self) -> Tensor:
        """(n,) bool."""
        return ~self.statistics[:, 1].signbit()
