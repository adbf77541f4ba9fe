"""What a step and an epoch take beside Trainer on a GPU, of images that are on it already, in half precision."""

from __future__ import annotations

import gc
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _gpu_stages import Result, Setting
from _trainings import Task, make_trainer, make_vit
from _turns import take_turns, typical
from overhead import forward_lane, shuffled, training_lane
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, Trainer, TrainerCallback, TrainerControl

# The first epoch compiles and hides nothing; the second has the first refresh and, compiled, another last batch.
_WARM_UP_EPOCHS = 2


def make_task(setting: Setting, network: str, compiles: bool = False) -> Task:
    """A training of `"vit"`, ViT-S/16, or `"resnet"`, ResNet-50, at 224 px in batches of 256, or something small."""
    options: dict[str, Any] = {"bf16": True, "use_cpu": setting.rehearse}
    if compiles:
        backend = {"torch_compile_backend": "aot_eager"} if setting.rehearse else {}
        options |= {"torch_compile": True, **backend}
    if setting.rehearse:
        make_model = (
            (lambda: make_vit(16, 8, 1, 16, 2)) if network == "vit" else (lambda: make_resnet([8, 16], [1, 1], 8))
        )
        return Task(network, make_model, 16, 4, 2, 10, 0.01, options)
    make_model = (lambda: make_vit(224, 16, 12, 384, 6)) if network == "vit" else make_resnet
    return Task(network, make_model, 224, 256, 5, 30, 0.01, options, setting.device)


def make_resnet(widths: list[int] | None = None, depths: list[int] | None = None, first: int = 64) -> nn.Module:
    """A ResNet with random weights; without arguments ResNet-50."""
    sizes = {} if widths is None else {"hidden_sizes": widths, "depths": depths, "embedding_size": first}
    return ResNetForImageClassification(ResNetConfig(num_labels=10, **sizes))


def measure_steps(setting: Setting, network: str, compiles: bool = False) -> Result:
    """A step with nothing hidden, and an epoch with a fraction hidden, against Trainer, in turns.

    Returns:
        `step_seconds` of Trainer; `again` and `nothing_hidden`, the step of a second Trainer and of one that hides
        nothing as a fraction of it; `epoch_nothing_hidden`; `hidden`, the fraction hidden; `forward`, `ideal`,
        `achieved`: of an epoch; `first_epochs`: seconds of the epochs that are not counted, of Trainer and with hiding.
        Each is a list, a number for each round.
    """
    task = make_task(setting, network, compiles)
    # A fraction that leaves whole batches, or, compiled, one that does not: batches of another size are compiled anew.
    fraction, rounds = (0.31 if compiles else 0.3), (1 if compiles or setting.rehearse else 2)
    # Five trainings share the code that is compiled; by default it is compiled for eight cases, and then no more.
    torch._dynamo.config.recompile_limit = 64
    found: list[Result] = []
    for number in range(rounds):
        gc.collect()
        with tempfile.TemporaryDirectory() as folder:
            found.append(_round(task, fraction, 1 if setting.rehearse else 3, folder, str(number)))
    return {name: [one[name] for one in found] for name in found[0]}


def _round(task: Task, fraction: float, measured_epochs: int, folder: str, seed: str) -> Result:
    epochs = _WARM_UP_EPOCHS + measured_epochs
    kinds = {"plain": None, "again": None, "nothing hidden": 0.0, "hiding": fraction, "forward": None}
    trainers = {name: make_trainer(task, epochs + 1, folder, kinds[name]) for name in shuffled(kinds, seed)}
    lanes = {
        name: (forward_lane if name == "forward" else training_lane)(task, epochs, trainer)
        for name, trainer in trainers.items()
    }
    whole = take_turns(lanes, epochs)
    logged = [entry for entry in trainers["hiding"].state.log_history if "kakurenbo/hidden_fraction" in entry]
    return {**_figures(task, whole, logged[1]["kakurenbo/hidden_fraction"]), **_warm_up(whole)}


def _figures(task: Task, whole: dict[str, list[list[float]]], hidden: float) -> Result:
    measured = {name: epochs[_WARM_UP_EPOCHS:] for name, epochs in whole.items()}
    plain, epoch = np.array(measured["plain"]), {name: typical(epochs).sum() for name, epochs in measured.items()}

    def step(name: str) -> float:
        # Without an epoch's first turn and its end.
        return float(np.median(np.array(measured[name])[:, 1:-1] / plain[:, 1:-1]))

    forward = epoch["forward"] / epoch["plain"]
    return {
        "step_seconds": float(np.median(plain[:, 1:-1])) / task.steps_per_turn,
        "again": step("again"),
        "nothing_hidden": step("nothing hidden"),
        "epoch_nothing_hidden": epoch["nothing hidden"] / epoch["plain"],
        "hidden": hidden,
        "forward": forward,
        "ideal": 1 - hidden + hidden * forward,
        "achieved": epoch["hiding"] / epoch["plain"],
    }


def _warm_up(whole: dict[str, list[list[float]]]) -> Result:
    return {
        "first_epochs": {
            name: sum(map(sum, whole[name][:_WARM_UP_EPOCHS])) for name in ("plain", "nothing hidden", "hiding")
        }
    }


# ---- Synchronizations ----


class SynchronizationCounter(TrainerCallback):
    """Counts, in some of the steps of a training, where the host waits for the device, as PyTorch says it.

    Args:
        first: the number of the first of these steps, from 0.
        steps: how many they are.

    Attributes:
        found: how often each line made it wait.
    """

    def __init__(self, first: int, steps: int) -> None:
        self.first, self.steps, self.done = first, steps, 0
        self.found: Counter[str] = Counter()
        self._catcher: Any = None
        self._caught: list[warnings.WarningMessage] = []

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Begin or end to listen."""
        self.done += 1
        if self.done == self.first:
            self._catcher = warnings.catch_warnings(record=True)
            self._caught = self._catcher.__enter__()
            warnings.simplefilter("always")
            _report_synchronizations(True)
        elif self.done == self.first + self.steps:
            _report_synchronizations(False)
            self._catcher.__exit__(None, None, None)
            told = [warning for warning in self._caught if "synchroniz" in str(warning.message)]
            self.found.update(f"{Path(warning.filename).name}:{warning.lineno}" for warning in told)


def _report_synchronizations(reports: bool) -> None:
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode("warn" if reports else "default")


def count_synchronizations(setting: Setting) -> Result:
    """How often the host waits for the device in a step, of Trainer and with a fraction hidden, and where.

    Returns:
        Of each way of copying batches: `steps` that were listened to, and the lines with their counts.
    """
    found: Result = {"counted": torch.cuda.is_available()}
    for copying in ("blocking", "non_blocking"):
        for name, fraction in (("Trainer", None), ("hiding", 0.3)):
            found[f"{name}, {copying}"] = _count(setting, fraction, copying == "non_blocking")
    return found


def _count(setting: Setting, fraction: float | None, non_blocking: bool) -> Result:
    base = make_task(setting, "vit")
    # Batches from the CPU, as most are; smaller, since only the waits are counted.
    options = {**base.options, "accelerator_config": {"non_blocking": non_blocking}}
    task = Task(
        base.name, base.make_model, base.image_size, base.batch_size // 4, 1, base.steps_per_epoch, None, options
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer: Trainer = make_trainer(task, 2, folder, fraction)
        # In the second epoch, behind the batches whose losses are compared.
        counter = SynchronizationCounter(task.steps_per_epoch + 2, 4)
        trainer.add_callback(counter)
        trainer.train()
    return {"steps": counter.steps, "lines": dict(counter.found)}
