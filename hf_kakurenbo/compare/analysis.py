"""What the records of a comparison say: figures of each method, paired by seed with what it is compared with."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from .costs import TimeModel, fit_time_model, shares, time_ratios
from .extra import requires_extra
from .methods import NO_HIDING, Method
from .records import Record

CONFIDENCE = 0.95
"""Of the intervals."""

SAME_COST = 0.03
"""Costs that differ by no more than this count as the same."""

_BySeed = Mapping[int, Record]


@dataclass(frozen=True)
class Difference:
    """A mean of differences in accuracy, paired by seed.

    Attributes:
        mean: in accuracy units: 0.01 is a point.
        half_width: of the 95 % confidence interval by Student's t.
        seeds: how many pairs.
    """

    mean: float
    half_width: float
    seeds: int

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval."""
        return abs(self.mean) > self.half_width


@dataclass(frozen=True)
class TimeRatio:
    """Time against no hiding of the same seed: the median over the seeds, and the quartiles as its spread.

    Quartiles and not the extremes: one training during which the machine was busy with something else moves them
    little.
    """

    median: float
    lower_quartile: float
    upper_quartile: float


@dataclass(frozen=True)
class MethodSummary:
    """What a method came to on a task.

    Attributes:
        method: the method.
        seeds: how many of its trainings are done.
        accuracy: mean over them, in [0, 1].
        accuracy_std: over them, of the sample (n − 1); None with one.
        to_no_hiding: difference to no hiding with the task's own learning rate; None for no hiding itself and with
            fewer than 2 common seeds.
        to_shorter: of a method that hides, the difference to the compute-matched baseline: training shorter with a
            tuned learning rate at the same cost, see `Controls.at_cost`. None where there is no baseline of this cost,
            or fewer than 2 common seeds.
        backpropagated: samples trained on, as a fraction of those of a full training.
        forward_only: samples of forward-only passes, as a fraction of the same.
        cost: the time that follows from the two by `time_model`.
        time_model: of the task.
        time: wall time of no hiding's; None without a common seed.
        processor_time: the same of the processor's time.
        tuned: a control with the best learning rate of those tried that train as long.
    """

    method: Method
    seeds: int
    accuracy: float
    accuracy_std: float | None
    to_no_hiding: Difference | None
    to_shorter: Difference | None
    backpropagated: float
    forward_only: float
    cost: float
    time_model: TimeModel
    time: TimeRatio | None
    processor_time: TimeRatio | None
    tuned: bool


@dataclass(frozen=True)
class Controls:
    """The compute-matched baseline: training on everything for fewer epochs, at the best learning rate for each length.

    Attributes:
        tuned: one method for each length, from short to long.
        costs: of each, by the task's time model.
        accuracies: of each, by seed.
    """

    tuned: Sequence[Method]
    costs: Sequence[float]
    accuracies: Sequence[Mapping[int, float]]

    def at_cost(self, cost: float) -> dict[int, float]:
        """Accuracy by seed of a control that costs so much.

        Between two controls it is interpolated linearly, seed by seed; accuracy rises ever more slowly with the cost,
        so that this is a little less than the control would reach. Nothing is extrapolated, but for a cost that is the
        longest one's to within `SAME_COST`.

        Returns:
            Nothing (no seeds) where there is no such control.
        """
        if not self.costs or not self.costs[0] <= cost <= self.costs[-1] + SAME_COST:
            return {}
        if cost >= self.costs[-1]:
            return dict(self.accuracies[-1])
        above = next(index for index, of_control in enumerate(self.costs) if of_control > cost)
        below_cost, above_cost = self.costs[above - 1 : above + 1]
        below_accuracy, above_accuracy = self.accuracies[above - 1 : above + 1]
        fraction = (cost - below_cost) / (above_cost - below_cost)
        if fraction == 0:  # at a control: its neighbour's seeds do not matter
            return dict(below_accuracy)
        return {
            seed: (1 - fraction) * below_accuracy[seed] + fraction * above_accuracy[seed]
            for seed in below_accuracy.keys() & above_accuracy.keys()
        }


def summarize(
    records: Iterable[Record], methods: Sequence[Method], time_model: TimeModel | None = None
) -> list[MethodSummary]:
    """What each method came to, from the records of one task.

    A comparison may be unfinished: each figure is of the seeds that are there.

    Args:
        records: of one task, in any order; those of methods not given count for nothing.
        methods: in the order of the result; those without a record are left out of it.
        time_model: of the task, if it is to be another than the one fitted to these methods.

    Raises:
        ValueError: the records are of several tasks, or two are of the same training.
        RuntimeError: SciPy is not installed.
    """
    runs = _by_method_and_seed(records)
    done = [method for method in methods if method.name in runs]
    time_model = time_model or fit_time_model(runs, done)
    controls = tuned_controls(runs, done, time_model)
    return [_summary(method, runs, controls, time_model) for method in done]


