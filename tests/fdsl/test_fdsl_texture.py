"""What is left to chance in an image must not give its label away: a network would learn the texture, not the shape."""

import numpy as np
import pytest

from hf_kakurenbo.fdsl.catalog import category_parameters, find_family
from hf_kakurenbo.fdsl.kernels.drawing import Drawing
from hf_kakurenbo.fdsl.kernels.points import blank_canvas, cover_with_patches

IMAGES, SIZE = 100, 160


def textures(images):
    """How often each arrangement of 3×3 lit and dark pixels is met, dark ones apart, for each image: (images, 511)."""
    lit = (np.stack(images) != images[0][0, 0]).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(lit, (3, 3), axis=(1, 2)).reshape(*lit.shape[:1], -1, 9)
    codes = windows @ (1 << np.arange(9))
    counts = np.stack([np.bincount(code, minlength=512)[1:] for code in codes])
    return counts / np.linalg.norm(counts, axis=1, keepdims=True).clip(min=1)


def found(one, other):
    """The fraction of images whose partner is the most alike by texture."""
    return np.mean((textures(one) @ textures(other).T).argmax(axis=1) == np.arange(len(one)))


def draw(name, category, instance, one_pattern=False):
    family = find_family(name)
    key = family.instance_key(0, category, instance)
    drawn = family.draw_instance(category_parameters(family, 0, category), instance, key)
    if not one_pattern:
        return family.render(drawn, Drawing(SIZE), key)
    lit = np.pad(family.render(drawn, Drawing(SIZE, patches=False), key) > 0, 1)
    chosen = [place for place in range(9) if (1 + int(key) % 511) >> place & 1]
    return np.any([lit[p // 3 : p // 3 + SIZE, p % 3 : p % 3 + SIZE] for p in chosen], axis=0).astype(np.uint8)


def test_a_half_is_not_found_by_texture_where_a_category_has_one_image():
    images = [draw("ofdb2d", category, 0) for category in range(IMAGES)]
    halves = [image[:, : SIZE // 2] for image in images], [image[:, SIZE // 2 :] for image in images]
    assert found(*halves) < 0.15


def test_one_pattern_in_all_of_an_image_would_be_found():
    images = [draw("ofdb2d", category, 0, one_pattern=True) for category in range(IMAGES)]
    halves = [image[:, : SIZE // 2] for image in images], [image[:, SIZE // 2 :] for image in images]
    assert found(*halves) > 0.25


@pytest.mark.parametrize("name", ["fractaldb", "exfractaldb", "rcdb", "visualatom", "sigma_ifs"])
def test_another_instance_is_not_found_by_texture(name):
    first, second = ([draw(name, category, instance) for category in range(IMAGES)] for instance in (1, 2))
    assert found(first, second) < 0.15


def test_patches_of_each_points_own_against_a_slow_drawing():
    random = np.random.default_rng(0)
    size = 12
    points = random.integers(0, size, (60, 2))
    for columns, rows in ((False, False), (True, False), (False, True), (True, True)):
        canvas = blank_canvas(size)
        for number, (row, column) in enumerate(points, 1):
            canvas[row + 1, column + 1] = number
        expected = np.zeros((size + 2, size + 2), dtype=np.int32)
        for number, (row, column) in enumerate(points, 1):
            if canvas[row + 1, column + 1] != number:
                continue  # another point fell on its pixel
            bits = int(draw_bits(np.uint64(5), number))
            pattern = np.array([bits >> place & 1 for place in range(9)]).reshape(3, 3)
            # A pixel to the lower right of a point sees it to its upper left.
            pattern = pattern[::-1, ::-1][:: -1 if rows else 1, :: -1 if columns else 1]
            expected[row : row + 3, column : column + 3] = np.where(pattern, number, 0)
        covered = cover_with_patches(canvas, len(points), np.uint64(5), columns, rows)
        np.testing.assert_array_equal(covered[1:-1, 1:-1], expected[1:-1, 1:-1])


def draw_bits(key, counter):
    """SplitMix64, with Python's integers."""
    mask = 2**64 - 1
    value = (int(key) + (counter + 1) * 0x9E3779B97F4A7C15) & mask
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & mask
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & mask
    return value ^ (value >> 31)
