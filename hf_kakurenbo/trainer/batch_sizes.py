"""The size of an epoch's batches: Trainer's, or a smaller one that keeps the number of updates."""

from __future__ import annotations

import math
from typing import Any

from ..config import hiding_arguments
from ..data import SampleStream, VisibleSampler
from ..distributed.data_parallel import data_parallel_world
from ..hiding import HidingRun
from .state import Training


def ranks_of_a_batch(trainer: Any) -> int:
    """Among how many ranks a batch of `epoch_batch_size` is split: 1 unless with `split_batches`."""
    return data_parallel_world(trainer.accelerator).size if trainer.accelerator.split_batches else 1


def dispatches(trainer: Any, sampler: VisibleSampler | SampleStream) -> bool:
    """Whether rank 0 makes the batches and sends the other ranks theirs."""
    if isinstance(sampler, SampleStream):
        return sampler.assignment.ranks == 1 and data_parallel_world(trainer.accelerator).size > 1
    return trainer.accelerator.dispatch_batches is True


def global_batch(trainer: Any, batch_size: int) -> tuple[int, int]:
    """How many samples of all ranks are in a batch, and how many batches make an update.

    Args:
        trainer: the trainer.
        batch_size: of a rank, or of all together with `split_batches`.
    """
    ranks = 1 if trainer.accelerator.split_batches else data_parallel_world(trainer.accelerator).size
    return batch_size * ranks, trainer.args.gradient_accumulation_steps


def epoch_batch_size(trainer: Any, run: HidingRun) -> int:
    """The size of the present epoch's batches: of a rank, or of all together with `split_batches`."""
    return run.epoch_batch_size(trainer._train_batch_size, ranks_of_a_batch(trainer))


def begin_epoch_batches(trainer: Any, training: Training, continues: bool) -> None:
    """Give the loader the batch size of the epoch that is about to begin, or to continue."""
    run = training.run
    if not continues and hiding_arguments(trainer.args).hidden_epoch_updates == "constant" and run.ledger.num_hidden:
        run.keep_updates(trainer._train_batch_size, ranks_of_a_batch(trainer))
    training.training_loader.batch_sizes.set(epoch_batch_size(trainer, run))


def require_batch_size(trainer: Any, training: Training, batches: int) -> None:
    """Check that the loader has taken the size: one made of batches that somebody else draws would not.

    Args:
        trainer: the trainer.
        training: the training under way.
        batches: how many the loader says that it has in this epoch.
    """
    size = epoch_batch_size(trainer, training.run)
    if training.run.batch_fraction == 1:
        return
    in_batches = (training.sampler.samples - training.dropped) / global_batch(trainer, size)[0]
    expected = math.floor(in_batches) if trainer.args.dataloader_drop_last else math.ceil(in_batches)
    if batches != expected:
        raise ValueError(
            f'hidden_epoch_updates="constant" needs a training loader whose batch size can be changed: this one has '
            f"{batches:,} batches in epoch {training.run.epoch} instead of {expected:,} of {size:,} samples. Let "
            f'{type(trainer).__name__} make it as Trainer does, or leave hidden_epoch_updates at "scaled".'
        )
