"""The map-style dataset: the same images whoever asks for them, in whatever order; and every bad value refused."""

import copy
import multiprocessing
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

import hf_kakurenbo
from fdsl_toy import CATEGORIES, INSTANCES, NAME, Toy, enter_into_catalog
from hf_kakurenbo.fdsl import FDSLDataset, catalog, list_fdsl, load_fdsl
from hf_kakurenbo.fdsl.catalog import find_family
from hf_kakurenbo.fdsl.loading import dataset
from hf_kakurenbo.fdsl.parameters import write_parameters
from toy import make_trainer

COUNT = CATEGORIES * INSTANCES
REAL = [name for name in list_fdsl() if name.endswith("-test")]


@pytest.fixture(autouse=True)
def toy_in_catalog(monkeypatch):
    enter_into_catalog(monkeypatch.setitem)


def load(split="train", **options):
    return load_fdsl(NAME, split, **{"image_size": 8, **options})


def pixels(example):
    return np.asarray(example["image"])


def as_bytes(examples):
    return [(example["sample_id"], example["label"], pixels(example).tobytes()) for example in examples]


def keep(examples):
    return examples


def test_what_an_example_is():
    images = load(image_size=5)
    assert len(images) == COUNT
    example = images[9]
    assert {name: type(value) for name, value in example.items()} == {
        "image": Image.Image,
        "label": int,
        "sample_id": int,
    }
    assert (example["label"], example["sample_id"]) == (9 // INSTANCES, 9)
    assert (example["image"].mode, example["image"].size) == ("RGB", (5, 5))


def test_indices():
    images = load()
    expected = as_bytes([images[20], images[3]])
    assert as_bytes([images[np.int64(-1)], images[torch.tensor(3)]]) == expected
    assert as_bytes(images.__getitems__([20, 3])) == expected
    for index in (COUNT, -COUNT - 1, np.uint64(10**12)):
        with pytest.raises(IndexError, match=f"Index {index} is out of range: toy-test train has 21 images"):
            images[index]
    for index in (1.0, "1", None):
        with pytest.raises(TypeError, match=r"must be an integer, got .*; a slice or a list of integers gives several"):
            images[index]
    assert len(list(images)) == COUNT


def test_modes_colours_and_tensors_agree():
    gray = load(mode="L")[4]["image"]
    assert gray.mode == "L"
    for options in ({}, {"as_tensor": True}):
        image = load(**options)[4]["image"]
        channels = np.asarray(image) if not options else image.permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(channels, np.stack([np.asarray(gray)] * 3, axis=-1))
    tensor = load(mode="L", as_tensor=True)[4]["image"]
    assert (tensor.dtype, tuple(tensor.shape)) == (torch.uint8, (1, 8, 8))
    np.testing.assert_array_equal(tensor[0], gray)
    colored = load(color=True, as_tensor=True)[4]["image"]
    assert (tuple(colored.shape), colored.is_contiguous()) == ((3, 8, 8), True)
    np.testing.assert_array_equal(colored.permute(1, 2, 0), pixels(load(color=True)[4]))
    tensor.add_(1)  # its own memory
    np.testing.assert_array_equal(load(mode="L", as_tensor=True)[4]["image"], tensor - 1)


@pytest.mark.parametrize("name", [NAME, *REAL])
def test_tensors_do_not_pass_through_pil(name, monkeypatch):
    expected = [pixels(load_fdsl(name, image_size=8, color=color)[1]) for color in (False, True)]
    monkeypatch.setattr("PIL.Image.fromarray", None)
    for color in (False, True):
        image = load_fdsl(name, image_size=8, color=color, as_tensor=True)[1]["image"]
        np.testing.assert_array_equal(image.permute(1, 2, 0), expected[color])


def test_a_transform_gets_the_image():
    seen = []

    def note(image):
        seen.append(type(image))
        return "transformed"

    assert load(transform=note)[0]["image"] == "transformed"
    assert load(transform=note, as_tensor=True)[0]["image"] == "transformed"
    assert seen == [Image.Image, torch.Tensor]


def test_splits_share_categories_and_no_instance():
    train, validation = load(instances=30), load("validation", instances=30)
    assert not set(as_bytes(train)) & set(as_bytes(validation))
    assert not {image for *_, image in as_bytes(train)} & {image for *_, image in as_bytes(validation)}
    shade = [np.unique(pixels(images[0])[0]).tolist() for images in (train, validation)]
    assert shade[0] == shade[1]
    assert load("validation").instances == 1
    assert load_fdsl("rcdb-1k", "validation").instances == 100


def test_slices():
    whole = load()
    part = load(categories=slice(1, None), instances=range(2, 7, 2))
    assert (part.categories, part.num_categories, part.instances, len(part)) == (2, 2, 3, 6)
    assert (part.category_numbers, part.instance_numbers) == (range(1, 3), range(2, 7, 2))
    assert [image for *_, image in as_bytes(part)] == [
        image for sample_id, _, image in as_bytes(whole) if sample_id in (9, 11, 13, 16, 18, 20)
    ]
    assert [(example["label"], example["sample_id"]) for example in part] == [
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 3),
        (1, 4),
        (1, 5),
    ]
    assert part.features["label"].names == ["toy-00001", "toy-00002"]
    assert as_bytes(load(categories=2, instances=3)) == as_bytes(load(categories=slice(2), instances=np.int64(3)))
    assert load(categories=slice(-1, None)).category_numbers == range(2, 3)
    assert load(instances=20).instances == load(instances=slice(0, 20)).instances == 20  # there are always more


