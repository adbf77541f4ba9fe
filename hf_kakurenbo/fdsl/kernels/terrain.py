"""Coloured textures by the diamond-square algorithm (Fournier, Fussell and Carpenter, 1982).

As the program published with "Improving Fractal Pre-training" (Anderson and Farrell, WACV 2022) draws its backgrounds
(`fractals/diamondsquare.py`): a grid whose far sides are neighbours, and hue, saturation and value that follow the
height.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled
from .density import exponential, hsv_to_rgb
from .drawing import Image
from .random_numbers import uniform


class Terrain(NamedTuple):
    """One texture. A height h, about 0..1, has a hue, saturation and value of h · scale + shift, in 0..255."""

    decay: float
    """From each step to the next, which is half as long, noise is e**−decay times as strong: 0..3."""
    scales: tuple[float, float, float]
    """Of hue, saturation and value."""
    shifts: tuple[float, float, float]


@compiled
def _noise(key: np.uint64, row: int, column: int, side: int, amplitude: float) -> float:
    return amplitude * (2.0 * uniform(key, row * side + column) - 1.0)


@compiled
def _diamonds(heights: NDArray[np.float64], step: int, amplitude: float, key: np.uint64) -> None:
    side = len(heights)
    for row in range(step, side, 2 * step):
        for column in range(step, side, 2 * step):
            above = heights[row - step, column - step] + heights[row - step, column + step]
            below = heights[row + step, column - step] + heights[row + step, column + step]
            heights[row, column] = 0.25 * (above + below) + _noise(key, row, column, side, amplitude)


@compiled
def _squares(heights: NDArray[np.float64], step: int, amplitude: float, key: np.uint64) -> None:
    side = len(heights)
    for row in range(0, side, step):
        above, below = (row - step if row else side - 1 - step), (row + step if row < side - 1 else step)
        for column in range(step if (row // step) % 2 == 0 else 0, side, 2 * step):
            left = column - step if column else side - 1 - step
            right = column + step if column < side - 1 else step
            around = heights[above, column] + heights[row, left] + heights[row, right] + heights[below, column]
            heights[row, column] = 0.25 * around + _noise(key, row, column, side, amplitude)


@compiled
def _raise(doublings: int, fading: float, key: np.uint64) -> NDArray[np.float64]:
    side = (1 << doublings) + 1
    heights = np.zeros((side, side))
    for row in (0, side - 1):
        for column in (0, side - 1):
            heights[row, column] = uniform(key, row * side + column)
    amplitude, step = 0.5, (side - 1) // 2
    while step > 0:
        _diamonds(heights, step, amplitude, key)
        _squares(heights, step, amplitude, key)
        amplitude, step = amplitude * fading, step // 2
    return heights


@compiled
def _color(
    heights: NDArray[np.float64], scales: NDArray[np.float64], shifts: NDArray[np.float64], image: Image
) -> None:
    for row in range(len(image)):
        for column in range(len(image)):
            height = heights[row, column]
            hue = int(np.floor(height * scales[0] + shifts[0])) & 255
            saturation = min(max(height * scales[1] + shifts[1], 0.0), 255.0)
            value = min(max(height * scales[2] + shifts[2], 0.0), 255.0)
            color = hsv_to_rgb(float(hue), saturation, value)
            image[row, column, 0], image[row, column, 1], image[row, column, 2] = color


def draw_terrain(terrain: Terrain, image_size: int, key: np.uint64) -> Image:
    """Draw a texture: uint8, (size, size, 3).

    Args:
        terrain: the texture.
        image_size: height and width; the grid is a power of two, of which the image is the upper left.
        key: of the heights' random numbers.
    """
    heights = _raise((image_size - 1).bit_length(), exponential(-terrain.decay), np.uint64(key))
    image = np.empty((image_size, image_size, 3), dtype=np.uint8)
    _color(heights, np.array(terrain.scales), np.array(terrain.shifts), image)
    return image
