"""DeepSpeed on the CPU, over gloo: configurations, and one way to train with them and to read the rates in effect."""

import math
from collections import defaultdict
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import Trainer

from hf_kakurenbo import KakurenboTrainer
from toy import LinearClassifier, epochs, losses, make_trainer

FULL_UPDATES, TOTAL, WARMUP, RATE = 13, 52, 5, 1e-2
"""Of four epochs of 203 samples in batches of 16 on all ranks."""


def warmup_decay(step: int) -> float:
    """What DeepSpeed's `WarmupDecayLR` multiplies its rate by after so many steps: the first has no effect."""
    if step == 0:
        return 0.0
    if step - 1 < WARMUP:
        return math.log(step) / math.log(WARMUP)
    return (TOTAL - (step - 1)) / (TOTAL - WARMUP)


class WarmupDecayTrainer(KakurenboTrainer):
    """Has the schedule of `WarmupDecayLR` without DeepSpeed."""

    def create_scheduler(self, num_training_steps, optimizer=None):
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, warmup_decay)
        return self.lr_scheduler


TRAINERS = {"plain": Trainer, "hiding": KakurenboTrainer, "own scheduler": WarmupDecayTrainer}

# PyTorch's AdamW: DeepSpeed's own would have to be compiled.
OPTIMIZER = {"type": "AdamW", "params": {"lr": "auto", "weight_decay": "auto", "torch_adam": True}}
WARMUP_DECAY = {
    "type": "WarmupDecayLR",
    "params": dict.fromkeys(["total_num_steps", "warmup_min_lr", "warmup_max_lr", "warmup_num_steps"], "auto"),
}


def configuration(stage: int, *, optimizer: bool = False, scheduler: dict[str, Any] | None = None) -> dict[str, Any]:
    """A DeepSpeed configuration, with an `optimizer` and a `scheduler` block or without."""
    automatic = ["train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "train_batch_size"]
    made = {
        **dict.fromkeys([*automatic, "gradient_clipping"], "auto"),
        "zero_optimization": {"stage": stage},
        "zero_force_ds_cpu_optimizer": False,
    }
    if optimizer:
        made["optimizer"] = OPTIMIZER
    if scheduler:
        made["scheduler"] = scheduler
    return made


def take_cpu() -> None:
    """Have DeepSpeed compute on the CPU also where there is a GPU, with nothing that would have to be compiled."""
    import deepspeed
    from deepspeed.accelerator import set_accelerator
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    set_accelerator(CPU_Accelerator())
    deepspeed.ops.__compatible_ops__ = {}


def rates_of_updates(trainer: Trainer) -> dict[int, set[float]]:
    """The rates of all groups at each update, as they are when an optimizer steps; filled while training."""
    used: dict[int, set[float]] = defaultdict(set)

    def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        used[trainer.state.global_step].update(float(group["lr"]) for group in optimizer.param_groups)

    register_optimizer_step_pre_hook(note)
    return used


def weights_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """The weights, gathered from all ranks where ZeRO-3 has sharded them."""
    weights = dict(trainer.model.named_parameters())
    if not trainer.is_deepspeed_enabled:
        return {name: weight.detach().clone() for name, weight in weights.items()}
    import deepspeed

    with deepspeed.zero.GatheredParameters(list(weights.values())):
        return {name: weight.detach().clone() for name, weight in weights.items()}


def outcome(output_dir: Any, kind: str, options: dict[str, Any], resume_from_checkpoint: Any = None) -> dict[str, Any]:
    """Train, and bring home what the tests look at."""
    if "deepspeed" in options:
        take_cpu()
    defaults = {"model": LinearClassifier, "warmup_steps": WARMUP, "learning_rate": RATE, "optim": "adamw_torch"}
    trainer = make_trainer(output_dir, TRAINERS[kind], **{**defaults, **options})
    used = rates_of_updates(trainer)
    trainer.train(resume_from_checkpoint)
    ledger = getattr(trainer, "ledger", None)
    return {
        "rates": [sorted(used[update]) for update in sorted(used)],
        "logged": [entry["learning_rate"] for entry in losses(trainer)],
        "scales": [entry["kakurenbo/lr_scale"] for entry in epochs(trainer)],
        "hidden": trainer.watch.hidden,
        "ledger": ledger.state_dict() if ledger else None,
        "weights": weights_of(trainer),
        "step": trainer.state.global_step,
    }