def tuned_controls(runs: Mapping[str, _BySeed], methods: Iterable[Method], time_model: TimeModel) -> Controls:
    """For each length of training on everything, the control whose learning rate gives the best mean accuracy.

    That the best is chosen on the same seeds on which it is then compared favours the control. Of an unfinished
    comparison only the controls with the most seeds of their length are chosen from, on their common seeds.

    Args:
        runs: records by the method's name and seed.
        methods: those with records; the ones that hide are passed over.
        time_model: gives their costs.
    """
    lengths: defaultdict[float, list[Method]] = defaultdict(list)
    for method in methods:
        if not method.hides:
            lengths[method.epochs].append(method)
    tuned = [_best(runs, lengths[length]) for length in lengths]
    costs = {method.name: time_model.cost(False, *shares(runs[method.name].values())) for method in tuned}
    tuned.sort(key=lambda method: costs[method.name])
    return Controls(
        tuned,
        [costs[method.name] for method in tuned],
        [_accuracies(runs[method.name]) for method in tuned],
    )


def paired_difference(of: Mapping[int, float], to: Mapping[int, float]) -> Difference | None:
    """Mean of `of` − `to` over their common seeds, with its confidence interval; None with fewer than 2.

    Args:
        of: accuracy by seed.
        to: accuracy by seed.

    Raises:
        RuntimeError: SciPy is not installed.
    """
    differences = [of[seed] - to[seed] for seed in sorted(of.keys() & to.keys())]
    if len(differences) < 2:
        return None
    with requires_extra():
        from scipy import stats  # type: ignore[import-untyped]
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, len(differences) - 1))
    half_width = quantile * stdev(differences) / math.sqrt(len(differences))
    return Difference(fmean(differences), half_width, len(differences))


def _by_method_and_seed(records: Iterable[Record]) -> dict[str, dict[int, Record]]:
    runs: defaultdict[str, dict[int, Record]] = defaultdict(dict)
    tasks = set()
    for record in records:
        tasks.add(record.task)
        if record.seed in runs[record.method]:
            raise ValueError(f"There are two records of {record.task}, {record.method}, seed {record.seed}; give one.")
        runs[record.method][record.seed] = record
    if len(tasks) > 1:
        raise ValueError(f"The records are of several tasks ({', '.join(sorted(tasks))}); summarize one at a time.")
    return dict(runs)


def _summary(method: Method, runs: Mapping[str, _BySeed], controls: Controls, time_model: TimeModel) -> MethodSummary:
    own, no_hiding = runs[method.name], runs.get(NO_HIDING.name, {})
    accuracies = _accuracies(own)
    backpropagated, forward_only = shares(own.values())
    cost = time_model.cost(method.hides, backpropagated, forward_only)
    is_no_hiding = method.name == NO_HIDING.name
    return MethodSummary(
        method=method,
        seeds=len(own),
        accuracy=fmean(accuracies.values()),
        accuracy_std=stdev(accuracies.values()) if len(own) > 1 else None,
        to_no_hiding=None if is_no_hiding else paired_difference(accuracies, _accuracies(no_hiding)),
        to_shorter=paired_difference(accuracies, controls.at_cost(cost)) if method.hides else None,
        backpropagated=backpropagated,
        forward_only=forward_only,
        cost=cost,
        time_model=time_model,
        time=_time_ratio(own, no_hiding, lambda record: record.seconds),
        processor_time=_time_ratio(own, no_hiding, lambda record: record.processor_seconds),
        tuned=method in controls.tuned,
    )


def _best(runs: Mapping[str, _BySeed], controls: Sequence[Method]) -> Method:
    most = max(len(runs[method.name]) for method in controls)
    complete = [method for method in controls if len(runs[method.name]) == most]
    common = set.intersection(*(set(runs[method.name]) for method in complete))

    def accuracy(method: Method) -> float:
        by_seed = _accuracies(runs[method.name])
        return fmean(by_seed[seed] for seed in common or by_seed)

    # Of equals, the learning rate that is closest to the task's.
    return max(complete, key=lambda method: (accuracy(method), -abs(math.log(method.learning_rate)), method.name))


def _accuracies(by_seed: _BySeed) -> dict[int, float]:
    return {seed: record.accuracy for seed, record in by_seed.items()}


def _time_ratio(own: _BySeed, no_hiding: _BySeed, time: Callable[[Record], float]) -> TimeRatio | None:
    ratios = time_ratios(own, no_hiding, time)
    if not ratios:
        return None
    lower, median, upper = (float(quantile) for quantile in np.quantile(ratios, (0.25, 0.5, 0.75)))
    return TimeRatio(median, lower, upper)
