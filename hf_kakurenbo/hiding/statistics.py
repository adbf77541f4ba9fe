"""Per-sample loss, correctness and confidence, from what a model returned.

One function per kind of task, each from plain tensors to plain tensors, on the tensors' own device and without a
synchronisation of it. The figures only rank the samples; the training loss is never touched by them.

Shapes: B samples in the batch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

IGNORE_INDEX = -100
"""The label that PyTorch's and Transformers' losses leave out."""

SOFT_LABEL_TOLERANCE = 1e-2
"""How far the sum of a row of soft labels may be from 1 (half-precision labels round)."""


class SampleStatistics(NamedTuple):
    """What one forward pass says about each sample of a batch. Each field is a (B,) tensor without gradient."""

    loss: Tensor
    """(B,) floating point: the plain loss of the sample. A non-finite loss keeps the sample from being hidden."""
    correct: Tensor
    """(B,) bool: whether the sample was predicted correctly."""
    confidence: Tensor
    """(B,) floating point in [0, 1]: how sure the prediction was."""


StatisticsFunction: TypeAlias = Callable[[Any, Mapping[str, Any]], SampleStatistics]
"""From (what the model returned, the batch that it was given) to the statistics of the batch."""

ClassificationRule: TypeAlias = Callable[[Tensor, Tensor], SampleStatistics]
"""From (logits, labels) to the statistics, row by row."""


@torch.no_grad()
def single_label_statistics(logits: Tensor, labels: Tensor) -> SampleStatistics:
    """Statistics of a classification with one class per sample (KAKURENBO, section 3.1).

    Args:
        logits: (B, C) floating point.
        labels: (B,) or (B, 1) integers in 0..C−1, or −100 for a masked sample.

    Returns:
        Cross entropy; whether the argmax is the label; the largest softmax probability over the classes. A masked
        sample was not asked anything: its loss is NaN, so it is never hidden, and it is not correct.
    """
    labels = labels.reshape(-1)
    log_probabilities = torch.log_softmax(logits.detach().float(), dim=1)
    log_confidence, predicted = log_probabilities.max(dim=1)
    masked = labels == IGNORE_INDEX
    loss = -log_probabilities.gather(1, labels.masked_fill(masked, 0).long().unsqueeze(1)).squeeze(1)
    return SampleStatistics(loss.masked_fill(masked, torch.nan), predicted == labels, _exp(log_confidence))


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
    return SampleStatistics(loss, predicted == labels.argmax(dim=1), _exp(log_confidence))


class Classification(NamedTuple):
    """A batch of a classification, and the rule that fits it."""

    rule: ClassificationRule
    logits: Tensor
    """(B, C)."""
    labels: Tensor
    """(B,) integers, or (B, C) floating point."""


def match_classification(
    outputs: Any,
    inputs: Mapping[str, Any],
    label_names: Sequence[str] = ("labels",),
    problem_type: str | None = None,
) -> Classification:
    """Find logits and labels in a batch, and the rule that fits them.

    Args:
        outputs: what the model returned: a mapping with `"logits"`, a tuple that holds them, or the logits.
        inputs: the batch, labels included.
        label_names: the names under which the batch may hold the labels; the first one present is used.
        problem_type: `model.config.problem_type`, if there is one. Only `"single_label_classification"` and None
            are classifications with one answer.

    Raises:
        ValueError: the batch has no labels, or no rule fits. The message says what the model returned and shows the
            function to write.
    """
    labels = next((inputs[name] for name in label_names if inputs.get(name) is not None), None)
    if labels is None:
        raise ValueError(
            f"The batch has no labels, and hiding ranks samples by their loss on them. Looked for "
            f"{', '.join(map(repr, label_names))} in a batch of {describe(inputs)}. Give the training dataset labels, "
            "name their column in `TrainingArguments(label_names=[...])`, or write a `statistics_fn` that does "
            "without them." + _HOW_TO_WRITE_ONE
        )
    logits = _find_logits(outputs)
    rule = _choose_rule(logits, labels, problem_type)
    if logits is None or rule is None:
        raise ValueError(
            "No built-in rule gives the per-sample loss, correctness and confidence of this batch "
            f"(problem type: {problem_type or 'not set'}).\n"
            f"The model returned {describe(outputs)}.\nThe batch holds {describe(inputs)}." + _HOW_TO_WRITE_ONE
        )
    return Classification(rule, logits, labels)


class ClassificationMatcher:
    """[`match_classification`] for one batch after the other: what fitted the last batch is tried first.

    Args:
        label_names, problem_type: as there.
    """

    def __init__(self, label_names: Sequence[str] = ("labels",), problem_type: str | None = None) -> None:
        self.label_names = label_names
        self.problem_type = problem_type
        self._last: tuple[str, ClassificationRule, Any] | None = None

    def __call__(self, outputs: Any, inputs: Mapping[str, Any]) -> Classification:
        """Find logits and labels of a batch, and the rule that fits them; raises as [`match_classification`]."""
        if self._last is not None and isinstance(outputs, dict):
            label_name, rule, kind = self._last
            logits, labels = outputs.get("logits"), inputs.get(label_name)
            if isinstance(logits, Tensor) and isinstance(labels, Tensor) and _kind(logits, labels) == kind:
                return Classification(rule, logits, labels)
        found = match_classification(outputs, inputs, self.label_names, self.problem_type)
        label_name = next(name for name in self.label_names if inputs.get(name) is not None)
        self._last = (label_name, found.rule, _kind(found.logits, found.labels))
        return found


def _kind(logits: Tensor, labels: Tensor) -> tuple[Any, ...]:
    return logits.shape[1:], labels.shape[1:], labels.dtype


def classification_statistics(
    outputs: Any,
    inputs: Mapping[str, Any],
    label_names: Sequence[str] = ("labels",),
    problem_type: str | None = None,
) -> SampleStatistics:
    """Statistics of a batch by the classification rule that fits it; for the arguments see [`match_classification`].

    Returns:
        The statistics of [`single_label_statistics`] for integer labels (B,), of [`soft_label_statistics`] for
        floating-point labels (B, C).

    Raises:
        ValueError: the batch has no labels, or no rule fits.
    """
    rule, logits, labels = match_classification(outputs, inputs, label_names, problem_type)
    return rule(logits, labels)


def check_label_values(labels: Tensor) -> None:
    """Refuse floating-point labels that are no distributions: several labels a sample, say, and not mixed ones.

    Reads the values, so it synchronises the device: meant for the first batch of a training.

    Raises:
        ValueError: a row of floating-point labels does not sum to 1.
    """
    if not (labels.is_floating_point() and labels.ndim == 2):
        return
    sums = labels.detach().float().sum(dim=1)
    if bool(((sums - 1).abs() > SOFT_LABEL_TOLERANCE).any()):
        raise ValueError(
            "Floating-point labels of shape (B, C) are read as soft labels, whose rows sum to 1; here the rows sum to "
            f"{sums.min().item():.4g} to {sums.max().item():.4g}. For several labels a sample, pass a `statistics_fn`."
            + _HOW_TO_WRITE_ONE
        )


def describe(value: Any) -> str:
    """Names, shapes and dtypes of what a model returned or a batch holds, for error messages."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return f"{type(value).__name__}({', '.join(f'{name}: {describe(item)}' for name, item in value.items())})"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(describe(item) for item in value)})"
    return type(value).__name__


