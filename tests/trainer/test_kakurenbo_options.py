"""KAKURENBO with a limit to how long a sample is hidden, and with a refresh of a share of the hidden samples."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_kakurenbo import SampleLedger, SampleStatistics
from hf_kakurenbo.hiding import HidingRun, KakurenboPolicy, Measurements
from hf_kakurenbo.hiding import ledger as ledger_module
from hf_kakurenbo.trainer import epochs as trainer_epochs
from stream_toy import streamed
from toy import NUM_SAMPLES, epochs, make_trainer

HIDE_ALL = {"max_hidden_fraction": 0.9, "hiding_warmup_epochs": 0, "move_back": False}


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """A ledger is gone through in parts: so small that a few samples have several."""
    monkeypatch.setattr(ledger_module, "_PART", 7)


def measured(count, confidence=None):
    """A ledger in which the loss rises with the id."""
    ledger = SampleLedger(count)
    confidence = torch.ones(count) if confidence is None else torch.tensor(confidence)
    correct = torch.ones(count, dtype=torch.bool)
    ledger.update(Measurements.of(torch.arange(count), torch.arange(count).float(), correct, confidence.float()))
    return ledger


# ---- Hidden for so many epochs in a row at most ----


@given(
    dropped=st.lists(st.sets(st.integers(0, 9)), min_size=1, max_size=12),
    limit=st.sampled_from([1, 2, 3, 255]),
)
@settings(max_examples=60, deadline=None)
def test_hidden_so_often_in_a_row_it_is_shown(dropped, limit):
    """Each epoch's last batch is left out with some samples in it: they have not been seen, and are shown again."""
    policy, ledger = KakurenboPolicy(**HIDE_ALL, max_consecutive_hidden=limit), measured(10)
    hidden_for = [0] * 10
    for epoch, left_out in enumerate(dropped):
        selection = policy.select(ledger, epoch, 0.0)
        hidden = {index for index in range(9) if hidden_for[index] < limit}
        assert set(selection.hidden.nonzero().flatten().tolist()) == hidden
        assert selection.moved_back == 9 - len(hidden)
        ledger.hide(selection.hidden)
        trained = np.array([index not in hidden | left_out for index in range(10)])
        policy.observe(ledger, trained, epoch)
        for index in range(10):
            hidden_for[index] = 0 if trained[index] else hidden_for[index] + (index in hidden)


def test_the_count_of_a_sample_hidden_for_ever_stays_where_it_is():
    policy, ledger = KakurenboPolicy(**HIDE_ALL, max_consecutive_hidden=255), measured(2)
    ledger.hide(torch.tensor([True, False]))
    for epoch in range(300):
        policy.observe(ledger, np.array([False, True]), epoch)
    assert policy.state_dict()["streak"].tolist() == [255, 0]


def run_of(**options):
    return HidingRun(10, KakurenboPolicy(**HIDE_ALL, **options))


def train(run, ids):
    ids = torch.tensor(ids)
    run.record(ids, SampleStatistics(ids.float(), torch.ones(len(ids), dtype=torch.bool), torch.ones(len(ids))))


@pytest.mark.parametrize("moment", ["begun", "in the middle", "finished"])
def test_an_interrupted_epoch_goes_on_as_if_it_were_not(moment):
    run = run_of(max_consecutive_hidden=2)
    interrupted = run_of(max_consecutive_hidden=2)
    for epoch in range(8):
        run.begin_epoch(epoch, 0.0)
        visible = run.ledger.visible_ids.tolist()
        if epoch == 4 and moment == "begun":
            interrupted.load_state(*saved(run))
        train(run, visible[:1])
        if epoch == 4 and moment == "in the middle":
            interrupted.load_state(*saved(run))
        train(run, visible[1:])
        run.finish_epoch()
        if epoch == 4:
            if moment == "finished":
                interrupted.load_state(*saved(run))
            else:
                train(interrupted, visible[0 if moment == "begun" else 1 :])
                interrupted.finish_epoch()
        if epoch > 4:
            interrupted.begin_epoch(epoch, 0.0)
            assert torch.equal(interrupted.ledger.hidden, run.ledger.hidden)
            train(interrupted, visible)
            interrupted.finish_epoch()
    assert run.ledger.times_hidden.tolist() == [5] * 9 + [0]
    assert torch.equal(interrupted.ledger.times_hidden, run.ledger.times_hidden)


def saved(run):
    tensors, scalars = run.state()
    return {name: tensor.clone() for name, tensor in tensors.items()}, scalars


