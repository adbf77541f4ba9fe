"""Spaced repetition with a cap that follows the training's progress, and as a duty cycle."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_kakurenbo.hiding import SpacedRepetitionPolicy
from hf_kakurenbo.hiding import ledger as ledger_module
from ledger_toy import ledger_of

DUTY_CYCLE = {"max_interval": 2, "random_pause": False, "max_resting_fraction": 1}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """A ledger is gone through in parts: so small that a few samples have several."""
    monkeypatch.setattr(ledger_module, "_PART", 700)


def hidden_in_each_epoch(policy, samples, epochs):
    """(epochs, N) bool: what a training hides in which each sample stays as known as it is."""
    ledger, masks = ledger_of(samples), []
    for epoch in range(epochs):
        hidden = policy.select(ledger, epoch, epoch / epochs).hidden
        ledger.hide(hidden)
        policy.observe(ledger, ~hidden.numpy(), epoch)
        masks.append(hidden.numpy())
    return np.array(masks)


# ---- A cap by progress ----

STEPS = st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.85]), unique=True, max_size=4).flatmap(
    lambda later: st.tuples(
        st.just([0.0, *sorted(later)]),
        st.lists(st.sampled_from([0.0, 0.29, 0.5, 1.0]), min_size=len(later) + 1, max_size=len(later) + 1),
    )
)


@given(most=st.sampled_from([0.0, 0.3, 0.6, 1]), steps=STEPS, progress=st.floats(0, 0.999), draws=st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_the_cap_is_the_fraction_times_the_factor_of_the_last_milestone(most, steps, progress, draws):
    milestones, factors = steps
    policy = SpacedRepetitionPolicy(
        max_resting_fraction=most, resting_milestones=milestones, resting_factors=factors, hiding_warmup_epochs=2
    )
    factor = next(
        factor for start, factor in reversed(list(zip(milestones, factors, strict=True))) if start <= progress
    )
    assert policy.most_hidden(draws, 3, progress) == math.floor(round(most * factor * draws, 9))
    assert policy.may_hide(3, progress) == (factor > 0)
    assert not policy.may_hide(1, progress)


def test_a_cap_by_progress_is_kept():
    policy = SpacedRepetitionPolicy(
        max_resting_fraction=0.6, resting_milestones=[0, 0.1, 0.5, 0.85], resting_factors=[0, 0.5, 1, 0]
    )
    hidden = hidden_in_each_epoch(policy, [(0.1, True, 0.99)] * 1000, 20).sum(1)
    assert hidden[:2].tolist() == [0, 0]
    assert hidden[2:10].max() == 300
    assert hidden[10:17].max() == 600
    assert hidden[17:].tolist() == [0, 0, 0]


def test_a_full_tail_of_an_eighth():
    policy = SpacedRepetitionPolicy(
        max_resting_fraction=1, resting_milestones=(0, 0.875), resting_factors=(1, 0), max_interval=4
    )
    hidden = hidden_in_each_epoch(policy, [(0.1, True, 0.99)] * 100, 16).any(1)
    assert hidden.tolist() == [False] + [True] * 13 + [False] * 2


# ---- A duty cycle ----


def test_without_a_random_first_pause_what_is_learned_together_rests_together():
    samples = [(0.1, True, 0.99)] * 2000 + [(0.9, False, 0.5)] * 10
    hidden = hidden_in_each_epoch(SpacedRepetitionPolicy(**DUTY_CYCLE), samples, 8)
    assert hidden[:, :2000].mean(1).tolist() == [0.0, 1.0] * 4
    assert not hidden[:, 2000:].any()


def test_with_one_about_half_of_what_is_known_rests_in_each_epoch():
    samples = [(0.1, True, 0.99)] * 2000 + [(0.9, False, 0.5)] * 10
    hidden = hidden_in_each_epoch(SpacedRepetitionPolicy(**DUTY_CYCLE, random_first_pause=True), samples, 12)
    assert not hidden[:, 2000:].any()
    known = hidden[:, :2000]
    assert not known[0].any()
    assert np.abs(known[1:].mean(1) - 0.5).max() < 4 * math.sqrt(0.25 / 2000)
    assert (known[2:] ^ known[1:-1]).all(), "each of them rests in every other epoch"


def test_a_first_pause_follows_each_time_that_a_sample_was_forgotten():
    policy, ledger = SpacedRepetitionPolicy(**{**DUTY_CYCLE, "max_interval": 8}, random_first_pause=True), None
    pauses = []
    for known in (True, True, False, True):
        ledger = ledger_of([(0.1, known, 0.99)] * 1000)
        policy.observe(ledger, np.ones(1000, dtype=bool), len(pauses))
        pauses.append(sorted(set((policy.state_dict()["rest"] + 1).tolist())))
    assert pauses == [[1, 2], [4], [1], [1, 2]]