def _exp(logarithms: Tensor) -> Tensor:
    # In float32 a vectorised exponential may differ in the last bit from that of a row at the end of a batch.
    return logarithms.double().exp().float()


def _find_logits(outputs: Any) -> Tensor | None:
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, Mapping):
        logits = outputs.get("logits")
        return logits if isinstance(logits, Tensor) else None
    if isinstance(outputs, (tuple, list)):
        # A tuple holds (loss, logits, ...), or (logits, ...) where the loss is computed outside the model.
        return next((item for item in outputs if isinstance(item, Tensor) and item.ndim > 0), None)
    logits = getattr(outputs, "logits", None)
    return logits if isinstance(logits, Tensor) else None


def _choose_rule(logits: Tensor | None, labels: Any, problem_type: str | None) -> ClassificationRule | None:
    if logits is None or not isinstance(labels, Tensor) or problem_type not in (None, "single_label_classification"):
        return None
    if logits.ndim != 2 or logits.shape[1] < 2:
        return None
    if labels.is_floating_point():
        return soft_label_statistics if labels.shape == logits.shape else None
    return single_label_statistics if labels.numel() == labels.shape[0] == logits.shape[0] else None


_HOW_TO_WRITE_ONE = """
A function of your own is three lines, passed as `KakurenboConfig(statistics_fn=my_statistics)`:

    def my_statistics(outputs, inputs):
        loss, correct, confidence = ...  # each of shape (B,), without gradient
        return hf_kakurenbo.SampleStatistics(loss, correct, confidence)
"""
