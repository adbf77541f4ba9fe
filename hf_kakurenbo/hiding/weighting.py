"""Samples that count more than others in the gradient of a batch, whatever computed the batch's loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .statistics import (
    IGNORE_INDEX,
    Prediction,
    multi_label_statistics,
    regression_statistics,
    single_label_statistics,
    soft_label_statistics,
)
from .statistics.base import masked_outside


def _single_label(logits: Tensor, labels: Tensor) -> Tensor:
    labels = masked_outside(labels.reshape(-1).long(), logits.shape[1])
    return functional.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")


def _soft_label(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels.float(), reduction="none")


def _multi_label(logits: Tensor, labels: Tensor) -> Tensor:
    losses = functional.binary_cross_entropy_with_logits(logits.flatten(1), labels.flatten(1).float(), reduction="none")
    return losses.mean(dim=1)


def _regression(logits: Tensor, labels: Tensor) -> Tensor:
    rows = logits.reshape(len(logits), -1)
    return (rows - labels.reshape(len(labels), -1).float()).square().mean(dim=1)


# The plain loss of each sample with its gradient, (B,), for the rules whose statistics have none.
_LOSSES: dict[Any, Callable[[Tensor, Tensor], Tensor]] = {
    single_label_statistics: _single_label,
    soft_label_statistics: _soft_label,
    multi_label_statistics: _multi_label,
    regression_statistics: _regression,
}


def weighed_loss(loss: Tensor, batch: Any, weights: Tensor) -> Tensor:
    """The loss of a batch in which each sample counts by its weight.

    To the loss of the batch is added c · Σ (w − 1) · l, where l is the plain loss of a sample, and c the fraction of
    one of them in the loss of the batch: 1 / B for a mean of B samples, less where gradients are accumulated over
    several batches. If the loss is the plain mean, the result is exactly Σ w · l / B. Of any other, smoothed labels
    say, the plain loss is weighed, at the size of that other.

    Args:
        loss: scalar, of the batch, however it was computed.
        batch: the [`Prediction`] of the batch.
        weights: (B,) float32.

    Loss, logits, labels and weights may be on several devices, as those of a model that is split over them.

    Returns:
        Scalar, with a gradient, on the device of the loss.

    Raises:
        ValueError: nothing says what the loss of a single sample is; see `require_weighable`.
    """
    require_weighable(batch)
    losses = _LOSSES[batch.rule](batch.logits.float(), batch.labels.to(batch.logits.device))
    total = losses.detach().sum()
    fraction = torch.where(total > 0, loss.detach().to(total.device) / total, 0.0)
    return loss + (fraction * ((weights.to(losses.device) - 1) * losses).sum()).to(loss.device, loss.dtype)


def require_weighable(batch: Any) -> None:
    """Check that each sample of a batch has a loss with a gradient.

    Args:
        batch: what is recorded of it, a [`Prediction`] or statistics.

    Raises:
        ValueError: it is none of classification (one label, soft ones, several) and regression by a built-in rule.
    """
    if isinstance(batch, Prediction) and batch.rule in _LOSSES:
        return
    raise ValueError(
        "The hiding_policy gives its samples weights, for which each needs a loss of its own with a gradient. There is "
        "one for classification (one label, soft ones or several) and regression by the built-in rules, not for other "
        "tasks, a fused loss or a `statistics_fn` of your own. Choose a policy without weights, 'kakurenbo' or "
        "'spaced_repetition'."
    )
