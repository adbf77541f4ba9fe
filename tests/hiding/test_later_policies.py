"""OrderDP, SeTa and IES against slow literal transcriptions of their papers' rules, and against what they promise."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hf_kakurenbo import SampleLedger
from hf_kakurenbo.hiding import IESPolicy, OrderDPPolicy, SeTaPolicy
from hf_kakurenbo.hiding import ledger as ledger_module
from hf_kakurenbo.hiding.policies.seta import first_centers, group_borders
from hf_kakurenbo.hiding.ranking import lowest_loss
from ledger_toy import LOSSES, SAMPLES, SEEDS, hidden_ids, ledger_of, update, usual

FRACTIONS = [0.29, 0.5, 0.8, 1.0]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """A ledger is gone through in parts: so small that a few samples have several."""
    monkeypatch.setattr(ledger_module, "_PART", 7)


def floor(count, *fractions):
    return math.floor(math.prod(Fraction(str(fraction)) for fraction in fractions) * count)


def single(loss):
    return float(np.float32(loss))


def finite_ids(samples):
    return [index for index, (loss, _, _) in enumerate(samples) if math.isfinite(loss)]


def large_ledger(count=200_000):
    ledger = SampleLedger(count)
    ledger.loss.copy_(torch.rand(count, generator=torch.Generator().manual_seed(0)))
    return ledger


# ---- OrderDP ----


@given(samples=SAMPLES, drawn=st.sets(st.integers(0, 39)), count=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_the_lowest_losses_of_a_subset(samples, drawn, count):
    count = min(count, len(samples))
    among = np.array([index in drawn for index in range(len(samples))])
    inside = [index for index in finite_ids(samples) if index in drawn]
    expected = sorted(inside, key=lambda index: (single(samples[index][0]), index))[:count]
    assert set(np.flatnonzero(lowest_loss(ledger_of(samples), count, among))) == set(expected)


@given(samples=SAMPLES, seeds=SEEDS, drawn=st.sampled_from(FRACTIONS), kept=st.sampled_from(FRACTIONS))
@settings(max_examples=60, deadline=None)
def test_order_dp_word_for_word(samples, seeds, drawn, kept):
    """Of the subset, which is drawn with as many as it should have, the highest losses are trained on."""
    policy = OrderDPPolicy(drawn, kept, seed=seeds[0])
    selection = policy.select(ledger_of(samples), seeds[1], 0.5)
    hidden, measured = hidden_ids(selection), finite_ids(samples)
    size = max(floor(len(measured), drawn), min(len(measured), 1))
    most = max(floor(size, kept), min(len(measured), 1))
    subset = OrderDPPolicy(drawn, 1.0, seed=seeds[0]).select(ledger_of(samples), seeds[1], 0.5).hidden
    subset = [index for index in measured if not subset[index]]
    assert len(subset) == size
    expected = sorted(subset, key=lambda index: (single(samples[index][0]), index))[size - most :]
    assert hidden == set(measured) - set(expected)
    assert selection.candidates == len(hidden)
    assert selection.weights is None
    assert policy.most_hidden(len(measured), seeds[1], 0.5) == len(hidden)


def test_order_dp_draws_each_sample_as_often():
    ledger, epochs = ledger_of([(0.1, True, 0.9)] * 20), 3000
    policy = OrderDPPolicy(0.8, 1.0, seed=5)
    hidden = np.stack([policy.select(ledger, epoch, 0.0).hidden.numpy() for epoch in range(1, epochs + 1)])
    assert np.abs(hidden.mean(0) - 0.2).max() < 4 * math.sqrt(0.2 * 0.8 / epochs)


@pytest.mark.parametrize(("drawn", "kept"), [(0.8, 0.9), (0.75, 0.8), (1.0, 0.85)])
def test_order_dp_of_many_hides_its_fraction(monkeypatch, drawn, kept):
    monkeypatch.undo()
    ledger = large_ledger()
    hidden = OrderDPPolicy(drawn, kept).select(ledger, 1, 0.0).hidden
    assert int(hidden.sum()) == 200_000 - floor(200_000, drawn, kept)
    lowest = ledger.loss < 1 - kept
    assert hidden[lowest].float().mean() > 0.99
    assert hidden[~lowest].float().mean() == pytest.approx(1 - drawn, abs=0.01)


def test_order_dp_with_a_limit_hides_others_in_the_next_epoch():
    policy, ledger = OrderDPPolicy(1.0, 0.7, 1), ledger_of([(index / 10, False, 0.1) for index in range(10)])
    hidden = []
    for epoch in range(1, 5):
        selection = policy.select(ledger, epoch, 0.0)
        ledger.hide(selection.hidden)
        policy.observe(ledger, ~selection.hidden.numpy(), epoch)
        hidden.append(hidden_ids(selection))
    assert hidden == [{0, 1, 2}, {3, 4, 5}] * 2
    loaded = OrderDPPolicy(1.0, 0.7, 1)
    loaded.load_state_dict(policy.state_dict())
    assert hidden_ids(loaded.select(ledger, 5, 0.0)) == {0, 1, 2}


@given(samples=SAMPLES, seed=st.integers(0, 2**32), limit=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_order_dp_hides_nothing_for_longer_than_its_limit(samples, seed, limit):
    policy, ledger = OrderDPPolicy(0.5, 0.5, limit, seed=seed), ledger_of(samples)
    hidden_for = np.zeros(len(samples), dtype=int)
    for epoch in range(1, 9):
        selection = policy.select(ledger, epoch, 0.0)
        hidden = selection.hidden.numpy()
        hidden_for = np.where(hidden, hidden_for + 1, 0)
        assert hidden_for.max() <= limit
        assert selection.candidates == policy.most_hidden(len(finite_ids(samples)), epoch, 0.0)
        assert selection.moved_back >= 0
        ledger.hide(selection.hidden)
        policy.observe(ledger, ~hidden, epoch)


def test_order_dp_keeps_count_only_with_a_limit():
    assert not OrderDPPolicy().observes
    assert OrderDPPolicy(max_consecutive_hidden=2).observes


# ---- SeTa ----


def literal_groups(losses, groups):
    """k-means of a few numbers as the textbook has it, from the same first centers: a group for each number.

    None where rounding may decide to which of two centers a number is nearer.
    """
    centers, found = first_centers(np.sort(losses).astype(float), groups).tolist(), None
    while True:
        distances = [[abs(loss - center) for center in centers] for loss in losses]
        if any(math.isclose(*sorted(row)[:2], rel_tol=1e-6) for row in distances if len(row) > 1):
            return None
        nearest = [row.index(min(row)) for row in distances]
        if nearest == found:
            return found
        found = nearest
        members = [[loss for loss, own in zip(losses, nearest, strict=True) if own == index] for index in set(nearest)]
        centers = sorted(math.fsum(group) / len(group) for group in members)


@given(losses=st.lists(st.integers(0, 1000), min_size=1, max_size=40), groups=st.integers(1, 6))
@settings(max_examples=150, deadline=None)
def test_the_groups_are_those_of_k_means(losses, groups):
    borders = group_borders(np.array(losses, dtype=np.float32), groups)
    belongs = np.searchsorted(borders, losses)
    assert set(belongs) == set(range(len(borders) + 1)), "no group is empty"
    assert len(borders) + 1 <= min(groups, len(set(losses)))
    assert np.array_equal(borders, np.sort(borders))
    centers = [np.mean(np.array(losses)[belongs == index]) for index in range(len(borders) + 1)]
    distances = np.abs(np.array(losses)[:, None] - centers)
    own = distances[np.arange(len(losses)), belongs]
    assert (own <= distances.min(1) + 1e-9).all(), "each is in the group of the nearest center"


def test_groups_that_lie_apart_are_found():
    random = np.random.default_rng(0)
    parts = [random.normal(center, 0.05, size) for center, size in ((0, 50), (1, 40), (2, 60), (4, 50))]
    borders = group_borders(random.permutation(np.concatenate(parts)), 4)
    assert np.abs(borders - [0.5, 1.5, 3.0]).max() < 0.2


@pytest.mark.parametrize("groups", [2, 5, 10])
def test_the_groups_are_as_tight_as_those_of_scikit_learn(groups):
    sklearn = pytest.importorskip("sklearn.cluster")
    losses = np.random.default_rng(0).lognormal(-2, 1.5, 3000)
    belongs = np.searchsorted(group_borders(losses, groups), losses)
    spread = sum(((losses[belongs == index] - losses[belongs == index].mean()) ** 2).sum() for index in range(groups))
    theirs = sklearn.KMeans(groups, random_state=0).fit(losses[:, None])
    assert spread <= 1.1 * theirs.inertia_


def test_the_first_centers_are_spread_where_losses_are():
    assert first_centers(np.linspace(0, 1, 1001), 4) == pytest.approx([0.125, 0.375, 0.625, 0.875], abs=0.01)
    assert first_centers(np.full(9, 0.5), 4).tolist() == [0.5]
    late = np.sort(np.concatenate([np.random.default_rng(0).exponential(1e-3, 950), np.linspace(0.1, 5, 50)]))
    assert (first_centers(late, 5) > 0.1).sum() >= 3, "most losses are close to 0"


def test_no_losses_have_no_groups():
    assert len(group_borders(np.empty(0, dtype=np.float32), 5)) == 0


@given(
    samples=SAMPLES,
    seeds=SEEDS,
    dropped=st.sampled_from([0.0, 0.1, 0.5]),
    groups=st.integers(1, 5),
    window=st.sampled_from([0.1, 0.5, 0.9, 1.0]),
    progress=st.sampled_from([0.0, 0.5, 0.874, 0.875, 0.95]),
)
@settings(max_examples=120, deadline=None)
def test_seta_word_for_word(samples, seeds, dropped, groups, window, progress):
    seed, epoch = seeds
    policy = SeTaPolicy(dropped, groups, window, seed=seed)
    ledger = ledger_of(samples)
    selection = policy.select(ledger, epoch, progress)
    # In the last epochs nothing but the random ones is hidden, and an epoch draws them alike whatever follows.
    random_ones = hidden_ids(SeTaPolicy(dropped, groups, window, 0.0, seed=seed).select(ledger, epoch, progress))
    measured = finite_ids(samples)
    assert len(random_ones) == floor(len(measured), dropped)
    assert random_ones <= set(measured)
    expected = set(random_ones)
    rest = [index for index in measured if index not in random_ones]
    losses = [single(samples[index][0]) for index in rest]
    if progress < 0.875 and rest:
        group = literal_groups(losses, groups)
        assume(group is not None)
        size = max(1, round(window * len(set(group))))
        start = epoch % (len(set(group)) - size + 1)
        expected |= {index for index, own in zip(rest, group, strict=True) if not start <= own < start + size}
    assert hidden_ids(selection) == expected
    assert selection.candidates == len(expected)
    assert selection.weights is None


def test_setas_window_slides_from_easy_to_hard_and_begins_anew():
    policy = SeTaPolicy(dropped_fraction=0.0, groups=5, window_fraction=0.6)
    ledger = ledger_of([(float(index // 4), True, 0.9) for index in range(20)])
    visible = []
    for epoch in range(1, 8):
        shown = ~policy.select(ledger, epoch, 0.1).hidden
        visible.append(sorted(set(ledger.loss[shown].tolist())))
    slid = [[0.0, 1.0, 2.0], [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]
    assert visible == [slid[epoch % 3] for epoch in range(1, 8)]


def test_seta_as_set_for_cifar_leaves_out_the_hardest_and_the_easiest_in_turns():
    policy, ledger = SeTaPolicy(dropped_fraction=0.0), ledger_of([(float(index % 5), True, 0.9) for index in range(20)])
    left_out = [set(ledger.loss[policy.select(ledger, epoch, 0.1).hidden].tolist()) for epoch in (1, 2, 3, 4)]
    assert left_out == [{0.0}, {4.0}] * 2


def test_seta_of_many_forms_its_groups_on_some(monkeypatch):
    monkeypatch.undo()
    ledger = large_ledger()
    hidden = SeTaPolicy(dropped_fraction=0.1).select(ledger, 1, 0.0).hidden
    easiest = ledger.loss < 0.19  # of uniform losses each group is a fifth
    assert hidden[easiest].all()
    assert hidden[ledger.loss > 0.21].float().mean() == pytest.approx(0.1, abs=0.005)


def test_seta_may_hide():
    policy = SeTaPolicy(dropped_fraction=0.0, hiding_warmup_epochs=2)
    assert [policy.may_hide(epoch, progress) for epoch, progress in ((1, 0.1), (2, 0.2), (8, 0.8), (9, 0.9))] == [
        False, True, True, False,
    ]  # fmt: skip
    assert SeTaPolicy(hiding_warmup_epochs=2).may_hide(9, 0.9)


# ---- IES ----

TRACES = st.integers(1, 12).flatmap(
    lambda count: st.lists(
        st.lists(st.tuples(st.booleans(), LOSSES), min_size=count, max_size=count), min_size=1, max_size=14
    )
)


@given(traces=TRACES, delta=st.sampled_from([1e-3, 0.3, 2.0, 50.0]))
@settings(max_examples=150, deadline=None)
def test_ies_word_for_word(traces, delta):
    """Each sample's losses are written down, those of a refresh too; a last batch may be left out."""
    count = len(traces[0])
    policy, ledger = IESPolicy(delta), SampleLedger(count)
    losses = [[] for _ in range(count)]
    for epoch, figures in enumerate(traces):
        hidden = set()
        for index, known in enumerate(losses):
            if len(known) < 5 or epoch == 0:
                continue
            last = [np.float32(loss) for loss in known[-5:]]
            with np.errstate(invalid="ignore"):
                second = [abs(last[at] - 2 * last[at + 1] + last[at + 2]) for at in range(3)]
            mean = np.mean(second)
            assume(not math.isclose(mean, delta, rel_tol=1e-5))
            hidden |= {index} if mean < delta else set()
        selection = policy.select(ledger, epoch, 0.5)
        assert selection.candidates == len(hidden)
        assert hidden_ids(selection) == (hidden if len(hidden) < count else set())
        again = policy.select(ledger, epoch, 0.5)
        assert torch.equal(again.hidden, selection.hidden), "a refresh is taken in once"
        ledger.hide(selection.hidden)
        hidden = hidden_ids(selection)
        trained = np.array([present and index not in hidden for index, (present, _) in enumerate(figures)])
        for index, (_, loss) in enumerate(figures):
            if trained[index]:
                update(ledger, [index], [(loss, True, 0.9)])
        policy.observe(ledger, trained, epoch)
        for index, (_, loss) in enumerate(figures):
            if index in hidden:
                update(ledger, [index], [(loss, True, 0.9)])  # its refresh
            if index in hidden or trained[index]:
                losses[index].append(loss)


