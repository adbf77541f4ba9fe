"""What hiding costs beside a plain `Trainer`, and what it saves: everything side by side in one run, as ratios.

```
python examples/benchmarks/overhead.py                              # all parts, about ten minutes on two cores
python examples/benchmarks/overhead.py nothing-hidden --rounds 9    # one part
python examples/benchmarks/overhead.py --quick                      # a smoke test of all parts, under a minute
```

The trainings that are compared run in one process and take turns, a few steps each, in an order drawn anew for every
turn, so that whatever else happens on the machine meets all of them alike. Each is in a thread of its own, and only
one thread runs at a time. A figure of one round is a median over its turns; a round starts with new trainers; the
tables give the median of the rounds and, behind it in brackets, their interquartile range. One of the trainings is a
second plain `Trainer`: its difference to the first is the noise.

Parts:
    nothing-hidden: `KakurenboTrainer` that hides nothing, against `Trainer`.
    hiding: an epoch in which a fixed share h is hidden, against the ideal (1 − h) + h · (forward ÷ training step).
    selection: choosing what to hide among many samples.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    set_seed,
)

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer, SampleLedger
from hf_kakurenbo.hiding import HidingRun, KakurenboPolicy, forward_only

NUM_CLASSES = 10
PACKAGES = ("hf-kakurenbo", "torch", "transformers", "accelerate", "numpy")

# ---- What is trained ----


class Images(Dataset[dict[str, Any]]):
    """As many images of noise as one asks for, a few of them over and over: only the time of a training matters.

    Args:
        count: how many there are.
        size: of an image, in pixels.
    """

    def __init__(self, count: int, size: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.count = count
        self.images = torch.rand(min(count, 256), 3, size, size, generator=generator)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": self.images[index % len(self.images)], "labels": index % NUM_CLASSES}


class ToyNetwork(nn.Module):
    """Convolutions with BatchNorm, each but the first halving the image, an average over it, a linear layer.

    Args:
        widths: the channels after each convolution.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for after in widths:
            layers += [nn.Conv2d(before, after, 3, 2 if layers else 1, 1), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, NUM_CLASSES))

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Logits (B, C) and the mean cross entropy."""
        logits = self.layers(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@dataclass(frozen=True)
class Task:
    """A network, its images, and how its trainings take turns."""

    name: str
    make_model: Callable[[], nn.Module]
    image_size: int
    batch_size: int
    steps_per_turn: int
    steps_per_epoch: int
    target: float | None
    """By how much `KakurenboTrainer` may be slower with nothing hidden; None where it is only shown."""

    def dataset(self) -> Images:
        """Whole batches, so that an epoch has no short last one."""
        return Images(self.steps_per_epoch * self.batch_size, self.image_size)


def make_tasks(quick: bool) -> list[Task]:
    """A ViT, a toy, and a network that takes next to no time.

    On a GPU the ViT is DeiT-Tiny at 224 pixels, on a CPU one whose step takes a tenth of a second.
    """
    if torch.cuda.is_available():
        vit = Task("DeiT-Tiny, 224 px", lambda: make_vit(224, 16, 12, 192, 3), 224, 128, 1, 20, 0.01)
    else:
        vit = Task("ViT, 4 layers of 128, 48 px", lambda: make_vit(48, 6, 4, 128, 4), 48, 16, 1, 20, 0.01)
    if quick:
        vit = Task("ViT, 2 layers of 64, 32 px", lambda: make_vit(32, 8, 2, 64, 2), 32, 8, 1, 10, 0.01)
    turn, epoch = (2, 10) if quick else (5, 50)
    toy = Task("toy: 4 convolutions, 32 px", lambda: ToyNetwork((32, 48, 64, 96)), 32, 64, turn, epoch, 0.02)
    tiny = Task("tiny: 2 convolutions, 32 px", lambda: ToyNetwork((8, 16)), 32, 32, 5 * turn, 4 * epoch, None)
    return [vit, toy, tiny]


def make_vit(image_size: int, patch_size: int, layers: int, width: int, heads: int) -> nn.Module:
    """A ViT with random weights."""
    config = ViTConfig(
        image_size=image_size,
        patch_size=patch_size,
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=heads,
        num_labels=NUM_CLASSES,
    )
    return ViTForImageClassification(config)


def make_trainer(task: Task, epochs: int, folder: str, hidden_fraction: float | None = None) -> Trainer:
    """A quiet trainer that neither evaluates nor saves.

    Args:
        task: what it trains.
        epochs: for how many epochs.
        folder: its output directory.
        hidden_fraction: the share that `KakurenboTrainer` hides in every epoch but the first, whatever the model
            knows; None for a plain `Trainer`.
    """
    set_seed(0)
    options: dict[str, Any] = {
        "output_dir": folder,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": task.batch_size,
        "learning_rate": 1e-4,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    kind: type[Trainer] = Trainer
    args: TrainingArguments
    if hidden_fraction is None:
        args = TrainingArguments(**options)
    else:
        kind = KakurenboTrainer
        schedule = {"fraction_milestones": [0.0], "fraction_factors": [1.0], "move_back": False}
        args = KakurenboConfig(**options, **schedule, max_hidden_fraction=hidden_fraction)
    trainer = kind(model=task.make_model(), args=args, train_dataset=task.dataset())
    trainer.remove_callback(PrinterCallback)
    return trainer


# ---- Taking turns ----


class Lane:
    """A function in a thread of its own that runs only while `advance` waits for its next pause.

    Args:
        function: what to run; it is handed the lane and calls its `pause`.
    """

    def __init__(self, function: Callable[[Lane], None]) -> None:
        self.finished = False
        self.at_epoch_end = False
        self._error: BaseException | None = None
        self._seconds = 0.0
        self._since = 0.0
        self._may_run, self._has_paused = threading.Semaphore(0), threading.Semaphore(0)
        self._threads = torch.get_num_threads()  # PyTorch keeps it for each thread
        threading.Thread(target=self._run, args=(function,), daemon=True).start()

    def advance(self) -> float:
        """Let it run to its next pause, or to its end; the seconds that this took.

        Raises:
            RuntimeError: it failed; the cause is attached.
        """
        self._may_run.release()
        self._has_paused.acquire()
        if self._error is not None:
            raise RuntimeError("A training failed.") from self._error
        return self._seconds

    def pause(self, at_epoch_end: bool = False) -> None:
        """Called by the function: stop here until the next turn."""
        _synchronize()
        self._seconds = time.perf_counter() - self._since
        self.at_epoch_end = at_epoch_end
        self._has_paused.release()
        self._may_run.acquire()
        self._since = time.perf_counter()

    def _run(self, function: Callable[[Lane], None]) -> None:
        self._may_run.acquire()
        torch.set_num_threads(self._threads)
        self._since = time.perf_counter()
        try:
            function(self)
        except BaseException as error:
            self._error = error
        self.finished = True
        self._has_paused.release()


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class TakeTurns(TrainerCallback):
    """Pauses a training every few steps and at the end of each epoch, and ends it after some epochs.

    Args:
        trainer: whose training it is; its clock, if it hides, stands still while the others run.
        lane: the lane in which it runs.
        steps_per_turn: how many steps it runs at a time.
        epochs: after how many epochs it ends.
    """

    def __init__(self, trainer: Any, lane: Lane, steps_per_turn: int, epochs: int) -> None:
        self.trainer, self.lane = trainer, lane
        self.steps_per_turn, self.epochs_left = steps_per_turn, epochs
        self.steps_in_epoch = 0

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Pause if it is time to."""
        self.steps_in_epoch += 1
        if self.steps_in_epoch % self.steps_per_turn == 0:
            training = getattr(self.trainer, "_training", None)
            with training.run.clock_stopped() if training is not None else nullcontext():
                self.lane.pause()

    def on_epoch_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Pause after everything that hiding does in this event, since this callback is the last."""
        self.steps_in_epoch = 0
        self.epochs_left -= 1
        control.should_training_stop = self.epochs_left == 0
        self.lane.pause(at_epoch_end=True)


def training_lane(task: Task, epochs: int, trainer: Trainer) -> Lane:
    """The lane of a training that ends after some epochs, of the more for which it was made."""

    def run(lane: Lane) -> None:
        trainer.add_callback(TakeTurns(trainer, lane, task.steps_per_turn, epochs))
        trainer.train()

    return Lane(run)


def forward_lane(task: Task, epochs: int, trainer: Trainer) -> Lane:
    """The lane of a plain trainer's model that only looks at its training data, as evaluation does."""

    def run(lane: Lane) -> None:
        model = trainer.model
        loader = trainer.get_train_dataloader()
        for _ in range(epochs):
            with forward_only(model):
                for index, batch in enumerate(loader, start=1):
                    inputs = trainer._prepare_inputs(batch)
                    with trainer.compute_loss_context_manager():
                        trainer.compute_loss(model, inputs)
                    if index % task.steps_per_turn == 0:
                        lane.pause()
            lane.pause(at_epoch_end=True)

    return Lane(run)


