"""The loss that a batch should have by its samples' statistics, to compare it with the one that is trained."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .base import IGNORE_INDEX
from .classification import multi_label_statistics, single_label_statistics
from .matching import Prediction, Rule
from .question_answering import question_answering_statistics
from .tokens import is_class, segmentation_statistics, shifted, token_statistics

# What a criterion of the model's own is tried on: below it, a copy of the logits costs next to nothing.
_SMALL = 2**24
# Criteria that rank samples as their plain loss does. PyTorch's own keep no state, so that a call leaves no trace.
_CRITERIA = (nn.CrossEntropyLoss, nn.BCEWithLogitsLoss)


class BatchLoss(NamedTuple):
    """What the losses of the samples say of their batch; scalars, on the device."""

    total: Tensor
    """The sum over all questions: tokens or pixels that are not masked, or samples."""
    questions: Tensor
    """How many they are."""
    mean_of_samples: Tensor
    """The mean of the samples' losses, each counted alike; NaN if no sample was asked anything."""

    @property
    def mean(self) -> Tensor:
        """The mean over the questions."""
        return self.total / self.questions


@torch.no_grad()
def batch_loss(batch: Prediction) -> BatchLoss:
    """The loss of a batch by the losses of its samples.

    Args:
        batch: logits and labels, and the rule that measures them.
    """
    loss = batch.rule(batch.logits, batch.labels).loss
    asked = loss.isfinite()
    loss = loss.masked_fill(~asked, 0.0)
    counts = _asked(batch).flatten(1).sum(dim=1) * asked
    return BatchLoss((loss * counts).sum(), counts.sum(), loss.sum() / asked.sum())


@torch.no_grad()
def smoothed(batch: Prediction, plain: BatchLoss, epsilon: float) -> BatchLoss:
    """The loss with smoothed labels: a fraction of each question's weight is spread over all classes.

    Args:
        batch: logits (B, C) or (B, T, C), and labels.
        plain: the batch's loss without smoothing.
        epsilon: the fraction, in [0, 1].

    Returns:
        The same, with the total smoothed.
    """
    asked, spread = _asked(batch), torch.zeros_like(plain.total)
    # One sample at a time: the logits of a language model may not be copied.
    for logits, places in zip(batch.logits.detach(), asked, strict=True):
        row = logits.float()
        of_question = row.logsumexp(dim=-1) - row.mean(dim=-1)
        spread += of_question.masked_fill(~places.reshape(of_question.shape), 0.0).sum()
    return plain._replace(total=(1 - epsilon) * plain.total + epsilon * spread)


@torch.no_grad()
def losses_of_its_criteria(batch: Prediction, model: nn.Module) -> Iterator[Tensor]:
    """The losses of a batch by what the model holds: its criteria, and its tensors as weights of the classes.

    Args:
        batch: logits and labels of a small batch; of others, and of tasks without classes, there are none.
        model: the model.
    """
    questions = _class_questions(batch)
    if questions is None or batch.logits.numel() > _SMALL:
        return
    logits, labels = questions
    for module in model.modules():
        if type(module) in _CRITERIA:
            yield from _loss_by(module, logits, labels)
        held = {**module.__dict__, **module._buffers, **module._parameters}
        for weight in held.values():
            if isinstance(weight, Tensor) and weight.shape == logits.shape[1:2] and weight.is_floating_point():
                yield from _losses_weighed_by(weight.detach().to(logits), logits, labels)


def _class_questions(batch: Prediction) -> tuple[Tensor, Tensor] | None:
    """Logits (Q, C) and labels (Q,), or (Q, C) of several labels, of the questions that are asked."""
    rule, options = _parts(batch.rule)
    logits, labels, asked = batch.logits.detach(), batch.labels, _asked(batch)
    if rule is multi_label_statistics:
        return logits.flatten(1).float(), labels.flatten(1).float()
    if rule is token_statistics:
        labels = shifted(labels) if options.get("shift") else labels
        return logits[asked].float(), labels[asked].long()
    if rule is single_label_statistics:
        return logits[asked.flatten()].float(), labels.reshape(-1)[asked.flatten()].long()
    return None


def _losses_weighed_by(weight: Tensor, logits: Tensor, labels: Tensor) -> Iterator[Tensor]:
    if labels.is_floating_point():
        yield nn.functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=weight)
        yield nn.functional.binary_cross_entropy_with_logits(logits, labels, weight=weight)
    else:
        yield nn.functional.cross_entropy(logits, labels, weight=weight)


def _loss_by(criterion: nn.Module, logits: Tensor, labels: Tensor) -> Iterator[Tensor]:
    """What a criterion makes of it, a scalar; nothing if it is for something else, as for another number of classes."""
    try:
        loss: Tensor = criterion(logits, labels)
    except (RuntimeError, ValueError):
        return
    yield loss.mean()


def _asked(batch: Prediction) -> Tensor:
    """Which questions each sample asks: (B, ...) bool."""
    logits, labels = batch.logits, batch.labels
    rule, options = _parts(batch.rule)
    if rule is token_statistics:
        return is_class(shifted(labels) if options.get("shift") else labels, logits.shape[2], IGNORE_INDEX)
    if rule is segmentation_statistics:
        return is_class(labels, max(logits.shape[1], 2), options.get("ignore_index", IGNORE_INDEX))
    if rule is question_answering_statistics:
        return labels < logits.shape[2]
    if rule is single_label_statistics:
        return is_class(labels.reshape(-1, 1), logits.shape[1], IGNORE_INDEX)
    return torch.ones(labels.shape[0], 1, dtype=torch.bool, device=labels.device)


def _parts(rule: Rule) -> tuple[Rule, dict[str, Any]]:
    """A rule, and the options with which it is called."""
    return (rule.func, rule.keywords) if isinstance(rule, partial) else (rule, {})
