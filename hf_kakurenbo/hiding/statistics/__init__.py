"""Per-sample loss, correctness and confidence, from what a model returned.

One function per kind of task, each from plain tensors to plain tensors, on the tensors' own device and without a
synchronisation of it. The statistics only rank the samples; the training loss is never touched by them.
"""

from .base import IGNORE_INDEX, SampleStatistics, StatisticsFunction, describe
from .classification import (
    multi_label_statistics,
    regression_statistics,
    single_label_statistics,
    soft_label_statistics,
)
from .matching import TASKS, Prediction, StatisticsMatcher
from .preferences import preference_statistics
from .question_answering import question_answering_statistics
from .tokens import (
    ACCURACY_THRESHOLD,
    flattened_token_statistics,
    scored_token_statistics,
    segmentation_statistics,
    token_statistics,
)

__all__ = [
    "ACCURACY_THRESHOLD",
    "IGNORE_INDEX",
    "TASKS",
    "Prediction",
    "SampleStatistics",
    "StatisticsFunction",
    "StatisticsMatcher",
    "describe",
    "flattened_token_statistics",
    "multi_label_statistics",
    "preference_statistics",
    "question_answering_statistics",
    "regression_statistics",
    "scored_token_statistics",
    "segmentation_statistics",
    "single_label_statistics",
    "soft_label_statistics",
    "token_statistics",
]
