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
from .ies import IESPolicy
from .importance import ImportancePolicy
from .infobatch import InfoBatchPolicy
from .kakurenbo import KakurenboPolicy
from .order_dp import OrderDPPolicy
from .random import RandomPolicy
from .selective_backprop import SelectiveBackpropPolicy
from .seta import SeTaPolicy
from .spaced_repetition import SpacedRepetitionPolicy

__all__ = [
    "CoinPolicy",
    "ForgettingPolicy",
    "HidingPolicy",
    "IESPolicy",
    "ImportancePolicy",
    "InfoBatchPolicy",
    "KakurenboPolicy",
    "OrderDPPolicy",
    "RandomPolicy",
    "SeTaPolicy",
    "Selection",
    "SelectiveBackpropPolicy",
    "SpacedRepetitionPolicy",
    "create_policy",
    "find_policy",
    "list_policies",
    "options_of_policy",
    "register_policy",
]
