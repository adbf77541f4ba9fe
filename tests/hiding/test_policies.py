"""The vectorised policy against a slow literal transcription of the method."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_kakurenbo import SampleLedger
from hf_kakurenbo.hiding import HidingPolicy, KakurenboPolicy, Selection, create_policy, list_policies, register_policy
from hf_kakurenbo.hiding.policies import base
from toy import same_tensors

# Few distinct values, so that ties are common; and what a diverging training records.
LOSSES = st.sampled_from([0.0, -0.0, 1e-30, 0.1, 0.1, 0.5, 2.0, 7.5, math.inf, -math.inf, math.nan])
SAMPLES = st.lists(
    st.tuples(LOSSES | st.floats(0, 10, width=32), st.booleans(), st.sampled_from([0.0, 0.3, 0.7, 0.71, 1.0])),
    min_size=1,
    max_size=40,
)
FRACTIONS = st.sampled_from([0.0, 0.1, 0.29, 0.3, 0.35, 0.5, 0.7, 0.9, 0.999]) | st.floats(0, 1, exclude_max=True)


def ledger_of(samples):
    ledger = SampleLedger(len(samples))
    for index, (loss, correct, confidence) in enumerate(samples):
        ledger.loss[index], ledger.correct[index], ledger.confidence[index] = loss, correct, confidence
    return ledger


def literally(samples, fraction, factor, warm, threshold, move_back):
    """One epoch's selection, sample by sample."""
    num_candidates = 0 if warm else math.floor(Fraction(str(fraction)) * Fraction(str(factor)) * len(samples))
    rank = lambda index: (samples[index][0] if math.isfinite(samples[index][0]) else math.inf, index)  # noqa: E731
    candidates = sorted(range(len(samples)), key=rank)[:num_candidates]
    hidden = set()
    for index in candidates:
        loss, correct, confidence = samples[index]
        sure = np.float32(confidence) >= threshold
        if math.isfinite(loss) and (not move_back or (correct and sure)):
            hidden.add(index)
    return hidden, num_candidates


@given(
    samples=SAMPLES,
    fraction=FRACTIONS,
    threshold=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    move_back=st.booleans(),
    place=st.sampled_from([(0, 0.0, 1.0), (1, 0.1, 1.0), (3, 0.3, 0.8), (7, 0.7, 0.6), (9, 0.95, 0.4)]),
)
def test_it_is_the_method_word_for_word(samples, fraction, threshold, move_back, place):
    epoch, progress, factor = place
    policy = KakurenboPolicy(max_hidden_fraction=fraction, confidence_threshold=threshold, move_back=move_back)
    ledger = ledger_of(samples)
    before = {name: tensor.clone() for name, tensor in ledger.state_dict().items()}
    selection = policy.select(ledger, epoch, progress)
    expected, num_candidates = literally(samples, fraction, factor, epoch == 0, threshold, move_back)
    assert set(selection.hidden.nonzero().squeeze(1).tolist()) == expected
    assert selection.candidates == num_candidates
    assert selection.moved_back == num_candidates - len(expected)
    assert not bool(selection.hidden.all()), "at least one sample stays"
    assert same_tensors(before, ledger.state_dict()), "the policy changed the ledger"


@pytest.mark.parametrize(("correct", "hidden"), [(True, 30), (False, 0)], ids=["all correct", "none correct"])
def test_all_alike(correct, hidden):
    ledger = ledger_of([(0.5, correct, 0.9)] * 100)
    selection = KakurenboPolicy().select(ledger, 1, 0.0)
    assert selection.hidden.nonzero().squeeze(1).tolist() == list(range(hidden))
    assert selection.moved_back == 30 - hidden


@pytest.mark.parametrize(
    ("fraction", "progress", "expected"), [(0.29, 0.0, 29), (0.35, 0.3, 28), (0.7, 0.6, 42), (0.7, 0.3, 56)]
)
def test_a_share_is_of_the_decimals_as_they_are_written(fraction, progress, expected):
    # In binary fractions 0.29 · 100 is a little less than 29, and 0.35 · 0.8 · 100 a little less than 28.
    policy = KakurenboPolicy(max_hidden_fraction=fraction)
    assert policy.select(SampleLedger(100), 1, progress).candidates == expected


def test_nothing_measured_hides_nothing():
    assert not KakurenboPolicy(move_back=False).select(SampleLedger(10), 1, 0.0).hidden.any()


@pytest.mark.parametrize(
    "losses",
    [
        lambda generator: generator.integers(0, 50, 100_000),
        lambda generator: generator.lognormal(size=100_000),
        lambda generator: np.arange(100_000),
        lambda generator: np.arange(100_000) % 7 * 1000 + np.arange(100_000) // 7,  # in step with a sample of every nth
        lambda generator: np.where(np.arange(100_000) % 6, 0.0, generator.random(100_000)),
    ],
    ids=["ties", "usual", "sorted", "periodic", "mostly zero"],
)
def test_a_large_ledger(losses):
    ledger = SampleLedger(100_000)
    ledger.loss.copy_(torch.from_numpy(losses(np.random.default_rng(0)).astype(np.float32)))
    selection = KakurenboPolicy(move_back=False).select(ledger, 1, 0.0)
    expected = np.argsort(ledger.loss.numpy(), kind="stable")[:30_000]
    assert set(selection.hidden.nonzero().squeeze(1).tolist()) == set(expected.tolist())


@pytest.mark.parametrize(("interval", "epochs"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (3, [2]), (0, [])])
def test_refresh_interval(interval, epochs):
    policy = KakurenboPolicy(refresh_interval=interval)
    assert [epoch for epoch in range(4) if policy.wants_refresh(epoch)] == epochs


def test_a_policy_of_the_users(monkeypatch):
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @register_policy("nothing")
    class Nothing(HidingPolicy):
        def __init__(self, refresh_interval=1):
            self.refresh_interval = refresh_interval

        def select(self, ledger, epoch, progress):
            return Selection(torch.zeros(len(ledger), dtype=torch.bool), 0)

        def wants_refresh(self, epoch):
            return False

    policy = create_policy("nothing", {"refresh_interval": 4, "max_hidden_fraction": 0.3})
    assert (type(policy), policy.refresh_interval) == (Nothing, 4)
    assert "nothing" in list_policies()
    with pytest.raises(ValueError, match="'nothing' is taken by"):
        register_policy("nothing")(type("Other", (Nothing,), {}))
