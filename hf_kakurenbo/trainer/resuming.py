"""Beginning a training, anew or from a checkpoint: the run, its place in the epoch, the weights, the logged loss."""

from __future__ import annotations

import logging
import math
import os
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from .._compat import load_renamed_weights
from ..config import hiding_arguments, resolve_statistics_function
from ..data import Position, untouched_random_state
from ..distributed.collectives import from_every_rank, rank
from ..distributed.data_parallel import data_parallel_world
from ..hiding import HidingPolicy, HidingRun
from ..hiding.checkpoint import load_state
from ..integrations.registry import make_observer
from .batch_sizes import epoch_batch_size, global_batch
from .checkpoints import is_marked_as_hiding, last_complete_checkpoint
from .consistency import require_same_training
from .continuity import require_saved_training, rows_of
from .initial_ledger import take_initial_ledger
from .loss_check import LossCheck
from .protecting import make_protection
from .row_origin import rows_in_words
from .state import Training

logger = logging.getLogger(__name__)


def choose_checkpoint(
    trainer: Any, wanted: str | os.PathLike[str] | bool | None, hides: bool
) -> str | os.PathLike[str] | bool | None:
    """From which checkpoint to resume, on ranks that are found to be about to do the same; a collective call.

    Args:
        trainer: the trainer.
        wanted: what `Trainer.train` was asked to resume from.
        hides: whether it hides; else Trainer chooses.

    Raises:
        ValueError: the ranks have different datasets, arguments or checkpoints, said on every rank; or there are
            checkpoints, but none is whole.
    """
    none_is_whole: ValueError | None = None
    chosen: str | os.PathLike[str] | bool | None = None
    try:
        chosen = last_complete_checkpoint(wanted if hides else None, trainer.args.output_dir)
    except ValueError as error:
        none_is_whole = error
    chosen = chosen if hides else wanted
    require_same_training(trainer.args, trainer.train_dataset, none_is_whole or chosen)
    if none_is_whole:
        raise none_is_whole
    return chosen


def begin_training(
    trainer: Any,
    policy: HidingPolicy,
    position: tuple[int, int],
    resume_from_checkpoint: str | None,
    max_steps: int,
    num_update_steps_per_epoch: int,
    num_train_epochs: int,
) -> tuple[int, int]:
    """Make the trainer's [`Training`], and take a checkpoint's run over.

    Args:
        trainer: the trainer.
        policy: what hides.
        position: the epoch and the batches of it done, as Trainer works them out: as if all epochs were full.
        resume_from_checkpoint: the checkpoint's folder, or None.
        max_steps: updates of the whole training, if all epochs were full.
        num_update_steps_per_epoch: of a full epoch.
        num_train_epochs: how many epochs there are at most.

    Returns:
        The epoch with which to continue, and how many of its batches are done.

    Raises:
        ValueError: the checkpoint does not belong to this training.
    """
    if trainer.args.max_steps > 0:
        trainer.state.num_train_epochs = math.ceil(max_steps / num_update_steps_per_epoch)
    trainer._training = training = _make_training(trainer, policy)
    if resume_from_checkpoint is None or not is_marked_as_hiding(trainer.state):
        take_initial_ledger(trainer, training)
    if resume_from_checkpoint is not None:
        position = _resume(trainer, training, resume_from_checkpoint, position)
    if position[0] >= num_train_epochs:
        trainer.state.max_steps = trainer.state.global_step  # no epoch is left that would say it
    return position


def _make_training(trainer: Any, policy: HidingPolicy) -> Training:
    args, options, loader = trainer.args, hiding_arguments(trainer.args), trainer._loaders[0]
    loader.begin()
    label_names = list(dict.fromkeys([*trainer.label_names, "labels"]))
    data_parallel = data_parallel_world(trainer.accelerator)
    precision, compensate = options.ledger_precision, options.lr_compensation
    run = HidingRun(
        loader.num_samples, policy, args.device, compensate, precision, data_parallel, options.ledger_history
    )
    run.ledger.rows = rows_in_words(trainer, trainer._given_dataset)
    run.protection = make_protection(trainer, loader.num_samples)
    return Training(
        run=run,
        training_loader=loader,
        label_names=label_names,
        statistics_function=resolve_statistics_function(options.statistics_fn),
        observe=make_observer(trainer),
        barrier=trainer._barrier,
        loss_check=LossCheck(trainer, label_names),
        rows=rows_of(loader),
    )


