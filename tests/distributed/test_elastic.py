"""A training that continues with another number of processes: what it has left of the epoch it trains on once."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_kakurenbo import KakurenboTrainer
from hf_kakurenbo.data import Position
from hf_kakurenbo.hiding import AlignedScheduler
from processes import run_ranks
from stream_toy import rows
from toy import LinearClassifier, TokenDropout, make_trainer, pad, samples, skip_where_ranks_cannot_resume, texts

SHARE = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3, "num_train_epochs": 3}


class Noting(KakurenboTrainer):
    """Notes the ids of the batches of this rank by epoch."""

    def training_step(self, model, inputs, *args, **kwargs):
        epoch = self._training.run.epoch
        self.noted.setdefault(epoch, []).append(inputs["sample_id"].tolist())
        return super().training_step(model, inputs, *args, **kwargs)


def of_kind(kind):
    """Options with 203 samples; made in the process that trains, since tensors travel as open files."""
    if kind == "stream":
        return {"dataset": rows(203).to_iterable_dataset(num_shards=5).with_format("torch"), "num_samples": 203}
    if kind == "grouped by length":
        grouped = {"train_sampling_strategy": "group_by_length", "trainer_options": {"data_collator": pad}}
        return {"model": TokenDropout, "dataset": texts(203), **grouped}
    return {"dataset": samples(203)}


def outcome(output_dir, options, resume_from_checkpoint=None, kind=None):
    """Train, and bring home what the tests look at."""
    options = {"model": LinearClassifier, **options, **(of_kind(kind) if kind else {})}
    trainer = make_trainer(output_dir, Noting, **options)
    trainer.noted = {}
    trainer.train(resume_from_checkpoint)
    return {
        "noted": trainer.noted,
        "hidden": trainer.watch.hidden,
        "rates": trainer.watch.rates,
        "places": trainer.watch.places,
        "ledger": trainer.ledger.state_dict(),
        "weights": trainer.model.state_dict(),
        "steps": (trainer.state.global_step, trainer.state.max_steps),
        "trained": trainer._training.run.trained_samples,
    }


def on(ranks, *args):
    """Train in so many processes; what came home from each."""
    if ranks > 1 and args[2:] and args[2] is not None:
        skip_where_ranks_cannot_resume()
    return run_ranks(ranks, outcome, *args) if ranks > 1 else [outcome(*args)]


def together(ranks, epoch):
    """The ids of an epoch in the order of the global batches."""
    batches = zip(*(rank["noted"].get(epoch, []) for rank in ranks), strict=True)
    return list(itertools.chain(*itertools.chain(*batches)))


def checkpoint_within(folder, ranks, epoch, updates):
    """The folder that was saved after so many updates of an epoch, of which each is one batch."""
    step = sum(len(ranks[0]["noted"][before]) for before in range(epoch)) + updates
    return str(folder / f"checkpoint-{step}")


def assert_each_once(before, after, epoch, done):
    """The samples done on the ranks before, and those left after the change: the visible ones, each of them once."""
    first, hidden = together(before, epoch)[:done], before[0]["hidden"][epoch]
    visible = (~hidden).nonzero().flatten().tolist()
    left = together(after, epoch)[: len(visible) - done]
    assert sorted(first + left) == visible
    for rank in after:
        assert all(torch.equal(a, b) for a, b in zip(rank["hidden"], before[0]["hidden"][epoch:], strict=True))
        assert rank["trained"] == before[0]["trained"]
        assert rank["steps"][0] == rank["steps"][1]
    assert len(visible) < len(hidden)


WIDE = pytest.mark.wide


@pytest.mark.parametrize(
    ("kind", "ranks", "then", "updates"),
    [
        ("map-style", (2, 8), (1, 8), 3),
        pytest.param("map-style", (1, 24), (2, 8), 3, marks=WIDE),
        pytest.param("stream", (2, 12), (1, 16), 3, marks=WIDE),
        pytest.param("grouped by length", (2, 12), (1, 8), 5, marks=WIDE),
        pytest.param("map-style", (4, 8), (2, 8), 3, marks=WIDE),
        pytest.param("map-style", (2, 8), (4, 8), 3, marks=WIDE),
        pytest.param("map-style", (3, 8), (2, 8), 1, marks=WIDE),
        pytest.param("map-style", (1, 8), (3, 8), 1, marks=WIDE),
        pytest.param("stream", (4, 8), (2, 8), 1, marks=WIDE),
        pytest.param("stream", (2, 8), (4, 8), 3, marks=WIDE),
        pytest.param("grouped by length", (2, 8), (4, 8), 1, marks=WIDE),
    ],
)
def test_what_is_left_of_the_epoch_is_trained_on_once(tmp_path, kind, ranks, then, updates):
    saving = {**SHARE, "save_strategy": "steps", "save_steps": 1}
    before = on(ranks[0], tmp_path, {**saving, "per_device_train_batch_size": ranks[1]}, None, kind)
    checkpoint = checkpoint_within(tmp_path, before, 1, updates)
    again = {**SHARE, "per_device_train_batch_size": then[1]}
    after = on(then[0], tmp_path / "after", again, checkpoint, kind)
    assert_each_once(before, after, 1, updates * ranks[0] * ranks[1])
    visible = sorted(set(together(before, 2)))
    assert sorted(set(together(after, 2))) == visible
    assert after[0]["places"] == sorted(after[0]["places"])
    assert after[0]["places"][-1] == 3


@pytest.mark.parametrize(
    ("ranks", "then"),
    [
        pytest.param((2, 8), (1, 16), marks=WIDE),
        pytest.param((4, 4), (2, 8), marks=WIDE),
        pytest.param((2, 8), (4, 4), marks=WIDE),
    ],
)
def test_with_batches_of_the_same_size_nothing_else_changes(tmp_path, ranks, then):
    # Without the padding of a last batch the batches are the same.
    options = {"dataset": samples(208), "num_train_epochs": 6, "learning_rate": 0.1, "dataloader_drop_last": True}
    saving = {**options, "save_strategy": "steps", "save_steps": 7, "per_device_train_batch_size": ranks[1]}
    whole = on(ranks[0], tmp_path, saving)
    again = {**options, "per_device_train_batch_size": then[1]}
    resumed = on(then[0], tmp_path / "resumed", again, str(tmp_path / "checkpoint-42"))
    assert sum(int(hidden.sum()) for hidden in whole[0]["hidden"]) > 50, "too little was hidden to compare"
    for rank in resumed:
        assert rank["rates"] == whole[0]["rates"][42:]
        assert rank["steps"] == whole[0]["steps"]
        later = whole[0]["hidden"][-len(rank["hidden"]) :]
        assert all(torch.equal(a, b) for a, b in zip(rank["hidden"], later, strict=True))
        torch.testing.assert_close(rank["weights"], whole[0]["weights"])
    for name, tensor in whole[0]["ledger"].items():
        torch.testing.assert_close(resumed[0]["ledger"][name], tensor, equal_nan=True)


def test_resumed_twice(tmp_path):
    options = {**SHARE, "dataset": samples(203)}
    saving = {**options, "save_strategy": "steps", "save_steps": 1}
    first = on(1, tmp_path / "first", {**saving, "per_device_train_batch_size": 24})
    checkpoint = checkpoint_within(tmp_path / "first", first, 1, 2)
    second = on(1, tmp_path / "second", {**saving, "per_device_train_batch_size": 20}, checkpoint)
    # 48 were done: two batches of 20, and 8 that are left out; then one more batch.
    later = str(tmp_path / "second" / f"checkpoint-{int(checkpoint.rpartition('-')[2]) + 1}")
    third = on(1, tmp_path / "third", {**options, "per_device_train_batch_size": 20}, later)
    assert together(third, 1) == together(second, 1)[20:]
    assert third[0]["ledger"]["loss"].equal(second[0]["ledger"]["loss"])
    assert third[0]["rates"] == second[0]["rates"][1:]
    fourth = on(1, tmp_path / "fourth", {**options, "per_device_train_batch_size": 7}, later)
    trained = together(first, 1)[:48] + together(second, 1)[:20] + together(fourth, 1)
    assert sorted(trained) == sorted(together(first, 1))


@pytest.mark.parametrize("saved_after", [13, 30])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_learning_rate_goes_on_from_the_same_share(tmp_path, schedule, saved_after):
    options = {**SHARE, "dataset": samples(208), "lr_scheduler_type": schedule, "learning_rate": 0.1}
    saving = {**options, "save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 16}
    before = on(1, tmp_path, saving)
    checkpoint = str(tmp_path / f"checkpoint-{saved_after}")
    fine = on(1, tmp_path / "fine", {**options, "per_device_train_batch_size": 8}, checkpoint)
    never = on(1, tmp_path / "never", {**options, "per_device_train_batch_size": 8})
    left = len(fine[0]["rates"])
    assert left > len(before[0]["rates"]) - saved_after
    assert fine[0]["rates"] == pytest.approx(never[0]["rates"][-left:], abs=4e-3)
    assert fine[0]["rates"][-1] == pytest.approx(never[0]["rates"][-1])


def test_the_number_of_updates_asked_for_stays(tmp_path):
    options = {**SHARE, "dataset": samples(208), "max_steps": 40, "lr_scheduler_type": "linear"}
    saving = {**options, "save_strategy": "steps", "save_steps": 17, "per_device_train_batch_size": 16}
    before = on(1, tmp_path, saving)
    after = on(1, tmp_path / "after", {**options, "per_device_train_batch_size": 8}, str(tmp_path / "checkpoint-17"))
    assert after[0]["steps"] == (40, 40)
    assert after[0]["rates"][-1] == pytest.approx(before[0]["rates"][-1])


def test_another_accumulation_goes_on_too(tmp_path):
    options = {**SHARE, "dataset": samples(203), "per_device_train_batch_size": 8}
    saving = {**options, "save_strategy": "steps", "save_steps": 1, "gradient_accumulation_steps": 2}
    before = on(1, tmp_path, saving)
    updates = math.ceil(math.ceil(203 / 8) / 2) + 3
    again = {**options, "gradient_accumulation_steps": 4}
    after = on(1, tmp_path / "after", again, str(tmp_path / f"checkpoint-{updates}"))
    assert_each_once(before, after, 1, 3 * 2 * 8)


def test_an_epoch_saved_at_its_end_is_ended(tmp_path):
    options = {**SHARE, "dataset": samples(208)}
    saving = {**options, "save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 16}
    before = on(1, tmp_path, saving)
    after = on(1, tmp_path / "after", {**options, "per_device_train_batch_size": 8}, str(tmp_path / "checkpoint-13"))
    assert sorted(after[0]["noted"]) == [1, 2]
    assert sorted(together(after, 1)) == sorted(together(before, 1))


@given(
    samples=st.integers(1, 500),
    share=st.floats(0, 1),
    batch_size=st.integers(1, 64),
    accumulation=st.integers(1, 5),
    drop_last=st.booleans(),
)
def test_a_position_in_other_batches_leaves_what_was_left(samples, share, batch_size, accumulation, drop_last):
    done = int(share * samples)
    batches, dropped = Position(done, samples, 1, 1).in_batches_of(batch_size, accumulation, drop_last)
    left = samples - done
    all_batches = (samples - dropped) // batch_size if drop_last else math.ceil((samples - dropped) / batch_size)
    if batches == all_batches:
        assert left == 0 or (drop_last and left < batch_size)
    else:
        assert batches % accumulation == 0
        assert dropped + batches * batch_size == done


@pytest.mark.parametrize(
    "make",
    [
        lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 20),
        lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20),
        lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5),
    ],
    ids=["lambda", "cosine", "step"],
)
def test_a_restarted_scheduler_is_where_its_steps_have_led(make):
    def at(steps):
        optimizer = torch.optim.SGD(LinearClassifier().parameters(), lr=0.5)
        aligned = AlignedScheduler(make(optimizer), optimizer)
        start = aligned.start()
        aligned.begin_epoch(3, 7, scale=1.4)
        for _ in range(3):
            optimizer.step()
            aligned.step()
        aligned.restart(start, steps)
        return aligned.get_last_lr(), [group["lr"] for group in optimizer.param_groups]

    optimizer = torch.optim.SGD(LinearClassifier().parameters(), lr=0.5)
    scheduler = make(optimizer)
    for steps in range(6):
        expected = scheduler.get_last_lr()
        assert at(steps) == (pytest.approx(expected), pytest.approx(expected))
        optimizer.step()
        scheduler.step()
