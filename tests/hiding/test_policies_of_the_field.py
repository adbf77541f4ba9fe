"""Each policy against a slow literal transcription of its paper's rule, and against what it promises on average."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hf_kakurenbo import SampleLedger
from hf_kakurenbo.hiding import CompactLedger, create_policy, list_policies
from hf_kakurenbo.hiding import ledger as ledger_module
from known_policies import POLICIES
from ledger_toy import SAMPLES, SEEDS, hidden_ids, ledger_of, update, usual
from toy import same_tensors


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """A ledger is gone through in parts: so small that a few samples have several."""
    monkeypatch.setattr(ledger_module, "_PART", 7)


def gradients(count):
    return np.random.default_rng(1).normal(1.0, 2.0, (count, 3))


# ---- What holds for all ----


def test_the_field_is_complete():
    assert set(POLICIES) <= set(list_policies())


def observed(name, samples, kind=SampleLedger, seed=3):
    """A policy that has seen six epochs, in which every other loss came down ever more slowly, and its ledger."""
    policy = create_policy(name, {"seed": seed})
    ledger = ledger_of(samples, kind)
    for epoch in range(6):
        slower = [(loss * (1 + index % 2 * (5 - epoch) ** 2), *rest) for index, (loss, *rest) in enumerate(samples)]
        update(ledger, range(len(samples)), slower)
        policy.observe(ledger, np.ones(len(samples), dtype=bool), epoch)
    return policy, ledger


@pytest.mark.parametrize("name", POLICIES)
@given(samples=SAMPLES)
@settings(max_examples=40, deadline=None)
def test_some_stay_and_nothing_but_the_ledger_and_the_epoch_decides(name, samples):
    policy, ledger = observed(name, samples)
    before = {key: tensor.clone() for key, tensor in ledger.state_dict().items()}
    selection = policy.select(ledger, 6, 0.4)
    again = observed(name, samples)[0].select(ledger, 6, 0.4)
    assert same_tensors(before, ledger.state_dict()), "the policy changed the ledger"
    assert selection.hidden.shape == (len(samples),)
    assert not selection.hidden.all(), "at least one sample stays"
    assert selection.moved_back >= 0
    assert selection.candidates == again.candidates
    for mine, other in zip(selection, again, strict=True):
        assert not isinstance(mine, torch.Tensor) or torch.equal(mine, other)


@pytest.mark.parametrize("name", [name for name in POLICIES if name not in ("kakurenbo", "ies")])
def test_chance_is_of_the_seed(name):
    samples = [(0.5 if index % 2 else 1.0, True, 0.99 if index else 0.1) for index in range(200)]
    hidden = []
    for seed in (3, 4):
        policy, ledger = observed(name, samples, seed=seed)
        for epoch in range(6, 11):
            policy.observe(ledger, np.zeros(200, dtype=bool), epoch)  # enough for some to have rested
        hidden.append(policy.select(ledger, 11, 0.4).hidden)
    assert hidden[0].any()
    assert not torch.equal(*hidden)


@pytest.mark.parametrize("name", POLICIES)
def test_a_compact_ledger_is_read_alike(name):
    samples = usual(500)
    hidden = []
    for kind in (SampleLedger, CompactLedger):
        policy, ledger = observed(name, samples, kind)
        hidden.append(policy.select(ledger, 6, 0.4).hidden)
    assert hidden[0].any()
    assert int((hidden[0] != hidden[1]).sum()) <= 5, "rounding moves a few at most"


@pytest.mark.parametrize("name", POLICIES)
def test_nothing_is_hidden_before_anything_is_known(name):
    policy = create_policy(name, {"hiding_warmup_epochs": 1})
    assert not policy.select(SampleLedger(30), 0, 0.0).hidden.any()


# ---- One by one ----


@given(count=st.integers(1, 60), fraction=st.sampled_from([0.0, 0.29, 0.5, 0.99]), seeds=SEEDS)
@settings(max_examples=40, deadline=None)
def test_random_hides_so_many(count, fraction, seeds):
    policy = create_policy("random", {"max_hidden_fraction": fraction, "seed": seeds[0]})
    selection = policy.select(SampleLedger(count), seeds[1], 0.3)
    assert len(hidden_ids(selection)) == selection.candidates == math.floor(round(fraction * 0.8 * count, 9))


def test_random_hides_each_sample_and_each_pair_as_often():
    policy = create_policy("random", {"max_hidden_fraction": 0.3, "seed": 5})
    ledger, epochs = SampleLedger(20), 4000
    hidden = np.stack([policy.select(ledger, epoch, 0.0).hidden.numpy() for epoch in range(1, epochs + 1)])
    assert np.abs(hidden.mean(0) - 0.3).max() < 4 * math.sqrt(0.3 * 0.7 / epochs)
    together = (hidden[:, :, None] & hidden[:, None, :]).mean(0)[~np.eye(20, dtype=bool)]
    expected = 6 * 5 / (20 * 19)  # whether two samples stand in one part of the ledger or not
    assert np.abs(together - expected).max() < 5 * math.sqrt(expected / epochs)


@given(samples=SAMPLES, seeds=SEEDS, beta=st.sampled_from([0.5, 1.0, 2.0]))
@settings(max_examples=50, deadline=None)
def test_selective_backprop_word_for_word(samples, seeds, beta):
    seed, epoch = seeds
    policy = create_policy("selective_backprop", {"seed": seed}, {"beta": beta})
    draws = np.random.default_rng([seed, epoch]).random(len(samples))
    history = [loss for loss, _, _ in samples if math.isfinite(loss)]
    expected = set()
    for index, (loss, _, _) in enumerate(samples):
        if math.isfinite(loss):
            share = sum(np.float32(other) <= np.float32(loss) for other in history) / len(history)
            if not draws[index] < share**beta:
                expected.add(index)
    assert hidden_ids(policy.select(ledger_of(samples), epoch, 0.5)) == expected


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_selective_backprop_trains_on_its_share(beta):
    ledger = ledger_of(usual(20_000))
    selection = create_policy("selective_backprop", {}, {"beta": beta}).select(ledger, 1, 0.0)
    assert 1 - selection.hidden.float().mean() == pytest.approx(1 / (1 + beta), abs=0.015)


def test_selective_backprop_of_many_goes_by_losses_drawn_of_them(monkeypatch):
    monkeypatch.undo()
    ledger = SampleLedger(200_000)
    ledger.loss.copy_(torch.rand(200_000, generator=torch.Generator().manual_seed(0)))
    hidden = create_policy("selective_backprop", {}).select(ledger, 1, 0.0).hidden
    for low in (0.0, 0.4, 0.8):
        inside = (ledger.loss >= low) & (ledger.loss < low + 0.2)
        assert hidden[inside].float().mean() == pytest.approx(0.9 - low, abs=0.015)


@given(samples=SAMPLES, seeds=SEEDS, probability=st.sampled_from([0.0, 0.3, 0.5, 0.9]), progress=st.floats(0, 0.999))
@settings(max_examples=50, deadline=None)
def test_infobatch_word_for_word(samples, seeds, probability, progress):
    seed, epoch = seeds
    policy = create_policy("infobatch", {"seed": seed}, {"pruning_probability": probability})
    selection = policy.select(ledger_of(samples), epoch, progress)
    losses = [float(np.float32(loss)) for loss, _, _ in samples]
    finite = [loss for loss in losses if math.isfinite(loss)]
    mean = math.fsum(finite) / len(finite) if finite else math.nan
    assume(len(finite) == 1 or not any(math.isclose(loss, mean, rel_tol=1e-9) for loss in finite))
    draws = np.random.default_rng([seed, epoch]).random(len(samples))
    hidden, weights = set(), [1.0] * len(samples)
    for index, loss in enumerate(losses):
        if progress < 0.875 and loss < mean:
            weights[index] = 1 / (1 - probability)
            if draws[index] < probability:
                hidden.add(index)
    assert hidden_ids(selection) == hidden
    assert selection.candidates == sum(loss < mean for loss in losses) * (progress < 0.875)
    given_weights = [1.0] * len(samples) if selection.weights is None else selection.weights.tolist()
    assert given_weights == pytest.approx(weights)


def epoch_gradients(name, options, epochs, samples):
    """The mean of the epoch's gradients, weighed as the policy says, over N, in many epochs of the same losses."""
    policy = create_policy(name, {}, options)
    ledger, own = ledger_of(samples), gradients(len(samples))
    sums = []
    for epoch in range(1, epochs + 1):
        hidden, _, weights, repeats = policy.select(ledger, epoch, 0.5)
        times = (~hidden).numpy().astype(float) if repeats is None else repeats.numpy()
        sums.append((times * weights.numpy()) @ own / len(samples))
    return np.array(sums), own.mean(0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("infobatch", {}),
        ("infobatch", {"pruning_probability": 0.8}),
        ("importance", {}),
        ("coin", {"weighted": True, "hiding_probability": 0.5, "confidence_threshold": 0.7}),
    ],
    ids=["infobatch", "infobatch 0.8", "importance", "coin"],
)
def test_the_weighted_gradient_is_the_full_one_on_average(name, options):
    epochs = 600
    sums, full = epoch_gradients(name, options, epochs, [(loss + 0.05, *rest) for loss, *rest in usual(120)])
    error = sums.std(0) / math.sqrt(epochs)
    assert (error < 0.05).all()
    assert (np.abs(sums.mean(0) - full) < 4 * error).all()


