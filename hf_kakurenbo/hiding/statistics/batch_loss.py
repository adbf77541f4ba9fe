"""The loss that a batch should have by its samples' statistics, to compare it with the one that is trained."""

from __future__ import annotations

import torch
from torch import Tensor

from .matching import Prediction


@torch.no_grad()
def mean_loss(batch: Prediction) -> Tensor:
    """The mean of the samples' losses, each counted by its questions: tokens or pixels that are not masked, or one.

    Args:
        batch: logits and labels, and the rule that measures them.

    Returns:
        Scalar; NaN if no sample was asked anything.
    """
    loss = batch.rule(batch.logits, batch.labels).loss
    asked = loss.isfinite()
    counts = torch.where(asked, _questions(batch), 0)
    return (loss.masked_fill(~asked, 0.0) * counts).sum() / counts.sum()


def _questions(batch: Prediction) -> Tensor:
    """How many labels each sample has that are classes, (B,); 1 where a sample is one question."""
    logits, labels = batch.logits, batch.labels
    tokens, pixels = logits.ndim == 3 and labels.ndim == 2 and labels.shape[1] != 2, logits.ndim == 4
    if (not tokens and not pixels) or labels.is_floating_point():
        return torch.ones(len(labels), device=labels.device)
    classes = logits.shape[1] if pixels else logits.shape[2]
    if getattr(batch.rule, "keywords", {}).get("shift"):
        labels = labels[:, 1:]
    return ((labels >= 0) & (labels < classes)).flatten(1).sum(dim=1).float()
