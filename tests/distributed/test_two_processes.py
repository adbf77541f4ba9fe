"""Two processes over gloo: the same as one, the same as Trainer, and never apart in silence."""

import os

import pytest
import torch
from torch.utils.data import Dataset
from transformers import Trainer

from hf_kakurenbo import KakurenboTrainer
from processes import run_ranks
from toy import (
    LinearClassifier,
    TokenDropout,
    epochs,
    losses,
    make_trainer,
    pad,
    same_tensors,
    samples,
    skip_where_ranks_cannot_resume,
    texts,
    trained,
    without_timings,
)

EVEN = {"model": LinearClassifier, "num_train_epochs": 6, "learning_rate": 0.1}

WIDE = pytest.mark.wide


def outcome(output_dir, trainer, options, resume_from_checkpoint=None):
    """Train, and bring home what the tests look at."""
    done = make_trainer(output_dir, trainer, **options)
    done.train(resume_from_checkpoint)
    ledger = getattr(done, "ledger", None)
    return {
        "losses": losses(done),
        "weights": done.model.state_dict(),
        "hidden": done.watch.hidden,
        "orders": done.watch.orders,
        "totals": done._training.run.totals() if ledger else None,
        "rates": done.watch.rates,
        "ledger": ledger.state_dict() if ledger else None,
        "epochs": without_timings(epochs(done)),
    }


def error(output_dir, options, trainer=KakurenboTrainer):
    """Train, and bring home the message of the error that it ends with."""
    with pytest.raises(RuntimeError) as raised:
        trained(output_dir, trainer, per_device_train_batch_size=8, **options)
    return str(raised.value)


def refusal(output_dir, options):
    """Construct a trainer that is refused, then one for the plain training, and bring home the message."""
    with pytest.raises(ValueError, match="even_batches") as raised:
        make_trainer(output_dir, **options)
    make_trainer(output_dir, hiding_policy="none", **options)
    return str(raised.value)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"gradient_accumulation_steps": 4},
        pytest.param({"dataloader_drop_last": True}, marks=pytest.mark.wide),
        pytest.param({"accelerator_config": {"dispatch_batches": True}}, marks=pytest.mark.wide),
        pytest.param(
            {
                "model": TokenDropout,
                "dataset": texts(),
                "trainer_options": {"data_collator": pad},
                "train_sampling_strategy": "group_by_length",
            },
            marks=pytest.mark.wide,
        ),
    ],
    ids=["plain", "partial accumulation", "drop last", "dispatched", "grouped by length"],
)
def test_nothing_hidden_is_identical_to_trainer(tmp_path, options):
    options = {"per_device_train_batch_size": 8, "num_train_epochs": 2, **options}
    plain = run_ranks(2, outcome, tmp_path / "plain", Trainer, options)
    assert plain[0]["losses"]
    for name, hidden in (("none", {"hiding_policy": "none"}), ("zero", {"max_hidden_fraction": 0.0})):
        hiding = run_ranks(2, outcome, tmp_path / name, KakurenboTrainer, {**options, **hidden})
        for rank in range(2):
            assert hiding[rank]["losses"] == plain[rank]["losses"]
            assert same_tensors(hiding[rank]["weights"], plain[rank]["weights"])


