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
    hiding: an epoch in which a fixed fraction h is hidden, against the ideal (1 − h) + h · (forward ÷ training step).
    selection: choosing what to hide among many samples.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _report import processor, seconds, table, versions
from _trainings import Task, make_tasks, make_trainer
from _turns import Lane, TakeTurns, take_turns, typical
from transformers import Trainer

from hf_kakurenbo import SampleLedger
from hf_kakurenbo.hiding import HidingRun, KakurenboPolicy, forward_only

PACKAGES = ("hf-kakurenbo", "torch", "transformers", "accelerate", "numpy")

# ---- What takes turns ----


def training_lane(task: Task, epochs: int, trainer: Trainer) -> Lane:
    """The lane of a training that ends after some epochs, of the more for which it was made."""

    def run(lane: Lane) -> None:
        trainer.add_callback(TakeTurns(trainer, lane, task.steps_per_turn, epochs))
        trainer.train()

    return Lane(run)


def forward_lane(task: Task, epochs: int, trainer: Trainer) -> Lane:
    """The lane of a plain trainer's model that only looks at its training data, as evaluation does."""

    def run(lane: Lane) -> None:
        # In the precision of the training, and compiled where it is.
        model = trainer.accelerator.prepare_model(trainer.model, evaluation_mode=True)
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


def shuffled(names: Iterable[str], seed: str) -> list[str]:
    """The order in which a round makes its trainings: where in memory one lies can be worth some per cent."""
    names = sorted(names)
    return random.Random(seed).sample(names, len(names))


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
    """Epochs that hide a fixed fraction against a plain epoch, and the estimate that the user is shown."""
    fraction, rows, parts = settings.hidden_fraction, [], []
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
        f"## With {fraction:.0%} hidden\n\n"
        "Time of an epoch (training, refresh, selection, ends), relative to `Trainer`'s.\n\n"
        + table(
            ["network", "forward ÷ step", "achieved", "ideal", "above ideal", "saved, measured", "saved, as logged"],
            rows,
        )
        + "\n\nTarget: at most 1 point above ideal. Where the difference comes from:\n\n"
        + table(["network", "selection, first batch, training steps", "refresh, the ledger, logging"], parts)
    )


def _hiding_round(task: Task, settings: Settings, folder: str) -> dict[str, float]:
    epochs, fraction = settings.epochs + 1, settings.hidden_fraction
    # An epoch more than is run: the last has no refresh.
    options: dict[str, tuple[int, float | None]] = {
        "plain": (epochs + 1, None),
        "hiding": (epochs + 1, fraction),
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
    logged = [entry for entry in trainers["hiding"].state.log_history if "kakurenbo/hidden_fraction" in entry]
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
    return spread([100 * fraction for fraction in shares], "{:+.2f}")


def environment(settings: Settings) -> str:
    """The machine and the versions, as one paragraph."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else processor()
    return (
        f"{device}; {os.cpu_count()} CPU cores, PyTorch on {torch.get_num_threads()} thread(s). "
        f"{versions(PACKAGES)}. Median of {settings.rounds} rounds (interquartile range), "
        f"{settings.epochs} epochs a round."
    )


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
    parser.add_argument(
        "--hidden-fraction", type=float, default=0.3, help="the fraction hidden in `hiding`; default 0.3"
    )
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
