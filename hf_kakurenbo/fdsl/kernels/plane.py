"""Attractors of iterated function systems in the plane, drawn so that they fill the image but for a margin."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled
from .drawing import Drawing, Image
from .iterated_functions import Orbit, Variation, play_varied
from .points import blank_canvas, cover_with_patches, develop
from .random_numbers import random_bits

GRAY = 127
# The published programs' margin in pixels, at 512 and 362; smaller images have less of it.
_MARGIN, _MARGIN_SIZE = 6, 362
# Keeps the highest point within the last pixel.
SHRINK = 1.0 - 2.0**-30
_SMALLEST_SPAN = 1e-290
# Of an orbit's random numbers, one that no orbit gets to.
_PATTERNS = 2**62


class Leaf(NamedTuple):
    """One drawing."""

    maps: NDArray[np.float64]
    """Unvaried, (maps, 6)."""
    probabilities: NDArray[np.float64]
    """(maps,)."""
    variation: Variation
    flip_columns: bool
    """Left and right are exchanged."""
    flip_rows: bool
    """Top and bottom are exchanged."""


@compiled
def _scale(low: float, high: float, extent: float) -> float:
    # Of a smaller span the scale would be infinite, and the places of points outside the canvas.
    return extent * SHRINK / (high - low) if high - low > _SMALLEST_SPAN else 0.0


# Where the first coordinate, of a point at the low end of both, goes in a canvas, and how far a pixel is.
@compiled
def _steps(width: int, flip_columns: bool, flip_rows: bool) -> tuple[int, int, int]:
    first_column, column_step = (width - 2, -1) if flip_columns else (1, 1)
    # The second coordinate points upwards.
    first_row, row_step = (1, width) if flip_rows else (width - 2, -width)
    return first_row * width + first_column, column_step, row_step


@compiled
def _put_points(canvas: NDArray[np.int32], orbit: Orbit, margin: int, flip_columns: bool, flip_rows: bool) -> None:
    width = len(canvas)
    extent = np.float64(width - 2 - 2 * margin)
    low_x, low_y = orbit.low[0], orbit.low[1]
    scale_x, scale_y = _scale(low_x, orbit.high[0], extent), _scale(low_y, orbit.high[1], extent)
    origin, column_step, row_step = _steps(width, flip_columns, flip_rows)
    # Of arrays in one dimension the compiler makes shorter work.
    pixels, coordinates = canvas.reshape(-1), orbit.points.reshape(-1)
    for k in range(len(orbit.points)):
        column = np.int64((coordinates[2 * k] - low_x) * scale_x + margin)
        row = np.int64((coordinates[2 * k + 1] - low_y) * scale_y + margin)
        pixels[np.uint64(origin + row * row_step + column * column_step)] = k + 1


@compiled
def count_pixels(places: NDArray[np.int32], orbit: Orbit, size: int) -> tuple[int, int]:
    """On how many pixels of a small-margined square image any points fall, and on how many just one.

    Args:
        places: room for the pixels, (size · size,) int32; overwritten.
        orbit: the points.
        size: of the image.
    """
    places[:] = 0
    extent = np.float64(size - 2 * _MARGIN)
    low_x, low_y = orbit.low[0], orbit.low[1]
    scale_x, scale_y = _scale(low_x, orbit.high[0], extent), _scale(low_y, orbit.high[1], extent)
    lit, once = 0, 0
    for point in orbit.points:
        column, row = np.int64((point[0] - low_x) * scale_x), np.int64((point[1] - low_y) * scale_y)
        place = np.uint64(row * size + column)
        before = places[place]
        places[place] = before + 1
        lit += 1 if before == 0 else 0
        once += 1 if before == 0 else (-1 if before == 1 else 0)
    return lit, once


def margin_of(image_size: int) -> int:
    """The margin around the points, in pixels."""
    return min(_MARGIN, _MARGIN * image_size // _MARGIN_SIZE)


def draw_leaf(leaf: Leaf, drawing: Drawing, points: int, key: np.uint64) -> Image:
    """Draw an attractor so that it fills the image but for a margin.

    Args:
        leaf: the drawing.
        drawing: with `drawing.patches` False the points are single pixels.
        points: how many points are drawn.
        key: of the orbit's random numbers.

    Returns:
        uint8, (size, size) or, in colour, (size, size, 3). Black where points run off to infinity.
    """
    orbit = play_varied(leaf.maps, leaf.probabilities, leaf.variation, points, key)
    canvas = blank_canvas(drawing.image_size)
    if orbit is not None:
        _put_points(canvas, orbit, margin_of(drawing.image_size), leaf.flip_columns, leaf.flip_rows)
    if drawing.patches:
        canvas = cover_with_patches(canvas, points, pattern_key(key), leaf.flip_columns, leaf.flip_rows)
    return develop(canvas, drawing, GRAY)


def pattern_key(key: np.uint64) -> np.uint64:
    """The key of the patterns of each point's own, from that of the orbit."""
    return np.uint64(random_bits(key, _PATTERNS))
