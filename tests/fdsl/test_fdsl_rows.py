"""Rows as `datasets.Dataset` gives them: slices, lists, select, with_transform; one of each category in an epoch."""

import pickle

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from fdsl_toy import CATEGORIES, INSTANCES, NAME, enter_into_catalog
from hf_kakurenbo.data.labels import labels_of
from hf_kakurenbo.data.row_digests import digest_rows
from hf_kakurenbo.fdsl import OneOfEachCategory, load_fdsl
from hf_kakurenbo.fdsl.export.rendering import render

COUNT = CATEGORIES * INSTANCES


@pytest.fixture(autouse=True)
def toy_in_catalog(monkeypatch, tmp_path):
    enter_into_catalog(monkeypatch.setitem)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def load(**options):
    return load_fdsl(NAME, image_size=4, **options)


def built():
    """The same rows as a `datasets.Dataset`: what is right."""
    return datasets.load_dataset("fdsl", NAME, split="train", image_size=4)


def plain(rows):
    """Rows, or columns of rows, with the bytes of the images."""
    if isinstance(rows, list):
        return [plain(row) for row in rows]
    images = rows["image"]
    several = isinstance(images, list)
    return {**rows, "image": [image.tobytes() for image in images] if several else images.tobytes()}


@pytest.mark.parametrize(
    "index",
    [slice(3), slice(2, 9, 3), slice(None, None, -5), slice(-4, None), slice(5, 5), [4, -1, 4], range(3, 8), (0,), []],
    ids=str,
)
def test_slices_and_lists_are_those_of_datasets(index):
    assert plain(load()[index]) == plain(built()[list(index) if isinstance(index, tuple) else index])


def test_an_array_of_indices():
    assert plain(load()[np.array([5, 2])]) == plain(load()[[5, 2]])


def test_select_is_that_of_datasets():
    for indices in (range(4, 9), [20, 3, 3], np.array([7, 1]), [], (index for index in (2, 0))):
        listed = list(indices)
        chosen, expected = load().select(listed), built().select(listed)
        assert len(chosen) == len(expected) == len(listed)
        places = range(len(listed))
        assert plain([chosen[row] for row in places]) == plain([expected[row] for row in places])
    twice = load().select([9, 8, 7, 6]).select([3, 1])
    assert [row["sample_id"] for row in twice.__getitems__([0, 1])] == [6, 8]
    assert plain(twice[:]) == plain(built().select([6, 8])[:])
    assert twice.features == load().features
    assert repr(twice).startswith("FDSLSelection(2 rows of FDSLSelection(4 rows of FDSLDataset('toy-test'")


def test_a_selection_is_loaded_by_workers_and_copied():
    chosen = load(as_tensor=True).select([11, 2, 5])
    loader = DataLoader(chosen, 2, num_workers=1)
    assert torch.cat([batch["sample_id"] for batch in loader]).tolist() == [11, 2, 5]
    assert [row["sample_id"] for row in pickle.loads(pickle.dumps(chosen)).__getitems__([0, 2])] == [11, 5]