def test_the_largest_slices_take_no_time():
    images = load(instances=range(2**32))
    assert (len(images), images[-1]["sample_id"]) == (CATEGORIES * 2**32, CATEGORIES * 2**32 - 1)
    backwards = load(instances=range(2**32 - 1, -1, -1))
    assert pixels(backwards[0]).tobytes() == pixels(images[2**32 - 1]).tobytes()
    with pytest.raises(ValueError, match=r"categories=slice\(0, 1000000000000, None\) reaches outside 0\.\.2"):
        load(categories=slice(0, 10**12))
    with pytest.raises(ValueError, match=r"instances=range\(5, -2, -1\) reaches outside"):
        load(instances=range(5, -2, -1))


@pytest.mark.parametrize("what", ["categories", "instances"])
@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        (0, ValueError, r"must be in 1\.\.\d+, got 0"),
        (-3, ValueError, r"must be in 1\.\.\d+, got -3"),
        (2**32 + 1, ValueError, r"must be in 1\.\.\d+, got 4294967297"),
        (slice(2, 2), ValueError, r"=slice\(2, 2, None\) selects nothing; there are \d, numbered from 0"),
        (range(0), ValueError, r"=range\(0, 0\) selects nothing"),
        (range(-2, 2), ValueError, r"=range\(-2, 2\) reaches outside 0\.\.\d+"),
        (slice(2**32, 2**32 + 1), ValueError, r"reaches outside 0\.\.\d+"),
        (range(2**32, 2**32 + 1), ValueError, r"reaches outside 0\.\.\d+"),
        (True, TypeError, "must be None .*, got True of type bool"),
        (2.0, TypeError, "must be None .*, got 2.0 of type float"),
        ({1, 2}, TypeError, r"a range or a list of integers, got \{1, 2\} of type set"),
    ],
)
def test_slices_that_there_are_not(what, wanted, error, message):
    with pytest.raises(error, match=what + ".*" + message):
        load(**{what: wanted})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"image_size": 0}, ValueError, r"image_size must be in 1\.\.32766, got 0"),
        ({"image_size": -4}, ValueError, r"image_size must be in 1\.\.32766, got -4"),
        ({"image_size": 32_767}, ValueError, r"image_size must be in 1\.\.32766, got 32767"),
        ({"image_size": 8.0}, TypeError, "image_size must be an integer, got 8.0 of type float"),
        ({"image_size": True}, TypeError, "image_size must be an integer, got True"),
        ({"seed": -1}, ValueError, "seed must be in 0..9223372036854775807, got -1"),
        ({"seed": 2**63}, ValueError, "seed must be in 0..9223372036854775807"),
        ({"mode": "P"}, ValueError, "mode must be 'RGB' or 'L', got 'P'"),
        ({"mode": "L", "color": True}, ValueError, "color=True needs three channels and mode='L' has one; use"),
        ({"points": 10}, ValueError, "toy-test is not drawn with points, got points=10; leave points out"),
        ({"points": 0}, ValueError, r"points must be in 1\.\.2147483647, got 0"),
        ({"points": 2**31}, ValueError, r"points must be in 1\.\.2147483647, got 2147483648"),
        ({"shards": 0}, ValueError, "shards must be at least 1, got 0"),
        ({"shards": "x"}, TypeError, "shards must be an integer, got 'x'"),
        ({"transform": 3}, TypeError, "transform must be callable with an image, got 3"),
        ({"split": "test"}, ValueError, "split must be 'train' or 'validation', got 'test'"),
    ],
)
def test_bad_values(options, error, message):
    with pytest.raises(error, match=message):
        load(**options)