Epoch = list[float]
"""The seconds of each stretch of an epoch: one for every turn, then one from the last step to the epoch's end."""


def take_turns(lanes: dict[str, Lane], epochs: int) -> dict[str, list[Epoch]]:
    """Run every lane for so many epochs, a turn each in random order; none begins an epoch before all ended theirs."""
    order = random.Random(0)
    measured: dict[str, list[Epoch]] = {name: [] for name in lanes}
    for _ in range(epochs):
        for of_lane in measured.values():
            of_lane.append([])
        under_way = list(lanes)
        while under_way:
            for name in order.sample(under_way, len(under_way)):
                measured[name][-1].append(lanes[name].advance())
            under_way = [name for name in under_way if not lanes[name].at_epoch_end]
    for lane in lanes.values():
        while not lane.finished:
            lane.advance()
    return measured


def shuffled(names: Iterable[str], seed: str) -> list[str]:
    """The order in which a round makes its trainings: where in memory one lies can be worth some per cent."""
    names = sorted(names)
    return random.Random(seed).sample(names, len(names))


def typical(epochs: Sequence[Epoch]) -> np.ndarray:
    """The epoch as it usually goes: of each of its stretches the median over the epochs."""
    return np.median(np.array(epochs), axis=0)


# ---- Parts ----


