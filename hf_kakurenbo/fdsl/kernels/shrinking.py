"""Images made smaller without aliasing, by the bicubic filter of Pillow's `Image.resize`.

Keys, "Cubic convolution interpolation for digital image processing", 1981, with a = −1/2. As in Pillow the filter is as
much wider as the image gets smaller, weights are multiples of 2⁻²², and what comes out of the first of the two passes
is rounded to whole grays. All of it is integers but for the weights, which are sums and products of float64: the bytes
are the same on every machine. Rows are added up here, of which the compiler makes vector instructions, and the image is
turned between the passes; Pillow begins with the other direction.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled
from .drawing import Image

WEIGHT_BITS = 22
_ONE = 1 << WEIGHT_BITS
_HALF = 1 << (WEIGHT_BITS - 1)
_SUPPORT = 2.0


class Filter(NamedTuple):
    """Of what rows, and with what weights, each row of a smaller image is made."""

    starts: NDArray[np.int64]
    """The first of the rows, (small,)."""
    weights: NDArray[np.int32]
    """Of each of the rows from there on, in units of 2⁻²², (small, taps)."""


def _cubic(distance: float) -> float:
    x = abs(distance)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0 if x < 2.0 else 0.0


@lru_cache(maxsize=64)
def shrinking_filter(large: int, small: int) -> Filter:
    """The filter from so many rows to fewer.

    Args:
        large: the rows that there are.
        small: the rows that come out, 1..large.
    """
    scale = large / small
    taps = min(2 * ceil(_SUPPORT * scale) + 1, large)
    starts, weights = np.empty(small, dtype=np.int64), np.zeros((small, taps), dtype=np.int32)
    for row in range(small):
        middle = (row + 0.5) * scale
        first = max(int(middle - _SUPPORT * scale + 0.5), 0)
        last = min(int(middle + _SUPPORT * scale + 0.5), large)
        values = [_cubic((place - middle + 0.5) * (1.0 / scale)) for place in range(first, last)]
        # Added up one by one: np.sum adds in an order that depends on the machine.
        total = sum(values)
        starts[row] = min(first, large - taps)
        for place, value in enumerate(values, start=first - int(starts[row])):
            share = value / total * _ONE
            weights[row, place] = int(share - 0.5) if share < 0 else int(share + 0.5)
    starts.flags.writeable = weights.flags.writeable = False
    return Filter(starts, weights)


@compiled
def _add(total: NDArray[np.int32], row: NDArray[np.uint8], weight: np.int32) -> None:
    for k in range(len(total)):
        total[k] += np.int32(row[k]) * weight


# Four rows at a time: a sum is fetched and put back as often as rows are added to it.
@compiled
def _add_four(total: NDArray[np.int32], rows: NDArray[np.uint8], weights: NDArray[np.int32]) -> None:
    first, second, third, fourth = rows[0], rows[1], rows[2], rows[3]
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    for k in range(len(total)):
        one = np.int32(first[k]) * w0 + np.int32(second[k]) * w1
        total[k] += one + np.int32(third[k]) * w2 + np.int32(fourth[k]) * w3


@compiled
def _to_gray(total: NDArray[np.int32], gray: NDArray[np.uint8]) -> None:
    for k in range(len(total)):
        gray[k] = np.uint8(min(max(total[k] >> WEIGHT_BITS, 0), 255))


@compiled
def _shrink_rows(
    rows: NDArray[np.uint8], starts: NDArray[np.int64], weights: NDArray[np.int32], shrunk: NDArray[np.uint8]
) -> None:
    total = np.empty(rows.shape[1], dtype=np.int32)
    for number in range(len(shrunk)):
        total[:] = _HALF
        first, taps = starts[number], weights.shape[1]
        for tap in range(0, taps - 3, 4):
            _add_four(total, rows[first + tap : first + tap + 4], weights[number, tap : tap + 4])
        for tap in range(taps - taps % 4, taps):
            _add(total, rows[first + tap], weights[number, tap])
        _to_gray(total, shrunk[number])


def _shrink_height(image: Image, small: int) -> Image:
    height, width, *channels = image.shape
    shrunk = np.empty((small, width, *channels), dtype=np.uint8)
    _shrink_rows(image.reshape(height, -1), *shrinking_filter(height, small), shrunk.reshape(small, -1))
    return shrunk


def shrink(image: Image, image_size: int) -> Image:
    """Make an image smaller, as `PIL.Image.resize` with its bicubic filter does.

    Args:
        image: uint8, (size, size) or (size, size, 3), contiguous.
        image_size: height and width of the smaller one, 1..size.

    Returns:
        As the image, of the other size; the image itself if it has that size already.
    """
    if len(image) == image_size:
        return image
    turned = np.ascontiguousarray(np.swapaxes(_shrink_height(image, image_size), 0, 1))
    return np.ascontiguousarray(np.swapaxes(_shrink_height(turned, image_size), 0, 1))