# Without the padding of a last batch, which weighs a sample twice in Trainer too, the batches are the same.
@pytest.mark.parametrize(
    ("options", "batches"),
    [
        ({"dataloader_drop_last": True}, {}),
        pytest.param({"dataloader_drop_last": True}, {"split_batches": True}, marks=pytest.mark.wide),
        pytest.param({"dataloader_drop_last": True}, {"dispatch_batches": True}, marks=pytest.mark.wide),
        ({"dataset": samples(208), "hiding_policy": "first_ids", "max_hidden_fraction": 48.5 / 208}, {}),
    ],
    ids=["drop last", "split batches", "dispatched batches", "incomplete batches kept"],
)
def test_two_processes_do_what_one_does(tmp_path, options, batches):
    options = {**EVEN, **options}
    one = outcome(tmp_path / "one", KakurenboTrainer, {"per_device_train_batch_size": 16, **options})
    options["accelerator_config"] = batches
    options["per_device_train_batch_size"] = 16 if "split_batches" in batches else 8
    two = run_ranks(2, outcome, tmp_path / "two", KakurenboTrainer, options)
    assert sum(int(hidden.sum()) for hidden in one["hidden"]) > 50, "too little was hidden to compare"
    for rank in two:
        assert all(torch.equal(a, b) for a, b in zip(rank["hidden"], one["hidden"], strict=True))
        assert [entry["loss"] for entry in rank["losses"]] == pytest.approx([entry["loss"] for entry in one["losses"]])
        assert rank["rates"] == one["rates"]
        assert rank["totals"]["kakurenbo/trained_samples"] == one["totals"]["kakurenbo/trained_samples"]
        torch.testing.assert_close(rank["weights"], one["weights"])
    assert same_tensors(two[0]["ledger"], two[1]["ledger"])
    for name, tensor in one["ledger"].items():
        torch.testing.assert_close(two[0]["ledger"][name], tensor, equal_nan=True)


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"dataloader_num_workers": 1}, marks=pytest.mark.wide),
        pytest.param({"gradient_accumulation_steps": 3}, marks=pytest.mark.wide),
        pytest.param({"accelerator_config": {"dispatch_batches": True}}, marks=pytest.mark.wide),
    ],
    ids=str,
)
def test_both_ranks_hold_the_same_ledger(tmp_path, options):
    options = {"num_train_epochs": 6, "per_device_train_batch_size": 8, "learning_rate": 0.05, **options}
    ranks = run_ranks(2, outcome, tmp_path, KakurenboTrainer, options)
    assert ranks[0]["epochs"] == ranks[1]["epochs"]
    assert max(entry["kakurenbo/hidden_fraction"] for entry in ranks[0]["epochs"]) > 0.05
    assert same_tensors(ranks[0]["ledger"], ranks[1]["ledger"])
    assert bool(ranks[0]["ledger"]["loss"].isfinite().all())
    visible = [entry["kakurenbo/visible_samples"] for entry in ranks[0]["epochs"]]
    assert ranks[0]["totals"]["kakurenbo/trained_samples"] == sum(visible), "padding was counted"


class Listening(Dataset):
    """Notes the epochs that it is told."""

    def __init__(self):
        self.samples, self.epochs = samples(), []

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    def set_epoch(self, epoch):
        self.epochs.append(epoch)


def epochs_told(output_dir, trainer, options):
    """Train, and bring home the epochs that the dataset was told."""
    dataset = Listening()
    trained(output_dir, trainer, dataset=dataset, num_train_epochs=3, **options)
    return dataset.epochs


@pytest.mark.wide
def test_the_dataset_is_told_the_epoch_as_by_trainer(tmp_path):
    options = {"train_sampling_strategy": "sequential"}
    expected = run_ranks(2, epochs_told, tmp_path / "plain", Trainer, options)
    assert set(expected[0]) == set(expected[1]) == {0, 1, 2}
    nothing = run_ranks(2, epochs_told, tmp_path / "zero", KakurenboTrainer, {**options, "max_hidden_fraction": 0.0})
    assert nothing == expected
    hiding = run_ranks(2, epochs_told, tmp_path / "hiding", KakurenboTrainer, {**options, "hiding_policy": "first_ids"})
    assert all(sorted(told) == told and set(told) == {0, 1, 2} for told in hiding), "the refresh told another epoch"


GROUPED = {
    "model": TokenDropout,
    "dataset": texts(),
    "trainer_options": {"data_collator": pad},
    "train_sampling_strategy": "group_by_length",
    "per_device_train_batch_size": 8,
}


def test_ranks_whose_generators_differ_train_in_the_same_order(tmp_path):
    # The dropout of each token draws as many numbers as the rank's batch is long.
    options = {**GROUPED, "hiding_policy": "first_ids", "max_hidden_fraction": 0.3, "num_train_epochs": 5}
    ranks = run_ranks(2, outcome, tmp_path, KakurenboTrainer, options)
    assert ranks[0]["orders"] == ranks[1]["orders"]
    assert [sorted(order) for order in ranks[0]["orders"]] == [list(range(101))] + [list(range(30, 101))] * 4
    assert len({tuple(order) for order in ranks[0]["orders"]}) == 5, "an order came again"