def test_an_unknown_name_gets_the_nearest():
    with pytest.raises(ValueError, match=r"no FDSL dataset 'rcbd-1k'. Did you mean 'rcdb-1k'"):
        load_fdsl("rcbd-1k")


def test_points_where_there_are_any(monkeypatch):
    monkeypatch.setattr(Toy, "points", 100)
    assert load(points=7).points == 7
    drawn = []
    monkeypatch.setattr(Toy, "render", lambda self, instance, drawing, key: drawn.append(drawing) or np.zeros((8, 8)))
    load(points=7, as_tensor=True)[0]
    assert drawn[0].points == 7


def test_another_seed_gives_others():
    assert not {image for *_, image in as_bytes(load())} & {image for *_, image in as_bytes(load(seed=1))}


def test_it_says_what_it_is():
    assert repr(load()) == (
        "FDSLDataset('toy-test', 'train': 3 categories × 7 instances = 21 images, 8×8 gray, mode RGB, seed 0)"
    )
    assert "colour" in repr(load(color=True))


def test_features():
    features = load().features
    assert features["label"].names == ["toy-00000", "toy-00001", "toy-00002"]
    assert features["label"].int2str(2) == "toy-00002"
    encoded = features.encode_example(load()[20])
    assert features.decode_example(encoded)["label"] == 2


def test_copies():
    images = load(color=True, instances=slice(2, 6))
    images[0]
    for copied in (pickle.loads(pickle.dumps(images)), copy.deepcopy(images), copy.copy(images)):
        assert as_bytes(copied) == as_bytes(images)
    assert len(pickle.dumps(load_fdsl("rcdb-21k"))) < 2000


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.wide)])
@pytest.mark.parametrize("workers", [1, 2])
def test_the_same_in_workers(method, workers):
    of_families = [
        load_fdsl(name, image_size=32, points=2000 if find_family(name.split("-")[0]).points else None, as_tensor=True)
        for name in REAL
    ]
    images = ConcatDataset([load(as_tensor=True), *of_families])
    expected = as_bytes([images[index] for index in range(len(images))])
    order = np.random.default_rng(0).permutation(len(images)).tolist()
    loader = DataLoader(
        images, batch_size=4, sampler=order, num_workers=workers, multiprocessing_context=method, collate_fn=keep
    )
    seen = [example for batch in loader for example in batch]
    assert as_bytes(seen) == [expected[index] for index in order]


def test_the_same_in_threads():
    images = load()
    with multiprocessing.pool.ThreadPool(4) as pool:
        assert as_bytes(pool.map(images.__getitem__, list(range(COUNT)) * 5)) == as_bytes(images) * 5


def test_parameters_are_worked_out_once_and_not_kept_without_bound(monkeypatch):
    asked = []
    search = catalog.category_parameters
    monkeypatch.setattr(dataset, "category_parameters", lambda *place: asked.append(place[1:]) or search(*place))
    images = load(seed=12345)
    for _ in range(2):
        list(images)
    assert asked == [(12345, 0), (12345, 1), (12345, 2)]
    assert dataset._cached_parameters.cache_info().maxsize >= 50_000
    with pytest.raises(ValueError, match="read-only"):
        dataset._cached_parameters(images.family, 12345, 0)[0, 0] = 1


def test_parameters_of_ones_own(tmp_path):
    tables = [np.array([[0.5, shade, 1.0]]) for shade in (0.25, 0.5, 0.75, 1.0)]
    write_parameters(tmp_path / "own", catalog.find_family("toy"), tables)
    images = load(parameters=tmp_path / "own", mode="L")
    assert (images.categories, images.instances) == (4, INSTANCES)
    shades = [pixels(images[label * INSTANCES])[0, 0] for label in range(4)]
    assert shades == [int(shade * 255) for shade in (0.25, 0.5, 0.75, 1.0)]
    part = load(parameters=tmp_path / "own", categories=slice(2, 4))
    assert as_bytes([part[0]])[0][2] == as_bytes([load(parameters=tmp_path / "own")[2 * INSTANCES]])[0][2]
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        load(parameters=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"categories must be in 1\.\.4, got 5"):
        load(parameters=tmp_path / "own", categories=5)
    with pytest.raises(ValueError, match="parameters is empty"):
        FDSLDataset(NAME, parameters=[])


