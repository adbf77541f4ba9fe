"""Samplers and loaders as Accelerate would have made them, for visible and for hidden samples."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from accelerate.data_loader import SeedableRandomSampler, prepare_data_loader
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from .samplers import HiddenSampler, VisibleSampler


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


def make_hidden_loader(loader: Any, hidden: Tensor, accelerator: Accelerator, batch_size: int) -> Any:
    """A loader over the hidden samples, with the dataset, the collator and the workers of the training loader.

    It gives every rank the same number of batches, whatever the training loader does, since a wrapped model may
    communicate in each forward pass.

    Args:
        loader: the training loader, prepared by Accelerate.
        hidden: (N,) bool, read anew each time the loader is iterated.
        accelerator: the one that prepared it.
        batch_size: the one that it was made with: of a rank, or of all together with `split_batches`.
    """
    bare = DataLoader(
        loader.dataset,
        batch_size=batch_size // accelerator.num_processes if accelerator.split_batches else batch_size,
        sampler=HiddenSampler(hidden),
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        persistent_workers=loader.persistent_workers,
        prefetch_factor=loader.prefetch_factor,
        multiprocessing_context=loader.multiprocessing_context,
        worker_init_fn=loader.worker_init_fn,
    )
    return prepare_data_loader(
        bare,
        device=accelerator.device,
        num_processes=accelerator.num_processes,
        process_index=accelerator.process_index,
        put_on_device=True,
        even_batches=True,
        dispatch_batches=False,
        non_blocking=accelerator.non_blocking,
    )
