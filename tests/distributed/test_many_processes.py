"""Any number of processes hides what one does; ranks that were not given the same training are told so at its start."""

import os

import pytest
import torch

from processes import run_ranks
from stream_toy import rows
from toy import LinearClassifier, epochs, losses, make_trainer, same_tensors, samples, trained

RANKS = [2, pytest.param(3, marks=pytest.mark.wide), pytest.param(4, marks=pytest.mark.wide)]


def outcome(output_dir, options, count=203, global_batch_size=48):
    """Train in global batches of a size, whatever the number of ranks, and bring home what the tests look at."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    split = options.get("accelerator_config", {}).get("split_batches")
    size = global_batch_size if split else global_batch_size // ranks
    defaults = {"dataset": samples(count), "model": LinearClassifier, "num_train_epochs": 6, "learning_rate": 0.1}
    trainer = trained(output_dir, per_device_train_batch_size=size, **{**defaults, **options})
    return {
        "hidden": trainer.watch.hidden,
        "losses": [entry["loss"] for entry in losses(trainer)],
        "rates": trainer.watch.rates,
        "ledger": trainer.ledger.state_dict(),
        "weights": trainer.model.state_dict(),
        "epochs": [{name: value for name, value in entry.items() if "time" not in name} for entry in epochs(trainer)],
        "trained": trainer._training.run.trained_samples,
    }


WAYS = {
    "batches of each rank": {},
    "split": {"accelerator_config": {"split_batches": True}},
    "dispatched": {"accelerator_config": {"dispatch_batches": True}},
    "dispatched, split": {"accelerator_config": {"dispatch_batches": True, "split_batches": True}},
    "not evened": {"accelerator_config": {"even_batches": False}},
    "accumulated": {"gradient_accumulation_steps": 3},
    "workers": {"dataloader_num_workers": 1},
}


def assert_as_in_one_process(ranks, one):
    """The same hidden in every epoch, and the same ledger to within rounding; bit for bit the same on each rank."""
    assert sum(int(hidden.sum()) for hidden in one["hidden"]) > 50, "too little was hidden to compare"
    for rank in ranks:
        assert all(torch.equal(a, b) for a, b in zip(rank["hidden"], one["hidden"], strict=True))
        assert rank["epochs"] == one["epochs"]
        assert rank["trained"] == one["trained"]
        assert rank["rates"] == one["rates"]
        assert same_tensors(rank["ledger"], ranks[0]["ledger"])
        assert same_tensors(rank["weights"], ranks[0]["weights"])
    torch.testing.assert_close(ranks[0]["weights"], one["weights"])
    for name, tensor in one["ledger"].items():
        torch.testing.assert_close(ranks[0]["ledger"][name], tensor, equal_nan=True)


EVERY_WAY = [pytest.param(way, marks=[] if way == "accumulated" else [pytest.mark.wide]) for way in WAYS]


# Without incomplete batches, in which a sample weighs more (in Trainer too), the batches are the same.
@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("ranks", RANKS)
def test_any_number_of_processes_does_what_one_does(tmp_path, ranks, way):
    options = {"dataloader_drop_last": True, **WAYS[way]}
    one = outcome(tmp_path / "one", {**options, "accelerator_config": {}}, 491)
    assert_as_in_one_process(run_ranks(ranks, outcome, tmp_path / "ranks", options, 491), one)


@pytest.mark.parametrize("ranks", RANKS)
def test_what_fills_up_an_uneven_last_batch_is_counted_once(tmp_path, ranks):
    options = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3}
    done = run_ranks(ranks, outcome, tmp_path, options)
    for rank in done:
        assert rank["trained"] == 203 + 5 * (203 - 60)
        assert same_tensors(rank["ledger"], done[0]["ledger"])
        assert rank["ledger"]["times_hidden"].sum() == 5 * 60
    assert bool(done[0]["ledger"]["loss"].isfinite().all())


def messages(output_dir, cases):
    """What `train` raises in each case, of which each is (options, options of the second rank)."""
    second = os.environ["RANK"] == "1"
    raised = []
    for options, differing in cases:
        options = {**options, **(differing if second else {})}
        if "samples" in options:
            options["dataset"] = samples(options.pop("samples"))
        trainer = make_trainer(output_dir, **options)
        with pytest.raises(ValueError, match="same training") as error:
            trainer.train()
        raised.append(str(error.value))
    return raised


CASES = {
    "training samples: 203 on rank 0, 163 on rank 1": ({}, {"samples": 163}),
    "per_device_train_batch_size: 16 on rank 0, 8 on rank 1": ({}, {"per_device_train_batch_size": 8}),
    "gradient_accumulation_steps: 1 on rank 0, 2 on rank 1": ({}, {"gradient_accumulation_steps": 2}),
    "data_seed: None on rank 0, 7 on rank 1": ({}, {"data_seed": 7}),
    "max_hidden_fraction: 0.3 on rank 0, 0.2 on rank 1": ({}, {"max_hidden_fraction": 0.2}),
    "hiding_policy: kakurenbo on rank 0, none on rank 1": ({}, {"hiding_policy": "none"}),
    "save_steps: 500 on rank 0, 5 on rank 1": ({}, {"save_steps": 5}),
    "digest of some training samples: ": ({"dataset": rows(50)}, {"dataset": rows(50).shuffle(seed=1)}),
}


def test_another_training_on_one_rank_is_told_on_every_rank_at_the_start(tmp_path):
    first, second = run_ranks(2, messages, tmp_path, list(CASES.values()))
    assert first == second
    for message, part in zip(first, CASES, strict=True):
        assert f"The ranks have not been given the same training. {part}" in message


def resume(output_dir, missing):
    """Resume where the second rank has no checkpoint, or none that was written to its end."""
    folder = output_dir / f"rank-{os.environ['RANK']}"
    checkpoint = folder / "checkpoint-3"
    if os.environ["RANK"] == "0" or not missing:
        checkpoint.mkdir(parents=True)
    if os.environ["RANK"] == "0":
        (checkpoint / "trainer_state.json").write_text('{"global_step": 3}')
    with pytest.raises(ValueError, match="same training") as error:
        make_trainer(folder).train(resume_from_checkpoint=True)
    return str(error.value)


@pytest.mark.parametrize("missing", [pytest.param(True, marks=pytest.mark.wide), False])
def test_a_checkpoint_that_one_rank_cannot_see_is_told_on_every_rank(tmp_path, missing):
    first, second = run_ranks(2, resume, tmp_path, missing)
    assert first == second
    assert "resumed from: checkpoint-3 on rank 0, " in first
    assert ("True on rank 1" if missing else "was not written to its end") in first
    assert "an output_dir that all nodes see" in first


def fingerprints(output_dir):
    """The same rows under another fingerprint on each rank, as `map` gives them with a function that knows its rank."""
    dataset = rows(64).with_format("torch")
    dataset._fingerprint = os.environ["RANK"]
    trained(output_dir, dataset=dataset, model=LinearClassifier, num_train_epochs=1)
    return dataset._fingerprint


@pytest.mark.wide
def test_another_fingerprint_of_the_same_rows_is_no_difference(tmp_path):
    assert run_ranks(2, fingerprints, tmp_path) == ["0", "1"]
