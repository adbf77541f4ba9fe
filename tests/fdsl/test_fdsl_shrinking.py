"""Drawn at one size and made smaller to another: Pillow's bytes, whichever way the images are loaded."""

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from command import run
from fdsl_toy import NAME, enter_into_catalog
from hf_kakurenbo.fdsl import list_fdsl, load_fdsl
from hf_kakurenbo.fdsl.kernels.shrinking import shrink, shrinking_filter
from hf_kakurenbo.fdsl.kernels.shrinking_batch import shrink_batch

PUBLISHED = {
    "fractaldb": 362,
    "exfractaldb": 224,
    "rcdb": 512,
    "visualatom": 512,
    "visualatom_best": 512,
    "ofdb2d": 362,
    "ofdb3d": 224,
    "1pfrac": 512,
    "sigma_ifs": 224,
}


@pytest.fixture(autouse=True)
def toy_in_catalog(monkeypatch, tmp_path):
    enter_into_catalog(monkeypatch.setitem)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def by_pillow(image, size):
    """As Pillow does it, but the rows first."""
    turned = Image.fromarray(np.ascontiguousarray(np.swapaxes(image, 0, 1)))
    return np.swapaxes(np.asarray(turned.resize((size, size), Image.Resampling.BICUBIC)), 0, 1)


