"""Draws how_it_works.png beside itself: `python docs/images/how_it_works.py` (needs matplotlib)."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, NEUTRAL, HIDDEN, VISIBLE = "#1f2937", "#f3f4f6", "#dbe2ff", "#d3f6df"
WIDTH, HEIGHT = 100, 44  # of the drawing, in its own units: ten to the inch


def box(axes: Axes, corner: tuple[float, float], size: tuple[float, float], title: str, text: str, color: str) -> None:
    """A rounded box from its lower left corner, with a title and a text in it."""
    (x, y), (width, height) = corner, size
    axes.add_patch(
        FancyBboxPatch(corner, width, height, "round,pad=0,rounding_size=1", facecolor=color, edgecolor=INK, lw=1.3)
    )
    axes.text(x + width / 2, y + height - 2.2, title, ha="center", va="top", fontsize=12, weight="bold", color=INK)
    axes.text(
        x + width / 2, y + height / 2 - 1.9, text, ha="center", va="center", fontsize=11, color=INK, linespacing=1.4
    )


def arrow(axes: Axes, *points: Sequence[float]) -> None:
    """A line through the points that ends in an arrow."""
    (*lines, before, end) = points
    xs, ys = zip(*lines, before, strict=True)
    axes.plot(xs, ys, color=INK, lw=1.5, solid_joinstyle="round")
    axes.add_patch(
        FancyArrowPatch(before, end, arrowstyle="-|>", mutation_scale=17, color=INK, lw=1.5, shrinkA=0, shrinkB=0)
    )


def label(axes: Axes, x: float, y: float, text: str) -> None:
    """A word beside an arrow, centred."""
    axes.text(x, y, text, ha="center", va="center", fontsize=10.5, color=INK, style="italic")


def main() -> None:
    """Draw the course of one epoch."""
    figure = plt.figure(figsize=(WIDTH / 10, HEIGHT / 10), dpi=160)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(0, HEIGHT)
    axes.axis("off")

    middle, high, low = (14, 16), (24, 16), (4, 16)  # (lower edge, height) of a row
    box(axes, (1.5, middle[0]), (17, 16), "Ledger", "each sample's last\nloss, correctness\nand confidence", NEUTRAL)
    box(axes, (23, middle[0]), (20, 16), "1  Rank", "the samples of\nlowest loss are\ncandidates", NEUTRAL)
    box(axes, (47.5, middle[0]), (20, 16), "2  Move back", "wrong or unsure\ncandidates become\nvisible again", NEUTRAL)
    box(
        axes,
        (75, high[0]),
        (23.5, 16),
        "3  Train on visible",
        "learning rate ×\n1 / (1 − hidden fraction);\nstatistics recorded",
        VISIBLE,
    )
    box(
        axes,
        (75, low[0]),
        (23.5, 16),
        "4  Refresh hidden",
        "forward only, in\nevaluation mode;\nstatistics recorded",
        HIDDEN,
    )

    arrow(axes, (18.5, 22), (23, 22))
    arrow(axes, (43, 22), (47.5, 22))
    arrow(axes, (67.5, 22), (70.5, 22), (70.5, 32), (75, 32))
    arrow(axes, (67.5, 22), (70.5, 22), (70.5, 12), (75, 12))
    label(axes, 66.3, 31.4, "visible")
    label(axes, 66.4, 12.6, "hidden")
    arrow(axes, (86.75, 40), (86.75, 42.5), (10, 42.5), (10, 30))
    arrow(axes, (86.75, 4), (86.75, 1.5), (10, 1.5), (10, 14))
    label(axes, 33, 40.4, "new statistics, for the next epoch")
    label(axes, 33, 3.6, "new statistics, for the next epoch")
    figure.savefig(Path(__file__).with_suffix(".png"), facecolor="white")


if __name__ == "__main__":
    main()
