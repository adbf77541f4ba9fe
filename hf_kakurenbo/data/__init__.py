"""How samples reach the model: ids beside examples, samplers and loaders of the visible and the hidden, streams."""

from .batch_sizes import BatchSizes
from .identity import BatchIds, IdentifiedDataset, IdentifyingCollator, drop_ids, read_ids
from .loaders import HiddenLoader, make_batch_assignment, make_visible_sampler, skip_sharding
from .position import Position
from .random_state import RandomState, untouched_random_state
from .row_digests import RowDigests, digest_rows
from .samplers import HiddenSampler, VisibleSampler
from .sources import PartialEpoch
from .stored_rows import source_of
from .streaming import BatchAssignment, IndexedStream, SampleStream, StreamCollator, StreamOrder, is_indexed
from .visible_loader import IdentifiedBatch, VisibleLoader

__all__ = [
    "BatchAssignment",
    "BatchIds",
    "BatchSizes",
    "HiddenLoader",
    "HiddenSampler",
    "IdentifiedBatch",
    "IdentifiedDataset",
    "IdentifyingCollator",
    "IndexedStream",
    "PartialEpoch",
    "Position",
    "RandomState",
    "RowDigests",
    "SampleStream",
    "StreamCollator",
    "StreamOrder",
    "VisibleLoader",
    "VisibleSampler",
    "digest_rows",
    "drop_ids",
    "is_indexed",
    "make_batch_assignment",
    "make_visible_sampler",
    "read_ids",
    "skip_sharding",
    "source_of",
    "untouched_random_state",
]
