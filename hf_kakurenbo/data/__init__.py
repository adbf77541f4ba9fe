"""How samples reach the model: ids beside examples, samplers and loaders of the visible and the hidden, streams."""

from .identity import BatchIds, IdentifiedDataset, IdentifyingCollator, drop_ids, read_ids
from .loaders import HiddenLoader, leave_whole, make_deal, make_visible_sampler
from .position import Position
from .random_state import RandomState, untouched_random_state
from .row_digests import RowDigests, digest_rows
from .samplers import HiddenSampler, VisibleSampler
from .sources import Interruption
from .stored_rows import source_of
from .streaming import Deal, IndexedStream, SampleStream, StreamCollator, StreamOrder, is_indexed

__all__ = [
    "BatchIds",
    "Deal",
    "HiddenLoader",
    "HiddenSampler",
    "IdentifiedDataset",
    "IdentifyingCollator",
    "IndexedStream",
    "Interruption",
    "Position",
    "RandomState",
    "RowDigests",
    "SampleStream",
    "StreamCollator",
    "StreamOrder",
    "VisibleSampler",
    "digest_rows",
    "drop_ids",
    "is_indexed",
    "leave_whole",
    "make_deal",
    "make_visible_sampler",
    "read_ids",
    "source_of",
    "untouched_random_state",
]
