"""What a training costs by what it did: a model of its time, fitted to the times that were measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

import numpy as np

from .extra import requires_extra
from .methods import NO_HIDING, Method
from .records import Record

FORWARD_COST = 0.28
"""A forward pass over a sample in training steps on one, where it cannot be had from the records."""


@dataclass(frozen=True)
class TimeModel:
    """Time of a training, a full one without hiding being 1.

    It is fixed + (step + recording, if it hides) · backpropagated + forward · forward-only; both are counted in samples
    of a full training.

    Attributes:
        fixed: what every training takes, however short.
        step: training on samples.
        recording: what hiding adds to it: measuring, choosing.
        forward: looking at samples, forward only.
    """

    fixed: float = 0.0
    step: float = 1.0
    recording: float = 0.0
    forward: float = FORWARD_COST

    def __str__(self) -> str:
        return (
            f"{self.fixed:.3f} + {self.step:.3f} × trained on ({self.step + self.recording:.3f} × if it hides) + "
            f"{self.forward:.3f} × forward-only"
        )

    def cost(self, hides: bool, backpropagated: float, forward_only: float) -> float:
        """The time of a training of so many samples, as fractions of a full one."""
        return self.fixed + (self.step + hides * self.recording) * backpropagated + self.forward * forward_only


def fit_time_model(runs: Mapping[str, Mapping[int, Record]], methods: Sequence[Method]) -> TimeModel:
    """The model that is nearest to the processor's times, by least squares with no term below 0.

    A method counts with the median over its seeds of its time against that of no hiding of the same seed, so that a
    training that was disturbed moves it little.

    Args:
        runs: records of one task by the method's name and seed.
        methods: those to fit to.

    Returns:
        The model without fixed and recording time, with a forward pass at `FORWARD_COST`, if the methods are too few or
        too much alike to separate the four terms.

    Raises:
        RuntimeError: SciPy is not installed.
    """
    full = runs.get(NO_HIDING.name, {})
    rows, times = [], []
    for method in methods:
        own = runs[method.name]
        ratios = time_ratios(own, full, lambda record: record.processor_seconds)
        if ratios:
            backpropagated, forward_only = shares(own.values())
            rows.append([1.0, backpropagated, method.hides * backpropagated, forward_only])
            times.append(median(ratios))
    if not rows or np.linalg.matrix_rank(rows) < 4:
        return TimeModel()
    with requires_extra():
        from scipy.optimize import nnls  # type: ignore[import-untyped]
    terms = nnls(np.array(rows), np.array(times))[0]
    return TimeModel(*(float(term) for term in terms / (terms[0] + terms[1])))


def time_ratios(own: Mapping[int, Record], full: Mapping[int, Record], time: Callable[[Record], float]) -> list[float]:
    """Of each seed that both have, the time of one training divided by the other's, if that took any."""
    return [time(own[seed]) / time(full[seed]) for seed in own.keys() & full.keys() if time(full[seed]) > 0]


def shares(records: Iterable[Record]) -> tuple[float, float]:
    """Samples trained on, and of forward-only passes, by those of a full training: the mean over some trainings."""
    records = list(records)
    return (
        fmean(record.backpropagated / record.full_samples for record in records),
        fmean(record.forward_only / record.full_samples for record in records),
    )