def noisy(size, color, seed=0):
    shape = (size, size, 3) if color else (size, size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@given(sizes=st.tuples(st.integers(1, 90), st.integers(1, 90)), color=st.booleans(), seed=st.integers(0, 5))
def test_the_bytes_are_those_of_pillow(sizes, color, seed):
    small, large = sorted(sizes)
    image = noisy(large, color, seed)
    np.testing.assert_array_equal(shrink(image, small), by_pillow(image, small))


@pytest.mark.parametrize(("large", "small"), [(512, 224), (362, 224), (362, 32), (224, 1)])
@pytest.mark.parametrize("color", [False, True])
def test_published_sizes_against_pillow(large, small, color):
    image = noisy(large, color)
    shrunk = shrink(image, small)
    assert shrunk.flags.c_contiguous
    np.testing.assert_array_equal(shrunk, by_pillow(image, small))


@given(gray=st.integers(0, 255), sizes=st.tuples(st.integers(1, 60), st.integers(1, 60)))
def test_an_even_gray_stays_what_it_is(gray, sizes):
    small, large = sorted(sizes)
    assert (shrink(np.full((large, large), gray, np.uint8), small) == gray).all()


def test_an_image_of_the_size_is_left_alone():
    image = noisy(20, color=True)
    assert shrink(image, 20) is image
    tensor = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    assert shrink_batch(tensor, 8) is tensor


@given(large=st.integers(1, 600), data=st.data())
def test_the_weights_of_a_row_add_up_to_one(large, data):
    small = data.draw(st.integers(1, large))
    starts, weights = shrinking_filter(large, small)
    assert (starts >= 0).all()
    assert (starts + weights.shape[1] <= large).all()
    assert (np.abs(weights.sum(axis=1) - 2**22) <= weights.shape[1]).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_many_at_a_time_are_the_same_bytes(channels):
    images = np.random.default_rng(1).integers(0, 256, (70, channels, 60, 60), dtype=np.uint8)
    expected = [[shrink(channel, 23) for channel in image] for image in images]
    np.testing.assert_array_equal(shrink_batch(torch.from_numpy(images), 23).numpy(), expected)


@pytest.mark.parametrize("family", sorted(PUBLISHED))
def test_images_are_drawn_at_the_published_size(family):
    name, size = f"{family}-test", PUBLISHED[family]
    assert load_fdsl(name).draw_size == load_fdsl(name, image_size=32).draw_size == size
    assert load_fdsl(name, image_size=600).draw_size == 600, "never enlarged"
    drawn = np.asarray(load_fdsl(name, image_size=size, mode="L")[3]["image"])
    smaller = np.asarray(load_fdsl(name, image_size=96, mode="L")[3]["image"])
    np.testing.assert_array_equal(smaller, by_pillow(drawn, 96))


def test_every_family_is_known_here():
    assert {name.split("-")[0] for name in list_fdsl() if name != NAME} == set(PUBLISHED)


def test_a_family_that_was_not_published_is_drawn_at_the_size_that_is_asked_for():
    assert load_fdsl(NAME, image_size=8).draw_size == 8


def test_the_size_of_a_drawing_is_yours():
    sharp = load_fdsl("rcdb-test", image_size=64, draw_size=64, mode="L")
    smaller = load_fdsl("rcdb-test", image_size=64, draw_size=100, mode="L")
    assert (sharp.draw_size, smaller.draw_size) == (64, 100)
    assert "64×64 gray drawn at 100×100" in repr(smaller)
    assert "drawn at" not in repr(sharp)
    drawn = np.asarray(load_fdsl("rcdb-test", image_size=100, draw_size=100, mode="L")[0]["image"])
    np.testing.assert_array_equal(np.asarray(smaller[0]["image"]), by_pillow(drawn, 64))
    assert len(np.unique(np.asarray(smaller[0]["image"]))) > len(np.unique(np.asarray(sharp[0]["image"])))


@pytest.mark.parametrize("options", [{}, {"color": True}, {"draw_size": 50}, {"mode": "L"}], ids=str)
def test_every_way_to_the_images_gives_the_same(options):
    options = {"image_size": 40, **options}
    expected = [np.asarray(load_fdsl("rcdb-test", **options)[index]["image"]) for index in range(3)]
    ways = {
        "streamed": load_fdsl("rcdb-test", streaming=True, **options).take(3),
        "load_dataset": datasets.load_dataset("fdsl", "rcdb-test", split="train", streaming=True, **options).take(3),
        "built": datasets.load_dataset("fdsl", "rcdb-test", split="train", **options).select(range(3)),
    }
    for way, rows in ways.items():
        for row, image in zip(rows, expected, strict=True):
            np.testing.assert_array_equal(np.asarray(row["image"]), image, err_msg=way)
    for device in (None, "cpu"):
        tensors = load_fdsl("rcdb-test", as_tensor=True, device=device, **options).__getitems__([0, 1, 2])
        for row, image in zip(tensors, expected, strict=True):
            np.testing.assert_array_equal(row["image"].permute(1, 2, 0).numpy(), image.reshape(40, 40, -1))


def test_the_command_takes_it(tmp_path):
    command = ["fdsl", "render", "rcdb-test", "--out", tmp_path / "out", "--image-size", 24, "--categories", 1]
    assert run(*command, "--instances", 1, "--mode", "L", "--draw-size", "48x48")[0] == 0
    (path,) = tmp_path.glob("out/train/*/*.png")
    expected = load_fdsl("rcdb-test", image_size=24, draw_size=48, mode="L")[0]["image"]
    assert Image.open(path).tobytes() == expected.tobytes()
    code, _, err = run(*command, "--instances", 1, "--mode", "L")
    assert code == 2
    assert "draw_size 48 there, 512 asked for" in err


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"draw_size": 100, "image_size": 224}, ValueError, r"draw_size must be in 224\.\.32766, got 100"),
        ({"draw_size": 40_000}, ValueError, r"draw_size must be in 224\.\.32766, got 40000"),
        ({"draw_size": 300.0}, TypeError, r"draw_size must be an integer, got 300\.0"),
        ({"image_size": (224, 320)}, TypeError, r"image_size must be an integer, got \(224, 320\): images are square"),
        ({"draw_size": [300, 300]}, TypeError, r"draw_size must be an integer, got \[300, 300\]: images are square"),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_sizes_that_there_are_not(options, error, message, streaming):
    with pytest.raises(error, match=message):
        load_fdsl("rcdb-test", streaming=streaming, **options)
