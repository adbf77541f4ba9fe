"""What a model of Transformers was made for, as its class and its configuration say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..hiding.statistics import IGNORE_INDEX, TASKS, StatisticsMatcher

_CLASSIFICATION = "For(Sequence|Image|Audio|Video)Classification$"
# Soft labels are of mixing, done beside the model; it knows nothing of them.
_BY_PROBLEM_TYPE: dict[str | None, tuple[str, ...]] = {
    "single_label_classification": ("single_label_classification", "soft_label_classification"),
    "multi_label_classification": ("multi_label_classification",),
    "regression": ("regression",),
}
# The first that is found in the name of the class decides.
_BY_CLASS_NAME: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("For(TokenClassification|MaskedLM)$", ("token_classification",)),
    # Of questions about images, the answers are classes.
    ("ForQuestionAnswering", ("question_answering", "multi_label_classification", "single_label_classification")),
    ("ForSemanticSegmentation$", ("semantic_segmentation",)),
    ("For(MultipleChoice|NextSentencePrediction)$", ("single_label_classification",)),
    # Some of these shift the labels and some do not.
    ("WithLMHead", ("token_classification", "causal_language_modeling")),
    ("(ForCausalLM|LMHeadModel)$", ("causal_language_modeling",)),
)
_GENERATES = "For(ConditionalGeneration|Vision2Seq|ImageTextToText)$"


def make_matcher(
    model: nn.Module,
    task: str | None,
    label_names: Sequence[str],
    accuracy_threshold: float,
    fused: bool = False,
) -> StatisticsMatcher:
    """The matcher for what a model returns.

    Args:
        model: the model; adapters of PEFT and compiled models are seen through.
        task: the name of the task, if the user said it.
        label_names: the names under which a batch may hold the labels.
        accuracy_threshold: the fraction of right tokens or pixels from which on a sample is correct.
        fused: whether the model was asked for a fused loss, which computes no logits; Liger's own models always are.
    """
    model = _underlying(model)
    fused = fused or getattr(model.forward, "__module__", "").startswith("liger_kernel")
    config = getattr(model, "config", None)
    tasks = (task,) if task else tasks_of(model)
    ignore_index = getattr(config, "semantic_loss_ignore_index", IGNORE_INDEX)
    return StatisticsMatcher(tasks, label_names, accuracy_threshold, ignore_index, fused)


def tasks_of(model: nn.Module) -> tuple[str, ...]:
    """The tasks that a model may have been made for, names of `TASKS`: one, or all where nothing says.

    A model sets its problem type in its first forward pass with labels, so ask after it.
    """
    name, config = type(model).__name__, getattr(model, "config", None)
    problem_type = getattr(config, "problem_type", None)
    if problem_type in _BY_PROBLEM_TYPE:
        return _BY_PROBLEM_TYPE[problem_type]
    if re.search(_CLASSIFICATION, name):
        return _classifications(config)
    if name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() and "WithLMHead" not in name:
        return ("causal_language_modeling",)
    for pattern, tasks in _BY_CLASS_NAME:
        if re.search(pattern, name):
            return tasks
    if getattr(config, "is_encoder_decoder", False):
        return ("token_classification",)
    return ("causal_language_modeling",) if re.search(_GENERATES, name) else tuple(TASKS)


def _classifications(config: Any) -> tuple[str, ...]:
    if getattr(config, "num_labels", None) == 1:
        return ("regression",)
    return ("single_label_classification", "soft_label_classification", "multi_label_classification")


def _underlying(model: nn.Module) -> nn.Module:
    model = getattr(model, "_orig_mod", model)
    adapted = getattr(model, "get_base_model", None)  # of PEFT
    return adapted() if callable(adapted) else model