def test_without_the_limit_nothing_is_kept():
    run = run_of()
    run.begin_epoch(0, 0.0)
    train(run, list(range(10)))
    run.finish_epoch()
    assert not run.policy.observes
    assert run.policy.state_dict() == {}
    limited = run_of(max_consecutive_hidden=2)
    limited.load_state(*run.state())  # and a limit can be set in the middle of a training
    assert limited.policy.state_dict() == {}
    limited.begin_epoch(1, 0.0)
    limited.finish_epoch()
    run.load_state(*limited.state())  # or given up
    assert run.policy.state_dict() == {}


# ---- A refresh of some ----


@given(
    figures=st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.7, 0.7, 0.9, 1.0])), min_size=1, max_size=40),
    fraction=st.sampled_from([0.01, 0.29, 0.5, 0.999]),
    first=st.sampled_from(["least_confident", "random"]),
    seed=st.integers(0, 2**32),
)
def test_a_share_of_the_hidden_samples_word_for_word(figures, fraction, first, seed):
    ledger = measured(len(figures), [confidence for _, confidence in figures])
    hidden = torch.tensor([hidden for hidden, _ in figures])
    hidden[0] = True  # a refresh where nothing is hidden is not asked for
    ledger.hide(hidden)
    policy = KakurenboPolicy(refreshed_fraction=fraction, refresh_first=first, seed=seed)
    chosen = policy.to_refresh(ledger, 3)
    count = math.ceil(Fraction(str(fraction)) * int(hidden.sum()))
    assert int(chosen.sum()) == count
    assert not (chosen & ~hidden).any()
    assert torch.equal(chosen, policy.to_refresh(ledger, 3))
    if first == "least_confident":
        ids = sorted(hidden.nonzero().flatten().tolist(), key=lambda index: (figures[index][1], index))
        assert set(chosen.nonzero().flatten().tolist()) == set(ids[:count])


def test_all_of_them_by_default():
    assert KakurenboPolicy().to_refresh(measured(5), 1) is None


def test_random_ones_are_of_the_seed_and_the_epoch():
    ledger = measured(100)
    ledger.hide(torch.arange(100) < 60)
    chosen = [
        KakurenboPolicy(refreshed_fraction=0.5, refresh_first="random", seed=seed).to_refresh(ledger, epoch).tolist()
        for seed, epoch in [(0, 1), (1, 1), (0, 2)]
    ]
    assert len(set(map(tuple, chosen))) == 3


@pytest.mark.parametrize("first", ["least_confident", "random"])
@pytest.mark.parametrize(
    "kind",
    [{}, {"dataloader_num_workers": 1, "dataloader_persistent_workers": True}, {"streamed": True}],
    ids=["map-style", "persistent workers", "stream"],
)
def test_a_training_looks_at_those_and_no_others(tmp_path, monkeypatch, first, kind):
    options = dict(kind)
    if options.pop("streamed", False):
        options |= {"dataset": streamed(), "num_samples": NUM_SAMPLES}
    trainer = make_trainer(
        tmp_path,
        **{"num_train_epochs": 5, "max_hidden_fraction": 0.5, "move_back": False, **options},
        policy_options={"refreshed_fraction": 0.3, "refresh_first": first},
    )
    counts = []
    refresh = trainer_epochs.refresh_hidden

    def watched_refresh(trainer, training):
        ledger = training.run.ledger
        chosen = training.run.policy.to_refresh(ledger, training.run.epoch)
        hidden, before = ledger.hidden.clone(), ledger.loss.clone()
        refresh(trainer, training)
        assert torch.equal(ledger.loss != before, chosen)
        assert torch.equal(ledger.hidden, hidden)
        samples = training.sampler.samples  # what a checkpoint says of the epoch
        assert samples == NUM_SAMPLES - int(hidden.sum())
        counts.append(int(chosen.sum()))

    monkeypatch.setattr(trainer_epochs, "refresh_hidden", watched_refresh)
    trainer.train()
    hidden = [int(mask.sum()) for mask in trainer.watch.hidden]
    assert counts == [math.ceil(Fraction("0.3") * count) for count in hidden[1:-1]]
    run = trainer._training.run
    assert run.refreshed_samples == sum(counts)
    assert run.trained_samples == 5 * NUM_SAMPLES - sum(hidden)
    assert all(entry["kakurenbo/refresh_runtime"] > 0 for entry in epochs(trainer)[1:-1])
