"""What hiding adds to a checkpoint of Trainer's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..data import Position
from ..hiding.checkpoint import save_state
from ..hiding.saved_ledger import save_ledger
from ..utils.durable import flush, flush_all
from .batch_sizes import epoch_batch_size, global_batch
from .checkpoints import mark_as_hiding
from .continuity import describe_training
from .state import Training


def save_hiding_state(trainer: Any, training: Training, trial: Any) -> Path:
    """Write the ledger into the checkpoint folder that Trainer is about to fill; a collective call.

    Trainer writes its state last. The ledger goes first: with the state the checkpoint is complete.

    Returns:
        The folder.
    """
    training.barrier.wait("about to save a checkpoint")
    tensors, scalars = training.run.state()
    random_state = training.sampler.random_state
    full_batch_size, accumulation = global_batch(trainer, trainer._train_batch_size)
    batch_size, _ = global_batch(trainer, epoch_batch_size(trainer, training.run))
    samples = training.sampler.samples
    done = min(training.dropped + training.run.batches_done * batch_size, samples)
    scalars["trainer"] = {
        "position": Position(done, samples, batch_size, accumulation, training.dropped, full_batch_size),
        "random_state": random_state.to_json() if random_state else None,
        "unlogged_loss": trainer.accelerator.gather(trainer._tr_loss).mean().item(),
        "last_logged_step": trainer._globalstep_last_logged,
    }
    folder = Path(trainer._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{trainer.state.global_step}"
    if trainer.args.should_save:
        scalars["trainer"]["description"] = describe_training(trainer, training)
        (folder / TRAINER_STATE_NAME).unlink(missing_ok=True)
        save_state(folder, tensors, scalars)
    mark_as_hiding(trainer.state)
    return folder


def save_ledger_beside(trainer: Any, training: Training, output_dir: str | None) -> None:
    """Write the ledger into the folder of a model that was saved; not into a checkpoint, which has all of its state.

    Args:
        trainer: the trainer.
        training: the training under way, or the last one.
        output_dir: as `Trainer.save_model` takes it.
    """
    folder = Path(trainer.args.output_dir if output_dir is None else output_dir)
    if not trainer.args.should_save or folder == training.checkpoint:
        return
    description = {
        "description": describe_training(trainer, training),
        "step": trainer.state.global_step,
        "epochs": [entry for entry in trainer.state.log_history if "kakurenbo/hidden_fraction" in entry],
    }
    save_ledger(folder, training.run.ledger, {**training.run.scalars(), "trainer": description})


@contextmanager
def flushed(trainer: Any, training: Training, folder: Path) -> Iterator[None]:
    """Around `Trainer._save_checkpoint`: all ranks have brought their files to the disk before the state is written.

    So the state, with which a checkpoint is complete, is never there without the other files, also after a loss of
    power; and older checkpoints are removed only when it is there.
    """
    state, written = trainer.state, False

    def write_files() -> None:
        nonlocal written
        written = True
        _flush_own_files(trainer, folder)
        training.barrier.wait("with the files of a checkpoint written")

    def save_to_json(path: str) -> None:
        write_files()
        type(state).save_to_json(state, path)
        flush(path)
        flush(folder)

    state.save_to_json, training.checkpoint = save_to_json, folder
    try:
        yield
        if not written:  # only a rank that saves writes the state
            write_files()
    finally:
        del state.save_to_json
        training.checkpoint = None


def _flush_own_files(trainer: Any, folder: Path) -> None:
    if trainer.args.should_save or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        flush_all(folder)
    else:
        flush(folder / f"rng_state_{trainer.args.process_index}.pth")
