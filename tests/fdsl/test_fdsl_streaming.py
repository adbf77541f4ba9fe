"""The stream: every image once whoever shares the work, shuffled without a buffer, resumed exactly, never encoded."""

import copy
import pickle
from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from datasets.distributed import split_dataset_by_node
from PIL import Image
from torch.utils.data import DataLoader

from fdsl_toy import CATEGORIES, NAME, enter_into_catalog
from hf_kakurenbo.fdsl import FDSLDataset, list_fdsl, load_fdsl
from hf_kakurenbo.fdsl.catalog import find_entry, find_family
from hf_kakurenbo.fdsl.loading.streaming import FDSLStream

INSTANCES = 16
COUNT = CATEGORIES * INSTANCES


@pytest.fixture(autouse=True)
def toy_in_catalog(monkeypatch, tmp_path):
    enter_into_catalog(monkeypatch.setitem)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def drawn(monkeypatch):
    """The sample ids that were drawn."""
    ids = []
    draw = FDSLDataset._draw
    monkeypatch.setattr(FDSLDataset, "_draw", lambda self, sample_id: ids.append(sample_id) or draw(self, sample_id))
    return ids


def stream(**options):
    return load_fdsl(NAME, streaming=True, **{"image_size": 8, "instances": INSTANCES, **options})


def ids(examples):
    return [int(example["sample_id"]) for example in examples]


def keep(examples):
    return examples


def test_the_same_as_map_style():
    images = load_fdsl(NAME, image_size=8, instances=INSTANCES)
    streamed = list(stream())
    assert ids(streamed) == list(range(COUNT))
    assert all(np.array_equal(one["image"], other["image"]) for one, other in zip(streamed, images, strict=True))
    assert [one["label"] for one in streamed] == [other["label"] for other in images]
    shuffled = next(iter(stream().shuffle(1)))
    assert np.array_equal(shuffled["image"], images[shuffled["sample_id"]]["image"])


def test_it_is_one_of_datasets():
    images = stream()
    assert isinstance(images, datasets.IterableDataset)
    assert isinstance(images, torch.utils.data.IterableDataset)
    assert images.num_shards == COUNT
    assert images.column_names == ["image", "label", "sample_id"]
    assert isinstance(images.features["label"], datasets.ClassLabel)
    assert stream(shards=10).num_shards == 8


