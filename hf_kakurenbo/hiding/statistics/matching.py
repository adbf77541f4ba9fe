"""From what a model returned to the rule that gives its samples' statistics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from .base import HOW_TO_WRITE_ONE, IGNORE_INDEX, SampleStatistics, describe, masked_outside
from .classification import (
    are_distributions,
    multi_label_statistics,
    regression_statistics,
    single_label_statistics,
    soft_label_statistics,
)
from .outputs import SPAN_LABELS, asks_for_spans, find_logits, find_loss, likely_cause
from .question_answering import question_answering_statistics
from .tokens import ACCURACY_THRESHOLD, flattened_token_statistics, segmentation_statistics, shifted, token_statistics

Rule: TypeAlias = Callable[[Tensor, Tensor], SampleStatistics]
"""From (logits, labels) to the statistics, sample by sample."""

LOSS_TOLERANCE = 5e-3
"""How far, as a fraction, the loss that a model returned may be from the one that a rule expects of it."""


class Prediction(NamedTuple):
    """A batch of predictions, and the rule that measures them."""

    rule: Rule
    logits: Tensor
    """(B, ...)."""
    labels: Tensor
    """(B, ...)."""


@dataclass(frozen=True)
class Task:
    """A kind of task that has a rule.

    Args:
        fits: whether logits and labels have the shapes and dtypes of the task.
        loss: the loss that a model of the task returns for a batch, from (logits, labels).
    """

    fits: Callable[[Tensor, Tensor], bool]
    loss: Callable[[Tensor, Tensor], Tensor]


def _fits_single_label(logits: Tensor, labels: Tensor) -> bool:
    batch = labels.shape[0]
    return _has_classes(logits, 2) and not labels.is_floating_point() and labels.numel() == batch == logits.shape[0]


def _fits_soft_labels(logits: Tensor, labels: Tensor) -> bool:
    return _has_classes(logits, 2) and labels.is_floating_point() and labels.shape == logits.shape


def _fits_several_labels(logits: Tensor, labels: Tensor) -> bool:
    return logits.ndim == 2 and labels.shape == logits.shape


def _fits_regression(logits: Tensor, labels: Tensor) -> bool:
    same_batch = logits.ndim in (1, 2) and logits.shape[0] == labels.shape[0]
    return same_batch and labels.numel() == logits.numel()


def _fits_tokens(logits: Tensor, labels: Tensor) -> bool:
    return logits.ndim == 3 and not labels.is_floating_point() and labels.shape == logits.shape[:2]


def _fits_pixels(logits: Tensor, labels: Tensor) -> bool:
    images = logits.ndim == 4 and labels.ndim == 3 and logits.shape[0] == labels.shape[0]
    return images and not labels.is_floating_point()


def _fits_spans(logits: Tensor, labels: Tensor) -> bool:
    return logits.ndim == 3 and labels.shape == (logits.shape[0], 2) and logits.shape[1] == 2


def _has_classes(logits: Tensor, at_least: int) -> bool:
    return logits.ndim == 2 and logits.shape[1] >= at_least


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits.flatten(0, -2).float(), masked_outside(labels.flatten(), logits.shape[-1]))


TASKS: dict[str, Task] = {
    "single_label_classification": Task(
        _fits_single_label, lambda logits, labels: _cross_entropy(logits, labels.reshape(-1).long())
    ),
    "soft_label_classification": Task(
        _fits_soft_labels, lambda logits, labels: functional.cross_entropy(logits.float(), labels.float())
    ),
    "multi_label_classification": Task(
        _fits_several_labels,
        lambda logits, labels: functional.binary_cross_entropy_with_logits(logits.float(), labels.float()),
    ),
    "regression": Task(
        _fits_regression, lambda logits, labels: functional.mse_loss(logits.float().flatten(), labels.float().flatten())
    ),
    "token_classification": Task(_fits_tokens, _cross_entropy),
    "causal_language_modeling": Task(_fits_tokens, lambda logits, labels: _cross_entropy(logits, shifted(labels))),
    "semantic_segmentation": Task(
        _fits_pixels,
        lambda logits, labels: functional.cross_entropy(
            functional.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear"),
            masked_outside(labels.long(), logits.shape[1]),
        ),
    ),
    "question_answering": Task(
        _fits_spans, lambda logits, labels: functional.cross_entropy(logits.float().transpose(1, 2), labels)
    ),
}
"""The tasks that have a rule, by the names under which `KakurenboConfig(statistics_fn=...)` takes them.

