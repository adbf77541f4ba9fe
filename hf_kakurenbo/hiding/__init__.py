"""The method, free of any framework: plain tensors in, plain tensors out.

It stands alone: `docs/howto/own_loop.md` shows it in a hand-written PyTorch loop.
"""

from .aligned_scheduler import AlignedScheduler
from .compact_ledger import CompactLedger, create_ledger
from .history import DataMap, LedgerHistory
from .ledger import SampleLedger
from .measurements import Measurements
from .policies import (
    CoinPolicy,
    ForgettingPolicy,
    HidingPolicy,
    IESPolicy,
    ImportancePolicy,
    InfoBatchPolicy,
    KakurenboPolicy,
    OrderDPPolicy,
    RandomPolicy,
    Selection,
    SelectiveBackpropPolicy,
    SeTaPolicy,
    SpacedRepetitionPolicy,
    create_policy,
    list_policies,
    register_policy,
)
from .protection import Protection
from .recorder import Recorder
from .refresh import forward_only
from .run import HidingRun
from .saved_ledger import load_ledger
from .schedule import HiddenFractionSchedule, compensated_learning_rate_scale
from .statistics import (
    Prediction,
    SampleStatistics,
    StatisticsFunction,
    StatisticsMatcher,
    flattened_token_statistics,
    multi_label_statistics,
    question_answering_statistics,
    regression_statistics,
    segmentation_statistics,
    single_label_statistics,
    soft_label_statistics,
    token_statistics,
)

__all__ = [
    "AlignedScheduler",
    "CoinPolicy",
    "CompactLedger",
    "DataMap",
    "ForgettingPolicy",
    "HiddenFractionSchedule",
    "HidingPolicy",
    "HidingRun",
    "IESPolicy",
    "ImportancePolicy",
    "InfoBatchPolicy",
    "KakurenboPolicy",
    "LedgerHistory",
    "Measurements",
    "OrderDPPolicy",
    "Prediction",
    "Protection",
    "RandomPolicy",
    "Recorder",
    "SampleLedger",
    "SampleStatistics",
    "SeTaPolicy",
    "Selection",
    "SelectiveBackpropPolicy",
    "SpacedRepetitionPolicy",
    "StatisticsFunction",
    "StatisticsMatcher",
    "compensated_learning_rate_scale",
    "create_ledger",
    "create_policy",
    "flattened_token_statistics",
    "forward_only",
    "list_policies",
    "load_ledger",
    "multi_label_statistics",
    "question_answering_statistics",
    "register_policy",
    "regression_statistics",
    "segmentation_statistics",
    "single_label_statistics",
    "soft_label_statistics",
    "token_statistics",
]
