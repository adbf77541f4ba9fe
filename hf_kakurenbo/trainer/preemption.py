"""The checkpoint that Trainer writes when it is preempted (SIGTERM), with hiding and on several ranks.

Transformers' `JITCheckpointCallback` (`enable_jit_checkpoint=True`) saves wherever the training is 3 s after the
signal. In the middle of an update that would record samples as trained on whose gradient is not applied yet, and the
ranks, each with a clock of its own, would begin to save at different updates and wait for each other for ever.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from transformers import Trainer, TrainerControl
from transformers.trainer_jit_checkpoint import CheckpointManager, JITCheckpointCallback

from ..distributed.collectives import world_size


def save_at_the_same_update(trainer: Trainer) -> None:
    """Put an [`AgreedCheckpoint`] in the place of a trainer's `JITCheckpointCallback`, if it has one."""
    callbacks = trainer.callback_handler.callbacks
    for index, callback in enumerate(callbacks):
        if type(callback) is JITCheckpointCallback:
            callback.on_train_end(trainer.args, trainer.state, trainer.control)  # gives the signal back
            callbacks[index] = AgreedCheckpoint()
            callbacks[index].set_trainer(trainer)


class AgreedCheckpoint(JITCheckpointCallback):
    """Saves at the end of an update, the same one on every rank, and stops the training there."""

    def __init__(self) -> None:
        super().__init__()
        self._manager: _Manager | None = None
        self._flag = torch.zeros(1, dtype=torch.int32)
        self._group: Any = None
        self._pending: Any = None
        self._saved = False

    def set_trainer(self, trainer: Trainer) -> None:
        """Listen to the signal from now on."""
        self.trainer = trainer
        self.jit_manager = self._manager = _Manager(trainer)
        self._manager.setup_signal_handler()

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Make the ranks' own line to each other: the flag stays on the CPU, so that no step waits for the device."""
        self._saved, self._pending = False, None
        if world_size() > 1 and self._group is None:
            self._group = dist.new_group(backend="gloo")

    # Transformers' callback saves in these three too.
    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: the update is not applied yet."""

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        """Nothing: a batch of the update would still be trained on after saving."""

    def on_epoch_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Neither evaluate nor save once more: the time may be short, and a half-written checkpoint worth nothing."""
        if self._saved:
            control.should_save = control.should_evaluate = False

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Save and stop if a rank has been preempted."""
        assert self._manager is not None
        self._saved = self._manager.preempted if world_size() == 1 else self._any_was_preempted()
        if not self._saved:
            return
        if control.should_evaluate:
            # An evaluation may take longer than the time that is left, so the checkpoint comes before it.
            self._manager.is_checkpoint_requested = True
            super().on_step_end(args, state, control, **kwargs)
        else:
            # Trainer saves when it has logged the step; the resumed training then has it in its log.
            control.should_save = control.should_training_stop = True

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Give the signal back."""
        if self._pending is not None:
            self._pending.wait()
            self._pending = None
        super().on_train_end(*args, **kwargs)

    def _any_was_preempted(self) -> bool:
        """Whether a rank had been preempted an update ago: the answer to that is here, and nobody waits for it."""
        assert self._manager is not None
        preempted = False
        if self._pending is not None:
            self._pending.wait()
            preempted = bool(self._flag)
        self._flag.fill_(self._manager.preempted)
        self._pending = dist.all_reduce(self._flag, dist.ReduceOp.MAX, group=self._group, async_op=True)
        return preempted


class _Manager(CheckpointManager):
    """Notes that this process was preempted, and leaves it to the callback when to save."""

    def __init__(self, trainer: Trainer) -> None:
        super().__init__(trainer)
        self.preempted = False

    # Called by a timer, after a wait in which a process that is to end at once has ended.
    def _enable_checkpoint(self) -> None:
        self.preempted = True
