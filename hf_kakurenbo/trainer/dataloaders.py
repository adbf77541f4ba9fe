"""The training loader: Trainer's own, over the visible samples, each batch with the ids of its samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import datasets
from torch.utils.data import IterableDataset

from ..config import hiding_arguments
from ..data import (
    BatchSizes,
    IdentifiedDataset,
    IdentifyingCollator,
    SampleStream,
    StreamCollator,
    StreamOrder,
    VisibleSampler,
    is_indexed,
    make_batch_assignment,
    make_visible_sampler,
    skip_sharding,
)


@dataclass(frozen=True)
class TrainingLoader:
    """A training loader that the trainer made, and what it is over."""

    loader: Any
    """As Accelerate prepared it."""
    sampler: VisibleSampler | SampleStream
    collator: IdentifyingCollator
    num_samples: int
    """N, the samples of the dataset that it was made for."""
    dataset: Any
    """That dataset, less the columns that Trainer removes."""
    batch_sizes: BatchSizes
    """Of its epochs."""

    def begin(self) -> None:
        """Make it that of a training: nothing is hidden yet, and batches carry ids from now on."""
        self.sampler.hide_nothing()
        self.batch_sizes.set(self.batch_sizes.batch_size)
        self.collator.active = True


def wrap_stream(trainer: Any) -> None:
    """Give a stream a length and its samples their ids, for which Trainer would ask for `max_steps`."""
    dataset, options = trainer.train_dataset, hiding_arguments(trainer.args)
    if isinstance(dataset, IterableDataset) and not (isinstance(dataset, SampleStream) or is_indexed(dataset)):
        workers = trainer.args.dataloader_num_workers > 0
        trainer.train_dataset = SampleStream(dataset, options.sample_id_column, options.num_samples, shared=workers)


def unwrapped(dataset: Any) -> Any:
    """What a stream was before it was wrapped, for whoever evaluates on the training dataset; any other as it is."""
    return dataset.dataset if isinstance(dataset, SampleStream) else dataset


def name_of_ids(trainer: Any) -> str:
    """The entry of a batch under which ids travel: `sample_id_column`, unless the model has an input of that name."""
    name = hiding_arguments(trainer.args).sample_id_column
    return f"kakurenbo_{name}" if _is_input(trainer, name) else name


def _is_input(trainer: Any, name: str) -> bool:
    trainer._set_signature_columns_if_needed()
    return name in trainer._signature_columns


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
        trainer: the trainer; it notes the loader in its `_loaders`.
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
    trainer.data_collator = identifying = IdentifyingCollator(collator, name_of_ids(trainer))
    try:
        loader = parent(IdentifiedDataset(dataset), description, batch_size, lambda _: sampler, True, dataloader_key)
    finally:
        trainer.data_collator = users_collator
    sizes = BatchSizes(loader, sampler, batch_size)
    trainer._loaders.append(TrainingLoader(loader, sampler, identifying, len(dataset), dataset, sizes))
    return loader


def _make_stream_loader(
    trainer: Any, parent: Callable[..., Any], stream: SampleStream, description: str, batch_size: int
) -> Any:
    assignment = make_batch_assignment(trainer.accelerator, batch_size, trainer.args.dataloader_drop_last)
    stream = stream.assigned(assignment)
    stream.keeps_id = _is_input(trainer, stream.id_column)
    stream.hide_nothing()
    users_collator = trainer.data_collator
    collator = trainer._get_collator_with_removed_columns(users_collator, description=description)
    trainer.data_collator = identifying = StreamCollator(collator, name_of_ids(trainer))
    try:
        loader = parent(stream, description, batch_size, None, True)
    finally:
        trainer.data_collator = users_collator
    loader = loader if assignment.ranks == 1 else skip_sharding(loader)
    sizes = BatchSizes(loader, stream, batch_size)
    trainer._loaders.append(TrainingLoader(loader, stream, identifying, stream.num_samples, stream, sizes))
    return loader


def loader_of_training(trainer: Any, used: Any) -> TrainingLoader:
    """Which of the loaders that the trainer made it is about to train on.

    Args:
        trainer: the trainer.
        used: what its `get_train_dataloader` returned: one of them, or something around one of them.

    Raises:
        RuntimeError: it is around none of them or several, or has another number of batches than the one inside.
    """
    name = f"{type(trainer).__name__}.get_train_dataloader"
    made: list[TrainingLoader] = trainer._loaders
    for one in made:
        if one.loader is used:
            return one
    # Those of an earlier training stand first: a loader may be kept from one to the next.
    candidates = made[trainer._num_earlier_loaders :] or made
    if not candidates:
        raise RuntimeError(
            f"{type(trainer).__name__} builds its training loader without `Trainer._get_dataloader`, so its samples "
            'cannot be distinguished. Let it call `super().get_train_dataloader()`, or set hiding_policy="none".'
        )
    if len(candidates) > 1:
        raise RuntimeError(
            f"{name} made {len(candidates)} training loaders and returned something around them, in which no sample "
            "can be hidden: an epoch has to be one pass over one loader. Let it call `super().get_train_dataloader()` "
            "once (join the datasets with `torch.utils.data.ConcatDataset` or `datasets.concatenate_datasets`), or "
            'set hiding_policy="none".'
        )
    length, inside = len(used) if hasattr(used, "__len__") else None, len(candidates[0].loader)
    if length != inside:
        raise RuntimeError(
            f"{name} returned {type(used).__name__}, which has {'no length' if length is None else f'{length} batches'}"
            f", around a training loader of {inside} batches. An epoch has to be one pass over that loader: give it "
            'that length and its batches, each once, or set hiding_policy="none".'
        )
    return candidates[0]