def test_ies_brings_back_a_sample_whose_loss_moves():
    policy, ledger, hidden = IESPolicy(0.01), SampleLedger(2), []
    for epoch, loss in enumerate([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9]):
        selection = policy.select(ledger, epoch, 0.0)
        hidden.append(0 in hidden_ids(selection))
        ledger.hide(selection.hidden)
        update(ledger, [1], [(float(epoch % 2), False, 0.5)])
        if not hidden[-1]:
            update(ledger, [0], [(loss, True, 0.9)])
        policy.observe(ledger, ~selection.hidden.numpy(), epoch)
        if hidden[-1]:
            update(ledger, [0], [(loss, True, 0.9)])
    # Five losses are known from epoch 5 on. What moved in epoch 6 counts for as long as it is among the last five.
    assert hidden == [False] * 5 + [True] * 2 + [False] * 4
    assert policy.wants_refresh(3)


def test_ies_hides_what_will_not_be_learned_too():
    policy, ledger = IESPolicy(), ledger_of([(9.0, False, 0.9), *usual(3)])
    for epoch in range(5):
        moving = [(loss * (2 + (-1) ** epoch), *rest) for loss, *rest in usual(3)]
        update(ledger, range(1, 4), moving)
        policy.observe(ledger, np.ones(4, dtype=bool), epoch)
    assert hidden_ids(policy.select(ledger, 5, 0.5)) == {0}