@pytest.mark.parametrize(
    "options",
    [
        {"save_strategy": "steps", "save_steps": 4, "gradient_accumulation_steps": 2},
        pytest.param({"save_strategy": "epoch"}, marks=pytest.mark.wide),
        pytest.param({"save_strategy": "epoch", **GROUPED, "hiding_policy": "first_ids"}, marks=pytest.mark.wide),
        pytest.param(
            {"save_strategy": "steps", "save_steps": 4, **GROUPED, "hiding_policy": "first_ids"}, marks=pytest.mark.wide
        ),
    ],
    ids=["by steps, accumulated", "by epochs", "by epochs, grouped by length", "by steps, grouped by length"],
)
def test_resumed_is_never_interrupted(tmp_path, options):
    skip_where_ranks_cannot_resume()
    options = {"num_train_epochs": 5, "per_device_train_batch_size": 8, "learning_rate": 0.05, **options}
    whole = run_ranks(2, outcome, tmp_path, KakurenboTrainer, options)
    assert whole[0]["ledger"]["times_hidden"].sum() > 20, "too little was hidden to compare"
    checkpoints = sorted(tmp_path.glob("checkpoint-*"), key=lambda folder: int(folder.name.split("-")[1]))
    middle = str(checkpoints[len(checkpoints) // 2])
    resumed = run_ranks(2, outcome, tmp_path / "resumed", KakurenboTrainer, options, middle)
    for rank in range(2):
        assert same_tensors(resumed[rank]["weights"], whole[rank]["weights"])
        assert same_tensors(resumed[rank]["ledger"], whole[rank]["ledger"])
        assert resumed[rank]["losses"] == whole[rank]["losses"]


@pytest.mark.parametrize(
    ("count", "even_batches"),
    [
        pytest.param(0, True, marks=WIDE),
        pytest.param(1, True, marks=WIDE),
        pytest.param(3, True, marks=WIDE),
        (20, True),
        pytest.param(13, False, marks=WIDE),
    ],
)
def test_the_refresh_does_not_hang(tmp_path, count, even_batches):
    options = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "accelerator_config": {"even_batches": even_batches},
        "dataloader_drop_last": not even_batches,  # without it the training itself could not be
        "dataset": samples(208 + count),  # 208 visible ones fill the batches of both ranks
        "hiding_policy": "first_ids",
        "max_hidden_fraction": (count + 0.5) / (208 + count),
        "hiding_warmup_epochs": 0,
    }
    ranks = run_ranks(2, outcome, tmp_path, KakurenboTrainer, options)
    for rank in ranks:
        assert [entry["kakurenbo/visible_samples"] for entry in rank["epochs"]] == [208 + count, 208, 208]
    assert same_tensors(ranks[0]["ledger"], ranks[1]["ledger"])


def test_a_disagreement_raises_on_every_rank(tmp_path):
    messages = run_ranks(2, error, tmp_path, {"hiding_policy": "rank_dependent"})
    assert messages[0] == messages[1]
    assert "out of sync before epoch 1" in messages[0]
    assert "digest of the visible set" in messages[0]


class RankDependentOrder(KakurenboTrainer):
    """Draws in another order on the second rank, as a sampler must not."""

    def _get_train_sampler(self, dataset=None):
        return range(203) if os.environ["RANK"] == "0" else range(202, -1, -1)


def test_another_order_raises_on_every_rank(tmp_path):
    options = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3}
    messages = run_ranks(2, error, tmp_path, options, RankDependentOrder)
    assert messages[0] == messages[1]
    assert "out of sync before epoch 1. digest of the order" in messages[0]


def test_uneven_batches_are_refused_at_construction(tmp_path):
    for message in run_ranks(2, refusal, tmp_path, {"accelerator_config": {"even_batches": False}}):
        assert "even_batches=False without dataloader_drop_last" in message
        assert "set dataloader_drop_last=True" in message
