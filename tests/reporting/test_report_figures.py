"""The numbers of a report, against counts of their own; and the warnings that they lead to."""

import math
import re

import numpy as np
import pytest
import torch

from hf_kakurenbo.data.labels import Labels
from hf_kakurenbo.hiding import LedgerHistory, SampleLedger
from hf_kakurenbo.reporting.classes import ClassFigures, classes_of
from hf_kakurenbo.reporting.epochs import Savings, epochs_of, savings_of
from hf_kakurenbo.reporting.galleries import galleries_of
from hf_kakurenbo.reporting.runs import TrainedRun
from hf_kakurenbo.reporting.safety import SafetyFigures, safety_of
from hf_kakurenbo.reporting.warnings import warnings_of

COUNT, CLASSES, EPOCHS = 500, 4, 6


@pytest.fixture(scope="module")
def known():
    """A ledger with a history, and what it was made of; the third class is hidden altogether in three epochs."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, CLASSES, COUNT)
    ledger = SampleLedger(COUNT)
    ledger.history = LedgerHistory(COUNT)
    rows = []
    for epoch in range(EPOCHS):
        hidden = (generator.random(COUNT) < 0.3) & (epoch > 0)
        hidden |= (labels == 2) & (2 <= epoch <= 4)
        correct = generator.random(COUNT) < 0.6
        correct[:20] = False
        loss = generator.exponential(1.0, COUNT).astype(np.float32)
        measured = ~hidden | (generator.random(COUNT) < 0.5)
        before = ledger.loss.numpy().copy(), ledger.correct.numpy().copy()
        loss, correct = np.where(measured, loss, before[0]), np.where(measured, correct, before[1])
        ledger._write(slice(None), loss, np.where(correct, 0.5, -0.5).astype(np.float32))
        ledger.hide(torch.from_numpy(hidden))
        ledger.history.write(epoch, ledger, torch.from_numpy(measured))
        rows.append((loss, correct, hidden, measured))
    return ledger, labels, rows


def test_by_class(known):
    ledger, labels, rows = known
    found = {figures.name: figures for figures in classes_of(ledger, Labels(labels, list("abcd"), "label"))}
    times = sum(hidden.astype(int) for *_, hidden, _ in rows)
    never = ~np.any([correct & measured for _, correct, _, measured in rows], axis=0)
    for label, name in enumerate("abcd"):
        own = labels == label
        assert found[name].samples == own.sum()
        assert found[name].hidden_now == pytest.approx(rows[-1][2][own].mean())
        assert found[name].hidden_epochs == pytest.approx(times[own].mean())
        assert found[name].accuracy == pytest.approx(rows[-1][1][own].mean())
        assert found[name].never_learnt == never[own].sum()
        assert found[name].unseen_epochs == (3 if name == "c" else 0)
    assert next(iter(found)) == "c", "the class hidden most often comes first"


def test_samples_without_a_class_are_left_out(known):
    ledger, labels, _ = known
    found = classes_of(ledger, Labels(np.where(labels == 1, -1, labels), list("abcd"), "label"))
    assert sorted(figures.name for figures in found) == ["a", "c", "d"]
    assert sum(figures.samples for figures in found) == (labels != 1).sum()


def test_whether_it_is_safe(known):
    ledger, _, rows = known
    found = {figures.number: figures for figures in safety_of(ledger.history)}
    assert sorted(found) == [2, 3, 4, 5, 6]
    for epoch in range(1, EPOCHS):
        _, correct, hidden, measured = rows[epoch]
        refreshed, returned = hidden & measured, rows[epoch - 1][2] & ~hidden
        assert found[epoch + 1].refreshed == refreshed.sum()
        assert found[epoch + 1].refreshed_right == pytest.approx(correct[refreshed].mean())
        assert found[epoch + 1].returned == returned.sum()
        if returned.any():
            assert found[epoch + 1].returned_right == pytest.approx(correct[returned].mean())
        else:
            assert math.isnan(found[epoch + 1].returned_right)


def test_what_came_back_is_of_epochs_that_follow_each_other():
    ledger = SampleLedger(4)
    history = LedgerHistory(4)
    ledger._write(slice(None), np.ones(4, np.float32), np.ones(4, np.float32))
    for epoch, hidden in ((1, [True, True, False, False]), (3, [False] * 4)):
        ledger.hide(torch.tensor(hidden))
        history.write(epoch, ledger, torch.tensor([not each for each in hidden]))
    assert safety_of(history) == []


def test_galleries(known):
    ledger, _, rows = known
    never, most, least = galleries_of(ledger, 12)
    times, loss = ledger.times_hidden.numpy(), ledger.loss.numpy()
    assert (most.title, most.total, most.ids[0]) == (
        "Hidden most often",
        (times > 0).sum(),
        min(np.flatnonzero(times == times.max()), key=lambda i: loss[i]),
    )
    assert times[most.ids].min() >= np.sort(times)[-12]
    assert (times[least.ids] == 0).all()
    assert loss[least.ids].tolist() == sorted(loss[times == 0].tolist(), reverse=True)[:12]
    expected = ~np.any([correct & measured for _, correct, _, measured in rows], axis=0)
    assert never.total == expected.sum() >= 20
    assert expected[never.ids].all()
    sure = ledger.history.data_map().confidence
    assert sure[never.ids].tolist() == sorted(sure[expected].tolist())[:12]


def test_galleries_without_a_history_and_with_nothing_hidden():
    ledger = SampleLedger(5)
    assert galleries_of(ledger, 3) == []
    ledger._write(slice(None), np.arange(5, dtype=np.float32), np.array([1, -1, -1, 1, -1], np.float32))
    [wrong] = galleries_of(ledger, 2)
    assert (wrong.title, wrong.total, wrong.ids.tolist()) == ("Wrong at the last measurement", 3, [4, 2])


LOG = [
    {"loss": 1.0, "learning_rate": 0.4, "epoch": 0.5},
    {"loss": 1.0, "learning_rate": 0.2, "epoch": 1.0},
    {
        "epoch": 1.0,
        "kakurenbo/hidden_fraction": 0.0,
        "kakurenbo/candidates": 0,
        "kakurenbo/moved_back": 0,
        "kakurenbo/visible_samples": 100,
        "kakurenbo/lr_scale": 1.0,
        "kakurenbo/time_saved": 0.0,
    },
    {"eval_loss": 1.0, "epoch": 1.0},
    {
        "epoch": 2.0,
        "kakurenbo/hidden_fraction": 0.25,
        "kakurenbo/candidates": 30,
        "kakurenbo/moved_back": 5,
        "kakurenbo/visible_samples": 75,
        "kakurenbo/lr_scale": 4 / 3,
        "kakurenbo/time_saved": 2.0,
    },
]
NUMBERS = {
    "epoch": 1,
    "epoch_finished": True,
    "trained_samples": 175,
    "refreshed_samples": 25,
    "time_saved": 2.0,
    "seconds": 6.0,
}


def run_with(**changes):
    given = {"ledger": SampleLedger(100), "numbers": NUMBERS, "log": LOG, **changes}
    return TrainedRun(**given)


def test_by_epoch():
    first, second = epochs_of(LOG)
    assert (first.number, first.visible_samples, first.learning_rate) == (1, 100, pytest.approx(0.3))
    assert (second.number, second.hidden_fraction, second.candidates, second.moved_back) == (2, 0.25, 30, 5)
    assert math.isnan(second.learning_rate)


def test_savings():
    run = run_with()
    found = savings_of(run, epochs_of(run.log))
    assert (found.full_samples, found.trained_samples, found.refreshed_samples) == (200, 175, 25)
    assert found.samples_fraction == pytest.approx(25 / 200)
    assert found.passes_fraction == pytest.approx(1 - (3 * 175 + 25) / 600)
    assert found.seconds_fraction == pytest.approx(2 / 8)


def test_savings_without_a_log_are_by_the_length_of_the_dataset():
    found = savings_of(run_with(log=[]), [])
    assert found.full_samples == 200


def test_an_epoch_under_way_is_not_counted():
    run = run_with(numbers={**NUMBERS, "epoch": 2, "epoch_finished": False})
    assert run.epochs_done == 2
    assert savings_of(run, epochs_of(run.log)).full_samples == 200


def test_before_the_first_epoch_ends():
    run = run_with(numbers={"epoch": 0, "epoch_finished": False}, log=[])
    found = savings_of(run, [])
    assert (run.epochs_done, found.full_samples, found.samples_fraction, found.seconds_fraction) == (0, 0, 0.0, None)


def figures_of(name, **changes):
    given = {"samples": 100, "hidden_now": 0.1, "hidden_epochs": 1.0, "accuracy": 0.9, "never_learnt": 0}
    return ClassFigures(**{"name": name, **given, "unseen_epochs": 0, **changes})


def measured_ledger(hidden=True):
    ledger = SampleLedger(4)
    ledger._write(slice(None), np.ones(4, np.float32), np.ones(4, np.float32))
    if hidden:
        ledger.hide(torch.tensor([True, False, False, False]))
    return ledger


SAVED = Savings(200, 175, 25, 0.125, 0.1, 2.0, 0.2)


@pytest.mark.parametrize(
    ("classes", "safety", "savings", "run", "expected"),
    [
        ([figures_of("a"), figures_of("b")], [SafetyFigures(3, 10, 0.95, 5, 0.2)], SAVED, {}, None),
        ([], [SafetyFigures(3, 10, 0.8, 5, 1.0)], SAVED, {}, "in 1 epoch fewer than 90% .* in epoch 3 80.0%"),
        ([figures_of("rare", unseen_epochs=4)], [], SAVED, {}, r"1 class had no visible sample .*at most 4\): rare"),
        (
            [figures_of("easy", hidden_epochs=3.0), *(figures_of(name) for name in "abc")],
            [],
            SAVED,
            {},
            "1 class is hidden more than 1.5 times as often as the average: easy",
        ),
        ([], [], SAVED._replace(seconds=-3.0), {}, "cost 3.0 s more than it saved"),
        ([], [], SAVED, {"ledger": measured_ledger(False)}, "Nothing was hidden"),
        ([], [], SAVED, {"ledger": SampleLedger(4)}, "4 samples have no finite loss"),
        ([], [], SAVED, {"steps": (5, 10)}, "after 5 of 10 updates"),
        ([], [], SAVED, {"log": []}, "no log of the epochs"),
    ],
    ids=["well", "forgotten", "unseen", "hidden more", "cost", "nothing hidden", "no loss", "unfinished", "no log"],
)
def test_warnings(classes, safety, savings, run, expected):
    made = run_with(**{"ledger": measured_ledger(), "steps": (10, 10), **run})
    found = warnings_of(made, epochs_of(made.log), savings, classes, safety)
    if expected is None:
        assert found == []
    else:
        assert any(re.search(expected, warning) for warning in found), found
