"""The training loader: Trainer's own, over the visible samples, each batch with the ids of its samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import datasets
from torch.utils.data import IterableDataset

from ..config import hiding_arguments
from ..data import (
    IdentifiedDataset,
    IdentifyingCollator,
    SampleStream,
    StreamCollator,
    StreamOrder,
    is_indexed,
    leave_whole,
    make_deal,
    make_visible_sampler,
)


def wrap_stream(trainer: Any) -> None:
    """Give a stream a length and its samples their ids, for which Trainer would ask for `max_steps`."""
    dataset, options = trainer.train_dataset, hiding_arguments(trainer.args)
    if isinstance(dataset, IterableDataset) and not (isinstance(dataset, SampleStream) or is_indexed(dataset)):
        workers = trainer.args.dataloader_num_workers > 0
        trainer.train_dataset = SampleStream(dataset, options.sample_id_column, options.num_samples, shared=workers)


def make_training_loader(
    trainer: Any,
    parent: Callable[..., Any],
    dataset: Any,
    description: str,
    batch_size: int,
    sampler_fn: Callable[[Any], Any] | None,
    dataloader_key: str | None,
) -> Any:
    """The loader that `Trainer._get_dataloader` makes, of the dataset with ids and over the visible sampler.

    Args:
        trainer: the trainer.
        parent: `Trainer._get_dataloader`, bound to it.
        dataset: the training dataset.
        description: what Trainer calls it.
        batch_size: of a rank, or of all together with `split_batches`.
        sampler_fn: from the dataset to the sampler that Trainer would use.
        dataloader_key: under which Trainer keeps the loader.
    """
    if isinstance(dataset, SampleStream):
        return _make_stream_loader(trainer, parent, dataset, description, batch_size)
    if is_indexed(dataset):
        order = StreamOrder(dataset, len(dataset))
        dataset, sampler_fn = dataset.samples(), lambda _: order
    users_collator = trainer.data_collator
    # What Trainer does to drop unused columns goes by the type of the dataset, so it is done before wrapping it.
    if isinstance(dataset, datasets.Dataset):
        dataset, collator = trainer._remove_unused_columns(dataset, description=description), users_collator
    else:
        collator = trainer._get_collator_with_removed_columns(users_collator, description=description)
    sampler = make_visible_sampler(sampler_fn(dataset) if sampler_fn else None, trainer.args.data_seed)
    trainer._sampler = sampler
    trainer.data_collator = IdentifyingCollator(collator, hiding_arguments(trainer.args).sample_id_column)
    try:
        return parent(IdentifiedDataset(dataset), description, batch_size, lambda _: sampler, True, dataloader_key)
    finally:
        trainer.data_collator = users_collator


def _make_stream_loader(
    trainer: Any, parent: Callable[..., Any], stream: SampleStream, description: str, batch_size: int
) -> Any:
    deal = make_deal(trainer.accelerator, batch_size, trainer.args.dataloader_drop_last)
    trainer._sampler = stream = stream.dealt(deal)
    stream.hide_nothing()
    users_collator = trainer.data_collator
    collator = trainer._get_collator_with_removed_columns(users_collator, description=description)
    trainer.data_collator = StreamCollator(collator, stream.id_column)
    try:
        loader = parent(stream, description, batch_size, None, True)
    finally:
        trainer.data_collator = users_collator
    return loader if deal.ranks == 1 else leave_whole(loader)
