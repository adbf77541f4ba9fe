"""Draws how_it_works.png beside itself: `python docs/images/how_it_works.py` (needs matplotlib)."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

INK, HIDDEN, VISIBLE, NEUTRAL = "#1f2937", "#c7d2fe", "#bbf7d0", "#f3f4f6"


def box(axes, x, y, width, height, title, text, color):
    """A rounded box with a title and a text in it; x and y are its lower left corner."""
    axes.add_patch(
        FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=1.2", facecolor=color, edgecolor=INK)
    )
    axes.text(x + width / 2, y + height - 2.6, title, ha="center", va="top", fontsize=12, weight="bold", color=INK)
    axes.text(x + width / 2, y + height - 7.2, text, ha="center", va="top", fontsize=10, color=INK, linespacing=1.35)


def arrow(axes, start, end, label="", offset=(0.0, 0.0), bend=0.0):
    """An arrow from point to point, with a label beside its middle."""
    style = {"arrowstyle": "-|>", "mutation_scale": 16, "color": INK, "linewidth": 1.4}
    axes.add_patch(FancyArrowPatch(start, end, connectionstyle=f"arc3,rad={bend}", shrinkA=0, shrinkB=0, **style))
    middle = ((start[0] + end[0]) / 2 + offset[0], (start[1] + end[1]) / 2 + offset[1])
    axes.text(*middle, label, ha="center", va="center", fontsize=9.5, color=INK, style="italic")


def main():
    """Draw the course of one epoch."""
    figure, axes = plt.subplots(figsize=(11, 5.2), dpi=110)
    axes.set_xlim(0, 110)
    axes.set_ylim(0, 52)
    axes.axis("off")
    box(axes, 2, 19, 24, 17, "Ledger", "of every sample the last\nloss, correctness,\nconfidence", NEUTRAL)
    box(
        axes,
        33,
        19,
        31,
        17,
        "Rank, then move back",
        "lowest losses are candidates;\nwrong or unsure ones\nstay visible",
        NEUTRAL,
    )
    box(
        axes,
        78,
        33,
        31,
        17,
        "Train on the visible",
        "as Trainer does, learning rate\n× 1 / (1 − hidden share);\nevery forward pass is recorded",
        VISIBLE,
    )
    box(
        axes,
        78,
        5,
        31,
        17,
        "Refresh the hidden",
        "forward only, in evaluation\nmode, at the end of the epoch;\nno backward pass",
        HIDDEN,
    )
    arrow(axes, (26, 27.5), (33, 27.5))
    arrow(axes, (64, 30), (78, 39), "visible", (-2.2, 2.6))
    arrow(axes, (64, 25), (78, 16), "hidden", (-2.2, -2.6))
    arrow(axes, (78, 45), (14, 36), "new figures", (-4, 8.6), bend=0.22)
    arrow(axes, (78, 10), (14, 19), "new figures", (-4, -8.6), bend=-0.22)
    figure.savefig(Path(__file__).with_suffix(".png"), facecolor="white", bbox_inches="tight", pad_inches=0.1)


if __name__ == "__main__":
    main()
