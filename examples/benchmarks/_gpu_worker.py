"""One small training of `_gpu_processes.py`, in a process of its own: `python _gpu_worker.py OPTIONS`, as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _trainings import Images, make_vit
from transformers import PrinterCallback, TrainerCallback, set_seed

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer

SAMPLES, BATCH = 960, 32
KILLED = 9


@dataclass(frozen=True)
class Options:
    """How it trains.

    Args:
        folder: for checkpoints and the outcome.
        rehearse: on the CPU.
        batch_size: of each process.
        deterministic: by deterministic kernels alone, in half precision, with checkpoints.
        killed_after: the step after which the process ends as if it were killed; None to train to the end.
        resumes: continue from the last checkpoint.
        backend: of torch.distributed; None for its own choice.
    """

    folder: str
    rehearse: bool
    batch_size: int = BATCH
    deterministic: bool = False
    killed_after: int | None = None
    resumes: bool = False
    backend: str | None = None


class Killed(TrainerCallback):
    """Ends the process without a word.

    Args:
        step: after which step.
    """

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """End it."""
        if state.global_step == self.step:
            os._exit(KILLED)


def train(options: Options) -> dict[str, Any]:
    """Train, and say what came of it."""
    args = KakurenboConfig(
        output_dir=options.folder,
        num_train_epochs=4,
        per_device_train_batch_size=options.batch_size,
        learning_rate=1e-3,
        max_hidden_fraction=0.3,
        fraction_milestones=[0.0],
        fraction_factors=[1.0],
        move_back=False,
        bf16=options.deterministic,
        use_cpu=options.rehearse,
        full_determinism=options.deterministic,
        ddp_backend=options.backend,
        ddp_find_unused_parameters=False,
        save_strategy="steps" if options.deterministic else "no",
        save_steps=20,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
    )
    set_seed(0)
    torch.use_deterministic_algorithms(options.deterministic)
    trainer = KakurenboTrainer(
        model=make_vit(32, 8, 2, 64, 2),  # whose samples do not depend on their batch
        args=args,
        train_dataset=Images(SAMPLES, 32),
        callbacks=[Killed(options.killed_after)] if options.killed_after else None,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=options.resumes or None)
    ledger = trainer.ledger
    assert ledger is not None
    weights = b"".join(tensor.cpu().numpy().tobytes() for tensor in trainer.model.state_dict().values())
    return {
        "rank": args.process_index,
        "ranks": args.world_size,
        "kind": str(args.distributed_state.distributed_type.value),
        "wrapper": type(trainer.model_wrapped).__name__,
        "device": str(args.device),
        "refreshed": trainer._training.run.refreshed_samples,
        "losses": [entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        "ledger_loss": ledger.loss.tolist(),
        "times_hidden": ledger.times_hidden.tolist(),
        "weights": hashlib.blake2b(weights, digest_size=16).hexdigest(),
    }


def main() -> None:
    """Train by the options of the command line, and write the outcome into their folder."""
    options = Options(**json.loads(sys.argv[1]))
    outcome = train(options)
    name = f"outcome-{outcome['rank']}.json"
    Path(options.folder, name).write_text(json.dumps(outcome), encoding="utf-8")
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
