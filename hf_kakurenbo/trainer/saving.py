"""What hiding adds to a checkpoint of Trainer's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data import Position
from ..hiding.checkpoint import save_state
from .checkpoints import mark_as_hiding
from .resuming import global_batch
from .state import Training


def save_hiding_state(trainer: Any, training: Training, trial: Any) -> None:
    """Write the ledger into the checkpoint folder that Trainer is about to fill; a collective call.

    Trainer writes its state last. The ledger goes first: with the state the checkpoint is complete.
    """
    training.roll_call.meet("about to save a checkpoint")
    tensors, scalars = training.run.state()
    random_state = training.sampler.random_state
    batch_size, accumulation = global_batch(trainer)
    samples = training.sampler.samples
    done = min(training.dropped + training.run.batches_done * batch_size, samples)
    scalars["trainer"] = {
        "position": Position(done, samples, batch_size, accumulation, training.dropped),
        "random_state": random_state.to_json() if random_state else None,
        "unlogged_loss": trainer.accelerator.gather(trainer._tr_loss).mean().item(),
        "last_logged_step": trainer._globalstep_last_logged,
    }
    if trainer.args.should_save:
        folder = Path(trainer._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}"
        (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
        save_state(folder, tensors, scalars)
    mark_as_hiding(trainer.state)
