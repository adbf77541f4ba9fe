"""Streams: samples that come in an order of their own, each with an id, of which only the wanted ones are made.

Every worker of every rank goes through the whole order by the ids alone, and makes the samples that are its own:
visible ones, assigned to ranks in batches. So the ranks have as many batches each, no sample is made twice, and the
order does not depend on the number of workers. Nothing that changes from epoch to epoch is in the objects that
persistent workers keep a copy of: it is in memory that they share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from .identity import IdentifiedExamples, IdentifyingCollator
from .random_state import RandomState
from .samplers import in_chunks
from .sources import Choice, PartialEpoch, examples_of


@runtime_checkable
class IndexedStream(Protocol):
    """A stream whose samples can be had by number, in an order that is known without making any of them.

    It is trained on as a map-style dataset in the stream's order. `FDSLStream` is one.
    """

    def samples(self) -> Dataset[Any]:
        """The samples by number, 0..N−1: a map-style dataset."""

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The numbers of the samples in the order of an epoch: (N,), a permutation."""


class StreamOrder(Sampler[int]):
    """The order of an [`IndexedStream`] as a sampler.

    Args:
        stream: the stream.
        length: N, the number of its samples.
    """

    def __init__(self, stream: IndexedStream, length: int) -> None:
        self.stream = stream
        self.length = length
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return in_chunks(self.stream.order(self.epoch))


@dataclass(frozen=True)
class BatchAssignment:
    """How the samples of an epoch, in their order, are assigned to ranks and workers.

    The order is cut into global batches of `ranks × batch_size`; each rank has its slice of every one of them, and a
    worker has the batches number worker, worker + workers, and so on. Among several ranks the last batch is filled up
    with the first samples.

    Args:
        batch_size: of one rank.
        rank, ranks: which rank, of how many.
        reads: how many of these batches the rank reads for each that it trains on: 0 if another rank sends it its own,
            as many as there are ranks if it is the one that sends.
        again: so many of the first batches are made in a resumed epoch too: what sends batches fills up the last one
            with their samples.
        whole: only so many samples are assigned as are a multiple of this; 1 for all of them.
    """

    batch_size: int
    rank: int = 0
    ranks: int = 1
    reads: int = 1
    again: int = 0
    whole: int = 1

    def assigned(self, samples: int) -> int:
        """How many of so many samples are assigned to batches."""
        return samples - samples % self.whole

    def batches(self, samples: int) -> int:
        """How many batches each rank has of so many samples."""
        return math.ceil(self.assigned(samples) / (self.batch_size * self.ranks))

    def positions(self, batch: int, samples: int) -> range:
        """The positions of the samples in this rank's slice of a batch."""
        start = (batch * self.ranks + self.rank) * self.batch_size
        end = self.assigned(samples)
        return range(min(start, end), min(start + self.batch_size, end))

    def filling(self, batch: int, samples: int) -> list[int]:
        """The positions of the samples with which this rank's slice of a batch is filled up."""
        if self.ranks == 1:
            return []
        end = self.assigned(samples)
        start = (batch * self.ranks + self.rank) * self.batch_size
        return [position % end for position in range(max(start, end), start + self.batch_size)]

    def size_of(self, batch: int, samples: int) -> int:
        """How many samples this rank's slice of a batch has, those that fill it up included."""
        return len(self.positions(batch, samples)) + len(self.filling(batch, samples))

    def owner(self, batches: range, end: int) -> Callable[[int], bool]:
        """Whether the sample at a position, below `end`, is in one of these batches of this rank, as a function."""
        whole, first = self.batch_size * self.ranks, self.rank * self.batch_size
        behind = first + self.batch_size

        def is_own(position: int) -> bool:
            return first <= position % whole < behind and 0 <= position < end and position // whole in batches

        return is_own


SKIPPED = object()
"""Stands for a sample that was trained on before the training was interrupted, and is not made again."""


def is_indexed(dataset: Any) -> bool:
    """Whether a dataset is a stream whose samples can be had by number."""
    return isinstance(dataset, IterableDataset) and isinstance(dataset, IndexedStream)