def test_infobatch_hides_its_share():
    samples = usual(20_000)
    losses = np.array([loss for loss, _, _ in samples])
    below = (losses < losses.mean()).mean()
    selection = create_policy("infobatch", {}).select(ledger_of(samples), 3, 0.5)
    assert selection.hidden.float().mean() == pytest.approx(0.5 * below, abs=0.01)
    assert float(selection.weights[~selection.hidden].mean() * (~selection.hidden).float().mean()) == pytest.approx(
        1.0, abs=0.02
    )


@given(samples=SAMPLES, seeds=SEEDS)
@settings(max_examples=50, deadline=None)
def test_importance_word_for_word(samples, seeds):
    policy = create_policy("importance", {"seed": seeds[0]})
    _, _, weights, repeats = selection = policy.select(ledger_of(samples), seeds[1], 0.5)
    losses = [float(np.float32(loss)) for loss, _, _ in samples]
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite or sum(finite) == 0:
        assert (hidden_ids(selection), weights, repeats) == (set(), None, None)
        return
    masses = [loss if math.isfinite(loss) else sum(finite) / len(finite) for loss in losses]
    assert int(repeats.sum()) == len(samples)
    assert torch.equal(selection.hidden, repeats == 0)
    for mass, weight, drawn in zip(masses, weights.tolist(), repeats.tolist(), strict=True):
        assert mass > 0 or not drawn
        assert weight == pytest.approx(sum(masses) / (len(samples) * mass) if drawn else 1.0, rel=1e-5)


