"""A training that is killed at one of the many moments at which it could be."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from transformers import TrainerCallback, TrainerState

from hf_kakurenbo.hiding import HidingRun, checkpoint
from toy import losses, make_trainer, without_timings


class Fuse(TrainerCallback):
    """Counts the moments of a training, and kills the process at a chosen one.

    Args:
        kill_at: the index of the moment; None lets the training run.
    """

    def __init__(self, kill_at: int | None) -> None:
        self.kill_at = kill_at
        self.moments: list[str] = []

    def moment(self, name: str, half_written: Any = None) -> None:
        """One more moment; if it is the last one, a file may be left half written."""
        self.moments.append(name)
        if self.kill_at is not None and len(self.moments) > self.kill_at:
            if half_written is not None and Path(half_written).is_file():
                os.truncate(half_written, Path(half_written).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.moment("in the epoch")

    def on_substep_end(self, *args: Any, **kwargs: Any) -> None:
        self.moment("in the epoch")

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.moment("in the epoch")

    def on_epoch_end(self, *args: Any, **kwargs: Any) -> None:
        self.moment("at the end of an epoch")

    def on_evaluate(self, *args: Any, **kwargs: Any) -> None:
        self.moment("at the end of an epoch")

    def on_save(self, *args: Any, **kwargs: Any) -> None:
        self.moment("after saving")

    def light(self) -> None:
        """Watch the writing of files and the refresh. Only for a process that ends with the training."""
        save, save_file, save_to_json = torch.save, safetensors.torch.save_file, TrainerState.save_to_json
        record, refreshing, rmtree = HidingRun.record, HidingRun.refreshing, shutil.rmtree
        in_refresh: list[bool] = []

        def watched(write: Any, path_argument: int) -> Any:
            def write_and_count(*args: Any, **kwargs: Any) -> Any:
                self.moment("while saving")
                result = write(*args, **kwargs)
                self.moment("while saving", half_written=args[path_argument])
                return result

            return write_and_count

        def watched_record(run: HidingRun, *args: Any) -> None:
            record(run, *args)
            if in_refresh:
                self.moment("in the refresh")

        def watched_rmtree(folder: Any, *args: Any, **kwargs: Any) -> None:
            files = sorted(file for file in Path(folder).rglob("*") if file.is_file())
            self.moment("while rotating")
            for file in files[: len(files) // 2]:
                file.unlink()
            self.moment("while rotating")
            rmtree(folder, *args, **kwargs)

        class WatchedRefresh:
            def __init__(self, run: HidingRun) -> None:
                self.inner = refreshing(run)

            def __enter__(self) -> torch.Tensor:
                in_refresh.append(True)
                return self.inner.__enter__()

            def __exit__(self, *error: Any) -> None:
                self.inner.__exit__(*error)
                in_refresh.clear()

        torch.save = watched(save, 1)
        safetensors.torch.save_file = checkpoint.save_file = watched(save_file, 1)
        TrainerState.save_to_json = watched(save_to_json, 1)
        shutil.rmtree = watched_rmtree
        HidingRun.record, HidingRun.refreshing = watched_record, lambda run: WatchedRefresh(run)


def train(output_dir: Path, options: dict[str, Any], kill_at: int | None = None, resume: bool = False) -> Any:
    """Train from the start or from the last checkpoint, perhaps to the moment of being killed."""
    fuse = Fuse(kill_at)
    fuse.light()
    options = dict(options)
    trainer_options = {**options.pop("trainer_options", {}), "callbacks": [fuse]}
    trainer = make_trainer(output_dir, trainer_options=trainer_options, **options)
    saved = any((folder / "trainer_state.json").is_file() for folder in Path(output_dir).glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=True if resume and saved else None)
    return {
        "moments": fuse.moments,
        "weights": trainer.model.state_dict(),
        "ledger": trainer.ledger.state_dict(),
        "losses": losses(trainer),
        # Of a resumed training, Trainer reports the mean loss of the steps after the resumption.
        "log": [entry for entry in without_timings(trainer.state.log_history) if "train_loss" not in entry],
        "rates": trainer._get_learning_rate(),
        "step": trainer.state.global_step,
        "max_steps": trainer.state.max_steps,
        "best_step": trainer.state.best_global_step,
    }
