"""Whether two datasets have the same rows in the same places, seen from a few of them as they are stored."""

import hashlib
import random

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from fdsl_toy import NAME, enter_into_catalog
from hf_kakurenbo import load_fdsl
from hf_kakurenbo.data import RowDigests, digest_rows, source_of
from hf_kakurenbo.data.row_digests import _digest

COUNT = 100
IDENTITY, REVERSED = list(range(COUNT)), list(range(COUNT))[::-1]


def features(seed=0):
    return np.random.RandomState(seed).randn(COUNT, 6).astype(np.float32)


def table(order, seed=0):
    rows = {
        "x": features(seed).tolist(),
        "text": [f"text {seed} {row}" for row in IDENTITY],
        "label": [i % 4 for i in IDENTITY],
    }
    return datasets.Dataset.from_dict(rows).select(order)


def pictures(order, seed=0):
    drawn = np.random.RandomState(seed).randint(0, 255, (COUNT, 8, 8, 3), dtype=np.uint8)
    rows = {
        "image": [Image.fromarray(drawn[row]) for row in order],
        "block": features(seed)[order].reshape(COUNT, 2, 3),
    }
    kinds = {"image": datasets.Image(), "block": datasets.Array2D((2, 3), "float32")}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


def fails(*unused):
    raise AssertionError("the dataset's own code was run")


class Own(Dataset):
    """A class of the user's: what it holds for each row is in its attributes."""

    def __init__(self, order, seed=0):
        self.paths = [f"/data/{seed}/{seed}-{row}.png" for row in order]
        self.labels = np.array(order) % 4
        self.table = pd.DataFrame({"name": [f"{seed}-{row}" for row in order]})
        self.encoded = {"ids": torch.from_numpy(features(seed)[order])}
        self.cache = [None] * COUNT
        self.other = object()

    def __len__(self):
        return COUNT

    __getitem__ = fails


