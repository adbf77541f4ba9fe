"""With which classes the samples that were never learnt are confused, where the model could be asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..data.labels import Labels
from ..hiding import SampleLedger

# So many samples at most go through the model.
_ASKED = 2000
_SHOWN_CLASSES = 12
_OTHERS = "others"


class Predictions(NamedTuple):
    """What the model at hand predicts of some samples."""

    ids: np.ndarray
    """(n,) int64."""
    labels: np.ndarray
    """(n,) int64, the classes of the batches, by their numbers in the model."""
    predicted: np.ndarray
    """(n,) int64, the classes predicted."""
    names: dict[int, str]
    """What the model calls its classes; empty if they have numbers alone."""


Predict = Callable[[np.ndarray], "Predictions | None"]
"""From the ids of samples, (n,) int64, to what the model predicts of them; None where no class is predicted."""


class Confusion(NamedTuple):
    """The samples never learnt, by what they are labelled and what is predicted of them."""

    of: int
    """How many samples were never learnt."""
    asked: int
    """For how many of them the model was asked."""
    right: int
    """How many of these it predicts correctly by now."""
    pairs: list[tuple[str, str, int]]
    """Label, wrong prediction, and how many samples; the most frequent first."""
    classes: list[str]
    """Those that the chart shows, in the order of their numbers; `"others"` at the end, if there are more."""
    counts: np.ndarray
    """(c, c) integers: samples by label, down, and prediction, across, of `classes`."""


_NO_MODEL = (
    "With which classes the samples never learnt are confused: what the model predicted is not recorded, and a "
    "training's files have no model that could be asked. `trainer.hiding_report(path)` asks the one at hand."
)
_NO_ANSWER = (
    "With which classes the samples never learnt are confused: the model at hand predicts no single class of a sample, "
    "is split among ranks, or was trained on a stream, whose rows cannot be had by number."
)


def ask(ledger: SampleLedger, labels: Labels | None, predict: Predict | None) -> tuple[Confusion | None, str]:
    """Ask the model for the samples never learnt.

    Args:
        ledger: the ledger.
        labels: the classes of the dataset, where they are known.
        predict: what asks the model; None where there is none.

    Returns:
        The confusion, None where it is not known; and why it is not, empty where there is nothing to say.
    """
    ids, of = never_learnt(ledger, _ASKED)
    if not of:
        return None, ""
    if predict is None:
        return None, _NO_MODEL
    predictions = predict(ids)
    return (None, _NO_ANSWER) if predictions is None else (confusion_of(predictions, of, labels), "")


def never_learnt(ledger: SampleLedger, most: int) -> tuple[np.ndarray, int]:
    """Some of the samples that were never learnt, and how many there are.

    With a history those predicted wrongly in every epoch, else those wrong at the last measurement. Of more than `most`
    so many are drawn at random, the same ones each time.
    """
    if ledger.history is not None:
        ids = np.flatnonzero(ledger.history.never_learnt())
    else:
        ids = np.flatnonzero(~ledger.correct.numpy() & np.isfinite(ledger.loss.numpy()))
    if len(ids) <= most:
        return ids, len(ids)
    return np.sort(np.random.default_rng(0).choice(ids, most, replace=False)), len(ids)


def confusion_of(predictions: Predictions, of: int, labels: Labels | None) -> Confusion:
    """The table of confusions.

    Args:
        predictions: of samples that were never learnt.
        of: how many of these there are.
        labels: the classes of the dataset, by whose names they are called where their numbers fit.
    """
    name = _namer(predictions, labels)
    pairs = Counter(zip(predictions.labels.tolist(), predictions.predicted.tolist(), strict=True))
    wrong = [(pair, count) for pair, count in pairs.items() if pair[0] != pair[1]]
    wrong.sort(key=lambda each: (-each[1], each[0]))
    classes, counts = _table(pairs)
    return Confusion(
        of=of,
        asked=len(predictions.ids),
        right=sum(count for (label, predicted), count in pairs.items() if label == predicted),
        pairs=[(name(label), name(predicted), count) for (label, predicted), count in wrong],
        classes=[_OTHERS if number is None else name(number) for number in classes],
        counts=counts,
    )


def _namer(predictions: Predictions, labels: Labels | None) -> Callable[[int], str]:
    """From the number of a class to its name: the dataset's if the batches have its numbers, else the model's."""
    if labels is not None and np.array_equal(labels.values[predictions.ids], predictions.labels):
        of_dataset = dict(enumerate(labels.names))
        return lambda number: of_dataset.get(number, str(number))
    return lambda number: predictions.names.get(number, str(number))


def _table(pairs: Counter[tuple[int, int]]) -> tuple[list[int | None], np.ndarray]:
    """The classes to show and the counts between them: those of most samples, the rest as one, None."""
    samples: Counter[int] = Counter()
    for (label, predicted), count in pairs.items():
        samples[label] += count
        samples[predicted] += count
    ranked = sorted(samples, key=lambda number: (-samples[number], number))
    shown: list[int | None] = [*sorted(ranked[:_SHOWN_CLASSES])]
    if len(ranked) > _SHOWN_CLASSES:
        shown.append(None)
    places = {number: place for place, number in enumerate(shown)}
    counts = np.zeros((len(shown), len(shown)), dtype=np.int64)
    for (label, predicted), count in pairs.items():
        counts[places.get(label, -1), places.get(predicted, -1)] += count
    return shown, counts
