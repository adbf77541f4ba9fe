"""Draws saving.png beside itself, from `docs/comparison/real_tasks.csv`: `python docs/images/saving.py`.

What each method trains on, and the test accuracy that it reaches, each above its compute-matched baseline: a shorter
training without hiding. It needs matplotlib.
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from hf_kakurenbo.compare import NO_HIDING, Record

HERE = Path(__file__).parent
TABLES = runpy.run_path(str(HERE.parent / "comparison" / "tables.py"))
TASK = "fashion-mnist-10k"
INK, GRID, TRAINED, FORWARD = "#1f2937", "#e5e7eb", "#4477aa", "#bbd0e4"
SHORTER, SHORTER_FORWARD = "#8c8c8c", "#d0d0d0"


class Row(NamedTuple):
    """A bar: what it is called, and the methods of the comparison of which the most accurate one is shown."""

    label: str
    methods: tuple[str, ...]
    hides: bool


ROWS = (
    Row("no hiding, 20 epochs", (NO_HIDING.name,), False),
    Row("KAKURENBO, defaults", ("kakurenbo",), True),
    Row("no hiding, 17 epochs", ("shorter-0.85",), False),
    Row("spaced repetition, defaults", ("spaced_repetition",), True),
    Row("no hiding, 14 epochs", ("shorter-0.7", "shorter-0.7@1.4"), False),
    Row("spaced repetition, no cap", ("spaced_repetition@cap=1",), True),
    Row("no hiding, 11 epochs", ("shorter-0.55", "shorter-0.55@1.4"), False),
)


def runs_of(row: Row, records: Sequence[Record]) -> list[Record]:
    """The trainings of a row, those of its most accurate method."""
    found = [[record for record in records if record.method == method] for method in row.methods]
    return max(found, key=lambda runs: mean(record.accuracy for record in runs))


def draw_amounts(axes: Axes, runs: Sequence[Sequence[Record]], costs: Mapping[str, float]) -> None:
    """Bars of the samples that went through the model, in percent of no hiding's, means over the seeds."""
    for place, (row, of_row) in enumerate(zip(ROWS, runs, strict=True)):
        trained = mean(100 * run.backpropagated / run.full_samples for run in of_row)
        forward = mean(100 * run.forward_only / run.full_samples for run in of_row)
        axes.barh(place, trained, height=0.62, color=TRAINED if row.hides else SHORTER)
        axes.barh(place, forward, left=trained, height=0.62, color=FORWARD if row.hides else SHORTER_FORWARD)
        axes.text(trained - 2, place, f"{trained:.0f} %", ha="right", va="center", color="white", fontsize=10)
        if forward:
            axes.text(trained + forward / 2, place, f"{forward:.0f} %", ha="center", va="center", color=INK, fontsize=9)
    labels = [f"{row.label}\ncost {costs[of_row[0].method]:.2f}" for row, of_row in zip(ROWS, runs, strict=True)]
    axes.set_yticks(range(len(ROWS)), labels)
    axes.set_xlim(0, 101)
    axes.set_xlabel("samples through the model, % of no hiding's\n(dark: trained on, light: forward-only refresh)")


def draw_accuracies(axes: Axes, runs: Sequence[Sequence[Record]]) -> None:
    """A dot for each seed, a line for their mean."""
    for place, (row, of_row) in enumerate(zip(ROWS, runs, strict=True)):
        accuracies = [100 * run.accuracy for run in of_row]
        color = TRAINED if row.hides else SHORTER
        axes.scatter(accuracies, [place] * len(accuracies), s=30, color=color, zorder=3)
        axes.plot([mean(accuracies)] * 2, [place - 0.31, place + 0.31], color=color, linewidth=2.5, zorder=3)
        axes.text(90.55, place, f"{mean(accuracies):.1f} %", ha="right", va="center", color=INK, fontsize=10)
    axes.set_xlim(87.2, 90.6)
    axes.set_xticks([87.5, 88, 88.5, 89, 89.5, 90])
    axes.set_xlabel("test accuracy, %; the axis begins at 87.2\n(dot: a seed, line: their mean)")


def main() -> None:
    """Draw both panels."""
    records = [record for record in TABLES["read_trainings"](TABLES["REAL"]) if record.task == TASK]
    methods = [method for row in ROWS for method in row.methods]
    costs = {summary.method.name: summary.cost for summary in TABLES["summaries"](records, [TASK], methods)[TASK]}
    runs = [runs_of(row, records) for row in ROWS]
    seeds = min(len(of_row) for of_row in runs)
    plt.rcParams.update({"font.size": 10, "text.color": INK, "axes.labelcolor": INK, "ytick.labelsize": 10})
    figure, (amounts, accuracies) = plt.subplots(1, 2, figsize=(10, 5.2), sharey=True, layout="constrained", dpi=160)
    draw_amounts(amounts, runs, costs)
    draw_accuracies(accuracies, runs)
    for axes in (amounts, accuracies):
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
    amounts.invert_yaxis()
    figure.suptitle(
        f"Fashion-MNIST, 10,000 training images, a ResNet of 0.08 M parameters, {seeds} seeds (CPU)\n"
        "blue: hiding; gray: no hiding, below each method for as few epochs as cost about the same (processor time)",
        fontsize=11,
    )
    figure.savefig(HERE / "saving.png", facecolor="white")


if __name__ == "__main__":
    main()
