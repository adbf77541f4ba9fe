"""Densities in hues, slight blurs and diamond-square textures, each against a slow drawing or a library."""

import colorsys
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_kakurenbo.fdsl.kernels.density import (
    blur,
    color_by_density,
    count_in_window,
    exponential,
    hsv_to_rgb,
    spread_patch,
)
from hf_kakurenbo.fdsl.kernels.terrain import Terrain, _raise, draw_terrain

TERRAIN = Terrain(0.6, (200.0, 50.0, 100.0), (30.0, 120.0, 130.0))


@given(exponent=st.floats(-3, 0))
def test_the_exponential(exponent):
    assert exponential(exponent) == pytest.approx(math.exp(exponent), rel=1e-14)


@given(hue=st.integers(0, 255), saturation=st.integers(0, 255), value=st.integers(0, 255))
def test_colors_against_the_standard_library(hue, saturation, value):
    expected = colorsys.hsv_to_rgb(hue % 180 / 180, saturation / 255, value / 255)
    found = hsv_to_rgb(float(hue), float(saturation), float(value))
    assert np.abs(np.array(found, dtype=float) - 255 * np.array(expected)).max() <= 0.5 + 1e-9


@given(seed=st.integers(0, 50), size=st.integers(1, 12), half=st.floats(0.2, 2))
def test_points_are_counted_where_they_fall(seed, size, half):
    points = np.random.default_rng(seed).normal(size=(80, 2))
    counts = count_in_window(points, (0.25, -0.5), (half, 1.0), size)
    expected = np.zeros_like(counts)
    for x, y in points:
        row, column = math.floor((x - 0.25 + half) * ((size - 1) / (2 * half))), math.floor((y + 1.5) * (size - 1) / 2)
        if -1 <= row <= size and -1 <= column <= size:
            expected[row + 1, column + 1] += 1
    np.testing.assert_array_equal(counts, expected)


def test_points_without_an_extent_are_drawn():
    counts = count_in_window(np.zeros((7, 2)), (0.0, 0.0), (0.0, 0.0), 5)
    assert counts[1, 1] == counts.sum() == 7


@given(pattern=st.integers(1, 511), seed=st.integers(0, 20))
def test_a_patch_is_around_each_point(pattern, seed):
    size = 6
    counts = np.random.default_rng(seed).poisson(0.2, (size + 2, size + 2)).astype(np.int32)
    expected = np.zeros((size + 4, size + 4), dtype=np.int32)
    patch = np.array([pattern >> bit & 1 for bit in range(9)]).reshape(3, 3)
    for (row, column), count in np.ndenumerate(counts):
        expected[row : row + 3, column : column + 3] += count * patch
    np.testing.assert_array_equal(spread_patch(counts, pattern), expected[2:-2, 2:-2])


def test_the_hue_goes_with_the_density_and_the_background_is_left():
    density = np.array([[0, 1], [2, 4]], dtype=np.int32)
    image = color_by_density(density, 10.5, 255.0, 255.0, np.full((2, 2, 3), 7, np.uint8))
    assert image[0, 0].tolist() == [7, 7, 7]
    for place, hue in {(0, 1): 74, (1, 0): 138, (1, 1): 265 - 256}.items():
        assert tuple(image[place].tolist()) == hsv_to_rgb(float(hue), 255.0, 255.0)


def test_nothing_is_drawn_of_no_points():
    ground = np.full((3, 3, 3), 9, np.uint8)
    assert (color_by_density(np.zeros((3, 3), np.int32), 0.0, 255.0, 255.0, ground) == 9).all()


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (9, 9), (9, 9, 3)])
def test_the_blur_against_a_slow_one(shape):
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    weights = np.exp(-np.array([1, 0, 1]) / (2 * 0.7**2))
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    padded = np.pad(image.astype(float), [(1, 1), (1, 1), *[(0, 0)] * (len(shape) - 2)], mode="reflect")
    size = shape[0]
    expected = sum(kernel[i, j] * padded[i : i + size, j : j + size] for i in range(3) for j in range(3))
    assert np.abs(blur(image, 0.7) - expected).max() <= 0.5 + 1e-9
    assert (blur(np.full(shape, 127, np.uint8), 0.7) == 127).all()


def test_the_first_heights_are_the_corners_and_their_mean():
    heights, step = _raise(4, 0.0, np.uint64(3)), 8
    mean = (heights[0, 0] + heights[0, -1] + heights[-1, 0] + heights[-1, -1]) / 4
    assert all(0 <= heights[row, column] < 1 for row in (0, -1) for column in (0, -1))
    assert abs(heights[step, step] - mean) <= 0.5
    # Without noise after the first step, what lies between is the mean of what is around it.
    half = step // 2
    around = [heights[0, 0], heights[0, step], heights[step, 0], heights[step, step]]
    assert heights[half, half] == pytest.approx(sum(around) / 4)
    sides = [heights[0, step], heights[half, half], heights[half, step + half], heights[step, step]]
    assert heights[half, step] == pytest.approx(sum(sides) / 4)
    # At the edge the grid goes on at the other side.
    edge = [heights[-1 - half, half], heights[half, half], heights[0, 0], heights[0, step]]
    assert heights[0, half] == pytest.approx(sum(edge) / 4)


def test_a_stronger_decay_is_smoother():
    def roughness(decay):
        images = [draw_terrain(TERRAIN._replace(decay=decay), 64, np.uint64(key)).astype(int) for key in range(8)]
        return np.mean([np.abs(np.diff(image, axis=1)).mean() for image in images])

    assert roughness(0.8) < roughness(0.4)


@pytest.mark.parametrize("size", [1, 2, 3, 33, 224])
def test_a_texture_is_of_its_key(size):
    image = draw_terrain(TERRAIN, size, np.uint64(1))
    assert (image.shape, image.dtype) == ((size, size, 3), np.uint8)
    assert (image == draw_terrain(TERRAIN, size, np.uint64(1))).all()
    assert (image != draw_terrain(TERRAIN, size, np.uint64(2))).any()
