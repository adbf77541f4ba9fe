"""Two processes on one stream: each visible sample once, as in one process, and no hang."""

import itertools

import pytest
import torch

from hf_kakurenbo import KakurenboTrainer
from processes import run_ranks
from stream_toy import KINDS, WAYS, outcome, rows, streamed, visible_ids
from toy import NUM_SAMPLES, LinearClassifier, same_tensors, skip_where_ranks_cannot_resume, trained

SHARE = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3, "num_train_epochs": 3}
DEFAULT_RUN = [("with ids", "default"), ("of images", "not dispatched")]
EVERY_WAY = [
    pytest.param(
        kind,
        way,
        marks=[] if (kind, way) in DEFAULT_RUN else [pytest.mark.wide],
    )
    for kind, way in itertools.product(KINDS, WAYS)
]


def options_of(kind, way, **options):
    config = WAYS[way]
    size = 16 if config.get("split_batches") else 8
    return {**KINDS[kind][0], "accelerator_config": config, "per_device_train_batch_size": size, **options}


def one_process(tmp_path, kind, **options):
    return outcome(tmp_path / "one", kind, {**KINDS[kind][0], "per_device_train_batch_size": 16, **options})


def dispatches(kind, way):
    """Whether the first rank reads for both, which is Accelerate's default for streams."""
    return WAYS[way].get("dispatch_batches", kind == "with ids")


@pytest.mark.parametrize(("kind", "way"), EVERY_WAY)
def test_each_visible_sample_once_in_the_order_of_one_process(tmp_path, kind, way):
    one = one_process(tmp_path, kind, **SHARE)
    two = run_ranks(2, outcome, tmp_path / "two", kind, options_of(kind, way, **SHARE))
    count = KINDS[kind][1]
    filled = 0
    for epoch, batches in one["batches"].items():
        assert len(two[0]["batches"][epoch]) == len(two[1]["batches"][epoch]) == len(batches)
        for alone, first, second in zip(batches, *(rank["batches"][epoch] for rank in two), strict=True):
            together = [*first, *second]
            assert together[: len(alone)] == alone
            assert len(first) == len(second)
            assert len(together) == len(alone) or alone is batches[-1]
            filled += len(together) - len(alone)
        assert sorted(itertools.chain(*batches)) == visible_ids(two[0]["hidden"][epoch])
    assert filled > 0, "nothing was filled up"
    assert same_tensors(two[0]["ledger"], two[1]["ledger"])
    assert bool(two[0]["ledger"]["loss"].isfinite().all())
    assert two[0]["epochs"] == two[1]["epochs"]
    assert two[0]["totals"]["kakurenbo/trained_samples"] == one["totals"]["kakurenbo/trained_samples"]
    hidden = int(0.3 * count)
    assert two[0]["totals"]["kakurenbo/trained_samples"] == 3 * count - 2 * hidden
    # Every epoch makes the visible ones; the hidden ones are refreshed once, after the second.
    needed = 3 * count - 2 * hidden + hidden
    made = [len(rank["made"]) for rank in two]
    if dispatches(kind, way) and kind == "with ids":
        assert made == [needed, 0]
    elif dispatches(kind, way):
        # Trained map-style, its refresh is shared by the ranks.
        assert made[1] == len(made) * 8
        assert needed <= sum(made) <= needed + -hidden % 16
    else:
        assert needed <= sum(made) <= needed + filled + -hidden % 16
        assert abs(made[0] - made[1]) <= 4 * 8


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("with ids", "default"),
        pytest.param("with ids", "not dispatched", marks=pytest.mark.wide),
        pytest.param("of images", "default", marks=pytest.mark.wide),
    ],
)
def test_two_processes_hide_what_one_does(tmp_path, kind, way):
    model = {"model": LinearClassifier} if kind == "with ids" else {}
    options = {"dataloader_drop_last": True, "num_train_epochs": 6, "learning_rate": 0.1, **model}
    one = one_process(tmp_path, kind, **options)
    two = run_ranks(2, outcome, tmp_path / "two", kind, options_of(kind, way, **options))
    assert sum(int(hidden.sum()) for hidden in one["hidden"]) > 50, "too little was hidden to compare"
    assert same_tensors(two[0]["ledger"], two[1]["ledger"])
    if kind == "of images":
        return  # BatchNorm sees half the batch
    for rank in two:
        assert all(torch.equal(a, b) for a, b in zip(rank["hidden"], one["hidden"], strict=True))
        assert [entry["loss"] for entry in rank["losses"]] == pytest.approx([entry["loss"] for entry in one["losses"]])
        torch.testing.assert_close(rank["weights"], one["weights"])
    for name, tensor in one["ledger"].items():
        torch.testing.assert_close(two[0]["ledger"][name], tensor, equal_nan=True)


