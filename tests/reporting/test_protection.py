"""Samples that are never hidden, and a floor for each class: by a mask, by a column, on streams by their ids."""

import datasets
import numpy as np
import pytest
import torch
from report_toy import pictures, trainer_of_pictures

from hf_kakurenbo.data.labels import labels_of, stored_column
from hf_kakurenbo.fdsl import load_fdsl
from hf_kakurenbo.hiding import HidingRun, KakurenboPolicy, Protection, SampleLedger
from processes import run_ranks
from stream_toy import rows, streamed
from toy import NUM_SAMPLES, LinearClassifier, make_trainer, same_tensors, samples, trained


def ledger_of(losses):
    ledger = SampleLedger(len(losses))
    ledger._write(slice(None), np.array(losses, np.float32), np.ones(len(losses), np.float32))
    return ledger


def kept(protection, hidden, losses=None):
    hidden = torch.tensor(hidden, dtype=torch.bool)
    before = hidden.clone()
    found = protection.kept_visible(hidden, ledger_of(losses or [0.0] * len(hidden)))
    assert torch.equal(hidden, before)
    return found.int().tolist()


def test_never():
    assert kept(Protection(np.array([True, False, False, True])), [1, 1, 0, 0]) == [0, 1, 0, 0]


def test_a_floor_shows_those_of_highest_loss():
    classes = np.array([0, 0, 0, 0, 1, 1, 1, 2, -1, -1])
    losses = [0.1, 0.4, 0.2, 0.4, 5.0, 0.1, 0.1, 0.0, 0.0, 0.0]
    hidden = [1, 1, 1, 1, 0, 1, 1, 1, 1, 1]
    assert kept(Protection(None, classes, 1), hidden, losses) == [1, 0, 1, 1, 0, 1, 1, 0, 1, 1]
    assert kept(Protection(None, classes, 2), hidden, losses) == [1, 0, 1, 0, 0, 0, 1, 0, 1, 1]
    assert kept(Protection(None, classes, 99), hidden, losses) == [0, 0, 0, 0, 0, 0, 0, 0, 1, 1]
    assert kept(Protection(None, classes, 0), hidden, losses) == hidden


