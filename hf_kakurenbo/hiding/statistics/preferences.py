"""Statistics of preferences: which of two completions is better, or whether one is desired."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .base import SampleStatistics, exp


@torch.no_grad()
def preference_statistics(losses: Tensor, margins: Tensor) -> SampleStatistics:
    """Statistics of samples that each say which side the model should prefer.

    Args:
        losses: (B,) floating point, of each pair of completions, or of each completion.
        margins: (B,) floating point, by how much the model prefers the right side: a difference of rewards, whose
            sigmoid is the probability that it gives to that side.

    Returns:
        The losses; whether the margin is above 0; the probability of the side that the model prefers, sigmoid(|margin|)
        in [0.5, 1], which is the sigmoid of the margin wherever the sample is correct.
    """
    margins = margins.detach().float()
    return SampleStatistics(losses.detach().float(), margins > 0, exp(functional.logsigmoid(margins.abs())))