class SampleStream(IterableDataset[Any]):
    """The visible samples of a stream with ids, as `(id, example)`, with a length.

    Args:
        dataset: a `datasets.IterableDataset`, or a PyTorch one that gives all samples in the same order to whoever
            iterates it; its examples are dicts.
        id_column: the column with the id, an integer; each of 0..N−1 comes once.
        num_samples: N; by default what the dataset says of itself.
        shared: whether workers will iterate over it.

    Raises:
        ValueError: N is not known, or the dataset is sharded over ranks already.
    """

    def __init__(self, dataset: Any, id_column: str, num_samples: int | None = None, shared: bool = False) -> None:
        if getattr(dataset, "_distributed", None) is not None:
            raise ValueError(
                "The stream is sharded over ranks already (`split_dataset_by_node`), and so would be twice. Leave "
                "it whole: the trainer assigns its samples to the ranks."
            )
        self.dataset = dataset
        self.id_column = id_column
        self.keeps_id = False
        """Whether the id stays in the examples, for a model that has an input of its name."""
        self.num_samples = _known_length(dataset) if num_samples is None else int(num_samples)
        self.assignment = BatchAssignment(batch_size=1)
        self.random_state: RandomState | None = None
        """Always None: the order of a stream is its own, and draws from no generator of this process."""
        self._of_hidden = False
        self._partial_epoch: PartialEpoch | None = None
        self._hidden = torch.zeros(self.num_samples, dtype=torch.bool)
        # The epoch, how many of its batches were done before this session, and how many samples are left out at its
        # start, which were trained on in batches of another size.
        self._progress = torch.zeros(3, dtype=torch.int64)
        # Of the present epoch, of a rank; 0 for that of the assignment.
        self._batch_size = torch.zeros(1, dtype=torch.int64)
        if shared:
            self._hidden.share_memory_()  # type: ignore[no-untyped-call]
            self._progress.share_memory_()  # type: ignore[no-untyped-call]
            self._batch_size.share_memory_()  # type: ignore[no-untyped-call]

    def assigned(self, assignment: BatchAssignment) -> SampleStream:
        """The same stream with another assignment of batches and epochs of its own: others may be made meanwhile."""
        assigned = copy(self)
        assigned.assignment = assignment
        for name in ("_hidden", "_progress", "_batch_size"):
            setattr(assigned, name, _copy_of(getattr(self, name)))
        return assigned

    def of_hidden(self) -> SampleStream:
        """The hidden samples of each epoch instead of the visible ones, all of them."""
        hidden = copy(self)
        hidden._of_hidden = True
        hidden.assignment = replace(self.assignment, whole=1)
        return hidden

    def begin_epoch(
        self,
        epoch: int,
        hidden: Tensor,
        random_state: RandomState | None = None,
        batches_done: int = 0,
        dropped: int = 0,
    ) -> None:
        """Start an epoch.

        Args:
            epoch: its index, from 0.
            hidden: (N,) bool, the samples to leave out.
            random_state: not used.
            batches_done: so many batches of a rank are not made again; what stands for them has no content.
            dropped: leave out so many at the start of the order, trained on before in batches of another size.
        """
        self._hidden.copy_(hidden)
        self._progress.copy_(torch.tensor([epoch, batches_done, dropped]))

    def set_batch_size(self, batch_size: int) -> None:
        """Assign the visible samples in batches of another size, of a rank, from the next pass on."""
        self._batch_size.fill_(batch_size)

    @property
    def _present(self) -> BatchAssignment:
        """The assignment, in batches of the present size."""
        made, size = self.assignment.batch_size, int(self._batch_size)
        if self._of_hidden or size in (0, made):
            return self.assignment
        # `whole` is 1, or a multiple of the batch size.
        whole = self.assignment.whole if self.assignment.whole == 1 else self.assignment.whole // made * size
        return replace(self.assignment, batch_size=size, whole=whole)

    def require_continuation(self, partial_epoch: PartialEpoch) -> None:
        """Let an interrupted epoch raise a ValueError, before a sample of it is made, if its order is another one."""
        self._partial_epoch = partial_epoch

    def hide_nothing(self) -> None:
        """Start anew, with all samples visible."""
        self._batch_size.zero_()
        self.begin_epoch(0, torch.zeros_like(self._hidden))

    def hide_less(self, hidden: Tensor) -> None:
        """Leave out other samples in the epoch that was begun."""
        self._hidden.copy_(hidden)

    @property
    def distinct(self) -> int | None:
        """None: see `require_distinct`."""
        return None

    def draws(self) -> None:
        """None: each sample comes once."""

    def digest(self) -> int:
        """0: the order is not known before the samples are made."""
        return 0

    def set_epoch(self, epoch: int) -> None:
        """Start an epoch with the same samples hidden; a second call with the same epoch changes nothing."""
        if epoch != int(self._progress[0]):
            self._progress.copy_(torch.tensor([epoch, 0, 0]))

    def require_distinct(self, measured: int, seen: Tensor) -> None:
        """Raise if samples came in the place of others. Of an epoch that was not measured to its end nothing is said.

        Args:
            measured: how many samples all ranks trained on in the epoch, one that came twice counted twice.
            seen: (N,) bool, which they were.

        Raises:
            ValueError: as many as were assigned, and fewer different ones.
        """
        assigned = self._dropped + self._present.assigned(self._left)
        if measured < assigned:
            return
        count = int(seen.count_nonzero())
        if count != assigned:
            raise ValueError(
                f"In epoch {int(self._progress[0])} of the stream {count:,} different samples were trained on instead "
                f"of {assigned:,}: some came twice, others never. Its order must be the same on every rank, in every "
                "worker and when resumed: give `shuffle` a seed (`stream.shuffle(seed=0)`)."
            )

    @property
    def full_samples(self) -> int:
        """How many samples an epoch has with nothing hidden."""
        return self.num_samples

    @property
    def samples(self) -> int:
        """How many samples the epoch has, on all ranks together, those dropped at its start included."""
        hidden = int(self._hidden.count_nonzero())
        return hidden if self._of_hidden else self.num_samples - hidden

    @property
    def _dropped(self) -> int:
        return 0 if self._of_hidden else int(self._progress[2])

    @property
    def _left(self) -> int:
        return self.samples - self._dropped

    def __len__(self) -> int:
        """How many this rank is given, those that fill up its last batch included."""
        assignment, samples = self._present, self._left
        last = assignment.batches(samples) - 1
        return 0 if last < 0 else last * assignment.batch_size + assignment.size_of(last, samples)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        assignment, samples, epoch = self._present, self._left, int(self._progress[0])
        batches = assignment.batches(samples) if assignment.reads else 0
        done = 0 if self._of_hidden else min(int(self._progress[1]) * assignment.reads, batches)
        own = range(number, batches, workers)
        made_again, skipped = (
            len(range(number, min(assignment.again, done), workers)),
            len(range(number, done, workers)),
        )
        yield from self._make(assignment, epoch, own[:made_again], samples)
        for batch in own[made_again:skipped]:
            yield from [SKIPPED] * assignment.size_of(batch, samples)
        yield from self._make(assignment, epoch, own[skipped:], samples)

    def _make(self, assignment: BatchAssignment, epoch: int, batches: range, samples: int) -> Iterator[tuple[int, Any]]:
        """The samples of some batches of this rank. Positions are those after the dropped ones."""
        if not batches:
            return
        last, dropped = batches[-1], self._dropped
        filling = assignment.filling(last, samples)
        fills = frozenset(filling)
        end = assignment.assigned(samples)
        # Whoever has the last batch continues to the end, to see that the stream ends where it should.
        stops_after = assignment.positions(last, samples)[-1] if last < assignment.batches(samples) - 1 else None

        is_own = assignment.owner(batches, end)

        def is_made(place: int) -> bool:
            return is_own(place - dropped) or place - dropped in fills

        partial_epoch = None if self._of_hidden else self._partial_epoch
        choice = Choice(
            self.id_column,
            self._hidden.numpy() == self._of_hidden,
            is_made,
            self.keeps_id,
            partial_epoch if partial_epoch is not None and partial_epoch.epoch == epoch else None,
        )
        kept = {}
        for place, sample_id, example in examples_of(self.dataset, epoch, choice):
            position = place - dropped
            if position in fills:
                kept[position] = (sample_id, copy(example))
            if is_own(position):
                yield sample_id, example
            if position == stops_after:
                return
        yield from (kept[position] for position in filling)


