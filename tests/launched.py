"""A training for `torchrun`, which notes what it trained on, and may be killed or fail on its second rank.

Usage: launched.py OUTPUT_DIR WHAT
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from hf_kakurenbo import KakurenboTrainer
from toy import LinearClassifier, make_trainer, samples


class Happening(TrainerCallback):
    """What happens to the second rank in the first attempt."""

    def on_step_end(self, args, state, control, **kwargs):
        first_attempt = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
        happens_at = -(-203 // (8 * int(os.environ["WORLD_SIZE"]))) + 3  # in the second epoch
        if state.global_step != happens_at or os.environ["RANK"] != "1" or not first_attempt:
            return
        if sys.argv[2] == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if sys.argv[2] == "fails":
            raise OSError("the disk is gone")


class Noting(KakurenboTrainer):
    """Appends the ids of each batch to a file of this attempt and rank."""

    def training_step(self, model, inputs, *args, **kwargs):
        attempt = f"{os.environ['TORCHELASTIC_RUN_ID']}-{os.environ['TORCHELASTIC_RESTART_COUNT']}"
        note = {"epoch": self._training.run.epoch, "step": self.state.global_step, "ids": inputs["sample_id"].tolist()}
        with Path(sys.argv[1], f"noted-{attempt}-{os.environ['RANK']}").open("a") as file:
            file.write(json.dumps(note) + "\n")
        return super().training_step(model, inputs, *args, **kwargs)


def main():
    torch.set_num_threads(1)
    folder = Path(sys.argv[1]) / "checkpoints"
    options = {"hiding_policy": "first_ids", "num_train_epochs": 3, "save_strategy": "steps", "save_steps": 1}
    trainer = make_trainer(
        folder,
        Noting,
        model=LinearClassifier,
        dataset=samples(203),
        per_device_train_batch_size=8,
        trainer_options={"callbacks": [Happening()]},
        **options,
    )
    saved = any((checkpoint / "trainer_state.json").is_file() for checkpoint in folder.glob("checkpoint-*"))
    trainer.train(resume_from_checkpoint=saved or None)
    if os.environ["RANK"] == "0":
        Path(sys.argv[1], "done").write_text(str(trainer._training.run.trained_samples))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
