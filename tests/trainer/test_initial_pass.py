"""A pass over all samples before the first epoch, so that what a model knows beforehand is hidden from the start."""

import logging

import pytest
import torch
from test_refresh import Noisy
from torch import nn
from transformers import Trainer

from hf_kakurenbo.trainer import epochs as trainer_epochs
from processes import run_ranks
from stream_toy import streamed
from toy import (
    NUM_SAMPLES,
    Classifier,
    LinearClassifier,
    epochs,
    losses,
    make_trainer,
    same_tensors,
    same_weights,
    samples,
    trained,
    without_timings,
)

INITIAL_PASS = {"initial_pass": True, "hiding_warmup_epochs": 0}
KAKURENBO = {"hiding_policy": "kakurenbo", "confidence_threshold": 0.5}
SPACED = {
    "hiding_policy": "spaced_repetition",
    "confidence_threshold": 0.6,
    "policy_options": {"max_resting_fraction": 1.0},
}


def knowing(kind=Classifier):
    """A model that knows most of the samples beforehand."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        model = kind()
        x, labels = (torch.stack([sample[name] for sample in samples()]) for name in ("x", "labels"))
        optimizer = torch.optim.Adam(model.parameters(), 0.05)
        for _ in range(40):
            optimizer.zero_grad()
            model(x, labels)["loss"].backward()
            optimizer.step()
    return model


def knowing_linear():
    return knowing(LinearClassifier)


def hidden_by_epoch(trainer):
    return [int(mask.sum()) for mask in trainer.watch.hidden]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dataset": Noisy()},
        {"dataloader_drop_last": True, "gradient_accumulation_steps": 5},
        {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
        {"bf16": True, "max_steps": 30},
    ],
    ids=["plain", "random transforms", "drop last", "persistent workers", "max steps"],
)
def test_with_nothing_hidden_it_leaves_no_trace(tmp_path, options):
    plain = trained(tmp_path / "plain", Trainer, **options)
    looked = trained(tmp_path / "looked", max_hidden_fraction=0.0, **INITIAL_PASS, **options)
    assert looked._training.run.refreshed_samples == NUM_SAMPLES
    assert losses(looked) == losses(plain)
    assert same_weights(looked, plain)
    assert looked.state.global_step == plain.state.global_step
    assert looked._training.run.time_saved < 0


@pytest.mark.parametrize("policy", [KAKURENBO, SPACED], ids=["kakurenbo", "spaced_repetition"])
@pytest.mark.parametrize("stream", [False, True], ids=["map-style", "stream"])
def test_what_is_known_beforehand_is_hidden_in_the_first_epoch(tmp_path, policy, stream):
    data = {"dataset": streamed(), "num_samples": NUM_SAMPLES} if stream else {}
    options = {"model": knowing, "num_train_epochs": 3, **policy, **data}
    without = trained(tmp_path / "without", hiding_warmup_epochs=0, **options)
    assert hidden_by_epoch(without)[0] == 0
    looked = trained(tmp_path / "looked", **INITIAL_PASS, **options)
    hidden = hidden_by_epoch(looked)
    assert hidden[0] > 40
    run = looked._training.run
    assert run.trained_samples == 3 * NUM_SAMPLES - sum(hidden)
    refreshed = sum(hidden[:-1]) if policy is KAKURENBO else 0
    assert run.refreshed_samples == NUM_SAMPLES + refreshed
    assert epochs(looked)[0]["kakurenbo/lr_scale"] == pytest.approx(NUM_SAMPLES / (NUM_SAMPLES - hidden[0]))


def test_a_stream_with_persistent_workers(tmp_path):
    workers = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
    options = {"model": knowing, "dataset": streamed(), "num_samples": NUM_SAMPLES, **KAKURENBO, **INITIAL_PASS}
    alone, many = (trained(tmp_path / name, **options, **more) for name, more in {"0": {}, "2": workers}.items())
    assert hidden_by_epoch(alone)[0] > 40
    assert torch.equal(alone.watch.hidden[0], many.watch.hidden[0])  # then the workers' seeds make dropout another
    for trainer in (alone, many):
        run, hidden = trainer._training.run, hidden_by_epoch(trainer)
        assert run.refreshed_samples == NUM_SAMPLES + sum(hidden[:-1])
        assert run.trained_samples == 4 * NUM_SAMPLES - sum(hidden)


def test_it_measures_in_evaluation_mode_what_the_policy_then_reads(tmp_path):
    trainer = make_trainer(tmp_path, model=knowing, num_train_epochs=1, **KAKURENBO, **INITIAL_PASS)
    x, labels = (torch.stack([sample[name] for sample in samples()]) for name in ("x", "labels"))
    with torch.no_grad():
        expected = nn.functional.cross_entropy(trainer.model.eval()(x)["logits"], labels, reduction="none")
    trainer.model.train()
    trainer.train()
    hidden = trainer.ledger.hidden  # and so not measured since
    assert hidden.sum() > 40
    torch.testing.assert_close(trainer.ledger.loss[hidden], expected[hidden])
    assert hidden.sum() <= 0.3 * NUM_SAMPLES
    assert expected[hidden].max() <= expected.sort().values[int(0.3 * NUM_SAMPLES)]


@pytest.mark.parametrize("policy", [KAKURENBO, SPACED], ids=["kakurenbo", "spaced_repetition"])
@pytest.mark.parametrize("step", [5, 15])
def test_resumed_it_is_not_done_again(tmp_path, monkeypatch, policy, step):
    options = {"model": knowing, "save_strategy": "steps", "save_steps": 5, **policy, **INITIAL_PASS}
    whole = trained(tmp_path / "whole", **options)
    assert hidden_by_epoch(whole)[0] > 40
    resumed = make_trainer(tmp_path / "resumed", seed=2, **options)
    looks = []
    monkeypatch.setattr(trainer_epochs, "measure_all", lambda *args: looks.append(args))
    resumed.train(str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert not looks
    assert same_weights(resumed, whole)
    assert same_tensors(resumed.ledger.state_dict(), whole.ledger.state_dict())
    assert resumed._training.run.refreshed_samples == whole._training.run.refreshed_samples
    log = [[e for e in without_timings(one.state.log_history) if "train_loss" not in e] for one in (resumed, whole)]
    assert log[0] == log[1]


def test_a_second_training_looks_anew(tmp_path):
    trainer = trained(tmp_path, model=knowing, num_train_epochs=2, **SPACED, **INITIAL_PASS)
    trainer.train()
    assert trainer._training.run.refreshed_samples == NUM_SAMPLES
    assert hidden_by_epoch(trainer)[2] > 40


def test_samples_without_a_loss_are_told_of_whether_they_are_hidden_or_not(tmp_path, caplog):
    data = samples()
    data[3] = {**data[3], "labels": torch.tensor(-100)}
    with caplog.at_level(logging.WARNING):
        trainer = trained(tmp_path, model=knowing, dataset=data, num_train_epochs=2, **KAKURENBO, **INITIAL_PASS)
    assert hidden_by_epoch(trainer)[0] > 40
    assert "1 of the 203 samples have no finite loss" in caplog.text


def outcomes(folder, batch_size):
    """What a training hides that begins with a pass over all samples, by policy."""
    made = {}
    for name, policy in {"kakurenbo": KAKURENBO, "spaced": SPACED}.items():
        options = {"model": knowing_linear, "num_train_epochs": 3, **policy, **INITIAL_PASS}
        trainer = trained(folder / name, per_device_train_batch_size=batch_size, dataloader_drop_last=True, **options)
        made[name] = (trainer.watch.hidden, trainer._training.run.refreshed_samples, trainer.ledger.state_dict())
    return made


def outcome_of_a_stream(folder, batch_size):
    """What a training on a stream hides and looks at, of which a refresh looks at a part."""
    trainer = trained(
        folder,
        **{"model": knowing_linear, "dataset": streamed(), "num_samples": NUM_SAMPLES, "num_train_epochs": 3},
        **{"per_device_train_batch_size": batch_size, "dataloader_drop_last": True, **KAKURENBO, **INITIAL_PASS},
        policy_options={"refreshed_fraction": 0.5},
    )
    return trainer.watch.hidden, trainer._training.run.refreshed_samples, trainer.ledger.state_dict()


@pytest.mark.wide
def test_two_processes_look_at_a_stream_as_one_does(tmp_path):
    first, second = run_ranks(2, outcome_of_a_stream, tmp_path, 8)
    hidden, refreshed, _ = outcome_of_a_stream(tmp_path / "alone", 16)
    assert hidden[0].sum() > 40
    assert first[1] == second[1] == refreshed < NUM_SAMPLES + sum(int(mask.sum()) for mask in hidden[:-1])
    for mine in (first, second):
        assert all(torch.equal(one, other) for one, other in zip(mine[0], hidden, strict=True))
    assert same_tensors(first[2], second[2])


@pytest.mark.wide
def test_two_processes_hide_what_one_does(tmp_path):
    first, second = run_ranks(2, outcomes, tmp_path, 8)
    alone = outcomes(tmp_path / "alone", 16)
    for name, (hidden, refreshed, ledger) in alone.items():
        assert hidden[0].sum() > 40
        for mine in (first[name], second[name]):
            assert all(torch.equal(one, other) for one, other in zip(mine[0], hidden, strict=True))
            assert mine[1] == refreshed
            torch.testing.assert_close(mine[2]["loss"], ledger["loss"], rtol=1e-3, atol=1e-4)
        assert same_tensors(first[name][2], second[name][2])