def test_importance_draws_in_proportion_to_the_loss():
    samples, epochs = usual(30), 3000
    policy, ledger = create_policy("importance", {}, {"weighted": False}), ledger_of(samples)
    selections = [policy.select(ledger, epoch, 0.5) for epoch in range(1, epochs + 1)]
    assert all(selection.weights is None for selection in selections)
    share = sum(selection.repeats for selection in selections).numpy() / (epochs * len(samples))
    losses = ledger.loss.numpy().astype(float)
    expected = losses / losses.sum()
    assert (np.abs(share - expected) < 5 * np.sqrt(expected / (epochs * len(samples))) + 1e-12).all()


@given(samples=SAMPLES, seeds=SEEDS, probability=st.sampled_from([0.0, 0.5, 0.8]), weighted=st.booleans())
@settings(max_examples=50, deadline=None)
def test_coin_word_for_word(samples, seeds, probability, weighted):
    seed, epoch = seeds
    policy = create_policy("coin", {"seed": seed}, {"hiding_probability": probability, "weighted": weighted})
    draws = np.random.default_rng([seed, epoch]).random(len(samples), dtype=np.float32)
    known = [
        math.isfinite(loss) and correct and np.float32(confidence) >= 0.95 for loss, correct, confidence in samples
    ]
    expected = {index for index in range(len(samples)) if known[index] and draws[index] < probability}
    selection = policy.select(ledger_of(samples), epoch, 0.5)
    some_stay = len(expected) < len(samples)
    assert hidden_ids(selection) == (expected if some_stay else set())
    assert selection.candidates == sum(known)
    assert policy.weighs_samples == weighted
    assert (selection.weights is not None) == (weighted and some_stay), "of all alike, none stands for another"
    if selection.weights is not None:
        assert selection.weights.tolist() == pytest.approx([1 / (1 - probability) if sure else 1.0 for sure in known])


