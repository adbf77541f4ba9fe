"""Trainings by each policy: resumed as if never killed, the same on two processes; KAKURENBO without its parts."""

import itertools
import random

import pytest
import torch

from hf_kakurenbo import KakurenboTrainer, SampleStatistics
from hf_kakurenbo.hiding import ForgettingPolicy, HidingRun, KakurenboPolicy, SpacedRepetitionPolicy
from killing import train
from known_policies import POLICIES
from processes import run, run_ranks
from stream_toy import streamed
from toy import (
    NUM_SAMPLES,
    LinearClassifier,
    epochs,
    make_trainer,
    same_tensors,
    same_weights,
    samples,
    trained,
    without_timings,
)

# So that something is hidden within a few epochs of the toy.
OPTIONS = {
    "coin": {"confidence_threshold": 0.6},
    "coin weighted": {
        "hiding_policy": "coin",
        "confidence_threshold": 0.6,
        "policy_options": {"hiding_probability": 0.5, "weighted": True},
    },
    "forgetting": {"policy_options": {"prune_at": 0.3}},
    "forgetting online": {"hiding_policy": "forgetting", "policy_options": {"prune_at": 0.3, "online": True}},
    "ies": {"num_train_epochs": 9, "policy_options": {"max_second_difference": 0.1}},
    "kakurenbo": {"confidence_threshold": 0.5},
    "kakurenbo without its refresh": {"hiding_policy": "kakurenbo", "refresh_interval": 0},
    "kakurenbo hiding for an epoch": {
        "hiding_policy": "kakurenbo",
        "confidence_threshold": 0.5,
        "refresh_interval": 0,
        "policy_options": {"max_consecutive_hidden": 1},
    },
    "kakurenbo refreshing some": {
        "hiding_policy": "kakurenbo",
        "confidence_threshold": 0.5,
        "policy_options": {"refreshed_fraction": 0.4, "refresh_first": "random"},
    },
    "order_dp hiding for an epoch": {
        "hiding_policy": "order_dp",
        "policy_options": {"drawn_fraction": 1.0, "kept_fraction": 0.7, "max_consecutive_hidden": 1},
    },
    "spaced_repetition": {"confidence_threshold": 0.6},
    "spaced_repetition with a refresh": {
        "hiding_policy": "spaced_repetition",
        "confidence_threshold": 0.6,
        "policy_options": {"random_pause": False, "growing": False, "refreshes": True},
    },
    "spaced_repetition every other epoch, up to a cap by progress": {
        "hiding_policy": "spaced_repetition",
        "confidence_threshold": 0.6,
        "policy_options": {
            "max_interval": 2,
            "random_pause": False,
            "random_first_pause": True,
            "max_resting_fraction": 1.0,
            "resting_milestones": [0.0, 0.6],
            "resting_factors": [1.0, 0.3],
        },
    },
}
CASES = [*POLICIES, *(name for name in OPTIONS if "hiding_policy" in OPTIONS[name])]


def options_of(case):
    return {"hiding_policy": case, "num_train_epochs": 6, **OPTIONS.get(case, {})}


def state_of(trainer):
    tensors, scalars = trainer._training.run.state()
    return tensors, {name: value for name, value in scalars.items() if "seconds" not in name and name != "time_saved"}


def log_of(trainer):
    return [entry for entry in without_timings(trainer.state.log_history) if "train_loss" not in entry]