def test_a_selection_has_its_labels_and_its_fingerprint():
    images = load()
    chosen = images.select([20, 0, 8])
    assert chosen.label.tolist() == [2, 0, 1]
    assert images.label.tolist() == [index // INSTANCES for index in range(COUNT)]
    whole = images.select(range(COUNT)[::-1])
    assert labels_of(whole).values.tolist() == whole.label.tolist()
    first, same, other = (
        digest_rows(chosen),
        digest_rows(load().select([20, 0, 8])),
        digest_rows(images.select([20, 0, 9])),
    )
    assert first.differing(same) == []
    assert first.differing(other) == ["rows_fingerprint"]


def shades(batch):
    return {"shade": [np.asarray(image).mean() for image in batch["image"]], "label": batch["label"]}


def test_with_transform_is_that_of_datasets():
    images, expected = load().with_transform(shades), built().with_transform(shades)
    assert images[5] == expected[5]
    assert images[2:4] == expected[2:4]
    assert images.__getitems__([1, 0]) == expected.__getitems__([1, 0])
    assert images.select([3])[0] == expected.select([3])[0] == images[3]
    assert load().select([3]).with_transform(shades)[0] == images[3]
    assert plain(images.with_transform(None)[5]) == plain(load()[5])
    with pytest.raises(TypeError, match="with_transform needs a function of a batch of columns, or None; got 3"):
        load().with_transform(3)


def test_rows_that_there_are_not():
    for wrong in ([COUNT], [-COUNT - 1]):
        with pytest.raises(IndexError, match=r"Index -?\d+ is out of range: toy-test train has 21 images"):
            load().select(wrong)
    with pytest.raises(TypeError, match=r"must be an integer, got 1\.5 of type float; a slice or a list"):
        load().select([1.5])
    with pytest.raises(IndexError, match="Index 2 is out of range: a selection of toy-test train has 2 images"):
        load().select([3, 4])[2]


# Categories by a list


def test_categories_by_a_list():
    part = load(categories=[2, 0], instances=[5, 1, 3])
    assert (part.category_numbers, part.instance_numbers, len(part)) == ((2, 0), (5, 1, 3), 6)
    whole = load()
    expected = [2 * INSTANCES + 5, 2 * INSTANCES + 1, 2 * INSTANCES + 3, 5, 1, 3]
    assert [row.tobytes() for row in part[:]["image"]] == [row.tobytes() for row in whole[expected]["image"]]
    assert part[:]["label"] == [0, 0, 0, 1, 1, 1]
    assert part.features["label"].names == ["toy-00002", "toy-00000"]
    assert [row["label"] for row in load(categories=np.array([1]), streaming=True)] == [0] * INSTANCES


def test_a_folder_of_a_list_is_told_from_that_of_another(tmp_path):
    render(load(categories=[2, 0]), tmp_path / "out", progress=False)
    assert render(load(categories=[2, 0]), tmp_path / "out", progress=False) == 0
    with pytest.raises(ValueError, match="categories"):
        render(load(categories=[0, 2]), tmp_path / "out", progress=False)


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        ([], ValueError, r"categories=\[\] selects nothing; there are 3"),
        ([0, 3], ValueError, r"categories reaches outside 0\.\.2 with 3"),
        ([-1, 0], ValueError, r"categories reaches outside 0\.\.2 with -1"),
        ([1, 2, 1], ValueError, "categories has 1 more than once"),
        ([True, False], TypeError, r"a list of integers, got \[True, False\]"),
        ([0.5], TypeError, r"a list of integers, got \[0\.5\]"),
        ("01", TypeError, "a list of integers, got '01'"),
    ],
)
def test_lists_that_select_nothing_that_there_is(wanted, error, message):
    with pytest.raises(error, match=message):
        load(categories=wanted)


# Names of classes


def test_families_that_are_concatenated_keep_their_classes():
    loaded = [
        datasets.load_dataset("fdsl", name, split="train", image_size=4, instances=1, categories=2)
        for name in (NAME, "rcdb-test")
    ]
    names = [name for each in loaded for name in each.features["label"].names]
    assert names == ["toy-00000", "toy-00001", "rcdb-00000", "rcdb-00001"]
    assert len(set(names)) == 4


# One of each category


def test_an_epoch_has_one_of_each_category():
    images = load_fdsl("ofdb3d-1k")
    sampler = OneOfEachCategory(images, seed=3)
    epochs = []
    for epoch in range(30):
        sampler.set_epoch(epoch)
        drawn = np.array(list(sampler))
        assert len(drawn) == len(sampler) == 1000
        assert sorted(drawn // 12) == list(range(1000))
        epochs.append(drawn)
    assert (epochs[0] != epochs[1]).any()
    views = np.bincount(np.concatenate(epochs) % 12, minlength=12)
    # 30,000 draws of 12: chi-square with 11 degrees of freedom, exceeded once in 10,000.
    assert ((views - 2500) ** 2 / 2500).sum() < 38
    assert list(OneOfEachCategory(images, seed=3)) == epochs[0].tolist()
    assert list(OneOfEachCategory(images, seed=4)) != epochs[0].tolist()
    with pytest.raises(ValueError, match=r"seed must be in 0\.\.9223372036854775807, got -1"):
        OneOfEachCategory(images, seed=-1)


@given(epoch=st.integers(0, 2**40), instances=st.integers(1, 20))
def test_an_epoch_is_within_the_dataset(epoch, instances):
    images = load_fdsl("rcdb-test", instances=instances)
    sampler = OneOfEachCategory(images)
    sampler.set_epoch(epoch)
    assert sorted(index // instances for index in sampler) == [0, 1, 2, 3]
