"""Whole batches drawn in torch: the same parameters, random numbers and, for contours, pixels."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_kakurenbo import list_fdsl, load_fdsl
from hf_kakurenbo.fdsl.catalog import category_parameters, find_family
from hf_kakurenbo.fdsl.families.map_family import split
from hf_kakurenbo.fdsl.kernels import contours_batch as contours
from hf_kakurenbo.fdsl.kernels import fractals_batch as fractals
from hf_kakurenbo.fdsl.kernels.drawing import Drawing
from hf_kakurenbo.fdsl.kernels.iterated_functions import Variation
from hf_kakurenbo.fdsl.kernels.random_numbers import random_bits, uniform
from hf_kakurenbo.fdsl.kernels.random_tensors import keys_tensor, random_bits_tensor, uniform_tensor
from needs_gpu import NEEDS_GPU

POINTS = dict.fromkeys(["fractaldb-test", "exfractaldb-test", "ofdb2d-test", "ofdb3d-test"], 2000)
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]


@given(key=st.integers(0, 2**64 - 1), counter=st.integers(0, 2**62))
def test_random_numbers_are_those_of_the_kernels(key, counter):
    tensor, counters = keys_tensor([key], "cpu"), torch.tensor([counter])
    bits = random_bits_tensor(tensor, counters).numpy().view(np.uint64)
    assert bits[0] == random_bits(np.uint64(key), counter)
    assert uniform_tensor(tensor, counters).item() == uniform(np.uint64(key), counter)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["rcdb-test", "visualatom-test"])
@pytest.mark.parametrize("options", [{}, {"color": True}, {"mode": "L", "split": "validation"}], ids=str)
def test_contours_are_the_same_in_batches(name, options, device, monkeypatch):
    monkeypatch.setattr(contours, "_CORNERS_AT_A_TIME", 2**17)  # several chunks
    options = {"image_size": 48, "as_tensor": True, **options}
    one_by_one, batched = load_fdsl(name, **options), load_fdsl(name, device=device, **options)
    ids = list(range(len(batched)))[::-1]
    found = batched.__getitems__(ids)
    assert [example["sample_id"] for example in found] == ids
    for index, example in zip(ids, found, strict=True):
        expected = one_by_one[index]
        assert example["label"] == expected["label"]
        assert example["image"].device.type == device
        assert example["image"].shape == expected["image"].shape
        different = (example["image"].cpu() != expected["image"]).float().mean()
        assert different <= (0 if device == "cpu" else 0.01)


def test_the_noise_coefficient_is_not_rounded_to_float32():
    family, key = find_family("rcdb"), np.uint64(3)
    instance = family.draw_instance(np.array([[2000, 200, 2.0, 0.1]]), 0, key)
    pair = [instance._replace(noise_gain=gain) for gain in (4.0, 4.0000002)]
    columns, rows, present = contours._corners(pair, [key, key], scale=256.0, device="cpu")
    assert present.all()
    for places in (columns, rows):
        assert 0 < (places[0] != places[1]).float().mean() < 0.1
        assert (places[0] - places[1]).abs().max() == 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", [name for name in list_fdsl() if name.endswith("-test")])
def test_an_image_does_not_depend_on_its_batch(name, device):
    images = load_fdsl(name, image_size=40, points=POINTS.get(name), as_tensor=True, device=device)
    ids = [3, 0, 2, 3, len(images) - 1]
    alone = {index: images[index]["image"] for index in set(ids)}
    for some in (ids, ids[::-1], ids[1:3]):
        for index, example in zip(some, images.__getitems__(some), strict=True):
            assert torch.equal(example["image"], alone[index])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["fractaldb-test", "exfractaldb-test", "ofdb2d-test", "ofdb3d-test"])
@pytest.mark.parametrize("options", [{}, {"color": True}, {"split": "validation"}], ids=str)
def test_fractals_are_of_the_same_distribution_in_batches(name, options, device, monkeypatch):
    monkeypatch.setattr(fractals, "_POINTS_AT_A_TIME", 50_000)  # several chunks
    options = {"image_size": 64, "draw_size": 64, "as_tensor": True, "points": 10_000, **options}
    one_by_one, batched = load_fdsl(name, **options), load_fdsl(name, device=device, **options)
    ids = range(min(len(batched), 16))
    expected = torch.stack([one_by_one[index]["image"] for index in ids])
    found = torch.stack([example["image"] for example in batched.__getitems__(list(ids))]).cpu()
    assert found.shape == expected.shape
    assert found.unique().tolist() == expected.unique().tolist()  # the same gray, the same colours
    lit, expected_lit = ((images > 0).any(1).float() for images in (found, expected))
    assert abs(lit.mean() - expected_lit.mean()) < 0.02
    # Seen from afar each is like its own and unlike the others.
    afar, expected_afar = (torch.nn.functional.avg_pool2d(images, 8).flatten(1) for images in (lit, expected_lit))
    alike = torch.corrcoef(torch.cat([afar, expected_afar]))[: len(ids), len(ids) :]
    assert alike.diagonal().median() > 0.85
    assert (alike.argmax(1) == torch.arange(len(ids))).float().mean() > 0.7


@pytest.mark.parametrize("factor", [1.0, 40.0])
def test_a_system_that_runs_off_to_infinity_is_weakened_in_batches(factor):
    family, key = find_family("fractaldb"), np.uint64(7)
    maps, probabilities = split(category_parameters(family, 0, 0))
    system = fractals.System(maps, probabilities, Variation(0, factor), key)
    unvaried = system._replace(variation=Variation(0, 1.0))
    orbits = fractals.play_batch([unvaried, system], 5_000, "cpu")
    assert orbits.finite.all()
    assert orbits.points.shape == (2, 5_000, 2)
    assert torch.equal(orbits.points[0], orbits.points[1]) == (factor == 1.0)


def test_what_stays_infinite_is_black():
    family = find_family("fractaldb")
    parameters = np.array([[1.02, 0, 0, 1.02, 1, 1, 1.0]])
    instance = family.draw_instance(parameters, 0, np.uint64(1))
    assert not family.render_batch([instance], Drawing(16), [np.uint64(1)], "cpu").any()


def test_a_batch_of_none_and_a_single_one():
    dataset = load_fdsl("rcdb-test", image_size=16, as_tensor=True, device="cpu")
    assert dataset.__getitems__([]) == []
    assert torch.equal(dataset[-1]["image"], dataset.__getitems__([len(dataset) - 1])[0]["image"])


def test_the_transform_is_applied_in_batches():
    dataset = load_fdsl("rcdb-test", image_size=16, as_tensor=True, device="cpu", transform=lambda image: image[:, :4])
    assert dataset.__getitems__([0, 5])[1]["image"].shape == (3, 4, 16)


def test_what_a_device_does_not_go_with_is_said():
    with pytest.raises(ValueError, match=r"device='cpu' draws tensors; give as_tensor=True too"):
        load_fdsl("rcdb-test", device="cpu")
    with pytest.raises(ValueError, match="A stream is drawn on the CPU, got device='cpu'"):
        load_fdsl("rcdb-test", device="cpu", streaming=True)
