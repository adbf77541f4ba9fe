"""As many updates in an epoch that hides as in one that does not, in smaller batches: `hidden_epoch_updates`."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import Trainer

import stream_toy
from hf_kakurenbo import KakurenboTrainer
from hf_kakurenbo.hiding.schedule import epoch_batch_size
from killing import train
from processes import run, run_ranks
from stream_toy import KINDS, WAYS, NotingTrainer, visible_ids
from toy import NUM_SAMPLES, LinearClassifier, epochs, losses, make_trainer, same_tensors, same_weights, trained

CONSTANT = {"hidden_epoch_updates": "constant", "hiding_policy": "first_ids", "max_hidden_fraction": 0.3}
HIDDEN = int(0.3 * NUM_SAMPLES)
WIDE = pytest.mark.wide


# ---- The size ----


@given(st.integers(1, 300), st.integers(1, 9), st.integers(0, 400), st.integers(1, 400))
def test_the_size_is_the_rounded_one_within_its_bounds(batches, multiple, visible, hidden):
    batch_size = batches * multiple
    size = epoch_batch_size(batch_size, visible, visible + hidden, multiple)
    assert size % multiple == 0
    assert min(batch_size, 2 * multiple) <= size <= batch_size
    wanted = batch_size * visible / (visible + hidden)
    if 2 * multiple <= wanted:
        assert abs(size - wanted) <= multiple / 2 + 1e-9


@given(st.integers(1, 64), st.integers(1, 5000))
def test_nothing_hidden_leaves_the_size(batch_size, samples):
    assert epoch_batch_size(batch_size, samples, samples) == batch_size


def test_airbench_halves_its_batches():
    assert epoch_batch_size(1024, 25_000, 50_000) == 512


# ---- One process ----


def test_nothing_hidden_is_identical_to_trainer(tmp_path):
    plain = trained(tmp_path / "plain", Trainer)
    constant = trained(tmp_path / "constant", hidden_epoch_updates="constant", max_hidden_fraction=0.0)
    assert losses(constant) == losses(plain)
    assert same_weights(constant, plain)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("batch_size", [8, 16, 64])
def test_each_visible_sample_once_in_as_many_batches(tmp_path, batch_size, accumulation):
    options = {"per_device_train_batch_size": batch_size, "gradient_accumulation_steps": accumulation, **CONSTANT}
    noted = trained(tmp_path, NotingTrainer, **options)
    full = math.ceil(NUM_SAMPLES / batch_size)
    for epoch, batches in noted.batches.items():
        size = batch_size if epoch == 0 else round(batch_size * (NUM_SAMPLES - HIDDEN) / NUM_SAMPLES)
        assert {len(batch) for batch in batches[:-1]} == {size}
        assert sorted(itertools.chain(*batches)) == visible_ids(noted.watch.hidden[epoch])
        assert len(batches) == math.ceil(len(visible_ids(noted.watch.hidden[epoch])) / size)
        # Half a sample of a batch is what rounding may add to its size, or take from it.
        assert abs(len(batches) - full) <= 1 + full / (2 * size)
    updates = math.ceil(len(noted.batches[1]) / accumulation)
    assert noted.state.global_step == math.ceil(full / accumulation) + 3 * updates == noted.state.max_steps
    assert noted.state.epoch == 4
    assert len(noted.watch.rates) == noted.state.global_step


def test_the_rate_is_that_of_nothing_hidden(tmp_path):
    # 200 samples in batches of 20, 60 of them hidden: 140 in batches of 14, 10 updates an epoch either way.
    options = {"per_device_train_batch_size": 20, "dataset": stream_toy.rows(200).with_format("torch")}
    plain = trained(tmp_path / "plain", Trainer, **options)
    constant = trained(tmp_path / "constant", **options, **CONSTANT)
    assert constant.watch.hidden[1].sum() == 60
    assert constant.watch.rates == pytest.approx(plain.watch.rates, rel=1e-12)
    assert [entry["kakurenbo/lr_scale"] for entry in epochs(constant)] == pytest.approx([1.0] * 4)


def test_what_rounding_leaves_is_compensated(tmp_path):
    constant = trained(tmp_path, per_device_train_batch_size=4, **CONSTANT)
    visible = NUM_SAMPLES - HIDDEN
    assert epochs(constant)[1]["kakurenbo/lr_scale"] == pytest.approx(NUM_SAMPLES / visible * 3 / 4)


def test_batches_of_one_cannot_shrink(tmp_path):
    options = {"per_device_train_batch_size": 1, "num_train_epochs": 2, "model": LinearClassifier}
    scaled = trained(tmp_path / "scaled", **options, **{**CONSTANT, "hidden_epoch_updates": "scaled"})
    constant = trained(tmp_path / "constant", **options, **CONSTANT)
    assert same_weights(constant, scaled)


def test_incomplete_batches_are_dropped_at_the_present_size(tmp_path):
    noted = trained(tmp_path, NotingTrainer, dataloader_drop_last=True, **CONSTANT)
    visible = NUM_SAMPLES - HIDDEN
    assert {len(batch) for batch in noted.batches[1]} == {11}
    assert len(noted.batches[1]) == visible // 11


def test_hidden_samples_are_refreshed_in_whole_batches(tmp_path):
    sizes = []

    class Notes(LinearClassifier):
        def forward(self, x, labels):
            if not torch.is_grad_enabled():
                sizes.append(len(x))
            return super().forward(x, labels)

    trained(tmp_path, model=Notes, num_train_epochs=3, **CONSTANT)
    assert sizes == [16, 16, 16, 12]


def test_batches_are_whole_again_in_another_training(tmp_path):
    trainer = make_trainer(tmp_path, NotingTrainer, **CONSTANT)
    trainer.train()
    first = trainer.batches
    trainer.batches = {}
    trainer.train()
    assert {epoch: len(batches) for epoch, batches in trainer.batches.items()} == {
        epoch: len(batches) for epoch, batches in first.items()
    }
    assert len(trainer.batches[0][0]) == 16


def test_time_saved_goes_by_the_epochs_that_hid_nothing(tmp_path):
    run_of = trained(tmp_path, **CONSTANT)._training.run
    assert run_of.full_samples_trained == NUM_SAMPLES
    assert run_of.time_saved <= 3 * run_of.full_seconds


class FixedBatches(torch.utils.data.BatchSampler):
    """Draws batches whose size nobody can change."""

    def __iter__(self):
        ids = list(self.sampler)
        yield from (ids[start : start + 16] for start in range(0, len(ids), 16))

    def __len__(self):
        return math.ceil(len(self.sampler) / 16)


def test_a_loader_that_keeps_its_size_is_refused(tmp_path):
    class OwnBatches(KakurenboTrainer):
        def get_train_dataloader(self):
            loader = super().get_train_dataloader()
            fixed = FixedBatches(loader.batch_sampler.sampler, 16, False)
            loader.base_dataloader.__dict__["batch_sampler"] = fixed
            return loader

    trainer = make_trainer(tmp_path, OwnBatches, **CONSTANT)
    with pytest.raises(ValueError, match='hidden_epoch_updates="constant" needs a training loader whose batch size'):
        trainer.train()


# ---- Resumed ----

SETTINGS = {
    "classifier": {},
    "accumulation, cosine": {"gradient_accumulation_steps": 3, "lr_scheduler_type": "cosine"},
    "workers": {"dataloader_num_workers": 2},
    "spaced repetition": {"hiding_policy": "spaced_repetition", "confidence_threshold": 0.6, "learning_rate": 0.05},
}


@pytest.mark.parametrize(
    "setting", [name if name == "classifier" else pytest.param(name, marks=WIDE) for name in SETTINGS]
)
def test_killed_and_resumed_is_never_killed(tmp_path, setting):
    options = {**CONSTANT, "num_train_epochs": 5, "save_strategy": "steps", "save_steps": 4, **SETTINGS[setting]}
    code, expected = run(train, tmp_path / "whole", options)
    assert code == 0
    assert expected["ledger"]["times_hidden"].sum() > 20
    for attempt, kill_at in enumerate([45, 20]):
        code, _ = run(train, tmp_path / "killed", options, kill_at, attempt > 0)
        assert code == -9
    code, resumed = run(train, tmp_path / "killed", options, None, True)
    assert code == 0
    assert same_tensors(resumed["weights"], expected["weights"])
    assert same_tensors(resumed["ledger"], expected["ledger"])
    assert resumed["log"] == expected["log"]
    assert resumed["rates"] == expected["rates"]


@pytest.mark.parametrize("batch_size", [8, 32])
@pytest.mark.parametrize("step", [16, 20])
def test_resumed_with_another_batch_size_each_visible_sample_once(tmp_path, batch_size, step):
    options = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 60, **CONSTANT}
    whole = trained(tmp_path / "whole", NotingTrainer, **options)
    per_epoch = [len(whole.batches[epoch]) for epoch in range(4)]
    epoch = next(epoch for epoch in range(4) if step < sum(per_epoch[: epoch + 1]))
    done = list(itertools.chain(*whole.batches[epoch][: step - sum(per_epoch[:epoch])]))
    resumed = make_trainer(tmp_path / "resumed", NotingTrainer, per_device_train_batch_size=batch_size, **CONSTANT)
    resumed.train(str(tmp_path / "whole" / f"checkpoint-{step}"))
    visible = visible_ids(whole.watch.hidden[epoch])
    assert sorted(done + list(itertools.chain(*resumed.batches[epoch]))) == visible
    assert len(resumed.batches[epoch][0]) == round(batch_size * 11 / 16)


def test_the_mode_may_change_when_resumed(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 60, **CONSTANT}
    whole = trained(tmp_path / "whole", NotingTrainer, **options)
    scaled = {**CONSTANT, "hidden_epoch_updates": "scaled"}
    resumed = make_trainer(tmp_path / "resumed", NotingTrainer, **scaled)
    resumed.train(str(tmp_path / "whole" / "checkpoint-16"))
    assert whole.batches[1][3:] == resumed.batches[1], "an epoch that has begun keeps its batches"
    assert len(resumed.batches[2][0]) == 16


# ---- Streams and several processes ----


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=WIDE)])
@pytest.mark.parametrize("kind", KINDS)
def test_streams(tmp_path, kind, workers):
    more = {"dataloader_persistent_workers": True} if workers else {}
    options = {**KINDS[kind][0], **CONSTANT, **more, "dataloader_num_workers": workers, "num_train_epochs": 3}
    found = stream_toy.outcome(tmp_path, kind, options)
    count = KINDS[kind][1]
    visible = count - int(0.3 * count)
    size = round(16 * visible / count)
    for epoch in (1, 2):
        batches = found["batches"][epoch]
        assert {len(batch) for batch in batches[:-1]} == {size}
        assert len(batches) == math.ceil(visible / size)
        assert sorted(itertools.chain(*batches)) == visible_ids(found["hidden"][epoch])


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=WIDE)])
@pytest.mark.parametrize("way", [way if way == "not dispatched" else pytest.param(way, marks=WIDE) for way in WAYS])
@pytest.mark.parametrize("kind", ["with ids", pytest.param("of images", marks=WIDE)])
def test_two_processes_on_a_stream(tmp_path, kind, way, workers):
    size = 16 if WAYS[way].get("split_batches") else 8
    options = {
        **KINDS[kind][0],
        **CONSTANT,
        "accelerator_config": WAYS[way],
        "per_device_train_batch_size": size,
        "num_train_epochs": 3,
        "dataloader_num_workers": workers,
    }
    two = run_ranks(2, stream_toy.outcome, tmp_path, kind, options)
    count = KINDS[kind][1]
    visible = count - int(0.3 * count)
    of_a_rank = round(8 * visible / count)
    for epoch in (1, 2):
        assert len(two[0]["batches"][epoch]) == len(two[1]["batches"][epoch]) == math.ceil(visible / (2 * of_a_rank))
        assert {len(batch) for batch in two[0]["batches"][epoch][:-1]} == {of_a_rank}
        trained_on = set(itertools.chain(*two[0]["batches"][epoch], *two[1]["batches"][epoch]))
        assert sorted(trained_on) == visible_ids(two[0]["hidden"][epoch])
    assert same_tensors(two[0]["ledger"], two[1]["ledger"])
    assert two[0]["epochs"] == two[1]["epochs"]


def rank_outcome(output_dir, options, checkpoint=None):
    """Train, and bring home what the tests look at."""
    done = make_trainer(output_dir, NotingTrainer, **options)
    done.train(checkpoint)
    return {
        "batches": done.batches,
        "losses": [entry["loss"] for entry in losses(done)],
        "hidden": done.watch.hidden,
        "rates": done.watch.rates,
        "weights": done.model.state_dict(),
        "ledger": done.ledger.state_dict(),
    }


@pytest.mark.parametrize(
    "batches",
    [{}, pytest.param({"split_batches": True}, marks=WIDE), pytest.param({"dispatch_batches": True}, marks=WIDE)],
    ids=str,
)
def test_two_processes_do_what_one_does(tmp_path, batches):
    # 160 samples, 40 hidden: 20 batches of 8, then 20 of 6; on two ranks 4 and 3 of each.
    options = {
        **CONSTANT,
        "max_hidden_fraction": 0.25,
        "dataset": stream_toy.rows(160).with_format("torch"),
        "model": LinearClassifier,
        "learning_rate": 0.1,
    }
    one = rank_outcome(tmp_path / "one", {**options, "per_device_train_batch_size": 8})
    assert {len(batch) for batch in one["batches"][1]} == {6}
    size = 8 if "split_batches" in batches else 4
    options = {**options, "accelerator_config": batches, "per_device_train_batch_size": size}
    two = run_ranks(2, rank_outcome, tmp_path / "two", options)
    for rank in two:
        assert all(torch.equal(a, b) for a, b in zip(rank["hidden"], one["hidden"], strict=True))
        assert rank["losses"] == pytest.approx(one["losses"])
        assert rank["rates"] == one["rates"]
        torch.testing.assert_close(rank["weights"], one["weights"])
        assert {len(batch) for batch in rank["batches"][1]} == {3}
    assert same_tensors(two[0]["ledger"], two[1]["ledger"])
    for name, tensor in one["ledger"].items():
        torch.testing.assert_close(two[0]["ledger"][name], tensor, equal_nan=True)


class Normalizing(LinearClassifier):
    """Cannot train on a batch of one."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(16)

    def forward(self, x, labels):
        return super().forward(self.norm(x), labels)


@pytest.mark.parametrize("count", range(100, 112))
def test_no_last_batch_of_one(tmp_path, count):
    options = {"dataset": stream_toy.rows(count).with_format("torch"), "num_train_epochs": 2, "model": Normalizing}
    # With nothing hidden the last batch of 103 samples has one.
    size = 6 if count % 6 != 1 else 5
    noted = trained(tmp_path, NotingTrainer, per_device_train_batch_size=size, **{**options, **CONSTANT})
    assert min(map(len, noted.batches[1])) >= 2
