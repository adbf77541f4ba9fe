"""How samples reach the model: ids beside examples, samplers of the visible and of the hidden."""

from .identity import IdentifiedDataset, IdentifyingCollator
from .random_state import RandomState, untouched_random_state
from .samplers import HiddenSampler, VisibleSampler

__all__ = [
    "HiddenSampler",
    "IdentifiedDataset",
    "IdentifyingCollator",
    "RandomState",
    "VisibleSampler",
    "untouched_random_state",
]
