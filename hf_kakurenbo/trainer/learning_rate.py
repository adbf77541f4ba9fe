"""The learning-rate scheduler in step with epochs of fewer updates, its rates compensated for what is hidden."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers.optimization import GreedyLR
from transformers.trainer import SCHEDULER_NAME
from transformers.trainer_pt_utils import LayerWiseDummyScheduler

from ..hiding import AlignedScheduler
from ..hiding.schedule import EpochPlan
from ..integrations.deepspeed import (
    give_scheduler_back_to_engine,
    has_parked_scheduler,
    owns_scheduler,
    take_scheduler_from_engine,
)
from .optimizers import rate_in_effect, stepping_optimizer, why_not_compensated
from .state import Training

logger = logging.getLogger(__name__)


def align_scheduler(trainer: Any, training: Training | None) -> None:
    """Put an [`AlignedScheduler`] around the trainer's scheduler, once it has one.

    Raises:
        ValueError: DeepSpeed drives the rate in a way that cannot be kept in step with the epochs.
    """
    if training is None or isinstance(trainer.lr_scheduler, AlignedScheduler):
        return
    if trainer.is_deepspeed_enabled:
        take_scheduler_from_engine(trainer)
    if isinstance(trainer.lr_scheduler, (ReduceLROnPlateau, GreedyLR)):
        # Trainer steps these with a metric, not once per update: there is nothing to align or to compensate.
        training.run.compensate_learning_rate = False
        return
    reason = why_not_compensated(trainer)
    if reason is not None:
        if training.run.compensate_learning_rate:
            logger.warning("The learning rate is not compensated for hidden samples (lr_scale is 1): %s.", reason)
        training.run.compensate_learning_rate = False
    if not isinstance(trainer.lr_scheduler, LayerWiseDummyScheduler):
        trainer.lr_scheduler = AlignedScheduler(trainer.lr_scheduler, stepping_optimizer(trainer.optimizer))


def give_back_scheduler(trainer: Any) -> None:
    """Take an earlier training's alignment off, which may have failed: a second must not align an aligned one."""
    if isinstance(trainer.lr_scheduler, AlignedScheduler):
        trainer.lr_scheduler.close()
        trainer.lr_scheduler = trainer.lr_scheduler.scheduler


def end_compensation(trainer: Any) -> None:
    """Leave the rates and the schedulers as they were found, when the training ends."""
    if isinstance(trainer.lr_scheduler, AlignedScheduler):
        trainer.lr_scheduler.close()
    if trainer.is_deepspeed_enabled:
        give_scheduler_back_to_engine(trainer)


def current_rate(trainer: Any, parent: Callable[[], float]) -> float:
    """The learning rate for the log: that of the update that was just made.

    Args:
        trainer: the trainer.
        parent: `Trainer._get_learning_rate`, bound to the trainer.
    """
    if isinstance(trainer.lr_scheduler, LayerWiseDummyScheduler):
        return parent()  # the hooks have stepped already, and this scheduler keeps what was before
    return rate_in_effect(trainer.optimizer)


def before_engine_loads(trainer: Any, training: Training | None) -> None:
    """Keep the start of a scheduler that DeepSpeed makes, before it loads a checkpoint's state into it."""
    if owns_scheduler(trainer):
        remember_start(trainer, training)


def before_loading(trainer: Any, training: Training | None) -> None:
    """Align the scheduler, and keep its start, before Trainer loads a checkpoint's state into it.

    Raises:
        ValueError: DeepSpeed has loaded it already, and the start is wanted; or it cannot be kept in step.
    """
    if training is None:
        return
    if training.batches_changed and training.scheduler_start is None and owns_scheduler(trainer):
        raise ValueError(
            f"{type(trainer).__name__}.create_scheduler does not call `super().create_scheduler(...)`, so DeepSpeed "
            "has loaded the checkpoint before the schedule could be set to batches of another size. Call it, or resume "
            "with the batch size and the gradient_accumulation_steps of the checkpoint."
        )
    remember_start(trainer, training)
    align_scheduler(trainer, training)


def remember_start(trainer: Any, training: Training | None) -> None:
    """Keep the scheduler's state before a checkpoint's is loaded, if batches have another size than when it was saved.

    A loaded state counts the steps of the old size.
    """
    if training is None or not training.batches_changed or training.scheduler_start is not None:
        return
    scheduler = trainer.lr_scheduler.scheduler if owns_scheduler(trainer) else trainer.lr_scheduler
    training.scheduler_start = AlignedScheduler(scheduler, stepping_optimizer(trainer.optimizer)).start()


def was_loaded_by_engine(trainer: Any, training: Training | None, checkpoint: str | None) -> bool:
    """Whether DeepSpeed's engine has loaded the scheduler, of a checkpoint without hiding that has no file of it."""
    if training is None or checkpoint is None or not has_parked_scheduler(trainer):
        return False
    return not os.path.isfile(os.path.join(checkpoint, SCHEDULER_NAME))


def begin_epoch(
    trainer: Any, training: Training, plan: EpochPlan, full_updates_before: int, updates_done: int, continues: bool
) -> None:
    """Tell the scheduler how many updates the epoch has, or what is left of it.

    Args:
        trainer: the trainer.
        training: the training under way.
        plan: the epoch's.
        full_updates_before: updates of full epochs before this one.
        updates_done: of this one, made before the training was interrupted.
        continues: whether the epoch was begun before.
    """
    scheduler = trainer.lr_scheduler
    if not isinstance(scheduler, AlignedScheduler):
        return
    start, training.scheduler_start = training.scheduler_start, None
    full_updates_done = updates_done
    if start is not None:
        full_updates_done = updates_done * plan.full_updates // max(plan.updates, 1)
        by_updates = trainer.args.max_steps > 0
        scheduler.restart(start, trainer.state.global_step if by_updates else full_updates_before + full_updates_done)
    elif continues:
        return  # its place in the epoch was loaded
    if plan.updates > updates_done:
        scheduler.begin_epoch(plan.updates - updates_done, plan.full_updates - full_updates_done, training.run.lr_scale)