def test_those_that_are_never_hidden_count_for_the_floor():
    protection = Protection(np.array([True, False, False]), np.array([0, 0, 0]), 1)
    assert kept(protection, [1, 1, 1], [0.1, 0.9, 0.9]) == [0, 1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_against_a_plain_loop(seed):
    random = np.random.default_rng(seed)
    count, floor = 300, int(random.integers(1, 40))
    classes = random.integers(-1, 7, count)
    losses = random.integers(0, 9, count).astype(float).tolist()
    hidden = (random.random(count) < 0.9).astype(int)
    expected = hidden.copy()
    for label in range(7):
        own = [i for i in range(count) if classes[i] == label]
        shown = sorted((i for i in own if hidden[i]), key=lambda i: (-losses[i], i))
        lacking = max(min(floor, len(own)) - sum(not hidden[i] for i in own), 0)
        expected[shown[:lacking]] = 0
    assert kept(Protection(None, classes, floor), hidden.tolist(), losses) == expected.tolist()


def test_a_run_counts_them_as_moved_back():
    run = HidingRun(4, KakurenboPolicy(0.5, [0.0], [1.0], hiding_warmup_epochs=0))
    run.ledger._write(slice(None), np.array([0.1, 0.2, 0.3, 0.4], np.float32), np.ones(4, np.float32))
    run.protection = Protection(np.array([True, False, False, False]))
    run.begin_epoch(0, 0.0)
    assert run.ledger.hidden_ids.tolist() == [1]
    assert run.ledger.times_hidden.tolist() == [0, 1, 0, 0]
    assert run.report()["kakurenbo/moved_back"] == 1
    assert run.lr_scale == pytest.approx(4 / 3)


# ---- In the trainer ----

HIDING = {"learning_rate": 0.05, "num_train_epochs": 5}


def hidden_ever(trainer):
    return torch.stack(trainer.watch.hidden).any(0).numpy()


@pytest.fixture(scope="module")
def unprotected(tmp_path_factory):
    trainer = trainer_of_pictures(tmp_path_factory.mktemp("unprotected"))
    trainer.train()
    assert hidden_ever(trainer).sum() > 60
    return trainer


@pytest.fixture
def mask(unprotected):
    """Every other sample that is hidden without it."""
    ever = hidden_ever(unprotected)
    return ever & (np.cumsum(ever) % 2 == 0)


@pytest.mark.parametrize("kind", [np.asarray, torch.as_tensor, list])
def test_a_mask(mask, tmp_path, kind):
    trainer = trainer_of_pictures(tmp_path, num_train_epochs=4)
    trainer.never_hide = kind(mask)
    trainer.train()
    assert not (hidden_ever(trainer) & mask).any()
    assert hidden_ever(trainer).any()


def test_a_column(mask, tmp_path):
    with_mask = trainer_of_pictures(tmp_path / "mask")
    with_mask.never_hide = mask
    with_mask.train()
    trainer = make_trainer(
        tmp_path / "column",
        dataset=pictures().add_column("keep", mask.tolist()),
        never_hide_column="keep",
        trainer_options={"data_collator": with_mask.data_collator},
        learning_rate=0.05,
        num_train_epochs=6,
        remove_unused_columns=False,
    )
    trainer.train()
    assert torch.stack(trainer.watch.hidden).any()
    assert same_tensors(trainer.ledger.state_dict(), with_mask.ledger.state_dict())


def test_a_column_of_dicts_and_the_mask_beside_it(mask, tmp_path):
    toys = [{**sample, "keep": bool(keep)} for sample, keep in zip(samples(), mask, strict=True)]
    trainer = make_trainer(tmp_path, dataset=toys, never_hide_column="keep", **HIDING)
    first = np.arange(NUM_SAMPLES) < 50
    trainer.never_hide = first
    trainer.train()
    assert not (hidden_ever(trainer) & (mask | first)).any()
    assert hidden_ever(trainer).any()


def test_a_floor_for_each_class(unprotected, tmp_path):
    classes = np.array(pictures()["labels"])
    hidden = torch.stack(unprotected.watch.hidden).numpy()
    fewest = min(np.bincount(classes[~row], minlength=4).min() for row in hidden)
    floor = int(fewest) + 8
    trainer = trainer_of_pictures(tmp_path, min_visible_per_class=floor)
    trainer.train()
    rows = torch.stack(trainer.watch.hidden).numpy()
    for row in rows:
        visible = np.bincount(classes[~row], minlength=4)
        assert (visible >= np.minimum(np.bincount(classes, minlength=4), floor)).all()
    assert rows.any()


def test_a_stream_by_a_mask(tmp_path):
    given = {"dataset": streamed(), "num_samples": NUM_SAMPLES, **HIDING}
    free = trained(tmp_path / "free", **given)
    trainer = make_trainer(tmp_path / "kept", **{**given, "dataset": streamed()})
    trainer.never_hide = mask = hidden_ever(free)
    trainer.train()
    assert mask.sum() > 30
    assert not (hidden_ever(trainer) & mask).any()


def test_killed_and_resumed(mask, tmp_path):
    def make(folder):
        trainer = make_trainer(folder, save_strategy="steps", save_steps=7, min_visible_per_class=20, **HIDING)
        trainer.never_hide = mask
        return trainer

    whole = make(tmp_path)
    whole.train()
    resumed = make(tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-28"))
    assert whole.ledger.times_hidden.any()
    assert same_tensors(resumed.ledger.state_dict(), whole.ledger.state_dict())


def hidden_on_rank(folder):
    trainer = make_trainer(folder, model=LinearClassifier, per_device_train_batch_size=8, **HIDING)
    trainer.never_hide = np.arange(NUM_SAMPLES) % 2 == 0
    trainer.train()
    return torch.stack(trainer.watch.hidden)


@pytest.mark.wide
def test_two_processes(tmp_path):
    first, second = run_ranks(2, hidden_on_rank, tmp_path)
    assert torch.equal(first, second)
    assert not first[:, ::2].any()
    assert first.any()


# ---- What cannot be honoured ----


@pytest.mark.parametrize(
    ("mask", "found"),
    [(np.zeros(5, bool), r"\(5,\) bool"), (np.zeros(NUM_SAMPLES), r"\(203,\) float64"), ([1, 2], r"\(2,\) int64")],
)
def test_a_mask_of_another_shape(tmp_path, mask, found):
    trainer = make_trainer(tmp_path)
    trainer.never_hide = mask
    with pytest.raises(ValueError, match=rf"never_hide must be a mask of bool .* each of the 203 samples, got {found}"):
        trainer.train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"never_hide_column": "keep"}, r"never_hide_column='keep' is no column of the training dataset \(list\)"),
        ({"never_hide_column": "labels"}, r"never_hide_column='labels' must hold true or false for each row, got int"),
    ],
)
def test_a_column_that_is_none(tmp_path, options, message):
    trainer = make_trainer(tmp_path, **options)
    with pytest.raises(ValueError, match=message):
        trainer.train()


def test_a_dataset_without_classes(tmp_path):
    plain = [{"x": sample["x"], "labels": sample["labels"].float()} for sample in samples()]
    trainer = make_trainer(tmp_path, dataset=plain, min_visible_per_class=3)
    with pytest.raises(ValueError, match="min_visible_per_class=3 needs the class of every sample, and the training"):
        trainer.train()


@pytest.mark.parametrize("options", [{"never_hide_column": "keep"}, {"min_visible_per_class": 3}])
def test_a_stream_cannot_be_asked_beforehand(tmp_path, options):
    with pytest.raises(ValueError, match=r"cannot be read from a stream .*Set `trainer.never_hide` to a mask"):
        make_trainer(tmp_path, dataset=streamed(), num_samples=NUM_SAMPLES, **options)


@pytest.mark.parametrize(("policy", "own"), [("infobatch", {}), ("coin", {"weighted": True})])
def test_a_policy_of_weights(tmp_path, policy, own):
    with pytest.raises(ValueError, match=rf"hiding_policy='{policy}' gives what stays visible another weight"):
        make_trainer(tmp_path, hiding_policy=policy, policy_options=own, min_visible_per_class=3)


def test_columns_and_classes_where_they_are_stored():
    table = rows(10)
    assert list(stored_column(table, "sample_id")) == list(range(10))
    assert stored_column(table, "none") is None
    assert stored_column(torch.utils.data.TensorDataset(torch.zeros(3)), "keep") is None
    images = load_fdsl("fractaldb-test", categories=3, instances=4)
    assert labels_of(images).values.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert labels_of(datasets.Dataset.from_dict({"label": [True, False, True]})).values.tolist() == [1, 0, 1]
