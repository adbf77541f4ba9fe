"""A comparison as a figure: accuracy over its cost in time, a panel for each task."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..utils.files import written_beside
from .analysis import MethodSummary
from .extra import requires_extra
from .methods import NO_HIDING

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of Paul Tol's muted colours, which the colour-blind can distinguish, those seen well on white; in an order in which
# neighbours differ in lightness too.
_COLOURS = ("#332288", "#CC6677", "#117733", "#88CCEE", "#882255", "#44AA99", "#999933", "#AA4499")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p", "<", ">", "h")
_INK, _CONTROL = "#222222", "#777777"
_PANELS_IN_A_ROW = 3
_PANEL_INCHES, _SINGLE_PANEL_INCHES, _LEGEND_ENTRY_INCHES = (3.4, 2.9), (5.4, 3.8), (2.0, 0.19)


class _Point(NamedTuple):
    """A method in a panel; the error is a length below and above, in percent of accuracy."""

    cost: float
    accuracy: float
    accuracy_error: float


def save_figure(path: str | os.PathLike[str], tasks: Mapping[str, Sequence[MethodSummary]]) -> None:
    """Draw accuracy over cost, a panel for each task.

    Each method is drawn at no hiding's accuracy plus its difference to it, with the 95 % confidence interval of the
    paired difference, and at its cost by the task's time model. The controls with the best learning rate are joined:
    what lies above their line is better than training shorter. Methods that have no seed in common with no hiding are
    left out.

    Args:
        path: the file, with the ending of a format that matplotlib writes (`.png`, `.pdf`, `.svg`); it appears whole,
            in place of what is there.
        tasks: summaries by the task's name.

    Raises:
        RuntimeError: matplotlib is not installed.
        ValueError: there is no task, or the ending is of no format.
    """
    with requires_extra():
        from matplotlib.figure import Figure
    target = Path(path)
    if not tasks:
        raise ValueError(f"There is no task to draw in {target}; run a training of the comparison first.")
    figure = Figure(layout="constrained")
    kind = target.suffix.removeprefix(".")
    if kind not in figure.canvas.get_supported_filetypes():
        raise ValueError(
            f"{target} has not the ending of a format that matplotlib writes; name it, for example, "
            f"{target.with_suffix('.png').name}."
        )
    _draw(figure, tasks)
    with written_beside(target) as stream:
        figure.savefig(stream, format=kind, dpi=200)


def _draw(figure: Figure, tasks: Mapping[str, Sequence[MethodSummary]]) -> None:
    styles = _styles(tasks)
    columns = min(len(tasks), _PANELS_IN_A_ROW)
    rows = -(-len(tasks) // columns)
    width, height = _SINGLE_PANEL_INCHES if len(tasks) == 1 else _PANEL_INCHES
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    entries: dict[str, Artist] = {}
    for axes, (task, summaries) in zip(panels, tasks.items(), strict=False):
        entries |= _draw_panel(axes, task, summaries, styles)
    for axes in panels[len(tasks) :]:
        axes.remove()
    for axes in panels[: len(tasks) : columns]:
        axes.set_ylabel("validation accuracy, %", fontsize=9, color=_INK)
    for axes in panels[max(0, len(tasks) - columns) : len(tasks)]:
        axes.set_xlabel("cost in time (no hiding = 1)", fontsize=9, color=_INK)
    legend_columns = int(columns * width / _LEGEND_ENTRY_INCHES[0])
    legend_rows = -(-len(entries) // legend_columns)
    figure.set_size_inches(columns * width, rows * height + legend_rows * _LEGEND_ENTRY_INCHES[1])
    figure.legend(
        entries.values(),
        entries.keys(),
        loc="outside lower center",
        ncols=legend_columns,
        frameon=False,
        fontsize=8,
    )


def _styles(tasks: Mapping[str, Sequence[MethodSummary]]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each hiding method, the same in all panels."""
    names = dict.fromkeys(
        summary.method.name for summaries in tasks.values() for summary in summaries if summary.method.hides
    )
    # 8 colours and 11 markers: the 89th method would be the first to look like another.
    return {
        name: (_COLOURS[index % len(_COLOURS)], _MARKERS[index % len(_MARKERS)]) for index, name in enumerate(names)
    }


def _draw_panel(
    axes: Axes, task: str, summaries: Sequence[MethodSummary], styles: Mapping[str, tuple[str, str]]
) -> dict[str, Artist]:
    """Draw the methods of a task.

    Returns:
        What the legend shows, by its text.
    """
    axes.set_title(task, fontsize=9.5, color=_INK)
    axes.tick_params(labelsize=8, color=_CONTROL, labelcolor=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_CONTROL)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    no_hiding = next((summary for summary in summaries if summary.method.name == NO_HIDING.name), None)
    if no_hiding is None:
        axes.text(0.5, 0.5, "no hiding is not trained yet", ha="center", transform=axes.transAxes, fontsize=8)
        return {}
    points = {
        summary.method.name: _point(summary, no_hiding.accuracy) for summary in summaries if summary.processor_time
    }
    tuned = sorted(
        points[summary.method.name] for summary in summaries if summary.tuned and summary.method.name in points
    )
    entries = {
        "no hiding": axes.axhline(100 * no_hiding.accuracy, color=_INK, linestyle=(0, (1, 2)), linewidth=1.1, zorder=2),
        **_draw_controls(axes, tuned, _name_of_controls(summaries)),
    }
    for name, (colour, marker) in styles.items():
        if name in points:
            entries[name] = _draw_method(axes, points[name], colour, marker)
    return entries


def _name_of_controls(summaries: Sequence[MethodSummary]) -> str:
    rates = {summary.method.learning_rate for summary in summaries if not summary.method.hides}
    return "fewer epochs" if len(rates) == 1 else "fewer epochs, best of several learning rates"


def _draw_controls(axes: Axes, tuned: Sequence[_Point], name: str) -> dict[str, Artist]:
    if not tuned:
        return {}
    costs = [point.cost for point in tuned]
    axes.fill_between(
        costs,
        [point.accuracy - point.accuracy_error for point in tuned],
        [point.accuracy + point.accuracy_error for point in tuned],
        color=_CONTROL,
        alpha=0.2,
        linewidth=0,
        zorder=1,
    )
    (line,) = axes.plot(
        costs, [point.accuracy for point in tuned], color=_CONTROL, linewidth=1.5, marker=".", markersize=6, zorder=3
    )
    return {name: line}


def _draw_method(axes: Axes, point: _Point, colour: str, marker: str) -> Artist:
    axes.errorbar(
        point.cost,
        point.accuracy,
        yerr=point.accuracy_error,
        color=colour,
        elinewidth=1.1,
        linestyle="none",
        zorder=4,
    )
    # Apart from its bars, so that the legend shows the marker alone.
    return axes.scatter(
        point.cost, point.accuracy, s=44, color=colour, marker=marker, edgecolor="white", linewidth=0.7, zorder=5
    )


def _point(summary: MethodSummary, no_hiding: float) -> _Point:
    difference = summary.to_no_hiding
    return _Point(
        summary.cost,
        100 * (no_hiding + difference.mean if difference else summary.accuracy),
        100 * (difference.half_width if difference else 0.0),
    )
