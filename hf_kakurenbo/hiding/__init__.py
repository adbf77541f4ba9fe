"""The method, free of any framework: plain tensors in, plain tensors out.

It stands alone: `docs/method.md` shows it in a hand-written PyTorch loop.
"""

from .ledger import Measurements, Recorder, SampleLedger
from .policies import HidingPolicy, KakurenboPolicy, Selection, create_policy, list_policies, register_policy
from .refresh import forward_only
from .run import HidingRun
from .schedule import AlignedScheduler, HiddenFractionSchedule, compensated_learning_rate_scale
from .statistics import (
    SampleStatistics,
    StatisticsFunction,
    classification_statistics,
    single_label_statistics,
    soft_label_statistics,
)

__all__ = [
    "AlignedScheduler",
    "HiddenFractionSchedule",
    "HidingPolicy",
    "HidingRun",
    "KakurenboPolicy",
    "Measurements",
    "Recorder",
    "SampleLedger",
    "SampleStatistics",
    "Selection",
    "StatisticsFunction",
    "classification_statistics",
    "compensated_learning_rate_scale",
    "create_policy",
    "forward_only",
    "list_policies",
    "register_policy",
    "single_label_statistics",
    "soft_label_statistics",
]