`token_classification` serves whatever has a label for each token at the token's own place: masked language modelling
and sequence to sequence too.
"""

_RULES: dict[str, Rule] = {
    "single_label_classification": single_label_statistics,
    "soft_label_classification": soft_label_statistics,
    "multi_label_classification": multi_label_statistics,
    "regression": regression_statistics,
    "question_answering": question_answering_statistics,
}


class StatisticsMatcher:
    """Finds logits and labels in each batch, and the rule that measures them: once, and then by what fitted before.

    Args:
        tasks: the tasks that the model may have been made for, names of [`TASKS`]; by default any.
        label_names: the names under which the batch may hold the labels; the first one present is used.
        accuracy_threshold: the fraction of right tokens or pixels from which on a sample is correct, in [0, 1].
        ignore_index: one more label that is masked in a segmentation.
        fused: whether the model was asked for a fused loss, which computes no logits.
    """

    def __init__(
        self,
        tasks: Sequence[str] = tuple(TASKS),
        label_names: Sequence[str] = ("labels",),
        accuracy_threshold: float = ACCURACY_THRESHOLD,
        ignore_index: int = IGNORE_INDEX,
        fused: bool = False,
    ) -> None:
        self.fused = fused
        self.tasks = tuple(tasks)
        self.label_names = label_names
        self.accuracy_threshold = accuracy_threshold
        of_tokens = partial(token_statistics, accuracy_threshold=accuracy_threshold)
        self._rules: dict[str, Rule] = {
            **_RULES,
            "token_classification": of_tokens,
            "causal_language_modeling": partial(of_tokens, shift=True),
            "semantic_segmentation": partial(
                segmentation_statistics, accuracy_threshold=accuracy_threshold, ignore_index=ignore_index
            ),
        }
        self._last: tuple[str, Any] | None = None
        self._task_of_rows: str | None = None
        self._square: int | None = None

    def __call__(
        self,
        outputs: Any,
        inputs: Mapping[str, Any],
        num_samples: int | None = None,
        sample_of_token: Tensor | None = None,
    ) -> Prediction | SampleStatistics:
        """What is to be recorded of a batch.

        Args:
            outputs: what the model returned: a mapping with `"logits"`, or with one tensor of predictions under
                another name; a tuple that holds them; or the logits.
            inputs: the batch, labels included.
            num_samples: B, how many samples the batch has; by default as many as it has rows.
            sample_of_token: (T,) integers, where several samples lie end to end in one row; see
                [`flattened_token_statistics`].

        Raises:
            ValueError: the batch has no labels, no rule fits, or several do and nothing says which. The message says
                what the model returned and shows the way out.
        """
        labels = self._find_labels(outputs, inputs)
        logits = find_logits(outputs, labels, asks_for_spans(inputs))
        if logits is None or not isinstance(labels, Tensor):
            raise self._nothing_fits(outputs, inputs, labels)
        labels = labels.to(logits.device)  # where the last layer of a model that is split over several devices is
        if num_samples not in (None, logits.shape[0]) and logits.shape[0] == 1:
            return self._measure_row(outputs, inputs, logits, labels, num_samples or 1, sample_of_token)
        kind = logits.ndim, labels.ndim, labels.dtype
        if self._last is None or self._last[1] != kind or not TASKS[self._last[0]].fits(logits, labels):
            self._last = self._choose(outputs, inputs, logits, labels), kind
        task, labels = _placed(self._last[0], labels, inputs)
        if task == "single_label_classification" and len(self.tasks) > 1:
            self._refuse_similarities(logits)  # a model or a user that names the one task knows it
        return Prediction(self._rules[task], logits, labels)

    def _refuse_similarities(self, logits: Tensor) -> None:
        """Refuse classes that are as many as the samples in one batch, and in another batch again."""
        size, others = logits.shape
        if size != others:
            return
        self._square = self._square or size
        if size != self._square:
            raise ValueError(
                f"The logits are ({self._square}, {self._square}) in one batch and ({size}, {size}) in another: they "
                "are similarities between the samples of the batch, not classes, so no sample has a loss of its own."
                + HOW_TO_WRITE_ONE
            )

    @property
    def task(self) -> str | None:
        """The task whose rule measured the last batch; None before the first."""
        return self._task_of_rows if self._last is None else self._last[0]

    def _find_labels(self, outputs: Any, inputs: Mapping[str, Any]) -> Any:
        if asks_for_spans(inputs):
            return torch.stack([inputs[name].reshape(-1) for name in SPAN_LABELS], dim=1)
        for name in self.label_names:
            if inputs.get(name) is not None:
                return inputs[name]
        if find_loss(outputs) is not None:
            raise ValueError(
                f"The batch has no labels (looked for {', '.join(map(repr, self.label_names))} in {describe(inputs)}), "
                "and the model computes its loss without any, as masked image modelling and contrastive models do: no "
                f"built-in rule says what the loss of a single sample is.\nThe model returned {describe(outputs)}."
                + HOW_TO_WRITE_ONE
            )
        raise ValueError(
            f"The batch has no labels, and hiding ranks samples by their loss on them. Looked for "
            f"{', '.join(map(repr, self.label_names))} in a batch of {describe(inputs)}. Give the training dataset "
            "labels, name their column in `TrainingArguments(label_names=[...])`, or write a `statistics_fn` that does "
            "without them." + HOW_TO_WRITE_ONE
        )

    def _choose(self, outputs: Any, inputs: Mapping[str, Any], logits: Tensor, labels: Tensor) -> str:
        """The one task of this batch; reads values where shapes leave a choice, so it may synchronise the device."""
        spans = asks_for_spans(inputs)
        tasks = [task for task in self.tasks if (task == "question_answering") == spans]
        fitting = [task for task in tasks if TASKS[task].fits(logits, labels)]
        if not fitting:
            raise self._nothing_fits(outputs, inputs, labels)
        if len(fitting) == 1:
            return fitting[0]
        loss = find_loss(outputs)
        agreeing = [] if loss is None else [task for task in fitting if _agrees(loss, TASKS[task].loss(logits, labels))]
        if len(agreeing) == 1:
            return agreeing[0]
        if not agreeing and "soft_label_classification" in fitting and are_distributions(labels):
            return "soft_label_classification"
        raise ValueError(
            f"Several built-in rules fit the shapes of this batch: {', '.join(agreeing or fitting)}. The model does "
            "not say which of them is meant"
            + (", and its loss is that of none." if loss is not None and not agreeing else ".")
            + f' Name the right one: `KakurenboConfig(statistics_fn="{fitting[-1]}")`, for example.\n'
            f"The model returned {describe(outputs)}.\nThe batch holds {describe(inputs)}." + HOW_TO_WRITE_ONE
        )

    def _measure_row(
        self,
        outputs: Any,
        inputs: Mapping[str, Any],
        logits: Tensor,
        labels: Tensor,
        num_samples: int,
        sample_of_token: Tensor | None,
    ) -> SampleStatistics:
        """The statistics of samples laid end to end in one row, as padding-free collators do it."""
        if sample_of_token is None or not _fits_tokens(logits, labels):
            raise ValueError(
                f"The batch has {num_samples} samples and one row of logits, {describe(logits)}, and nothing says "
                "where in it each sample begins: a data collator that lays samples end to end must leave their "
                "`input_ids` as they are. Set per_device_train_batch_size=1, or use a collator that pads."
            )
        if self._task_of_rows is None:
            self._task_of_rows = self._choose(outputs, inputs, logits, labels)
        task, labels = _placed(self._task_of_rows, labels, inputs)
        return flattened_token_statistics(
            logits,
            labels,
            sample_of_token.to(logits.device),
            num_samples,
            accuracy_threshold=self.accuracy_threshold,
            shift=task == "causal_language_modeling",
        )

    def _nothing_fits(self, outputs: Any, inputs: Mapping[str, Any], labels: Any) -> ValueError:
        made_for = "" if self.tasks == tuple(TASKS) else f" (looked for {' or '.join(self.tasks)})"
        return ValueError(
            f"No built-in rule gives the per-sample loss, correctness and confidence of this batch{made_for}.\n"
            f"The model returned {describe(outputs)}.\nThe batch holds {describe(inputs)}."
            + likely_cause(outputs, labels, self.fused)
            + HOW_TO_WRITE_ONE
        )


def _placed(task: str, labels: Tensor, inputs: Mapping[str, Any]) -> tuple[str, Tensor]:
    """Labels that the collator has shifted already stand at their own place."""
    if task == "causal_language_modeling" and inputs.get("shift_labels") is not None:
        return "token_classification", inputs["shift_labels"].to(labels.device)
    return task, labels


def _agrees(loss: Tensor, expected: Tensor) -> bool:
    loss = loss.detach().to(expected.device, torch.float32)
    return torch.allclose(loss.squeeze(), expected.detach().float(), rtol=LOSS_TOLERANCE, atol=1e-6)