@dataclass(frozen=True)
class Settings:
    """How long to measure."""

    rounds: int
    epochs: int
    quick: bool
    hidden_fraction: float


def rounds(settings: Settings, part: str, task: Task) -> Iterator[str]:
    """A folder for each round."""
    for index in range(settings.rounds):
        print(f"{part}, {task.name}: round {index + 1} of {settings.rounds}", flush=True)
        gc.collect()
        with tempfile.TemporaryDirectory() as folder:
            yield folder


def nothing_hidden(settings: Settings) -> str:
    """`KakurenboTrainer(max_hidden_fraction=0)` and a second `Trainer` against `Trainer`."""
    rows = []
    for task in make_tasks(settings.quick):
        found = [_nothing_hidden_round(task, settings, folder) for folder in rounds(settings, "nothing-hidden", task)]
        step = np.median([figures["step"] for figures in found])
        for name, label in (("other", "`Trainer` again (noise)"), ("hiding", "`KakurenboTrainer`, F = 0")):
            rows.append(
                [
                    task.name,
                    label,
                    f"{step * 1e3:.2f} ms",
                    difference([figures[f"{name} turn"] for figures in found]),
                    difference([figures[f"{name} epoch"] for figures in found]),
                    f"≤ {task.target:.0%}" if name == "hiding" and task.target is not None else "",
                ]
            )
    steps = " and ".join(f"{task.steps_per_epoch} ({task.name})" for task in make_tasks(settings.quick))
    return (
        "## Nothing hidden\n\n"
        + table(
            ["network", "against `Trainer`", "step of `Trainer`", "a step", "an epoch, its ends included", "target"],
            rows,
        )
        + f"\n\nSteps in an epoch: {steps}; the longer an epoch, the less its ends weigh."
    )


def _nothing_hidden_round(task: Task, settings: Settings, folder: str) -> dict[str, float]:
    epochs = settings.epochs + 1
    fractions = {"plain": None, "other": None, "hiding": 0.0}
    lanes = {
        name: training_lane(task, epochs, make_trainer(task, epochs + 1, folder, fractions[name]))
        for name in shuffled(fractions, folder)
    }
    measured = {name: found[1:] for name, found in take_turns(lanes, epochs).items()}  # the first warms up
    plain = np.array(measured["plain"])
    figures = {"step": float(np.median(plain[:, 1:-1])) / task.steps_per_turn}
    for name in ("other", "hiding"):
        turns = np.array(measured[name])[:, 1:-1] / plain[:, 1:-1]  # without an epoch's first turn and its end
        figures[f"{name} turn"] = float(np.median(turns))
        figures[f"{name} epoch"] = typical(measured[name]).sum() / typical(measured["plain"]).sum()
    return figures