@pytest.mark.parametrize(
    ("name", "table", "message"),
    [
        ("rcdb-test", [[3.5, 2, 1, 0.1]], "category 1: vertices of rcdb must be a whole number, got 3.5"),
        ("rcdb-test", [[2, 2, 1, 0.1]], r"category 1: vertices of rcdb must be in \[3, 100000\], got 2"),
        (
            "fractaldb-test",
            np.zeros((2, 3)),
            r"category 1: .* \(rows, 7\), with the columns a, b, .*got shape \(2, 3\)",
        ),
        ("fractaldb-test", np.zeros((0, 7)), r"category 1: .*got shape \(0, 7\)"),
        ("fractaldb-test", [[0.5, 0, 0, 0.5, 1, np.nan, 1]], "category 1: f in row 0 must be finite, got nan"),
        ("fractaldb-test", [[0.5, 0, 0, 0.5, 1, 1, 0.9]], r"category 1: the probabilities .* add up to 0\.9"),
        ("exfractaldb-test", [[3.0] * 12 + [1]], "category 1: .* to infinity"),
        (NAME, [[2.0, 0.5, 1.0]], "category 1: width must be at most 1, got 2.0"),
        (NAME, [["wide", 0.5, 1.0]], "category 1: they must be a table of numbers, got .*wide"),
        (NAME, None, "category 1: "),
    ],
)
def test_parameters_that_cannot_be_drawn(name, table, message):
    good = load_fdsl(name)._parameters(0)
    with pytest.raises(ValueError, match="^parameters of " + message):
        FDSLDataset(name, parameters=[good, table])


def test_parameters_are_copied():
    table = np.array([[0.5, 0.25, 1.0]])
    images = FDSLDataset(NAME, image_size=8, parameters=[table])
    before = pixels(images[0]).tobytes()
    table[:] = 7
    assert pixels(images[0]).tobytes() == before
    assert pixels(FDSLDataset(NAME, image_size=8, parameters=[[[0.5, 0.25, 1]]])[0]).tobytes() == before


def test_what_is_exported():
    assert hf_kakurenbo.load_fdsl is load_fdsl
    assert hf_kakurenbo.list_fdsl is list_fdsl
    assert set(hf_kakurenbo.fdsl.__all__) <= set(dir(hf_kakurenbo.fdsl))
    with pytest.raises(AttributeError, match="has no attribute 'load_all'"):
        hf_kakurenbo.fdsl.load_all  # noqa: B018


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_the_real_ones(name, split):
    images = load_fdsl(name, split, image_size=32, as_tensor=True)
    for index in (0, len(images) - 1):
        image = images[index]["image"]
        assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 32, 32))
        assert image.min() < image.max()
    colored = load_fdsl(name, split, image_size=32, color=True)[0]["image"]
    assert (colored.mode, colored.size) == ("RGB", (32, 32))
    assert as_bytes(copy.deepcopy(images)) == as_bytes(images)


class Picture(nn.Module):
    """Takes the pixels as they are."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, CATEGORIES)

    def forward(self, image, labels):
        logits = self.head(image.flatten(1))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def collate(examples):
    return {
        "image": torch.stack([example["image"] for example in examples]),
        "labels": torch.tensor([example["label"] for example in examples]),
    }


def to_unit(image):
    return image.float() / 255


def test_a_hidden_image_is_not_drawn_to_train_on(tmp_path, monkeypatch):
    drawn = []
    draw = FDSLDataset._draw
    monkeypatch.setattr(FDSLDataset, "_draw", lambda self, sample_id: drawn.append(sample_id) or draw(self, sample_id))
    images = load(as_tensor=True, transform=to_unit)
    trainer = make_trainer(
        tmp_path,
        model=Picture,
        dataset=images,
        trainer_options={"data_collator": collate},
        hiding_policy="first_ids",
        max_hidden_fraction=0.3,
        num_train_epochs=3,
        per_device_train_batch_size=4,
        remove_unused_columns=False,
    )
    trainer.train()
    hidden = [set(torch.nonzero(mask).flatten().tolist()) for mask in trainer.watch.hidden]
    assert [len(ids) for ids in hidden] == [0, 6, 6]
    visible = COUNT - 6
    first, trained, refreshed, last = np.split(
        np.array(drawn[-(COUNT + 6 + 2 * visible) :]), [COUNT, COUNT + visible, COUNT + visible + 6]
    )
    assert sorted(first) == list(range(COUNT))
    assert sorted(trained) == sorted(last) == sorted(set(range(COUNT)) - hidden[1])
    assert set(refreshed) == hidden[1]
