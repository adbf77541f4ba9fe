"""What a comparison says of its records, against SciPy, by hand, and by what must change nothing."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hf_kakurenbo.compare.analysis import Controls, paired_difference, summarize, tuned_controls
from hf_kakurenbo.compare.costs import TimeModel, fit_time_model
from hf_kakurenbo.compare.methods import NO_HIDING, Method
from hf_kakurenbo.compare.records import Record

SAMPLES = 10_000


def control(epochs, learning_rate=1.0):
    return Method(f"control-{epochs}@{learning_rate}", {"hiding_policy": "none"}, epochs, learning_rate)


KAKURENBO, COIN = Method("kakurenbo"), Method("coin", {"hiding_policy": "coin"}, learning_rate=1.2)
HALF, HALF_FAST, THREE_QUARTERS = control(0.5), control(0.5, 1.4), control(0.75)
METHODS = [NO_HIDING, KAKURENBO, HALF, HALF_FAST, THREE_QUARTERS, COIN]
SHARES = {"kakurenbo": (0.7, 0.2), "coin": (0.6, 0.0)}


TIMES = TimeModel(fixed=0.0, step=1.0, recording=0.0, forward=0.25)


def record(method, seed, accuracy, times=TIMES, **changes):
    trained, looked = SHARES.get(method.name, (method.epochs, 0.0))
    cost = times.cost(method.hides, trained, looked)
    made = Record(
        task="toy",
        method=method.name,
        seed=seed,
        accuracy=accuracy,
        backpropagated=round(trained * SAMPLES),
        forward_only=round(looked * SAMPLES),
        full_samples=SAMPLES,
        updates=100,
        # Each seed at a speed of its own: only ratios of the same seed say something.
        seconds=(10 + seed) * cost,
        processor_seconds=(20 + seed) * cost,
    )
    return replace(made, **changes)


def by_name(records, methods=METHODS):
    return {summary.method.name: summary for summary in summarize(records, methods)}


# In steps of 1/1024, so that sums and differences are exact.
ACCURACIES = st.integers(0, 512).map(lambda steps: steps / 1024)


def differ(pairs):
    return len({of - to for of, to in pairs}) > 1


@st.composite
def comparisons(draw, complete=False):
    """Records of a comparison with whatever is missing, if not `complete`; at least one."""
    seeds = draw(st.integers(2, 5))
    trainings = [(method, seed) for method in METHODS for seed in range(seeds)]
    if not complete:
        there = draw(st.sets(st.integers(0, len(trainings) - 1), min_size=1))
        trainings = [trainings[index] for index in sorted(there)]
    return [record(method, seed, draw(ACCURACIES)) for method, seed in trainings]


def differences(records):
    return {
        name: (summary.to_no_hiding, summary.to_shorter, summary.tuned) for name, summary in by_name(records).items()
    }


def assert_same_differences(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert one[name][2] == other[name][2], "another learning rate is the best"
        for before, after in zip(one[name][:2], other[name][:2], strict=True):
            assert (before is None) == (after is None)
            if before:
                assert after.seeds == before.seeds
                assert after.mean == pytest.approx(before.mean, abs=1e-9)
                assert after.half_width == pytest.approx(before.half_width, abs=1e-7)


@given(comparisons(), st.integers(1, 512))
def test_a_shift_of_all_accuracies_leaves_the_differences(records, steps):
    shifted = [replace(record, accuracy=record.accuracy + steps / 1024) for record in records]
    assert_same_differences(differences(records), differences(shifted))


@given(comparisons(complete=True), st.lists(ACCURACIES, min_size=5, max_size=5))
def test_an_effect_of_the_seed_leaves_the_differences(records, effects):
    moved = [replace(record, accuracy=record.accuracy + effects[record.seed]) for record in records]
    assert_same_differences(differences(records), differences(moved))


@given(comparisons(), st.randoms(use_true_random=False))
def test_the_order_of_the_records_changes_nothing(records, random):
    shuffled = records.copy()
    random.shuffle(shuffled)
    assert summarize(shuffled, METHODS) == summarize(records, METHODS)


@given(comparisons())
def test_an_unfinished_comparison_gives_what_is_there(records):
    summaries = summarize(records, METHODS)
    names = {record.method for record in records}
    assert [summary.method for summary in summaries] == [method for method in METHODS if method.name in names]
    for summary in summaries:
        own = [record for record in records if record.method == summary.method.name]
        assert summary.seeds == len(own)
        assert summary.accuracy == pytest.approx(np.mean([record.accuracy for record in own]))
        assert (summary.accuracy_std is None) == (len(own) == 1)


@given(st.lists(st.tuples(ACCURACIES, ACCURACIES), min_size=2, max_size=12).filter(differ))
def test_the_interval_is_scipys(pairs):
    of, to = ({seed: pair[side] for seed, pair in enumerate(pairs)} for side in (0, 1))
    difference = paired_difference(of, to)
    interval = stats.ttest_rel(list(of.values()), list(to.values())).confidence_interval(0.95)
    assert difference.mean == pytest.approx(np.mean([a - b for a, b in pairs]), abs=1e-12)
    assert difference.half_width == pytest.approx((interval.high - interval.low) / 2, rel=1e-9)


def test_only_common_seeds_are_paired():
    difference = paired_difference({0: 0.5, 1: 0.7, 2: 0.9}, {1: 0.6, 2: 0.6, 3: 0.1})
    assert (difference.mean, difference.seeds) == (pytest.approx(0.2), 2)
    assert paired_difference({0: 0.5, 1: 0.7}, {1: 0.6, 2: 0.6}) is None


@pytest.mark.parametrize(("differences", "excludes"), [((0.01, 0.01), True), ((0.0, 0.0), False), ((1, -0.9), False)])
def test_whether_zero_is_outside(differences, excludes):
    assert paired_difference(dict(enumerate(differences)), {0: 0, 1: 0}).excludes_zero is excludes


# ---- The fair opponent ----

CONTROLS = Controls([HALF, THREE_QUARTERS, NO_HIDING], [0.5, 0.75, 1.0], [{0: 0.5, 1: 0.4}, {0: 0.7}, {0: 0.8, 1: 0.9}])


@pytest.mark.parametrize(
    ("cost", "accuracies"),
    [
        (0.49, {}),
        (0.5, {0: 0.5, 1: 0.4}),
        (0.6, {0: 0.58}),  # seed 1 is missing on the other side
        (0.75, {0: 0.7}),
        (0.9, {0: 0.76}),
        (1.0, {0: 0.8, 1: 0.9}),
        (1.02, {0: 0.8, 1: 0.9}),  # the same cost, nearly
        (1.3, {}),
    ],
)
def test_a_control_of_any_cost(cost, accuracies):
    assert CONTROLS.at_cost(cost) == pytest.approx(accuracies)


@given(st.floats(0.5, 1), st.floats(0.5, 1))
def test_between_controls_the_line_has_no_jumps(one, other):
    step = abs(CONTROLS.at_cost(one)[0] - CONTROLS.at_cost(other)[0])
    assert step <= 0.8 * abs(one - other) + 1e-12


def test_without_a_full_training_nothing_stands_for_higher_costs():
    shorter = Controls([HALF], [0.5], [{0: 0.5}])
    assert shorter.at_cost(0.5) == {0: 0.5}
    assert shorter.at_cost(0.54) == {}
    assert Controls([], [], []).at_cost(0.5) == {}


def test_the_best_learning_rate_of_each_length():
    accuracies = [(NO_HIDING, 0.8, 0.9), (HALF, 0.5, 0.6), (HALF_FAST, 0.6, 0.55), (THREE_QUARTERS, 0.7, 0.7)]
    records = [record(method, seed, figure) for method, *pair in accuracies for seed, figure in enumerate(pair)]
    assert [name for name, summary in by_name(records).items() if summary.tuned] == [
        NO_HIDING.name,
        HALF_FAST.name,
        THREE_QUARTERS.name,
    ]


def test_a_learning_rate_with_fewer_seeds_is_not_the_best_yet():
    runs = {
        HALF.name: {seed: record(HALF, seed, 0.5) for seed in range(3)},
        HALF_FAST.name: {2: record(HALF_FAST, 2, 0.9)},
    }
    assert tuned_controls(runs, [HALF, HALF_FAST], TIMES).tuned == [HALF]


def test_of_equal_learning_rates_the_tasks_own():
    runs = {method.name: {0: record(method, 0, 0.5)} for method in (HALF_FAST, HALF)}
    assert tuned_controls(runs, [HALF_FAST, HALF], TIMES).tuned == [HALF]


def test_a_method_against_its_opponents():
    accuracies = [(NO_HIDING, 0.8, 0.9), (HALF, 0.5, 0.6), (KAKURENBO, 0.8, 0.84), (THREE_QUARTERS, 0.7, 0.8)]
    records = [record(method, seed, figure) for method, *pair in accuracies for seed, figure in enumerate(pair)]
    kakurenbo = by_name(records)["kakurenbo"]
    assert (kakurenbo.backpropagated, kakurenbo.forward_only) == (0.7, 0.2)
    assert kakurenbo.cost == pytest.approx(
        0.7 + 0.28 * 0.2
    )  # too few methods to find the price of looking in the times
    assert kakurenbo.to_no_hiding.mean == pytest.approx(-0.03)
    assert kakurenbo.to_shorter.mean == pytest.approx(0.82 - (0.75 + 0.1 * 0.006 / 0.25))
    assert by_name(records)[NO_HIDING.name].to_no_hiding is None
    assert by_name(records)[HALF.name].to_shorter is None


# ---- Time ----


def test_times_are_those_of_the_same_seed():
    records = [record(method, seed, 0.5) for method in METHODS for seed in range(5)]
    disturbed = [replace(record, seconds=record.seconds * (1 + 9 * (record.seed == 3))) for record in records[:8]]
    summary = by_name(disturbed + records[8:])["kakurenbo"]
    # Seed 3 of no hiding was disturbed and that of the method was not: its ratio is a tenth.
    assert summary.time.median == summary.time.upper_quartile == pytest.approx(0.75)
    assert summary.processor_time.lower_quartile == pytest.approx(0.75)


def test_the_spread_of_times_is_between_the_quartiles():
    pace = (0.9, 1.0, 1.1, 1.2, 9.9)
    records = [record(NO_HIDING, seed, 0.5, seconds=1.0) for seed in range(5)]
    records += [record(COIN, seed, 0.5, seconds=pace[seed]) for seed in range(5)]
    time = by_name(records)["coin"].time
    assert (time.lower_quartile, time.median, time.upper_quartile) == (1.0, 1.1, 1.2)


def test_a_time_of_nothing_is_not_divided_by():
    summary = by_name([record(COIN, 0, 0.5), record(NO_HIDING, 0, 0.5, processor_seconds=0.0)])["coin"]
    assert summary.processor_time is None
    assert summary.time is not None


def test_without_no_hiding_there_is_no_time():
    summary = by_name([record(KAKURENBO, 0, 0.5), record(NO_HIDING, 1, 0.5)])["kakurenbo"]
    assert (summary.time, summary.processor_time, summary.to_no_hiding) == (None, None, None)


def fitted(records):
    runs = {}
    for each in records:
        runs.setdefault(each.method, {})[each.seed] = each
    return fit_time_model(runs, [method for method in METHODS if method.name in runs])


@given(st.floats(0, 0.3), st.floats(0, 0.3), st.floats(0, 0.9))
def test_every_term_of_the_time_is_found(fixed, recording, forward):
    times = TimeModel(fixed, 1 - fixed, recording, forward)
    found = fitted([record(method, seed, 0.5, times) for method in METHODS for seed in range(3)])
    assert vars(found) == pytest.approx(vars(times), abs=1e-3)


def test_a_method_that_looks_at_nothing_pays_for_its_recording():
    times = TimeModel(0.1, 0.9, 0.2, 0.3)
    summary = by_name([record(method, seed, 0.5, times) for method in METHODS for seed in range(3)])["coin"]
    assert summary.cost == pytest.approx(summary.processor_time.median, abs=1e-3)
    assert summary.cost > summary.backpropagated + 0.1


def test_a_disturbed_training_does_not_move_the_times():
    records = [record(method, seed, 0.5) for method in METHODS for seed in range(5)]
    slow = [
        replace(each, processor_seconds=each.processor_seconds * (1 + 9 * (each.seed == 2))) for each in records[:5]
    ]
    assert vars(fitted(slow + records[5:])) == pytest.approx(vars(TIMES), abs=1e-3)


def test_no_term_is_below_0():
    found = fitted([record(method, 0, 0.5, TimeModel(0, 1, 0, -0.5)) for method in METHODS])
    assert min(vars(found).values()) >= 0
    assert found.cost(False, 1, 0) == pytest.approx(1)


@pytest.mark.parametrize(
    "records",
    [
        [],
        [record(KAKURENBO, 0, 0.5)],
        [record(method, method is NO_HIDING, 0.5) for method in METHODS],
        [record(method, 0, 0.5) for method in METHODS if method is not KAKURENBO],
        [record(method, 0, 0.5, processor_seconds=0.0) for method in METHODS],
    ],
    ids=["no records", "no hiding missing", "another seed", "nothing looked at", "no time measured"],
)
def test_times_that_cannot_be_told_apart(records):
    assert fitted(records) == TimeModel()


# ---- What is refused ----


def test_records_of_several_tasks():
    with pytest.raises(ValueError, match=r"several tasks \(other, toy\); summarize one at a time"):
        summarize([record(KAKURENBO, 0, 0.5), record(KAKURENBO, 1, 0.5, task="other")], METHODS)


def test_two_records_of_a_training():
    with pytest.raises(ValueError, match="two records of toy, kakurenbo, seed 0; give one"):
        summarize([record(KAKURENBO, 0, 0.5)] * 2, METHODS)


def test_without_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(RuntimeError, match=r'scipy: pip install "hf-kakurenbo\[compare\]"'):
        paired_difference({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5})