def test_nothing_is_encoded_or_decoded(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an image was encoded or decoded")

    monkeypatch.setattr(datasets.Image, "encode_example", refuse)
    monkeypatch.setattr(datasets.Image, "decode_example", refuse)
    monkeypatch.setattr(Image.Image, "save", refuse)
    for images in (
        stream(),
        stream().shuffle(1),
        stream().with_format("torch"),
        stream().map(lambda example: {"bright": np.asarray(example["image"]).mean()}),
        split_dataset_by_node(stream(), rank=1, world_size=2),
        stream().filter(lambda example: example["label"] == 1),
    ):
        assert len(list(images)) in (COUNT, COUNT // 2, INSTANCES)


def test_map_and_formats():
    images = stream()
    mapped = images.map(lambda example: {"pixels": np.asarray(example["image"]).sum()}, remove_columns="image")
    assert [example["pixels"] for example in mapped] == [np.asarray(example["image"]).sum() for example in images]
    example = next(iter(images.with_format("torch")))
    assert (example["image"].dtype, tuple(example["image"].shape)) == (torch.uint8, (3, 8, 8))
    assert torch.equal(example["image"], load_fdsl(NAME, image_size=8, as_tensor=True)[0]["image"])
    assert example["sample_id"].dtype == torch.int64
    assert next(iter(images.with_format("numpy")))["image"].shape == (8, 8, 3)
    formatted = images.with_format("torch").shuffle(3).skip(1).take(5)
    assert isinstance(formatted, FDSLStream)
    assert ids(formatted) == ids(images.shuffle(3))[1:6]
    assert isinstance(next(iter(formatted))["image"], torch.Tensor)
    assert [len(batch["label"]) for batch in images.batch(20)] == [20, 20, 8]


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_tensors(mode):
    images = stream(as_tensor=True, mode=mode)
    expected = load_fdsl(NAME, image_size=8, instances=INSTANCES, as_tensor=True, mode=mode)
    assert images.features["image"] == datasets.Array3D((len(mode), 8, 8), "uint8")
    for example, other in zip(images.skip(5), list(expected)[5:], strict=True):
        assert torch.equal(example["image"], other["image"])
        assert (example["label"], example["sample_id"]) == (other["label"], other["sample_id"])
    batch = next(iter(DataLoader(images.shuffle(1), batch_size=6, num_workers=1)))
    assert (batch["image"].dtype, tuple(batch["image"].shape)) == (torch.uint8, (6, len(mode), 8, 8))


def test_shuffling_is_a_permutation_that_depends_on_seed_and_epoch():
    orders = []
    for seed in (0, 1, 2):
        images = stream().shuffle(seed)
        for epoch in (0, 1, 5):
            images.set_epoch(epoch)
            orders.append(ids(images))
            assert ids(images) == orders[-1]
    assert all(sorted(order) == list(range(COUNT)) for order in orders)
    assert len(set(map(tuple, orders))) == 9
    assert ids(stream().shuffle(generator=np.random.default_rng(1))) == orders[3]
    assert ids(stream().shuffle(1, buffer_size=3)) == orders[3]
    assert ids(stream().shuffle()) == orders[0]  # the same in all processes
    assert ids(stream().shuffle(0).shuffle(1)) != orders[3]
    assert sorted(ids(stream().shuffle(0).shuffle(1))) == list(range(COUNT))
    assert ids(stream(shards=3).shuffle(1)) == orders[3]


def test_shuffling_after_map_misses_none():
    mapped = stream().map(lambda example: example).shuffle(4, buffer_size=5)
    order = ids(mapped)
    assert sorted(order) == list(range(COUNT))
    assert order != list(range(COUNT))


def test_the_generator_is_left_alone():
    generator = np.random.default_rng(3)
    stream().shuffle(generator=generator)
    assert generator.integers(1 << 60) == np.random.default_rng(3).integers(1 << 60)


@pytest.mark.parametrize("make", [stream, lambda: stream().shuffle(7)], ids=["in order", "shuffled"])
@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("done", [0, 1, 17, COUNT - 1, COUNT])
def test_resumed_exactly_and_nothing_drawn_again(make, epoch, done, drawn):
    whole, images = (make() for _ in range(2))
    for one in (whole, images):
        one.set_epoch(epoch)
    whole = ids(whole)
    iterator = iter(images)
    for _ in range(done):
        next(iterator)
    state = pickle.loads(pickle.dumps(images.state_dict()))
    resumed = make()
    resumed.set_epoch(epoch)
    resumed.load_state_dict(state)
    drawn.clear()
    assert ids(resumed) == whole[done:]
    assert drawn == whole[done:]


def test_skip_and_take_draw_nothing_else(drawn):
    images = stream().shuffle(5)
    whole = ids(images)
    drawn.clear()
    assert ids(images.skip(10).take(4)) == whole[10:14]
    assert ids(images.take(14).skip(10)) == whole[10:14]
    assert drawn == whole[10:14] * 2
    assert ids(images.take(1000)) == whole
    assert ids(images.skip(1000)) == ids(images.take(0)) == []
    for method in (images.skip, images.take):
        with pytest.raises(ValueError, match="needs a number of samples, at least 0; got -1"):
            method(-1)


def test_what_was_taken_stays_the_same_samples_in_every_epoch():
    images = stream().shuffle(5)
    first, rest = images.take(20), images.skip(20)
    for part, count in ((first, 20), (rest, COUNT - 20)):
        chosen = set(ids(part))
        part.set_epoch(3)
        assert set(ids(part)) == chosen
        assert len(chosen) == count
        assert set(ids(part.shuffle(8))) == chosen
    assert not set(ids(first)) & set(ids(rest))


@pytest.mark.parametrize("world_size", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("make", [stream, lambda: stream().shuffle(7)], ids=["in order", "shuffled"])
@pytest.mark.parametrize("epoch", [0, 1])
def test_ranks_share_the_work(world_size, make, epoch, drawn):
    parts = []
    for rank in range(world_size):
        part = split_dataset_by_node(make(), rank=rank, world_size=world_size)
        part.set_epoch(epoch)
        parts.append(ids(part))
    assert sorted(sample_id for part in parts for sample_id in part) == list(range(COUNT))
    if COUNT % world_size == 0:
        assert {len(part) for part in parts} == {COUNT // world_size}
        assert len(drawn) == COUNT


@pytest.mark.parametrize(
    ("name", "method", "workers"),
    [
        *((NAME, method, workers) for method in ("fork", "spawn") for workers in (1, 2)),
        ("fractaldb-test", "spawn", 2),
        *((name, "fork", 2) for name in list_fdsl() if name.endswith("-test")),
    ],
)
def test_workers_share_the_work(name, method, workers):
    has_points = find_family(find_entry(name).family).points is not None
    options = {"image_size": 32, "points": 2000} if has_points else {"image_size": 32}
    images = load_fdsl(name, streaming=True, instances=INSTANCES, **options).shuffle(7)
    loader = DataLoader(images, batch_size=5, num_workers=workers, multiprocessing_context=method, collate_fn=keep)
    seen = [example for batch in loader for example in batch]
    expected = load_fdsl(name, instances=INSTANCES, **options)
    assert Counter(ids(seen)) == Counter(range(len(expected)))
    assert all(np.array_equal(example["image"], expected[example["sample_id"]]["image"]) for example in seen)


def test_persistent_workers_learn_of_the_epoch():
    images = stream().shuffle(7)
    loader = DataLoader(images, batch_size=None, num_workers=2, persistent_workers=True, collate_fn=keep)
    orders = []
    for epoch in (0, 1, 0):
        images.set_epoch(epoch)
        orders.append(ids(loader))
    assert orders[0] == orders[2] != orders[1]
    assert all(sorted(order) == list(range(COUNT)) for order in orders)


def test_ranks_with_workers_share_the_work():
    seen = []
    for rank in range(2):
        part = split_dataset_by_node(stream().shuffle(7), rank=rank, world_size=2)
        batches = list(DataLoader(part, batch_size=4, num_workers=2, collate_fn=keep))
        assert len(batches) == 6
        seen += [example for batch in batches for example in batch]
    assert Counter(ids(seen)) == Counter(range(COUNT))


def test_a_shard_is_shuffled_within_itself():
    images = stream(shards=8).shuffle(3)
    for contiguous in (True, False):
        parts = [images.shard(4, index, contiguous=contiguous) for index in range(4)]
        chosen = [ids(part) for part in parts]
        assert sorted(sample_id for part in chosen for sample_id in part) == list(range(COUNT))
        for part, before in zip(parts, chosen, strict=True):
            again = ids(part.shuffle(9, buffer_size=1))
            assert sorted(again) == sorted(before)
            assert again != before


def test_copies():
    images = stream().shuffle(2)
    for copied in (pickle.loads(pickle.dumps(images)), copy.deepcopy(images)):
        assert ids(copied) == ids(images)
        assert isinstance(copied, FDSLStream)
    large = load_fdsl("rcdb-21k", streaming=True).shuffle(1).skip(10_000_000)
    assert len(pickle.dumps(large)) < 2_000_000


# ---- A length, samples by number, and an order that is known ----


def brightness(example):
    return {"bright": int(np.asarray(example["image"]).sum())}


def test_it_has_a_length(drawn):
    images = stream()
    assert len(images) == len(images.shuffle(1)) == len(images.with_format("torch")) == COUNT
    assert [len(images.skip(n)) for n in (0, 10, COUNT, 1000)] == [COUNT, COUNT - 10, 0, 0]
    assert [len(images.shuffle(2).take(n)) for n in (0, 10, COUNT, 1000)] == [0, 10, COUNT, COUNT]
    assert len(images.skip(40).take(20)) == COUNT - 40
    assert drawn == []


ONE_BY_ONE = {
    "map": lambda images: images.map(brightness),
    "map that removes": lambda images: images.map(brightness, remove_columns=["image"]),
    "with_format": lambda images: images.with_format("torch"),
    "remove_columns": lambda images: images.remove_columns("label"),
    "rename_column": lambda images: images.rename_column("label", "labels"),
    "rename_columns": lambda images: images.rename_columns({"label": "labels", "image": "pixels"}),
    "select_columns": lambda images: images.select_columns(["label", "sample_id"]),
    "several": lambda images: images.map(brightness).with_format("numpy").remove_columns("image").map(dict),
}
ORDERS = {
    "in order": lambda images: images,
    "shuffled": lambda images: images.shuffle(7),
    "shuffled twice": lambda images: images.shuffle(7).shuffle(8),
    "a part": lambda images: images.shuffle(7).skip(5).take(20),
    "a part in order": lambda images: images.skip(30),
}


def same_examples(some, others):
    return all(
        one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)
        for one, other in zip(some, others, strict=True)
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("change", ONE_BY_ONE)
def test_what_changes_examples_one_by_one_keeps_the_class(change, order):
    change, order = ONE_BY_ONE[change], ORDERS[order]
    changed = change(order(stream()))
    assert isinstance(changed, FDSLStream)
    assert len(changed) == len(order(stream()))
    swapped = order(change(stream()))
    for epoch in (0, 2):
        changed.set_epoch(epoch)
        swapped.set_epoch(epoch)
        assert same_examples(list(changed), list(swapped))
    assert set(next(iter(changed))) == set(next(iter(change(stream()))))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("change", ["nothing", *ONE_BY_ONE])
def test_samples_in_the_order_of_an_epoch_are_the_epoch(change, order, drawn):
    images = ONE_BY_ONE.get(change, lambda images: images)(ORDERS[order](stream()))
    for epoch in (0, 3):
        samples, numbers = images.samples(), images.order(epoch)
        assert drawn == []
        assert sorted(numbers.tolist()) == list(range(len(images))) == list(range(len(samples)))
        images.set_epoch(epoch)
        assert same_examples([samples[number] for number in numbers], list(images))
        whole = samples.__getitems__(numbers.tolist())
        assert same_examples(whole, list(images))
        drawn.clear()
    # From 4.6 on, `datasets` has a new order in each epoch of what was never shuffled, too.
    if "shuffled" in order:
        assert len({tuple(images.order(epoch)) for epoch in range(4)}) == 4


def test_samples_are_numbered_by_their_ids():
    assert ids(stream().shuffle(7).samples()[number] for number in (0, 5, COUNT - 1)) == [0, 5, COUNT - 1]
    part = stream().shuffle(7).take(20)
    assert ids(part.samples()[number] for number in range(20)) == sorted(ids(part))


def test_samples_are_drawn_one_by_one_when_asked_for(drawn):
    samples = stream().map(brightness).shuffle(7).samples()
    assert ids(samples.__getitems__([3, 1, 7])) == [3, 1, 7] == drawn
    loader = DataLoader(samples, batch_size=4, sampler=[9, 2, 4, 5, 6], num_workers=2, collate_fn=keep)
    assert [ids(batch) for batch in loader] == [[9, 2, 4, 5], [6]]


def test_the_order_does_not_depend_on_the_epoch_that_is_set():
    images = stream().shuffle(7)
    expected = images.order(2).tolist()
    images.set_epoch(5)
    assert images.order(2).tolist() == expected
    assert images.epoch == 5


@pytest.mark.parametrize(
    "change",
    [
        lambda images: images.filter(lambda example: example["label"] == 1),
        lambda images: images.batch(4),
        lambda images: images.map(lambda batch: batch, batched=True),
        lambda images: images.map(lambda example, index: example, with_indices=True),
        lambda images: split_dataset_by_node(images, rank=0, world_size=2),
    ],
    ids=["filter", "batch", "map batched", "map with indices", "split"],
)
def test_what_needs_more_than_one_example_is_a_plain_stream(change):
    changed = change(stream().shuffle(7))
    assert isinstance(changed, datasets.IterableDataset)
    assert not isinstance(changed, FDSLStream)
    assert len(list(changed)) > 0


def test_filtering_leaves_the_original_alone():
    images = stream()
    features = images.features.copy()
    filtered = images.filter(lambda example: example["label"] == 1)
    assert ids(filtered) == list(range(INSTANCES, 2 * INSTANCES))
    assert images.features == features
    assert isinstance(images.features["label"], datasets.ClassLabel)
    assert filtered.features in (features, None)  # None where `datasets` would encode the images to make them fit
    assert ids(images) == list(range(COUNT))
    assert ids(images.filter(lambda example: example["label"] == 2)) == list(range(2 * INSTANCES, COUNT))
