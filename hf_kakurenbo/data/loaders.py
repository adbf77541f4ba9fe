"""Samplers and loaders as Accelerate would have made them, for visible and for hidden samples."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from accelerate import Accelerator
from accelerate.data_loader import IterableDatasetShard, SeedableRandomSampler, prepare_data_loader
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from ..distributed.data_parallel import data_parallel_world
from .samplers import HiddenSampler, VisibleSampler
from .streaming import BatchAssignment, SampleStream


def make_visible_sampler(sampler: Any, data_seed: int | None) -> VisibleSampler:
    """Wrap the sampler that a trainer would have used.

    Args:
        sampler: any sampler of indices, the same on every rank.
        data_seed: the seed of the order; None for PyTorch's initial seed.

    Raises:
        ValueError: it is no sampler of single indices, so nothing can be left out of what it yields.
    """
    if sampler is None or isinstance(sampler, BatchSampler):
        raise ValueError(
            f"Hiding needs a sampler that yields sample indices, got {type(sampler).__name__}. Let "
            '`_get_train_sampler` return a `Sampler[int]`, or set hiding_policy="none".'
        )
    if isinstance(sampler, RandomSampler) and not isinstance(sampler, SeedableRandomSampler):
        # Accelerate makes this exchange for a RandomSampler that it sees; a wrapped one it does not see.
        sampler = SeedableRandomSampler(
            data_source=sampler.data_source,
            replacement=sampler.replacement,
            num_samples=sampler._num_samples,
            generator=sampler.generator,
            data_seed=data_seed,
        )
    return VisibleSampler(sampler)


def make_batch_assignment(accelerator: Accelerator, batch_size: int, drop_last: bool) -> BatchAssignment:
    """How a stream is assigned to the ranks: by its samples, or, with `dispatch_batches`, by rank 0 in batches.

    Args:
        accelerator: says how many data-parallel ranks there are, and which way is asked for; the default for streams is
            Accelerate's, `dispatch_batches`.
        batch_size: of a rank, or of all together with `split_batches`.
        drop_last: leave out what does not fill a batch of all ranks.
    """
    ranks, rank, *_ = data_parallel_world(accelerator)
    split = accelerator.split_batches
    whole = (batch_size if split else batch_size * ranks) if drop_last else 1
    if ranks == 1 or accelerator.dispatch_batches is False:
        return BatchAssignment(batch_size // ranks if split else batch_size, rank, ranks, whole=whole)
    reads = (1 if split else ranks) if rank == 0 else 0
    return BatchAssignment(batch_size, reads=reads, again=0 if drop_last else reads, whole=whole)


def skip_sharding(loader: Any) -> Any:
    """A loader over a stream that is sharded already, as Accelerate prepared it, but not sharded once more."""
    inner = without_wrapper(loader)
    shared_out = inner.dataset
    if isinstance(shared_out, IterableDatasetShard):
        shared_out.num_processes, shared_out.process_index, shared_out.split_batches = 1, 0, False
        # The last batch is filled up already, and workers that stay would not see a size that changes.
        shared_out.batch_size = 1
    return loader


def without_wrapper(loader: Any) -> Any:
    """A prepared loader with its dataset and collator: on XLA devices it is inside one that has neither."""
    return getattr(loader, "dataloader", loader)


def _hidden_stream_loader(loader: Any, stream: SampleStream, accelerator: Accelerator) -> Any:
    """A loader over the hidden samples of a stream, with the collator and the workers of the training loader.

    It gives every rank the same number of batches.

    Args:
        loader: the training loader, prepared by Accelerate.
        stream: what it iterates over.
        accelerator: the one that prepared it.
    """
    bare = DataLoader(stream.of_hidden(), batch_size=stream.assignment.batch_size, **_as_in(loader))
    # Rank 0 may be the only one that can read; where the samples are assigned to ranks, there is nothing left to shard.
    ranks = data_parallel_world(accelerator)
    dispatches = ranks.size > 1 and stream.assignment.ranks == 1
    return prepare_data_loader(
        bare,
        device=accelerator.device,
        num_processes=ranks.size if dispatches else 1,
        process_index=ranks.rank if dispatches else 0,
        split_batches=dispatches and accelerator.split_batches,
        put_on_device=True,
        dispatch_batches=dispatches,
        non_blocking=accelerator.non_blocking,
    )


def _as_in(loader: Any) -> dict[str, Any]:
    names = ("collate_fn", "num_workers", "pin_memory", "persistent_workers", "prefetch_factor")
    return {name: getattr(loader, name) for name in (*names, "multiprocessing_context", "worker_init_fn")}


class HiddenLoader:
    """Gives samples for forward-only passes, by a loader that is kept from one time to the next, for its workers.

    Args:
        loader: the training loader, prepared by Accelerate.
        sampler: the visible sampler, or the stream, that it is over.
        hidden: (N,) bool, what the present epoch hides, changed in place.
        accelerator: the one that prepared the loader.
        batch_size: the one that it was made with: of a rank, or of all together with `split_batches`.
        drop_last: whether the training loader drops what does not fill a batch.
    """

    def __init__(
        self,
        loader: Any,
        sampler: VisibleSampler | SampleStream,
        hidden: Tensor,
        accelerator: Accelerator,
        batch_size: int,
        drop_last: bool,
    ) -> None:
        self._hidden = hidden
        loader = without_wrapper(loader)
        if isinstance(sampler, SampleStream):
            self._loader = _hidden_stream_loader(loader, sampler, accelerator)
            self._select = sampler.hide_less
            return
        ranks = data_parallel_world(accelerator).size
        of_a_rank = batch_size // ranks if accelerator.split_batches else batch_size
        ids = HiddenSampler(hidden, of_a_rank if drop_last else 1)
        self._loader = _hidden_loader(loader, ids, accelerator, of_a_rank)
        self._select = partial(setattr, ids, "hidden")

    def batches(self, chosen: Tensor, epoch: int) -> Iterator[Any]:
        """The batches of some samples, whether hidden or not; as many on every rank.

        When it ends, or is closed, the loader is over the hidden samples again.

        Args:
            chosen: (N,) bool, which samples.
            epoch: the index of the present epoch, for a dataset that wants to know it.
        """
        # By itself the loader would count its own passes as epochs.
        self._loader.set_epoch(epoch)
        self._select(chosen)
        try:
            yield from self._loader
        finally:
            self._select(self._hidden)  # a stream knows by this which samples are visible, too


def _hidden_loader(loader: Any, sampler: HiddenSampler, accelerator: Accelerator, batch_size: int) -> Any:
    """A loader over the hidden samples, with the dataset, the collator and the workers of the training loader.

    It gives every rank the same number of batches, whatever the training loader does, since a wrapped model may
    communicate in each forward pass. Where the training loader drops what does not fill a batch, the sampler is to fill
    it up: a collator may count on full batches, as timm's mixup does.

    Args:
        loader: the training loader, prepared by Accelerate.
        sampler: gives the ids, anew each time the loader is iterated.
        accelerator: the one that prepared it.
        batch_size: of a rank.
    """
    bare = DataLoader(loader.dataset, batch_size=batch_size, sampler=sampler, **_as_in(loader))
    ranks = data_parallel_world(accelerator)
    return prepare_data_loader(
        bare,
        device=accelerator.device,
        num_processes=ranks.size,
        process_index=ranks.rank,
        put_on_device=True,
        even_batches=True,
        dispatch_batches=False,
        non_blocking=accelerator.non_blocking,
    )