HISTORIES = st.integers(1, 20).flatmap(
    lambda count: st.lists(
        st.lists(
            st.tuples(st.booleans(), st.booleans(), st.sampled_from([0.5, 0.9, 1.0])), min_size=count, max_size=count
        ),
        min_size=1,
        max_size=12,
    )
)


SWITCHES = st.fixed_dictionaries(
    {}, optional={"random_pause": st.just(False), "growing": st.just(False), "refreshes": st.just(True)}
)


@given(history=HISTORIES, longest=st.sampled_from([1, 2, 3, 8, 255]), seed=st.integers(0, 2**32), switches=SWITCHES)
@settings(max_examples=100, deadline=None)
def test_spaced_repetition_word_for_word(history, longest, seed, switches):
    """What each epoch hides follows from the due epochs, and those from what was known when a sample was trained."""
    count = len(history[0])
    policy = create_policy(
        "spaced_repetition", {"seed": seed}, {"max_interval": longest, "max_resting_fraction": 1, **switches}
    )
    growing, random_pause = switches.get("growing", True), switches.get("random_pause", True)
    is_known = lambda figure: figure[1] and np.float32(figure[2]) >= 0.9  # noqa: E731
    ledger = SampleLedger(count)
    interval, due = [1] * count, [0] * count
    for epoch, figures in enumerate(history):
        hidden = {index for index in range(count) if due[index] > epoch}
        selection = policy.select(ledger, epoch, 0.0)
        assert selection.candidates == (len(hidden) if epoch else 0)
        assert hidden_ids(selection) == (hidden if len(hidden) < count else set())
        # The first figure says whether a visible sample was really trained on: a last batch may have been dropped.
        trained = np.array([present for present, _, _ in figures]) & ~selection.hidden.numpy()
        ids = np.flatnonzero(trained).tolist()
        if ids:
            update(ledger, ids, [(0.1, *figures[index][1:]) for index in ids])
        policy.observe(ledger, trained, epoch)
        rest = policy.state_dict()["rest"].tolist()
        for index in ids:
            longer = min(2 * interval[index], longest) if growing else longest
            interval[index] = longer if is_known(figures[index]) else 1
            due[index] = epoch + 1 + rest[index]
            shortest = math.ceil(interval[index] / 2) if random_pause else interval[index]
            assert shortest <= due[index] - epoch <= interval[index]
        assert policy.state_dict()["interval"].tolist() == interval
        if policy.wants_refresh(epoch):
            for index in hidden_ids(selection):
                update(ledger, [index], [(0.1, *figures[index][1:])])
                if due[index] > epoch + 1 and not is_known(figures[index]):
                    interval[index], due[index] = 1, epoch + 1


def test_spaced_repetition_returns_in_no_waves():
    policy, ledger = (
        create_policy("spaced_repetition", {}, {"max_resting_fraction": 1}),
        ledger_of([(0.1, True, 0.99)] * 5000),
    )
    for epoch in range(3):
        policy.observe(ledger, np.ones(5000, dtype=bool), epoch)
    assert (policy.state_dict()["interval"] == 8).all()
    pauses = np.bincount(policy.state_dict()["rest"] + 1, minlength=9)
    assert pauses[:4].sum() == 0
    assert np.abs(pauses[4:] / 5000 - 0.2).max() < 0.03


