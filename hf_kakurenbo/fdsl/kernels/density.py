"""Images of how many points fall on each pixel of a window, in hues of it, and what is done to such an image.

As the program published with "Improving Fractal Pre-training" (Anderson and Farrell, WACV 2022) draws: a patch that is
the same for all points of an image, hues that follow the density, a slight blur.
"""

from __future__ import annotations

from math import floor

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled
from .drawing import Image

# OpenCV's hues of 8 bits: so many go round the circle. The program's 256 hues go round it nearly one and a half times.
_HUES = 180
_SECTOR = 30.0
_SMALLEST_SPAN = 1e-290
_TERMS = 40


def exponential(exponent: float) -> float:
    """e**exponent for an exponent in −3..0, the same bits on every machine."""
    total, term = 1.0, 1.0
    for number in range(1, _TERMS):
        term *= exponent / number
        total += term
    return total


@compiled
def hsv_to_rgb(hue: float, saturation: float, value: float) -> tuple[np.uint8, np.uint8, np.uint8]:
    """A colour in 0..255 each.

    Args:
        hue: at least 0, of which 180 go round the circle.
        saturation: in 0..255.
        value: in 0..255.
    """
    turned = (hue % _HUES) / _SECTOR
    sector = int(turned)
    rest, depth = turned - sector, saturation / 255.0
    low = np.uint8(value * (1.0 - depth) + 0.5)
    falling = np.uint8(value * (1.0 - depth * rest) + 0.5)
    rising = np.uint8(value * (1.0 - depth * (1.0 - rest)) + 0.5)
    high = np.uint8(value + 0.5)
    if sector == 0:
        return high, rising, low
    if sector == 1:
        return falling, high, low
    if sector == 2:
        return low, high, rising
    if sector == 3:
        return low, falling, high
    if sector == 4:
        return rising, low, high
    return high, low, falling


@compiled
def _count(
    counts: NDArray[np.int32],
    points: NDArray[np.float64],
    corner_x: float,
    corner_y: float,
    scale_x: float,
    scale_y: float,
) -> None:
    last = float(len(counts) - 2)
    for point in points:
        row, column = (point[0] - corner_x) * scale_x, (point[1] - corner_y) * scale_y
        # What is a pixel outside counts for its patch.
        if -1.0 <= row < last + 1.0 and -1.0 <= column < last + 1.0:
            counts[floor(row) + 1, floor(column) + 1] += 1


def count_in_window(
    points: NDArray[np.float64], middle: tuple[float, float], half: tuple[float, float], image_size: int
) -> NDArray[np.int32]:
    """How many points fall on each pixel of a window, and a pixel around it: int32, (size + 2, size + 2).

    Args:
        points: (points, 2). The first coordinate goes down the rows.
        middle: of the window.
        half: its height and width, halved.
        image_size: what the window is an image of.
    """
    counts = np.zeros((image_size + 2, image_size + 2), dtype=np.int32)
    # A window without an extent is taken for one of 1, as in the program.
    spans = [2.0 * each if each > _SMALLEST_SPAN else 1.0 for each in half]
    scales = [(image_size - 1) / span for span in spans]
    _count(counts, points, middle[0] - half[0], middle[1] - half[1], scales[0], scales[1])
    return counts


def spread_patch(counts: NDArray[np.int32], pattern: int) -> NDArray[np.int32]:
    """How many patches cover each pixel, where all points of an image have the same: (size, size).

    Args:
        counts: of the points, (size + 2, size + 2).
        pattern: which of the pixels around a point are its patch: 9 bits, in 1..511, the lowest for the upper left.
    """
    size = len(counts) - 2
    total = np.zeros((size, size), dtype=np.int32)
    for bit in range(9):
        if pattern >> bit & 1:
            row, column = 2 - bit // 3, 2 - bit % 3
            total += counts[row : row + size, column : column + size]
    return total


@compiled
def _color(density: NDArray[np.int32], shift: float, saturation: float, value: float, image: NDArray[np.uint8]) -> None:
    most = max(density.max(), 1)
    for row in range(density.shape[0]):
        for column in range(density.shape[1]):
            if density[row, column] > 0:
                hue = int(density[row, column] / most * 255.0 + shift) & 255
                color = hsv_to_rgb(float(hue), saturation, value)
                image[row, column, 0], image[row, column, 1], image[row, column, 2] = color


def color_by_density(
    density: NDArray[np.int32], hue: float, saturation: float, value: float, background: Image
) -> Image:
    """Pixels that anything falls on, in a hue that goes with how much, over a background that is written over.

    Args:
        density: (size, size), at least 0.
        hue: that of density 0, in 0..255; the largest density is 255 later, modulo 256.
        saturation: in 0..255.
        value: in 0..255.
        background: uint8, (size, size, 3).
    """
    _color(density, hue, saturation, value, background)
    return background


def blur(image: Image, sigma: float) -> Image:
    """An image under a Gaussian of 3×3 pixels; its edges are mirrored about their middle.

    Args:
        image: uint8, (size, size) or (size, size, 3).
        sigma: the Gaussian's, in pixels, at least 0.41.
    """
    side = exponential(-0.5 / (sigma * sigma))
    outer, inner = side / (1.0 + 2.0 * side), 1.0 / (1.0 + 2.0 * side)
    blurred = image.astype(np.float64)
    for axis in (0, 1):
        last = blurred.shape[axis] - 1
        places = np.arange(-1, last + 2)
        mirrored = np.take(blurred, (last - np.abs(last - np.abs(places))).clip(0), axis)
        parts = [np.take(mirrored, np.arange(start, start + last + 1), axis) for start in range(3)]
        blurred = outer * (parts[0] + parts[2]) + inner * parts[1]
    return np.floor(blurred + 0.5).astype(np.uint8)
