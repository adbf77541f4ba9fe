"""DeepSpeed on the CPU: the same rates, weights and ledger as without it, whoever has made the scheduler.

The engine steps a scheduler of its configuration, and Trainer's own if the configuration has an optimizer.
"""

import importlib.util

import pytest
import torch

from deepspeed_toy import (
    FULL_UPDATES,
    OPTIMIZER,
    RATE,
    TOTAL,
    WARMUP,
    WARMUP_DECAY,
    configuration,
    outcome,
    warmup_decay,
)
from processes import run_ranks
from toy import same_tensors, samples, skip_where_ranks_cannot_resume

pytestmark = pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="needs deepspeed")

BLOCKS = {
    "none": {},
    "optimizer": {"optimizer": True},
    "scheduler": {"scheduler": WARMUP_DECAY},
    "both": {"optimizer": True, "scheduler": WARMUP_DECAY},
}
HIDING = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3}  # 60 of 203, from the second epoch on
SCALE = 203 / 143


def linear(step):
    """What Trainer's default schedule multiplies the rate by."""
    return step / WARMUP if step < WARMUP else (TOTAL - step) / (TOTAL - WARMUP)


def expected_rates(factor, hidden_updates=9, first=0, scale=SCALE):
    """By hand: the full training's rate at the same place of the epoch, times the compensation."""
    rates = [RATE * factor(update) for update in range(FULL_UPDATES)]
    for epoch in range(1, 4):
        places = [epoch * FULL_UPDATES + update * FULL_UPDATES // hidden_updates for update in range(hidden_updates)]
        rates += [RATE * factor(place) * scale for place in places]
    return rates[first:]


def train(tmp_path, ranks, deepspeed=None, kind="hiding", resume_from_checkpoint=None, **options):
    size = options.pop("per_device_train_batch_size", 16 // ranks)
    options = {**(HIDING if kind != "plain" else {}), **options, "per_device_train_batch_size": size}
    if deepspeed is not None:
        options["deepspeed"] = deepspeed
    if resume_from_checkpoint is not None:
        resume_from_checkpoint = str(resume_from_checkpoint)
    return run_ranks(ranks, outcome, tmp_path, kind, options, resume_from_checkpoint)


def assert_rates(outcomes, expected):
    for found in outcomes:
        assert [len(rates) for rates in found["rates"]] == [1] * len(expected), "groups, or steps, of different rates"
        used = [rate for [rate] in found["rates"]]
        assert used == pytest.approx(expected, rel=1e-9, abs=1e-15)
        assert found["logged"] == pytest.approx(used, rel=1e-12, abs=1e-15)


def assert_same_training(zero, plain):
    for found in zero:
        torch.testing.assert_close(found["weights"], plain[0]["weights"], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found["ledger"]["loss"], plain[0]["ledger"]["loss"], rtol=1e-4, atol=1e-5)
        assert same_tensors(found["ledger"], zero[0]["ledger"])
        assert all(torch.equal(a, b) for a, b in zip(found["hidden"], plain[0]["hidden"], strict=True))


def assert_trains_as_without_deepspeed(tmp_path, ranks, stage, blocks):
    engines = "scheduler" in BLOCKS[blocks]
    zero = train(tmp_path / "zero", ranks, configuration(stage, **BLOCKS[blocks]))
    assert_rates(zero, expected_rates(warmup_decay if engines else linear))
    assert [found["scales"] for found in zero] == [[1.0, SCALE, SCALE, SCALE]] * ranks
    plain = train(tmp_path / "plain", ranks, kind="own scheduler" if engines else "hiding")
    assert plain[0]["logged"] == pytest.approx(zero[0]["logged"], rel=1e-9, abs=1e-15)
    assert_same_training(zero, plain)


def test_a_scheduler_of_the_engines(tmp_path):
    assert_trains_as_without_deepspeed(tmp_path, 1, 2, "both")


@pytest.mark.wide
@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("ranks", [1, 2])
def test_every_stage_on_one_and_two_ranks(tmp_path, ranks, stage, blocks):
    assert_trains_as_without_deepspeed(tmp_path, ranks, stage, blocks)


SCHEDULERS = {
    "WarmupCosineLR": {"total_num_steps": TOTAL, "warmup_num_steps": WARMUP, "warmup_type": "linear"},
    "OneCycle": {"cycle_min_lr": 1e-3, "cycle_max_lr": 2e-2, "cycle_first_step_size": 20, "cycle_momentum": True},
    "LRRangeTest": {"lr_range_test_min_lr": 1e-3, "lr_range_test_step_size": 10},
    # PyTorch's, taken by name where the optimizer is not wrapped; the second computes the next rate from the last.
    "StepLR": {"step_size": 10},
    "ExponentialLR": {"gamma": 0.97},
}


@pytest.mark.wide
@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_of_deepspeed(tmp_path, name):
    stage = 0 if hasattr(torch.optim.lr_scheduler, name) else 2
    config = configuration(stage, optimizer=True, scheduler={"type": name, "params": SCHEDULERS[name]})
    [plain] = train(tmp_path / "plain", 1, config, kind="plain")
    full = [rate for [rate] in plain["rates"]]
    assert_rates(train(tmp_path, 1, config), expected_rates(lambda step: full[step] / RATE))


@pytest.mark.wide
@pytest.mark.parametrize("blocks", BLOCKS)
def test_accumulated_batches_of_which_the_last_are_fewer(tmp_path, blocks):
    config = configuration(2, **BLOCKS[blocks])
    options = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 8}
    [found] = train(tmp_path, 1, config, **options)  # 26 batches in 13 updates, 18 in 9
    assert_rates([found], expected_rates(warmup_decay if "scheduler" in BLOCKS[blocks] else linear))
    options["max_hidden_fraction"] = 0.35  # 71 hidden, 132 visible in 17 batches
    [uneven] = train(tmp_path, 1, config, **options)
    assert uneven["step"] == 13 + 3 * 9
    assert uneven["scales"][1:] == [203 / 132] * 3


@pytest.mark.wide
@pytest.mark.parametrize("blocks", BLOCKS)
def test_constant_updates(tmp_path, blocks):
    config = configuration(2, **BLOCKS[blocks])
    [found] = train(tmp_path, 1, config, hidden_epoch_updates="constant")  # 143 samples in 13 batches of 11
    factor = warmup_decay if "scheduler" in BLOCKS[blocks] else linear
    assert_rates([found], expected_rates(factor, FULL_UPDATES, scale=SCALE * 11 / 16))
    assert found["step"] == TOTAL


# ---- Resuming ----


def assert_resumes(tmp_path, ranks, stage, blocks, steps):
    skip_where_ranks_cannot_resume()
    config = configuration(stage, **BLOCKS[blocks])
    options = {"save_strategy": "steps", "save_steps": 1}
    whole = train(tmp_path, ranks, config, **options)
    for step in steps:
        resumed = train(tmp_path / f"from-{step}", ranks, config, "hiding", tmp_path / f"checkpoint-{step}")
        assert resumed[0]["logged"] == whole[0]["logged"]
        for found in resumed:
            found["logged"] = found["logged"][step:]
        assert_rates(resumed, expected_rates(warmup_decay if "scheduler" in BLOCKS[blocks] else linear, first=step))
        for before, after in zip(whole, resumed, strict=True):
            assert same_tensors(before["weights"], after["weights"])
            assert same_tensors(before["ledger"], after["ledger"])


def test_it_resumes_within_an_epoch_that_hides(tmp_path):
    assert_resumes(tmp_path, 1, 2, "both", [17])


@pytest.mark.wide
@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize(("ranks", "stage"), [(1, 1), (2, 3)])
def test_it_resumes_anywhere(tmp_path, ranks, stage, blocks):
    assert_resumes(tmp_path, ranks, stage, blocks, [3, 17, 22])


@pytest.mark.wide
@pytest.mark.parametrize("blocks", BLOCKS)
def test_it_resumes_in_smaller_batches(tmp_path, blocks):
    config = configuration(2, **BLOCKS[blocks])
    train(tmp_path, 1, config, save_strategy="steps", save_steps=17)
    smaller = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    resumed = train(tmp_path / "resumed", 1, config, "hiding", tmp_path / "checkpoint-17", **smaller)
    factor = warmup_decay if "scheduler" in BLOCKS[blocks] else linear
    [used] = [[rate for [rate] in found["rates"]] for found in resumed]
    # From 4 of 9 updates of the second epoch on, 5 of 13 full ones later, it has 5 updates for 8.
    places = [FULL_UPDATES + 5 + update * 8 // 5 for update in range(5)]
    assert used[:5] == pytest.approx([RATE * factor(place) * SCALE for place in places])
    assert used[5:] == pytest.approx(expected_rates(factor, first=22))


@pytest.mark.wide
@pytest.mark.parametrize("blocks", BLOCKS)
def test_it_continues_what_a_plain_trainer_has_begun(tmp_path, blocks):
    config = configuration(2, **BLOCKS[blocks])
    train(tmp_path, 1, config, "plain", save_strategy="steps", save_steps=FULL_UPDATES)
    hiding = train(tmp_path / "hiding", 1, config, "hiding", tmp_path / f"checkpoint-{FULL_UPDATES}")
    hiding[0]["logged"] = hiding[0]["logged"][FULL_UPDATES:]
    assert_rates(hiding, expected_rates(warmup_decay if "scheduler" in BLOCKS[blocks] else linear, first=FULL_UPDATES))


@pytest.mark.wide
@pytest.mark.parametrize("blocks", BLOCKS)
def test_a_plain_trainer_continues_what_it_has_begun(tmp_path, blocks):
    config = configuration(2, **BLOCKS[blocks])
    train(tmp_path, 1, config, save_strategy="steps", save_steps=FULL_UPDATES)
    whole = train(tmp_path / "whole", 1, config, "plain")
    plain = train(tmp_path / "plain", 1, config, "plain", tmp_path / f"checkpoint-{FULL_UPDATES}")
    assert plain[0]["rates"] == whole[0]["rates"][FULL_UPDATES:]


# ---- Refresh, refusals ----


@pytest.mark.wide
@pytest.mark.parametrize("count", [1, 17])
@pytest.mark.parametrize("stage", [2, 3])
def test_the_refresh_of_numbers_that_ranks_cannot_divide(tmp_path, stage, count):
    options = {"dataset": samples(64 + count), "max_hidden_fraction": (count + 0.5) / (64 + count)}
    zero = train(tmp_path / "zero", 2, configuration(stage, **BLOCKS["both"]), **options)
    plain = train(tmp_path / "plain", 2, kind="own scheduler", **options)
    assert [int(hidden.sum()) for hidden in zero[0]["hidden"]] == [0, count, count, count]
    assert all(bool(found["ledger"]["loss"].isfinite().all()) for found in zero)
    # The schedules are not the same: another dataset has other totals.
    torch.testing.assert_close(zero[0]["ledger"]["loss"], plain[0]["ledger"]["loss"], rtol=0.2, atol=0.05)
    assert same_tensors(zero[0]["ledger"], zero[1]["ledger"])


@pytest.mark.wide
def test_a_scheduler_of_the_users_takes_the_place_of_the_engines(tmp_path):
    found = train(tmp_path, 1, configuration(2, optimizer=True), kind="own scheduler")
    assert_rates(found, expected_rates(warmup_decay))


REFUSED = {
    "a metric": ({"lr_scheduler_type": "reduce_lr_on_plateau"}, {"optimizer": OPTIMIZER}, '"optimizer" block'),
    "a metric of the engine's": (
        {},
        {
            "optimizer": OPTIMIZER,
            "scheduler": {"type": "ReduceLROnPlateau", "params": {}},
            "zero_optimization": {"stage": 0},
        },
        '"scheduler" block',
    ),
    "zenflow": ({}, {"zero_optimization": {"stage": 2, "zenflow": {"topk_ratio": 0.1}}}, '"zenflow" block'),
}


@pytest.mark.wide
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_in_step_is_refused(tmp_path, name):
    options, changes, way_out = REFUSED[name]
    if "metric" in name:
        options = {**options, "eval_strategy": "epoch", "trainer_options": {"eval_dataset": samples(16)}}
    with pytest.raises(AssertionError, match=f"ValueError: .*{way_out}.*hiding_policy=.none"):
        train(tmp_path, 1, {**configuration(2), **changes}, **options)
