"""How samples reach the model: ids beside examples, samplers and loaders of the visible and of the hidden."""

from .identity import IdentifiedDataset, IdentifyingCollator
from .loaders import make_hidden_loader, make_visible_sampler
from .random_state import RandomState, untouched_random_state
from .samplers import HiddenSampler, VisibleSampler

__all__ = [
    "HiddenSampler",
    "IdentifiedDataset",
    "IdentifyingCollator",
    "RandomState",
    "VisibleSampler",
    "make_hidden_loader",
    "make_visible_sampler",
    "untouched_random_state",
]