@pytest.mark.parametrize("case", CASES)
def test_resumed_is_never_interrupted(tmp_path, case):
    options = {**options_of(case), "save_strategy": "steps", "save_steps": 7, "learning_rate": 0.03}
    whole = trained(tmp_path / "whole", **options)
    assert whole.ledger.times_hidden.sum() > 20, "too little was hidden to compare"
    checkpoints = sorted(tmp_path.glob("whole/checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    middle = checkpoints[len(checkpoints) // 2]
    resumed = make_trainer(tmp_path / "resumed", seed=2, **options)
    resumed.train(str(middle))
    assert same_weights(resumed, whole)
    tensors, scalars = state_of(whole)
    again, scalars_again = state_of(resumed)
    assert same_tensors(again, tensors)
    assert scalars_again == scalars
    assert log_of(resumed) == log_of(whole)


@pytest.mark.parametrize(
    "case",
    [
        case if case in ("spaced_repetition", "importance") else pytest.param(case, marks=pytest.mark.wide)
        for case in CASES
    ],
)
def test_killed_is_never_interrupted(tmp_path, case):
    options = {**options_of(case), "save_strategy": "steps", "save_steps": 5, "learning_rate": 0.03}
    code, whole = run(train, tmp_path / "whole", options)
    assert code == 0
    total = len(whole["moments"])
    kill_at = random.Random(case).randrange(total // 2, total)
    code, _ = run(train, tmp_path / "killed", options, kill_at)
    assert code == -9, "the training was to be killed"
    code, resumed = run(train, tmp_path / "killed", options, None, True)
    assert code == 0
    assert same_tensors(resumed["weights"], whole["weights"])
    assert same_tensors(resumed["ledger"], whole["ledger"])
    assert resumed["log"] == whole["log"]


def all_outcomes(folder, batch_size):
    """What each policy's training hides, and what comes of it."""
    shared = {
        "model": LinearClassifier,
        "dataset": samples(64),
        "learning_rate": 0.3,
        "per_device_train_batch_size": batch_size,
        "dataloader_drop_last": True,  # padding weighs a sample twice, and only on several ranks
    }
    outcomes = {}
    for case in CASES:
        trainer = trained(folder / case, **{**options_of(case), **shared})
        outcomes[case] = {
            "hidden": torch.stack(trainer.watch.hidden),
            "orders": trainer.watch.orders,
            "state": trainer._training.run.policy.state_dict(),
            "ledger": trainer.ledger.state_dict(),
            "weights": trainer.model.state_dict(),
        }
    return outcomes


@pytest.mark.wide
def test_two_processes_hide_what_one_does(tmp_path):
    first, second = run_ranks(2, all_outcomes, tmp_path, 8)
    alone = all_outcomes(tmp_path / "alone", 16)
    for case in CASES:
        assert first[case]["hidden"].any(), case
        assert torch.equal(first[case]["hidden"], second[case]["hidden"]), case
        assert torch.equal(first[case]["hidden"], alone[case]["hidden"]), case
        assert first[case]["orders"] == second[case]["orders"] == alone[case]["orders"], case
        for part in ("state", "ledger", "weights"):
            assert same_tensors(first[case][part], second[case][part]), (case, part)
        for name, weights in alone[case]["weights"].items():
            torch.testing.assert_close(first[case]["weights"][name], weights, rtol=1e-3, atol=1e-4, msg=case)


@pytest.mark.parametrize("case", ["infobatch", "spaced_repetition", "order_dp", "seta", "ies", "coin weighted"])
def test_a_stream_is_trained_on(tmp_path, case):
    options = {**options_of(case), "dataset": streamed(), "num_samples": NUM_SAMPLES, "learning_rate": 0.03}
    trainer = trained(tmp_path, **options)
    hidden = [int(mask.count_nonzero()) for mask in trainer.watch.hidden]
    assert sum(hidden) > 20
    assert trainer._training.run.trained_samples == len(hidden) * NUM_SAMPLES - sum(hidden)


def test_the_state_of_another_policy_is_refused():
    saved = HidingRun(10, ForgettingPolicy())
    saved.begin_epoch(0, 0.0)
    saved.record(torch.arange(10), SampleStatistics(torch.ones(10), torch.ones(10, dtype=torch.bool), torch.ones(10)))
    saved.finish_epoch()
    with pytest.raises(ValueError, match=r"another hiding_policy: .* looks for 'interval'.*'events'"):
        HidingRun(10, SpacedRepetitionPolicy()).load_state(*saved.state())
    HidingRun(10, KakurenboPolicy()).load_state(*saved.state())  # which keeps nothing beside the ledger


PARTS = {
    "move_back": {"move_back": False},
    "falling fraction": {"fraction_milestones": [0.0], "fraction_factors": [1.0]},
    "lr_compensation": {"lr_compensation": False},
    "refresh": {"refresh_interval": 0},
}


def combinations_of_parts():
    """None, each alone and all together; some of them together in the wide run."""
    for count in range(5):
        for parts in itertools.combinations(PARTS, count):
            marks = [pytest.mark.wide] if count in (2, 3) else []
            yield pytest.param(set(parts), marks=marks, id="without " + (", ".join(parts) or "nothing"))


@pytest.mark.parametrize("left_out", list(combinations_of_parts()))
def test_kakurenbo_without_some_of_its_parts(tmp_path, left_out):
    options = {name: value for part in left_out for name, value in PARTS[part].items()}
    trainer = trained(
        tmp_path, KakurenboTrainer, num_train_epochs=5, per_device_train_batch_size=32, learning_rate=0.05,
        lr_scheduler_type="constant", confidence_threshold=0.6, **options,
    )  # fmt: skip
    figures = epochs(trainer)
    candidates = [int(entry["kakurenbo/candidates"]) for entry in figures]
    falling = "falling fraction" not in left_out
    assert candidates == ([0, 60, 48, 36, 24] if falling else [0, 60, 60, 60, 60])
    hidden = [len(mask.nonzero()) for mask in trainer.watch.hidden]
    assert sum(hidden) > 30
    moved_back = [entry["kakurenbo/moved_back"] for entry in figures]
    assert any(moved_back) == ("move_back" not in left_out)
    compensated = "lr_compensation" not in left_out
    scales = [203 / (203 - count) if compensated else 1.0 for count in hidden]
    assert [entry["kakurenbo/lr_scale"] for entry in figures] == pytest.approx(scales)
    assert max(trainer.watch.rates) == pytest.approx(0.05 * max(scales))
    refreshed = trainer._training.run.refreshed_samples
    assert refreshed == (0 if "refresh" in left_out else sum(hidden[:-1]))
