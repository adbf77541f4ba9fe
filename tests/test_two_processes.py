"""Two processes over gloo: the same as one, the same as Trainer, and never apart in silence."""

import os

import pytest
import torch
from transformers import Trainer

from hf_kakurenbo import KakurenboTrainer
from processes import run_ranks
from toy import LinearClassifier, epochs, losses, same_tensors, samples, trained, without_timings


def outcome(output_dir, trainer, options):
    """Train, and bring home what the tests look at."""
    done = trained(output_dir, trainer, **options)
    ledger = getattr(done, "ledger", None)
    return {
        "losses": losses(done),
        "weights": done.model.state_dict(),
        "hidden": done.watch.hidden,
        "rates": done.watch.rates,
        "ledger": ledger.state_dict() if ledger else None,
        "epochs": without_timings(epochs(done)),
    }


def error(output_dir, options, shorter_on_rank_1=0):
    """Train, and bring home the message of the error that it ends with."""
    dataset = samples(203 - shorter_on_rank_1 * int(os.environ["RANK"]))
    with pytest.raises(RuntimeError) as raised:
        trained(output_dir, dataset=dataset, per_device_train_batch_size=8, **options)
    return str(raised.value)


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient_accumulation_steps": 4}, {"dataloader_drop_last": True}],
    ids=["plain", "partial accumulation", "drop last"],
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


@pytest.mark.parametrize("split_batches", [False, True])
def test_two_processes_do_what_one_does(tmp_path, split_batches):
    # Without the padding of a last batch, which weighs a sample twice in Trainer too, the batches are the same.
    options = {"model": LinearClassifier, "num_train_epochs": 6, "dataloader_drop_last": True, "learning_rate": 0.1}
    one = outcome(tmp_path / "one", KakurenboTrainer, {"per_device_train_batch_size": 16, **options})
    options["accelerator_config"] = {"split_batches": split_batches}
    options["per_device_train_batch_size"] = 16 if split_batches else 8
    two = run_ranks(2, outcome, tmp_path / "two", KakurenboTrainer, options)
    assert sum(int(hidden.sum()) for hidden in one["hidden"]) > 50, "too little was hidden to compare"
    for rank in two:
        assert all(torch.equal(a, b) for a, b in zip(rank["hidden"], one["hidden"], strict=True))
        assert [entry["loss"] for entry in rank["losses"]] == pytest.approx([entry["loss"] for entry in one["losses"]])
        assert rank["rates"] == one["rates"]
        torch.testing.assert_close(rank["weights"], one["weights"])
    assert same_tensors(two[0]["ledger"], two[1]["ledger"])
    for name, tensor in one["ledger"].items():
        torch.testing.assert_close(two[0]["ledger"][name], tensor, equal_nan=True)


@pytest.mark.parametrize("options", [{}, {"dataloader_num_workers": 1}, {"gradient_accumulation_steps": 3}], ids=str)
def test_both_ranks_hold_the_same_ledger(tmp_path, options):
    options = {"num_train_epochs": 6, "per_device_train_batch_size": 8, "learning_rate": 0.05, **options}
    ranks = run_ranks(2, outcome, tmp_path, KakurenboTrainer, options)
    assert ranks[0]["epochs"] == ranks[1]["epochs"]
    assert max(entry["kakurenbo/hidden_fraction"] for entry in ranks[0]["epochs"]) > 0.05
    assert same_tensors(ranks[0]["ledger"], ranks[1]["ledger"])
    assert bool(ranks[0]["ledger"]["loss"].isfinite().all())


# Without even batches the training itself needs full ones in each epoch, so 16 samples of hidden ones at a time.
@pytest.mark.parametrize(("count", "even_batches"), [(0, True), (1, True), (3, True), (20, True), (16, False)])
def test_the_refresh_does_not_hang(tmp_path, count, even_batches):
    options = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "accelerator_config": {"even_batches": even_batches},
        "dataset": samples(208 + count),  # 208 visible ones fill the batches of both ranks
        "hiding_policy": "first_ids",
        "max_hidden_fraction": (count + 0.5) / (208 + count),
        "hiding_warmup_epochs": 0,
    }
    ranks = run_ranks(2, outcome, tmp_path, KakurenboTrainer, options, timeout=60)
    for rank in ranks:
        assert [entry["kakurenbo/visible_samples"] for entry in rank["epochs"]] == [208 + count, 208, 208]
    assert same_tensors(ranks[0]["ledger"], ranks[1]["ledger"])


def test_a_disagreement_raises_on_every_rank(tmp_path):
    messages = run_ranks(2, error, tmp_path, {"hiding_policy": "rank_dependent"}, timeout=60)
    assert messages[0] == messages[1]
    assert "drifted apart before epoch 1" in messages[0]
    assert "digest of the visible set" in messages[0]


def test_different_datasets_are_told_before_the_first_step(tmp_path):
    for message in run_ranks(2, error, tmp_path, {}, 40, timeout=60):
        assert "drifted apart before epoch 0" in message
        assert "samples: 203 on rank 0, 163 on rank 1" in message