class Wrapped(Dataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    __getitem__ = fails


class Computed(Dataset):
    """Makes its rows when it is asked for them."""

    def __len__(self):
        return COUNT

    __getitem__ = fails


def dicts(order, seed=0):
    return [{"x": torch.tensor(features(seed)[row]), "labels": row % 4} for row in order]


def pairs(order, seed=0):
    drawn = np.random.RandomState(seed).randint(0, 255, (COUNT, 8, 8, 3), dtype=np.uint8)
    return [(Image.fromarray(drawn[row]), row % 4) for row in order]


def tensors(order, seed=0):
    return TensorDataset(torch.from_numpy(features(seed)[order]).bfloat16(), torch.tensor(order) % 4)


KINDS = {
    "a table": table,
    "a table with a transform": lambda *of: table(*of).with_transform(fails),
    "a table in another format": lambda *of: table(*of).with_format("torch"),
    "a table of images": pictures,
    "a list of dicts": dicts,
    "a list of pairs": pairs,
    "a list of lists": lambda order, seed=0: [features(seed)[row].tolist() * 5 for row in order],
    "tensors": tensors,
    "a part": lambda order, seed=0: Subset(table(IDENTITY + IDENTITY, seed), order),
    "a part of what is computed": lambda order, seed=0: Subset(Computed(), [row + seed for row in order]),
    "parts": lambda order, seed=0: ConcatDataset([table(order[:40], seed), table(order[40:], seed)]),
    "a class": Own,
    "a class around a table": lambda *of: Wrapped(table(*of)),
    "pandas": lambda *of: Own(*of).table,
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_rows_are_told_from_others(kind):
    make = KINDS[kind]
    digests = digest_rows(make(IDENTITY))
    assert digests.rows == sorted(set(digests.rows)), "a row was taken twice"
    assert len(digests.rows) == 16
    again = digest_rows(make(IDENTITY), digests.rows)
    assert again == digests
    assert digests.common(again)
    assert digests.differing(again) == []
    for other in (make(REVERSED), make(IDENTITY, 5), make(random.Random(1).sample(IDENTITY, COUNT))):
        changed = digest_rows(other, digests.rows)
        assert digests.differing(changed)
        assert not digests.tells_the_same(changed)


def test_no_generator_is_moved():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    for make in KINDS.values():
        digest_rows(make(IDENTITY))
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before


class Unwilling(Own):
    @property
    def rows_fingerprint(self):
        raise RuntimeError("not now")


@pytest.mark.parametrize(
    "dataset",
    [Computed(), [object()] * COUNT, [torch.empty(2, device="meta")] * COUNT, Unwilling(IDENTITY)],
    ids=["computed", "objects", "without values", "unwilling"],
)
def test_what_is_not_stored_cannot_be_compared(dataset):
    digests = digest_rows(dataset)
    assert digests.columns == {}
    assert digests.common(digests) == []
    assert not digests.tells_the_same(digests)


def test_a_dataset_may_say_what_its_rows_are():
    computed = [Computed(), Computed(), Computed()]
    for dataset, fingerprint in zip(computed, ("seed 1", "seed 1", "seed 2"), strict=True):
        dataset.rows_fingerprint = fingerprint
    first, same, other = (digest_rows(Subset(dataset, IDENTITY)) for dataset in computed)
    assert first.differing(same) == []
    assert first.differing(other) == ["rows_fingerprint"]
    assert not first.tells_the_same(other)


@pytest.mark.parametrize("streaming", [False, True])
def test_fdsl_says_what_its_images_are(streaming):
    enter_into_catalog(dict.__setitem__)

    def digests(**options):
        made = load_fdsl(NAME, streaming=streaming, **{"image_size": 8, "instances": 4, **options})
        return digest_rows(made.samples() if streaming else made)

    first = digests()
    assert first.differing(digests(image_size=16, color=True)) == []
    for other in ({"seed": 1}, {"split": "validation", "instances": range(4)}, {"instances": range(1, 5)}):
        assert first.differing(digests(**other)) == ["rows_fingerprint"]


def test_the_same_files_may_lie_in_another_folder():
    here, there = Own(IDENTITY), Own(IDENTITY)
    there.paths = [path.replace("/data/", "/scratch/job 7/") for path in there.paths]
    stored = [{"bytes": None, "path": path} for path in here.paths], [{"bytes": None, "path": p} for p in there.paths]
    assert digest_rows(here).differing(digest_rows(there)) == []
    assert digest_rows(stored[0]).differing(digest_rows(stored[1])) == []
    there.paths = [path.replace(".png", ".jpg") for path in there.paths]
    assert digest_rows(here).differing(digest_rows(there)) == ["paths"]


def test_other_values_of_the_same_rows():
    before, after = table(IDENTITY), table(IDENTITY).map(lambda row: {"x": row["x"][:3]})
    digests, changed = digest_rows(before), digest_rows(after)
    assert digests.differing(changed) == ["x"]
    assert digests.tells_the_same(changed), "the texts are the same"
    # Labels, which many rows share, and numbers of rows are the same in any dataset.
    labels = [row % 4 for row in IDENTITY]
    numbered = [datasets.Dataset.from_dict({"x": features(seed), "label": labels, "id": IDENTITY}) for seed in range(2)]
    digests, changed = map(digest_rows, numbered)
    assert digests.differing(changed) == ["x"]
    assert not digests.tells_the_same(changed)


def test_columns_that_only_one_has_are_not_compared():
    more = table(IDENTITY).add_column("length", IDENTITY)
    assert digest_rows(table(IDENTITY)).differing(digest_rows(more)) == []
    assert digest_rows(more).differing(digest_rows(table(IDENTITY))) == []


def test_a_value_that_is_not_there_yet_is_not_compared():
    dataset = Own(IDENTITY)
    before = digest_rows(dataset)
    dataset.cache = [torch.ones(3)] * COUNT
    assert before.differing(digest_rows(dataset)) == []
    assert digest_rows(dataset).differing(before) == []


def test_another_class_stores_the_same_rows_in_another_form():
    as_list = [{"x": torch.tensor(row["x"]), "text": row["text"], "label": row["label"]} for row in table(IDENTITY)]
    assert digest_rows(table(IDENTITY)).common(digest_rows(as_list)) == []


# What is saved by one process is compared in another one, perhaps of another release: what is digested must not change.
DIGESTED = {
    "an integer": (7, b"7"),
    "a number": (0.1, b"0.1"),
    "a text": ("some text", b"text 9 some text"),
    "a path": ("/data/1.png", b"text 5 1.png"),
    "bytes": (b"abc", b"bytes 3 abc"),
    "an array": (np.zeros((1, 2), np.int16), b"array int16 (1, 2) " + bytes(4)),
    "a tensor": (torch.zeros(2, dtype=torch.bfloat16), b"tensor torch.bfloat16 (2,) " + bytes(4)),
    "parts": ({"b": [1, None], "a": ("x",)}, b"parts 4 8 text 1 a18 parts 1 8 text 1 x8 text 1 b17 parts 2 1 14 None"),
    "an image": (Image.new("L", (2, 1), 3), b"image L (2, 1) " + bytes([3, 3])),
}


@pytest.mark.parametrize("kind", DIGESTED)
def test_what_is_digested_does_not_change(kind):
    value, content = DIGESTED[kind]
    assert _digest(value) == hashlib.blake2b(content, digest_size=8).hexdigest()


def test_numbers_of_every_library_are_the_same():
    assert len({_digest(value) for value in (7, np.int64(7), torch.tensor(7), np.array(7))}) == 1


class Many(Dataset):
    rows_fingerprint = "many"

    def __len__(self):
        return 10**12


def test_neither_many_rows_nor_large_ones_are_read():
    assert len(digest_rows(Many()).rows) == 16
    wide = datasets.Dataset.from_dict({f"c{column}": IDENTITY for column in range(300)})
    assert len(digest_rows(wide).columns) == 64
    large = [torch.zeros(2_000_000).expand(50, -1)] * COUNT  # 400 MB each, if they were read
    assert digest_rows(large).columns


@pytest.mark.parametrize("count", [1, 2, 15])
def test_few_rows_are_all_taken(count):
    digests = digest_rows(table(IDENTITY[:count]))
    assert digests.rows == list(range(count))
    assert digests == RowDigests(*digests)


def test_where_a_stream_comes_from():
    stream = table(IDENTITY).to_iterable_dataset()
    assert source_of(stream) is None
    assert source_of(table(IDENTITY)) is None
    stream.info.dataset_name, stream.info.builder_name = "imdb", "parquet"
    stream.info.config_name = "plain-0123456789abcdef"
    stream._split = datasets.Split.TRAIN
    assert source_of(stream) == "imdb plain train"
    stream.info.dataset_name = "parquet"
    assert source_of(stream) is None
