"""The report: one HTML file that opens without a network and is read without JavaScript."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._version import __version__
from ..data.labels import Labels, labels_of
from ..utils.extras import require_extra
from ..utils.files import written_beside
from .classes import classes_of
from .confusion import Confusion, Predict, ask
from .epochs import EpochFigures, epochs_of, savings_of
from .examples import Shown, show
from .galleries import Gallery, galleries_of
from .runs import TrainedRun, require_dataset
from .safety import safety_of
from .warnings import warnings_of

_SHOWN_SAMPLES = 12
# Longer tables are cut in the middle: the page stays small, and `to_parquet` has the rest.
_TABLE_ROWS = 200
_REGRESSION = "regression"


class Card(NamedTuple):
    """A sample in a gallery."""

    sample: int
    shown: Shown
    facts: list[tuple[str, str]]


def write_report(
    run: TrainedRun,
    path: str | os.PathLike[str],
    dataset: Any = None,
    label_column: str | None = None,
    predict: Predict | None = None,
) -> Path:
    """Write the report of a training.

    Args:
        run: the training.
        path: the file, which appears whole or not at all; what has its name is replaced.
        dataset: the training dataset, with random access, for what is hidden by class and for the galleries.
        label_column: its column with the class of a sample; by default found by its type or name.
        predict: what the model predicts of samples; None where there is no model, as for a training's files alone.

    Raises:
        RuntimeError: matplotlib or Jinja2 is not installed.
        ValueError: the dataset is another one, or has no such column.
    """
    require_extra("A report", "report", ("matplotlib", "jinja2"))
    page = _render(**_contents(run, dataset, label_column, predict))
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(target) as stream:
        stream.write(page.encode())
    return target


def _contents(run: TrainedRun, dataset: Any, label_column: str | None, predict: Predict | None) -> dict[str, Any]:
    """What the template shows, by name."""
    compared = dataset is not None and require_dataset(run, dataset)
    labels = None if dataset is None else labels_of(dataset, label_column)
    ledger, epochs = run.ledger, epochs_of(run.log)
    savings = savings_of(run, epochs)
    predicts = run.rule != _REGRESSION
    classes = [] if labels is None else classes_of(ledger, labels)
    safety = safety_of(ledger.history) if ledger.history is not None and predicts else []
    galleries = galleries_of(ledger, _SHOWN_SAMPLES)
    confusion, not_asked = ask(ledger, labels, predict)
    return {
        "version": __version__,
        "run": run,
        "ledger": ledger,
        "accuracy": _accuracy(run),
        "predicts": predicts,
        "epochs": epochs,
        "savings": savings,
        "classes": classes,
        "safety": safety,
        "warnings": warnings_of(run, epochs, savings, classes, safety),
        "galleries": [(gallery, _cards(run, gallery, dataset, labels)) for gallery in galleries],
        "confusion": confusion,
        "missing": _missing(run, dataset, labels, compared, not_asked),
        "charts": _charts(run, epochs, classes, safety, confusion),
        "table_rows": _TABLE_ROWS,
    }


def _accuracy(run: TrainedRun) -> float:
    measured = int(np.count_nonzero(~np.isnan(run.ledger.loss.numpy())))
    return int(run.ledger.correct.count_nonzero()) / measured if measured else math.nan


def _charts(
    run: TrainedRun, epochs: list[EpochFigures], classes: list[Any], safety: list[Any], confusion: Confusion | None
) -> dict[str, Any]:
    """The charts by name; those of which nothing is known are left out."""
    from . import figures

    ledger, charts = run.ledger, {}
    if epochs:
        charts["hidden"] = figures.hidden_by_epoch(epochs, len(ledger))
    if any(math.isfinite(epoch.learning_rate) for epoch in epochs):
        charts["rate"] = figures.rate_by_epoch(epochs)
    if safety:
        charts["safety"] = figures.still_right(safety)
    if classes:
        charts["classes"] = figures.hidden_by_class(classes)
    if confusion is not None:
        charts["confusion"] = figures.confusion(confusion)
    if ledger.history is not None and len(ledger.history) > 1 and run.rule != _REGRESSION:
        charts["map"] = figures.data_map(ledger.history.data_map())
    charts["losses"] = figures.losses(ledger.loss.numpy(), ledger.hidden.numpy())
    return charts


def _cards(run: TrainedRun, gallery: Gallery, dataset: Any, labels: Labels | None) -> list[Card]:
    loss, confidence, times = (getattr(run.ledger, name).numpy() for name in ("loss", "confidence", "times_hidden"))
    cards = []
    for sample in gallery.ids.tolist():
        facts = [("loss", _loss(loss[sample])), ("hidden", f"{times[sample]} ×")]
        if run.rule != _REGRESSION:
            facts.insert(1, ("confidence", f"{confidence[sample]:.2f}"))
        if labels is not None and labels.values[sample] >= 0:
            facts.insert(0, ("label", labels.names[labels.values[sample]]))
        shown = Shown(None, []) if dataset is None else show(dataset, sample)
        fields = [each for each in shown.fields if labels is None or each[0] != labels.column]
        cards.append(Card(sample, Shown(shown.picture, fields), facts))
    return cards


def _missing(run: TrainedRun, dataset: Any, labels: Labels | None, compared: bool, not_asked: str) -> list[str]:
    """What the report does not have, and how it would."""
    found = []
    if dataset is None:
        found.append(
            "What is hidden by class, and what the samples look like: give the training dataset (--dataset). "
            "Those of a stream cannot be had by number."
        )
    elif labels is None:
        found.append("What is hidden by class: the dataset has no column with classes; name one (--label-column).")
    if dataset is not None and not compared:
        found.append(
            "It could not be checked that the dataset given is the one that was trained on: they have as many rows, "
            "and no column that can be compared."
        )
    if run.ledger.history is None:
        found.append(
            "Whether what was hidden is still known, the data map and the samples never learnt in any epoch: train "
            "with ledger_history=True."
        )
    if run.rule == _REGRESSION:
        found.append("Right and wrong predictions: a regression has none, and hides by the loss alone.")
    if not_asked:
        found.append(not_asked)
    return found


# ---- As HTML ----


def _render(**contents: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, number=_number, duration=_duration)
    return environment.get_template("report.html").render(**contents)


def _percent(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.1%}"


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _loss(value: float) -> str:
    return "< 0.0001" if abs(value) < 1e-4 else f"{value:.3g}"


def _duration(seconds: float) -> str:
    sign, seconds = "−" if seconds < 0 else "", abs(seconds)
    if seconds < 60:
        return f"{sign}{seconds:.1f} s"
    minutes, hours = divmod(round(seconds / 60), 60)[::-1]
    return f"{sign}{hours} h {minutes} min" if hours else f"{sign}{minutes} min"
