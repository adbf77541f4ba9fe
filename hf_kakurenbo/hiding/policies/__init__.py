"""The policies, one file each, and the registry that finds them by name."""

from .base import (
    HidingPolicy,
    Selection,
    create_policy,
    find_policy,
    list_policies,
    options_of_policy,
    register_policy,
)
from .coin import CoinPolicy
from .forgetting import ForgettingPolicy
from .importance import ImportancePolicy
from .infobatch import InfoBatchPolicy
from .kakurenbo import KakurenboPolicy
from .random import RandomPolicy
from .selective_backprop import SelectiveBackpropPolicy
from .spaced_repetition import SpacedRepetitionPolicy

__all__ = [
    "CoinPolicy",
    "ForgettingPolicy",
    "HidingPolicy",
    "ImportancePolicy",
    "InfoBatchPolicy",
    "KakurenboPolicy",
    "RandomPolicy",
    "Selection",
    "SelectiveBackpropPolicy",
    "SpacedRepetitionPolicy",
    "create_policy",
    "find_policy",
    "list_policies",
    "options_of_policy",
    "register_policy",
]