def hiding(settings: Settings) -> str:
    """Epochs that hide a fixed share against a plain epoch, and the estimate that the user is shown."""
    share, rows, parts = settings.hidden_fraction, [], []
    for task in make_tasks(settings.quick):
        found = [_hiding_round(task, settings, folder) for folder in rounds(settings, "hiding", task)]
        of = {name: [figures[name] for figures in found] for name in found[0]}
        rows.append(
            [
                task.name,
                spread(of["forward"], "{:.3f}"),
                spread(of["achieved"], "{:.3f}"),
                spread(of["ideal"], "{:.3f}"),
                points([figures["achieved"] - figures["ideal"] for figures in found]),
                spread(of["saved"], "{:.1%}"),
                spread(of["estimate"], "{:.1%}"),
            ]
        )
        parts.append([task.name, *(points(of[name]) for name in ("training", "refresh"))])
    return (
        f"## With {share:.0%} hidden\n\n"
        "Time of an epoch (training, refresh, selection, ends), relative to `Trainer`'s.\n\n"
        + table(
            ["network", "forward ÷ step", "achieved", "ideal", "above ideal", "saved, measured", "saved, as logged"],
            rows,
        )
        + "\n\nTarget: at most 1 point above ideal. Where the difference comes from:\n\n"
        + table(["network", "selection, first batch, training steps", "refresh, the ledger, logging"], parts)
    )


def _hiding_round(task: Task, settings: Settings, folder: str) -> dict[str, float]:
    epochs, share = settings.epochs + 1, settings.hidden_fraction
    # An epoch more than is run: the last has no refresh.
    options: dict[str, tuple[int, float | None]] = {
        "plain": (epochs + 1, None),
        "hiding": (epochs + 1, share),
        "forward": (1, None),
    }
    trainers = {
        name: make_trainer(task, options[name][0], folder, options[name][1]) for name in shuffled(options, folder)
    }
    lanes = {
        name: (forward_lane if name == "forward" else training_lane)(task, epochs, trainer)
        for name, trainer in trainers.items()
    }
    measured = {name: found[1:] for name, found in take_turns(lanes, epochs).items()}  # the first hides nothing
    logged = [entry for entry in trainers["hiding"].state.log_history if "kakurenbo/time_saved" in entry]
    hidden = logged[1]["kakurenbo/hidden_fraction"]
    plain, with_hiding, forward = (typical(measured[name]) for name in ("plain", "hiding", "forward"))
    sums = {name: np.array([sum(epoch) for epoch in found]) for name, found in measured.items()}
    estimates = np.diff([entry["kakurenbo/time_saved"] for entry in logged])
    return {
        "forward": forward.sum() / plain.sum(),
        "achieved": with_hiding.sum() / plain.sum(),
        "ideal": 1 - hidden + hidden * forward.sum() / plain.sum(),
        "saved": float(np.median(1 - sums["hiding"] / sums["plain"])),
        "estimate": float(np.median(estimates / sums["plain"])),
        "training": with_hiding[:-1].sum() / plain.sum() - (1 - hidden),
        "refresh": (with_hiding[-1] - hidden * forward.sum()) / plain.sum(),
    }


def selection(settings: Settings) -> str:
    """The selection of an epoch among ever more samples, 30 % of them candidates."""
    sizes = [130_000, 1_300_000] if settings.quick else [1_300_000, 14_000_000, 100_000_000]
    rows = []
    for count in sizes:
        print(f"selection, {count:,} samples", flush=True)
        if count >= 100_000_000 and (free := free_memory()) is not None and free < 8e9:
            rows.append([f"{count:,}", f"skipped: {free / 1e9:.1f} GB of memory are free, 8 wanted", "", "", "", ""])
            continue
        rows.append(_selection_row(count, settings.rounds))
    return (
        "## Selection\n\n"
        + table(
            ["samples", "`select`", "with the rest of `begin_epoch`", "a plain sort", "ledger", "memory in `select`"],
            rows,
        )
        + "\n\nTarget: 14 million under 0.1 s, at most 12 bytes a sample. Memory in `select`: the rise of the "
        "process's largest resident size (`VmHWM`) while it runs, the mask it returns included."
    )