def test_spaced_repetition_refreshes_only_if_asked_to():
    assert not create_policy("spaced_repetition", {"refresh_interval": 1}).wants_refresh(3)
    assert create_policy("spaced_repetition", {"refresh_interval": 0}, {"refreshes": True}).wants_refresh(3)


@pytest.mark.parametrize("share", [0.0, 0.29, 0.5])
def test_spaced_repetition_up_to_a_share(share):
    policy, ledger = (
        create_policy("spaced_repetition", {}, {"max_resting_fraction": share}),
        ledger_of([(0.1, True, 0.99)] * 100),
    )
    for epoch in range(3):
        policy.observe(ledger, np.arange(100) > 5, epoch)
    selection = policy.select(ledger, 3, 0.0)
    assert int(selection.hidden.sum()) == round(100 * share)
    assert not selection.hidden[:6].any(), "only those that rest"


@pytest.mark.parametrize("online", [False, True])
@given(history=HISTORIES, fraction=st.sampled_from([0.0, 0.3, 0.5, 0.9]), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_forgetting_word_for_word(online, history, fraction, seed):
    count = len(history[0])
    policy = create_policy("forgetting", {"max_hidden_fraction": fraction, "seed": seed}, {"online": online})
    ledger = SampleLedger(count)
    events, before, learned = [0] * count, [False] * count, [False] * count
    chosen = set()
    for epoch, figures in enumerate(history):
        progress = epoch / len(history)
        selection = policy.select(ledger, epoch, progress)
        hidden = hidden_ids(selection)
        if epoch == 0 or progress < 0.2:
            assert not hidden
        elif chosen and not online:
            assert hidden == chosen
        else:
            times = [events[index] if learned[index] else math.inf for index in range(count)]
            assert sorted(times[index] for index in hidden) == sorted(times)[: math.floor(round(fraction * count, 9))]
        chosen = hidden
        ledger.hide(selection.hidden)
        trained = np.array([index not in hidden for index in range(count)])
        ids = np.flatnonzero(trained).tolist()
        update(ledger, ids, [(0.1, *figures[index][1:]) for index in ids])
        policy.observe(ledger, trained, epoch)
        for index in ids:
            events[index] += before[index] and not figures[index][1]
            before[index] = figures[index][1]
            learned[index] |= figures[index][1]


def test_forgetting_online_hears_of_what_is_forgotten_while_hidden():
    policy, ledger = create_policy("forgetting", {"max_hidden_fraction": 0.5}, {"online": True}), SampleLedger(2)
    update(ledger, [0, 1], [(0.1, True, 0.9), (0.1, False, 0.9)])
    policy.observe(ledger, np.ones(2, dtype=bool), 0)
    assert hidden_ids(policy.select(ledger, 1, 0.5)) == {0}, "the other one was never learned"
    update(ledger, [1], [(0.1, True, 0.9)])
    policy.observe(ledger, np.array([False, True]), 1)
    update(ledger, [0], [(0.1, False, 0.9)])  # a refresh
    policy.observe(ledger, np.array([False, True]), 2)
    assert hidden_ids(policy.select(ledger, 3, 0.6)) == {1}
    assert policy.wants_refresh(3)
    assert not create_policy("forgetting", {}).wants_refresh(3)


@pytest.mark.parametrize("name", ["forgetting", "spaced_repetition", "ies"])
def test_a_state_of_its_own_is_saved_and_loaded(name):
    policy, ledger = observed(name, usual(50))
    loaded = create_policy(name, {"seed": 3})
    loaded.load_state_dict({key: tensor.clone() for key, tensor in policy.state_dict().items()})
    assert torch.equal(loaded.select(ledger, 6, 0.4).hidden, policy.select(ledger, 6, 0.4).hidden)
    policy.observe(ledger, np.ones(50, dtype=bool), 6)
    loaded.observe(ledger, np.ones(50, dtype=bool), 6)
    assert same_tensors(loaded.state_dict(), policy.state_dict())
