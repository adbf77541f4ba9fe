"""The charts of the report, each an SVG in a data URI: nothing is fetched, and it is sharp at any width."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..hiding import DataMap
from .classes import ClassFigures
from .confusion import Confusion
from .epochs import EpochFigures
from .safety import SafetyFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of Paul Tol's muted colours, which the colour-blind tell apart.
_MAIN, _OTHER, _INK = "#332288", "#AA4466", "#222222"
# Small on purpose: on a phone it is shown at three quarters of its size, and its letters are still read.
_INCHES = (4.9, 3.1)
_LETTERS = 10.5
_CLASSES = 16
_BINS = 60


class Chart(NamedTuple):
    """A chart."""

    uri: str
    """`data:image/svg+xml;base64,...`."""
    alt: str
    """What it shows, for those who do not see it."""


def hidden_by_epoch(epochs: Sequence[EpochFigures], samples: int) -> Chart:
    """The fractions hidden and considered, by epoch."""
    figure, axes = _new()
    numbers = [epoch.number for epoch in epochs]
    hidden = [100 * epoch.hidden_fraction for epoch in epochs]
    candidates = [100 * epoch.candidates / samples for epoch in epochs]
    axes.plot(numbers, candidates, color=_OTHER, marker="s", linestyle="--", label="candidates")
    axes.plot(numbers, hidden, color=_MAIN, marker="o", label="hidden")
    axes.fill_between(numbers, hidden, candidates, color=_OTHER, alpha=0.15, label="moved back")
    _label(axes, "epoch", "% of the samples")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    alt = (
        f"Line chart over {len(epochs)} epochs: the fraction of samples hidden runs from {hidden[0]:.1f} % to "
        f"{hidden[-1]:.1f} %, at most {max(hidden):.1f} %; candidates reach {max(candidates):.1f} %."
    )
    return _finish(figure, alt)


def rate_by_epoch(epochs: Sequence[EpochFigures]) -> Chart:
    """The learning rate as it was logged, by epoch, and by what it was multiplied."""
    figure, axes = _new()
    numbers, rates = [epoch.number for epoch in epochs], [epoch.learning_rate for epoch in epochs]
    axes.plot(numbers, rates, color=_MAIN, marker="o", label="learning rate")
    axes.plot(
        numbers,
        [epoch.learning_rate / epoch.lr_scale for epoch in epochs],
        color=_OTHER,
        marker="s",
        linestyle="--",
        label="without compensation",
    )
    _label(axes, "epoch", "learning rate")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    alt = (
        f"Line chart over {len(epochs)} epochs: the mean learning rate runs from {rates[0]:.3g} to {rates[-1]:.3g}; "
        f"compensation multiplies it by up to {max(epoch.lr_scale for epoch in epochs):.3g}."
    )
    return _finish(figure, alt)


def still_right(safety: Sequence[SafetyFigures]) -> Chart:
    """The fractions of hidden samples, and of those that came back, that are still predicted correctly."""
    figure, axes = _new()
    numbers = [epoch.number for epoch in safety]
    series = (
        ([100 * epoch.refreshed_right for epoch in safety], _MAIN, "o", "-", "hidden, at the epoch's end"),
        ([100 * epoch.returned_right for epoch in safety], _OTHER, "s", "--", "came back, when trained on"),
    )
    for values, colour, marker, line, label in series:
        axes.plot(numbers, values, color=colour, marker=marker, linestyle=line, label=label)
    _label(axes, "epoch", "% still right")
    known = [value for values, *_ in series for value in values if np.isfinite(value)]
    axes.set_ylim(min(90, *known) - 5, 101)
    axes.legend(frameon=False, loc="lower right")
    lowest = [np.nanmin(values) if np.isfinite(values).any() else np.nan for values, *_ in series]
    alt = (
        f"Line chart over {len(safety)} epochs: of the hidden samples at least {lowest[0]:.1f} % are still predicted "
        f"correctly at an epoch's end, of those that came back at least {lowest[1]:.1f} %."
    )
    return _finish(figure, alt)


def hidden_by_class(classes: Sequence[ClassFigures]) -> Chart:
    """In how many epochs a sample was hidden, by class: of many classes, those hidden most and least."""
    shown = list(classes)
    if len(shown) > _CLASSES:
        shown = [*shown[: _CLASSES // 2], *shown[-_CLASSES // 2 :]]
    figure, axes = _new(height=1.0 + 0.24 * len(shown))
    places = np.arange(len(shown))[::-1]
    axes.barh(places, [each.hidden_epochs for each in shown], color=_MAIN, height=0.7)
    axes.set_yticks(places, [_short(each.name) for each in shown])
    _label(axes, "epochs hidden, mean over its samples", "")
    axes.grid(visible=False, axis="y")
    which = "" if len(shown) == len(classes) else f"; the {len(shown) // 2} hidden most and least of {len(classes)}"
    alt = (
        f"Bar chart of the mean number of epochs in which a sample was hidden, by class{which}: most for "
        f"{classes[0].name} ({classes[0].hidden_epochs:.2f}), least for {classes[-1].name} "
        f"({classes[-1].hidden_epochs:.2f})."
    )
    return _finish(figure, alt)


def confusion(found: Confusion) -> Chart:
    """Samples never learnt, by their label and what is predicted of them; each number is written in its place."""
    shown = len(found.classes)
    figure, axes = _new(height=1.6 + 0.3 * shown)
    axes.imshow(np.ma.masked_equal(found.counts, 0), cmap="Purples", vmin=0, vmax=max(1, found.counts.max()) * 1.25)
    for row, column in np.argwhere(found.counts).tolist():
        count = int(found.counts[row, column])
        ink = "white" if count > 0.75 * found.counts.max() else _INK
        axes.text(column, row, f"{count}", ha="center", va="center", color=ink, fontsize=_LETTERS - 1)
    names = [_short(name, 14) for name in found.classes]
    _label(axes, "predicted", "label")
    axes.set_xticks(range(shown), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(shown), names)
    axes.grid(visible=False)
    most = (
        f"most often {found.pairs[0][0]} taken for {found.pairs[0][1]} ({found.pairs[0][2]} samples)"
        if found.pairs
        else "none is predicted wrongly"
    )
    alt = f"Table of {found.asked:,} samples never learnt, by label and predicted class, {shown} of each: {most}."
    return _finish(figure, alt)


def data_map(points: DataMap) -> Chart:
    """How many samples there are of each mean confidence and variability; the shade is logarithmic."""
    from matplotlib.colors import LogNorm

    figure, axes = _new(height=3.6)
    known = ~np.isnan(points.confidence)
    counts, across, up = np.histogram2d(
        points.variability[known], points.confidence[known], bins=_BINS, range=[[0, 0.5], [0, 1]]
    )
    filled = np.ma.masked_equal(counts.T, 0)
    mesh = axes.pcolormesh(across, up, filled, cmap="viridis_r", norm=LogNorm(1, max(counts.max(), 2)), rasterized=True)
    figure.colorbar(mesh, ax=axes, label="samples")
    _label(axes, "variability over the epochs", "mean confidence in the label")
    axes.grid(visible=False)
    easy, hard = (int(np.count_nonzero(known & side)) for side in _regions(points))
    alt = (
        f"Data map of {int(known.sum()):,} samples, mean confidence in the label over variability: {easy:,} easy ones "
        f"(confidence above 0.75) at the top, {hard:,} hard ones (below 0.25) at the bottom."
    )
    return _finish(figure, alt)


def _regions(points: DataMap) -> tuple[np.ndarray, np.ndarray]:
    return points.confidence > 0.75, points.confidence < 0.25


def losses(loss: np.ndarray, hidden: np.ndarray) -> Chart:
    """How the lagging losses of the visible and of the hidden samples are distributed."""
    figure, axes = _new()
    positive = np.isfinite(loss) & (loss > 0)
    low, high = np.quantile(loss[positive], [0.001, 0.999]) if positive.any() else (0.1, 1.0)
    bins = np.geomspace(max(low, 1e-8), max(high, low * 10), 50)
    within = np.clip(loss, bins[0], bins[-1])
    for chosen, colour, label in ((positive & ~hidden, _OTHER, "visible"), (positive & hidden, _MAIN, "hidden")):
        axes.hist(within[chosen], bins=bins.tolist(), color=colour, alpha=0.65, label=label)
    axes.set_xscale("log")
    _label(axes, "loss at the last measurement", "samples")
    axes.legend(frameon=False)
    medians = [float(np.median(loss[chosen])) if chosen.any() else np.nan for chosen in (hidden & positive, ~hidden)]
    alt = f"Histogram of losses: the median is {medians[0]:.3g} of hidden and {medians[1]:.3g} of visible samples."
    return _finish(figure, alt)


def _new(height: float = _INCHES[1]) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES[0], height), layout="constrained")
    return figure, figure.subplots()


def _label(axes: Axes, across: str, up: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(across, fontsize=_LETTERS, color=_INK)
    axes.set_ylabel(up, fontsize=_LETTERS, color=_INK)
    axes.tick_params(labelsize=_LETTERS - 1, colors=_INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#dddddd", linewidth=0.7)
    axes.set_axisbelow(True)
    if across == "epoch":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _finish(figure: Figure, alt: str) -> Chart:
    import matplotlib

    stream = io.BytesIO()
    # The same picture twice is the same file; no date, and letters as shapes, so that no font is looked for.
    with matplotlib.rc_context({"svg.hashsalt": "hf-kakurenbo", "svg.fonttype": "path"}):
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return Chart(f"data:image/svg+xml;base64,{base64.b64encode(stream.getvalue()).decode()}", alt)


def _short(name: str, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