def _selection_row(count: int, times: int) -> list[str]:
    run = HidingRun(count, KakurenboPolicy(hiding_warmup_epochs=0), ledger_precision="full")
    _fill(run.ledger)
    chosen = [seconds(lambda: run.policy.select(run.ledger, 1, 0.0)) for _ in range(times)]
    begun = [seconds(lambda: (run.begin_epoch(1, 0.0), run.ledger.digest())) for _ in range(times)]
    loss = run.ledger.loss.numpy()
    in_order = [seconds(lambda: np.argsort(loss))] if count < 100_000_000 else []
    memory = extra_memory(lambda: run.policy.select(run.ledger, 1, 0.0))
    return [
        f"{count:,}",
        spread(chosen, "{:.3f} s"),
        spread(begun, "{:.3f} s"),
        f"{in_order[0]:.2f} s" if in_order else "–",
        f"{run.ledger.nbytes / count:g} bytes a sample",
        "–" if memory is None else f"{memory / count:.1f} bytes a sample",
    ]


def _fill(ledger: SampleLedger) -> None:
    """Losses as late in a training: log-normal; 80 % of the samples right, most of them with confidence."""
    generator = np.random.default_rng(0)
    loss, confidence = ledger.loss.numpy(), ledger.confidence.numpy()
    generator.standard_normal(dtype=np.float32, out=loss)
    loss *= 1.5
    loss -= 1
    np.exp(loss, out=loss)
    generator.random(dtype=np.float32, out=confidence)
    np.sqrt(confidence, out=confidence)
    ledger.correct.numpy()[:] = generator.random(len(ledger), dtype=np.float32) < 0.8


# ---- Figures ----


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def extra_memory(function: Callable[[], Any]) -> int | None:
    """By how many bytes the process grows, at most, during a call; None where Linux does not say."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from now on
        before = _status_bytes("VmRSS")
        result = function()
        return _status_bytes("VmHWM") - before + 0 * (result is None)
    except OSError:
        return None


def free_memory() -> int | None:
    """Bytes of memory that are free; None where Linux does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def spread(values: Sequence[float], form: str) -> str:
    """Median and interquartile range."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return f"{form.format(middle)} ({form.format(low)} to {form.format(high)})"


def difference(ratios: Sequence[float]) -> str:
    """By how much something is slower."""
    return spread([ratio - 1 for ratio in ratios], "{:+.2%}")


def points(shares: Sequence[float]) -> str:
    """Differences of shares, in percentage points."""
    return spread([100 * share for share in shares], "{:+.2f}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def environment(settings: Settings) -> str:
    """The machine and the versions, as one paragraph."""
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return (
        f"{device_name()}; {os.cpu_count()} CPU cores, PyTorch on {torch.get_num_threads()} thread(s). "
        f"Python {platform.python_version()}, {packages}. Median of {settings.rounds} rounds (interquartile range), "
        f"{settings.epochs} epochs a round."
    )


def device_name() -> str:
    """The GPU, or else the CPU."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


PARTS: dict[str, Callable[[Settings], str]] = {
    "nothing-hidden": nothing_hidden,
    "hiding": hiding,
    "selection": selection,
}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure what hiding costs and saves, side by side with Trainer.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one or more of: {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a smoke test: tiny, under a minute, figures worth little")
    parser.add_argument("--rounds", type=int, help="how often each figure is measured; 7 by default, quick 2")
    parser.add_argument("--epochs", type=int, help="epochs measured in each round; 6 by default, quick 2")
    parser.add_argument("--hidden-fraction", type=float, default=0.3, help="the share hidden in `hiding`; default 0.3")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch; 1 by default, the least noisy")
    parser.add_argument("--output", type=Path, help="a file for the Markdown, beside printing it")
    args = parser.parse_args()
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    return args


def main() -> None:
    """Measure the parts asked for and print their tables."""
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    settings = Settings(
        rounds=args.rounds or (2 if args.quick else 7),
        epochs=args.epochs or (2 if args.quick else 6),
        quick=args.quick,
        hidden_fraction=args.hidden_fraction,
    )
    tables = [PARTS[part](settings) for part in args.parts or PARTS]
    markdown = "\n\n".join([environment(settings), *tables])
    print(f"\n{markdown}")
    if args.output:
        args.output.write_text(markdown + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
