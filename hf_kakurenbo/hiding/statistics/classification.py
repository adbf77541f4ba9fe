"""Statistics of a classification, with one label per sample, with soft labels or with several; and of a regression.

Shapes: B samples in the batch, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .base import SampleStatistics, exp, nothing_asked

SOFT_LABEL_TOLERANCE = 1e-2
"""How far the sum of a row of soft labels may be from 1 (half-precision labels round)."""


@torch.no_grad()
def single_label_statistics(logits: Tensor, labels: Tensor) -> SampleStatistics:
    """Statistics of a classification with one class per sample (KAKURENBO, section 3.1).

    Args:
        logits: (B, C) floating point.
        labels: (B,) or (B, 1) integers in 0..C−1; anything else (−100, −1, 255) masks the sample.

    Returns:
        Cross entropy; whether the argmax is the label; the largest softmax probability over the classes. A masked
        sample was not asked anything: its loss is NaN, so it is never hidden, and it is not correct.
    """
    labels = labels.reshape(-1)
    log_probabilities = torch.log_softmax(logits.detach().float(), dim=1)
    log_confidence, predicted = log_probabilities.max(dim=1)
    classes = labels.clamp(0, logits.shape[1] - 1)
    loss = -log_probabilities.gather(1, classes.long().unsqueeze(1)).squeeze(1)
    return nothing_asked(SampleStatistics(loss, predicted == labels, exp(log_confidence)), classes == labels)


@torch.no_grad()
def soft_label_statistics(logits: Tensor, labels: Tensor) -> SampleStatistics:
    """Statistics of a classification whose labels are distributions: mixup, CutMix, distillation.

    Args:
        logits: (B, C) floating point.
        labels: (B, C) floating point, each row a distribution over the classes.

    Returns:
        Soft cross entropy; whether the argmax of the logits is the argmax of the labels; the largest softmax
        probability over the classes.
    """
    log_probabilities = torch.log_softmax(logits.detach().float(), dim=1)
    log_confidence, predicted = log_probabilities.max(dim=1)
    loss = -(labels.detach().float() * log_probabilities).sum(dim=1)
    return SampleStatistics(loss, predicted == labels.argmax(dim=1), exp(log_confidence))


@torch.no_grad()
def multi_label_statistics(logits: Tensor, labels: Tensor) -> SampleStatistics:
    """Statistics of a classification in which each sample may have several classes, or none.

    Args:
        logits: (B, C) floating point, one question with the answers yes and no per class.
        labels: (B, C), 1 where the sample has the class and 0 where not; anything between counts as 1 above 0.5.

    Returns:
        Binary cross entropy, averaged over the classes; whether every class is right at a probability of 0.5; the
        probability of the answer that the model is least sure of, in [0.5, 1].
    """
    logits, labels = _rows(logits).detach().float(), _rows(labels).detach().float()
    loss = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=1)
    correct = ((logits > 0) == (labels > 0.5)).all(dim=1)
    least_sure = functional.logsigmoid(logits.abs().amin(dim=1))
    return SampleStatistics(loss, correct, exp(least_sure))


@torch.no_grad()
def regression_statistics(logits: Tensor, labels: Tensor) -> SampleStatistics:
    """Statistics of a regression, in which only the loss says how well a sample is known.

    There is no such thing as a right answer or a sure one, so no candidate ever moves back: correct is always true
    and the confidence 1.

    Args:
        logits: (B,), (B, 1) or (B, D) floating point, the predictions.
        labels: as many numbers.

    Returns:
        Squared error, averaged over the D predictions of the sample; true; 1.
    """
    error = _rows(logits).detach().float() - _rows(labels).detach().float()
    loss = error.square().mean(dim=1)
    return SampleStatistics(loss, torch.ones_like(loss, dtype=torch.bool), torch.ones_like(loss))


def are_distributions(labels: Tensor) -> bool:
    """Whether each row of (B, C) floating-point labels is a distribution. Reads them, so it synchronises the device."""
    labels = labels.detach().float()
    sums = (labels.sum(dim=1) - 1).abs()
    return labels.shape[1] > 1 and bool((labels.amin(dim=1) >= 0).all() & (sums <= SOFT_LABEL_TOLERANCE).all())


def _rows(values: Tensor) -> Tensor:
    return values.reshape(values.shape[0], -1)
