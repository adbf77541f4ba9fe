"""The learning-rate scheduler in step with epochs of fewer updates, its rates compensated for what is hidden."""

from __future__ import annotations

from typing import Any

from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers.optimization import GreedyLR

from ..hiding import AlignedScheduler
from ..hiding.schedule import EpochPlan
from .state import Training


def align_scheduler(trainer: Any, training: Training | None) -> None:
    """Put an [`AlignedScheduler`] around the trainer's scheduler, once it has one."""
    if training is None or isinstance(trainer.lr_scheduler, AlignedScheduler):
        return
    if isinstance(trainer.lr_scheduler, (ReduceLROnPlateau, GreedyLR)):
        # Trainer steps these with a metric, not once per update: there is nothing to align or to compensate.
        training.run.compensate_learning_rate = False
        return
    trainer.lr_scheduler = AlignedScheduler(trainer.lr_scheduler, trainer.optimizer)


def give_back_scheduler(trainer: Any) -> None:
    """Take an earlier training's alignment off, which may have failed: a second must not align an aligned one."""
    if isinstance(trainer.lr_scheduler, AlignedScheduler):
        trainer.lr_scheduler.close()
        trainer.lr_scheduler = trainer.lr_scheduler.scheduler


def remember_start(trainer: Any, training: Training | None) -> None:
    """Keep the scheduler's state before a checkpoint's is loaded, if batches have another size than when it was saved.

    A loaded state counts the steps of the old size.
    """
    if training is not None and training.batches_changed and isinstance(trainer.lr_scheduler, AlignedScheduler):
        training.scheduler_start = trainer.lr_scheduler.start()


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