@pytest.mark.wide
@pytest.mark.parametrize("way", ["default", "not dispatched"])
def test_workers_change_nothing(tmp_path, way):
    options = options_of("with ids", way, **{**SHARE, "num_train_epochs": 2})
    none = run_ranks(2, outcome, tmp_path / "none", "with ids", options)
    some = run_ranks(2, outcome, tmp_path / "some", "with ids", {**options, "dataloader_num_workers": 2})
    for rank in range(2):
        assert some[rank]["batches"] == none[rank]["batches"]
        assert sorted(some[rank]["made"]) == sorted(none[rank]["made"])
        assert same_tensors(some[rank]["weights"], none[rank]["weights"])


@pytest.mark.parametrize(
    ("kind", "way"),
    [
        ("with ids", "default"),
        pytest.param("with ids", "not dispatched", marks=pytest.mark.wide),
        pytest.param("with ids", "dispatched, split", marks=pytest.mark.wide),
        pytest.param("with ids", "not dispatched, split", marks=pytest.mark.wide),
        pytest.param("of images", "default", marks=pytest.mark.wide),
    ],
)
def test_resumed_is_never_interrupted(tmp_path, kind, way):
    skip_where_ranks_cannot_resume()
    saving = {"save_strategy": "steps", "save_steps": 4}
    options = options_of(kind, way, **SHARE, **saving)
    whole = run_ranks(2, outcome, tmp_path, kind, options)
    assert whole[0]["losses"][-1]["step"] > 2 * len(whole[0]["batches"][1])
    steps = sorted(int(folder.name.split("-")[1]) for folder in tmp_path.glob("checkpoint-*"))
    ends = set(itertools.accumulate(map(len, whole[0]["batches"].values())))
    step = next(step for step in steps[len(steps) // 2 :] if step not in ends)
    resumed = run_ranks(2, outcome, tmp_path / "resumed", kind, options, str(tmp_path / f"checkpoint-{step}"))
    for rank in range(2):
        assert same_tensors(resumed[rank]["weights"], whole[rank]["weights"])
        assert same_tensors(resumed[rank]["ledger"], whole[rank]["ledger"])
        assert resumed[rank]["losses"] == whole[rank]["losses"]
    assert_nothing_made_again(resumed, whole)


def assert_nothing_made_again(resumed, whole):
    trained_on = sum(len(batch) for rank in resumed for batches in rank["batches"].values() for batch in batches)
    refreshed = [int(hidden.sum()) for hidden in resumed[0]["hidden"][:-1]]
    made = sum(len(rank["made"]) for rank in resumed)
    # Where one rank reads for both, it makes the first batch of all again, to fill up the last one.
    assert made <= trained_on + sum(refreshed) + 16 * len(refreshed) + 16
    assert made < sum(len(rank["made"]) for rank in whole) // 2 + 32


def message_of(output_dir, seed, dispatch):
    """Train on a stream that may have another order on each rank, and bring home the message of the error, if any."""
    options = {"accelerator_config": {"dispatch_batches": dispatch}, "num_samples": NUM_SAMPLES, "num_train_epochs": 2}
    try:
        trained(output_dir, dataset=streamed(seed=seed), per_device_train_batch_size=8, **options)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.wide
def test_another_order_on_each_rank_is_told_after_an_epoch(tmp_path):
    messages = run_ranks(2, message_of, tmp_path, None, False)
    assert messages[0] == messages[1]
    assert "In epoch 0 of the stream" in messages[0]
    assert "samples were trained on instead of 203: some came twice" in messages[0]
    assert "give `shuffle` a seed (`stream.shuffle(seed=0)`)" in messages[0]
    assert run_ranks(2, message_of, tmp_path, 3, False) == [None, None]


def test_another_order_does_no_harm_where_one_rank_reads(tmp_path):
    assert run_ranks(2, message_of, tmp_path, None, None) == [None, None]


def train_on_too_few(output_dir, dispatch):
    dataset = rows(90).to_iterable_dataset().with_format("torch")
    options = {"accelerator_config": {"dispatch_batches": dispatch}, "num_samples": 100}
    trained(output_dir, KakurenboTrainer, dataset=dataset, **options)


@pytest.mark.parametrize("dispatch", [None, False])
def test_a_stream_that_ends_early_stops_all_ranks(tmp_path, dispatch):
    with pytest.raises(AssertionError, match=r"The stream ended after 90 of its 100 samples"):
        run_ranks(2, train_on_too_few, tmp_path, dispatch)
