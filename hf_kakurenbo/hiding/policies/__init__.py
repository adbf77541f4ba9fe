"""The policies, one file each, and the registry that finds them by name."""

from .base import HidingPolicy, Selection, create_policy, list_policies, register_policy
from .kakurenbo import KakurenboPolicy

__all__ = [
    "HidingPolicy",
    "KakurenboPolicy",
    "Selection",
    "create_policy",
    "list_policies",
    "register_policy",
]