def _copy_of(tensor: Tensor) -> Tensor:
    """A copy, which workers share if they share the tensor."""
    copied = tensor.clone()
    return copied.share_memory_() if tensor.is_shared() else copied  # type: ignore[no-untyped-call]


def _known_length(dataset: Any) -> int:
    if hasattr(dataset, "__len__"):
        return len(dataset)
    splits = getattr(getattr(dataset, "info", None), "splits", None) or {}
    split = splits.get(str(dataset.split)) if splits else None
    if split is None or not split.num_examples:
        raise ValueError(
            "It is not known how many samples the training stream has, without which there are no epochs. Say so with "
            "`KakurenboConfig(num_samples=...)` (flag `--num_samples`), or load it map-style (`streaming=False`)."
        )
    return int(split.num_examples)


class StreamCollator(IdentifyingCollator):
    """Collates the samples of a [`SampleStream`]: their examples by the user's collator, their ids beside them."""

    def __call__(self, samples: Any) -> Any:
        """A batch; of samples that are skipped, a batch of nothing but ids that mean nothing."""
        if samples[0] is SKIPPED:
            return {self.id_name: torch.zeros(len(samples), dtype=torch.int64)}
        ids, examples = zip(*samples, strict=True)
        return super().__call__(IdentifiedExamples(ids, list(examples)))
