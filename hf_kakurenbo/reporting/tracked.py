"""What a tracker gets of a ledger: how loss and confidence are distributed, and which samples stand out."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from ..hiding import SampleLedger
from .examples import Shown, show
from .galleries import galleries_of

_BINS = 64
_SAMPLES = 12
# Characters of an entry of a sample, and of all of them.
_ENTRY, _TEXT = 60, 240
# Of the pictures of one kind, side by side: pixels of a square, and how many in a row.
_TILE, _IN_A_ROW = 96, 6
# The highest losses are counted in the last bin: one that is broken would leave all others in the first.
_HIGHEST = 0.999

COLUMNS = ["kind", "sample_id", "loss", "confidence", "times_hidden", "example"]
"""Of the table of samples."""


class Histogram(NamedTuple):
    """How a statistic of the samples is distributed, those that were never measured left out."""

    counts: np.ndarray
    """(64,) int64."""
    edges: np.ndarray
    """(65,) float64."""
    low: float
    """The smallest value."""
    high: float
    """The largest."""
    total: float
    """The sum of the values."""
    squares: float
    """The sum of their squares."""


class TrackedSamples(NamedTuple):
    """What is shown of one moment of a training."""

    histograms: dict[str, Histogram]
    """Of `"loss"` and `"confidence"`; empty if nothing was measured."""
    rows: list[list[Any]]
    """Of the samples that stand out, a row for each: [`COLUMNS`]."""
    pictures: dict[str, Image.Image]
    """Their pictures, by kind, side by side in the order of the rows; empty where they have none."""


def tracked_samples(ledger: SampleLedger, dataset: Any = None) -> TrackedSamples:
    """What to show of a ledger.

    Args:
        ledger: the ledger.
        dataset: with a row for each sample, to show what they are; None for their numbers alone.
    """
    loss, confidence = ledger.loss.numpy(), ledger.confidence.numpy()
    measured = np.isfinite(loss)
    histograms = {}
    if measured.any():
        histograms = {"loss": _histogram(loss[measured]), "confidence": _histogram(confidence[measured])}
    rows, pictures = [], {}
    for gallery in galleries_of(ledger, _SAMPLES):
        kind, shown = gallery.title.lower(), []
        for sample in gallery.ids.tolist():
            shown.append(Shown(None, []) if dataset is None else show(dataset, sample))
            numbers = [float(loss[sample]), float(confidence[sample]), int(ledger.times_hidden[sample])]
            rows.append([kind, sample, *numbers, _text(shown[-1])])
        found = [each.picture for each in shown if each.picture is not None]
        if found:
            pictures[kind] = _side_by_side(found)
    return TrackedSamples(histograms, rows, pictures)


def as_markdown(rows: list[list[Any]]) -> str:
    """The table of samples as text."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _histogram(values: np.ndarray) -> Histogram:
    values = values.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    end = max(float(np.quantile(values, _HIGHEST)), np.nextafter(low, np.inf))
    counts, edges = np.histogram(values.clip(max=end), bins=_BINS, range=(low, end))
    return Histogram(counts, edges, low, high, float(values.sum()), float(np.square(values).sum()))


def _text(shown: Shown) -> str:
    return _cut("; ".join(f"{name}: {_cut(value, _ENTRY)}" for name, value in shown.fields), _TEXT)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())


def _side_by_side(pictures: list[Image.Image]) -> Image.Image:
    rows = -(-len(pictures) // _IN_A_ROW)
    sheet = Image.new("RGB", (min(len(pictures), _IN_A_ROW) * _TILE, rows * _TILE), "white")
    for place, picture in enumerate(pictures):
        scale = _TILE / max(picture.size)
        size = tuple(max(1, round(side * scale)) for side in picture.size)
        way = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
        row, column = divmod(place, _IN_A_ROW)
        sheet.paste(picture.convert("RGB").resize((size[0], size[1]), way), (column * _TILE, row * _TILE))
    return sheet
