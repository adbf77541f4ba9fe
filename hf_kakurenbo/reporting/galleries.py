"""Which samples to show: those hidden least and most often, and those that were never learnt."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..hiding import SampleLedger


class Gallery(NamedTuple):
    """Samples to show."""

    title: str
    explanation: str
    ids: np.ndarray
    """(n,) int64."""
    total: int
    """How many samples there are of the kind."""


def galleries_of(ledger: SampleLedger, count: int) -> list[Gallery]:
    """The galleries of a ledger, those without a sample left out.

    Args:
        ledger: the ledger.
        count: the most samples of each.
    """
    times, loss = ledger.times_hidden.numpy(), ledger.loss.numpy()
    measured = np.isfinite(loss)
    found = [_never_learnt(ledger, count)]
    if times.any():
        most = np.flatnonzero(times)
        found.append(
            Gallery(
                "Hidden most often",
                "What the model knew best: easy samples, and duplicates.",
                _first(most, [-times[most], loss[most]], count),
                len(most),
            )
        )
        least = np.flatnonzero((times == 0) & measured)
        found.append(
            Gallery(
                "Never hidden, with the highest loss",
                "What the training went on with in every epoch: hard, rare or wrongly labelled samples.",
                _first(least, [-loss[least]], count),
                len(least),
            )
        )
    return [gallery for gallery in found if gallery.total]


def _never_learnt(ledger: SampleLedger, count: int) -> Gallery:
    if ledger.history is not None:
        ids = np.flatnonzero(ledger.history.never_learnt())
        confidence = ledger.history.data_map().confidence[ids]
        explanation = (
            "Predicted wrongly in every epoch that measured them, those of lowest mean probability of their label "
            "first. Wrong labels gather here: look at these first."
        )
        return Gallery("Never learnt", explanation, _first(ids, [confidence], count), len(ids))
    loss = ledger.loss.numpy()
    ids = np.flatnonzero(~ledger.correct.numpy() & np.isfinite(loss))
    explanation = (
        "Predicted wrongly when they were last measured, those of highest loss first. With ledger_history=True they "
        "would be those predicted wrongly in every epoch, among which wrong labels gather."
    )
    return Gallery("Wrong at the last measurement", explanation, _first(ids, [-loss[ids]], count), len(ids))


def _first(ids: np.ndarray, keys: list[np.ndarray], count: int) -> np.ndarray:
    """The first of some ids in the order of keys, then of the ids."""
    places = _leading(np.arange(len(ids)), [*keys, ids], count)
    order = np.lexsort([key[places] for key in (ids, *reversed(keys))])
    return ids[places[order]]


def _leading(places: np.ndarray, keys: list[np.ndarray], count: int) -> np.ndarray:
    """Which of some places come first by the keys, in any order: a sort of all of them would take seconds."""
    if len(places) <= count:
        return places
    values = keys[0][places]
    last = np.partition(values, count - 1)[count - 1]
    before, tied = places[values < last], places[values == last]
    return np.concatenate([before, _leading(tied, keys[1:], count - len(before))])