def _resume(trainer: Any, training: Training, checkpoint: str, position: tuple[int, int]) -> tuple[int, int]:
    """Take the run over from a checkpoint; the epoch with which to continue and the batches of it already done."""
    if not is_marked_as_hiding(trainer.state):
        logger.warning(
            "%s was saved by a Trainer that hides nothing. The ledger starts empty; samples are hidden once they "
            "have been seen.",
            checkpoint,
        )
        return position
    tensors, scalars = _load_on_every_rank(checkpoint)
    training.resumed = {**scalars.pop("trainer"), "trained_ids": tensors["pending_ids"]}
    require_saved_training(trainer, training, checkpoint, training.resumed.get("description", {}), tensors)
    run = training.run
    try:
        run.load_state(tensors, scalars)
    except ValueError as error:
        raise ValueError(
            f"{checkpoint} does not belong to this training. {error} Resume with the dataset and the "
            'hiding_policy that it was saved with, start a new training, or set hiding_policy="none".'
        ) from error
    _take_position(trainer, training, checkpoint)
    _take_unit(trainer, training)
    return (run.epoch + 1, 0) if run.epoch_finished else (run.epoch, run.batches_done)


def _load_on_every_rank(checkpoint: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The checkpoint's ledger; raises on every rank if one of them cannot read it."""
    try:
        loaded, problem = load_state(checkpoint), None
    except (OSError, ValueError) as error:
        loaded, problem = None, error
    problems = from_every_rank(None if problem is None else str(problem))
    if problem is not None:
        raise problem
    if loaded is None or any(problems):
        raise ValueError("; ".join(f"rank {index}: {text}" for index, text in enumerate(problems) if text))
    return loaded


def _take_position(trainer: Any, training: Training, checkpoint: str) -> None:
    """Continue where the checkpoint is, also if batches or updates had another number of samples then."""
    run, position = training.run, Position(*training.resumed["position"])
    full_batch_size, accumulation = global_batch(trainer, trainer._train_batch_size)
    before = position.full_batch_size or position.batch_size
    if (before, position.accumulation) == (full_batch_size, accumulation):
        training.dropped = position.samples_dropped
        return
    training.batches_changed = True
    batch_size, _ = global_batch(trainer, epoch_batch_size(trainer, run))
    run.batches_done, training.dropped = position.in_batches_of(
        batch_size, accumulation, trainer.args.dataloader_drop_last
    )
    if rank() == 0:
        logger.warning(
            "%s was saved by a training with %d samples in an update, this one has %d. Each sample that epoch %d "
            "has left is trained on once, and the learning rate continues from the same fraction of the training; the "
            "number of updates is another, and so are the random numbers of dropout and augmentation.",
            checkpoint,
            before * position.accumulation,
            full_batch_size * accumulation,
            run.epoch,
        )


def _take_unit(trainer: Any, training: Training) -> None:
    """With `max_steps` the scheduler counts updates, else the steps of full epochs: it must not mix them."""
    before = training.resumed.get("description", {}).get("options", {}).get("max_steps")
    if before is not None and (before > 0) != (trainer.args.max_steps > 0):
        training.batches_changed = True


def restore_unlogged_loss(trainer: Any, training: Training) -> None:
    """Take over the loss that the checkpoint's next log would have had: Trainer starts to count it anew."""
    unlogged = training.resumed["unlogged_loss"]
    trainer._tr_loss += unlogged
    trainer._total_loss_scalar -= unlogged  # its steps do not count in this session
    trainer._globalstep_last_logged = training.resumed["last_logged_step"]


def load_weights_that_did_not_fit(trainer: Any, load_result: Any, folder: str | None) -> Any:
    """Load a checkpoint's weights once more, if some of them have other names in the file than in the model."""
    renamed = load_result.missing_keys and load_result.unexpected_keys
    if not renamed or not isinstance(trainer.model, PreTrainedModel) or trainer.is_fsdp_enabled:
        return load_result
    assert folder is not None
    with untouched_random_state(trainer.args.device):
        return load_renamed_weights(trainer.model, folder)
