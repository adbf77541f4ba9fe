"""FractalDB: attractors of iterated function systems in the plane.

Kataoka et al., "Pre-training without Natural Images", ACCV 2020, IJCV 2022. What the paper leaves open is as in the
program that its authors published (`ifs_search.py`, `make_fractaldb.py` and `ifs_function.py` of
https://github.com/hirokatsukataoka16/FractalDB-Pretrained-ResNet-PyTorch), with these differences: a patch has one
pattern in all of an image, as in the paper, where the program draws one for each point; its middle is the point, where
the program has its upper left beside it; and a variation that drives points to infinity is weakened, see
`iterated_functions.play_varied`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .contours import whole_number
from .family import Drawing, Image, Parameters
from .iterated_functions import Orbit, Variation, play, play_varied
from .map_family import PLANNED, MapFamily, orbit_key, own_uniforms, split
from .points import PATTERNS, blank_canvas, develop, mirrored
from .reference import reference_mask

if TYPE_CHECKING:
    import torch

__all__ = ["FractalDB", "Leaf", "reference_mask"]

_FLIPS = 4
GRAY = 127
# The margin, in pixels of an image of 512 × 512.
_MARGIN, _MARGIN_SIZE = 6, 512
# Keeps the highest point within the last pixel.
SHRINK = 1.0 - 2.0**-30
_SMALLEST_SPAN = 1e-290

_SEARCH_SIZE, _SEARCH_POINTS = 512, 100_000
_LEAST_LIT = _SEARCH_SIZE**2 / 5
# A first look at an attempt: the next point lights a new pixel as often as, so far, a pixel was met just once (Good,
# 1953), and ever more rarely from there on. Points that will light enough pixels promise 1.58 times as many at this
# stage if they are spread evenly, and more if they are not; the rest is a margin for chance.
_SIEVE_POINTS, _SIEVE_PROMISE = _SEARCH_POINTS // 8, 1.5


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
    pattern: int
    """Of the patches, in 1..511."""


@njit(cache=True, nogil=True)
def _scale(low: float, high: float, extent: float) -> float:
    # Of a smaller span the scale would be infinite, and the places of points outside the canvas.
    return extent * SHRINK / (high - low) if high - low > _SMALLEST_SPAN else 0.0


# Where the first coordinate, of a point at the low end of both, goes in a canvas, and how far a pixel is.
@njit(cache=True, nogil=True)
def _steps(width: int, flip_columns: bool, flip_rows: bool) -> tuple[int, int, int]:
    first_column, column_step = (width - 2, -1) if flip_columns else (1, 1)
    # The second coordinate points upwards.
    first_row, row_step = (1, width) if flip_rows else (width - 2, -width)
    return first_row * width + first_column, column_step, row_step


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _count_pixels(places: NDArray[np.int32], orbit: Orbit) -> tuple[int, int]:
    """On how many pixels of the search's image any points fall, and on how many just one."""
    places[:] = 0
    extent = np.float64(_SEARCH_SIZE - 2 * _MARGIN)
    low_x, low_y = orbit.low[0], orbit.low[1]
    scale_x, scale_y = _scale(low_x, orbit.high[0], extent), _scale(low_y, orbit.high[1], extent)
    lit, once = 0, 0
    for point in orbit.points:
        column, row = np.int64((point[0] - low_x) * scale_x), np.int64((point[1] - low_y) * scale_y)
        place = np.uint64(row * _SEARCH_SIZE + column)
        before = places[place]
        places[place] = before + 1
        lit += 1 if before == 0 else 0
        once += 1 if before == 0 else (-1 if before == 1 else 0)
    return lit, once


class FractalDB(MapFamily):
    """Attractors of 2 to 7 affine maps, gray or coloured on black.

    A category: N ~ U{2..7} maps with coefficients a..f ~ U(−1, 1) and a probability proportional to |a·d − b·c|, kept
    if 100,000 points light at least 0.2 of an image of 512 × 512 with a margin of 6. An instance: one of the
    coefficients of all maps × {0.2, 0.6, 1.4, 1.8}, or none; a flip; a random 3×3 patch that is drawn for each point.
    The first 1000 instances are the 25 variants × 4 flips × 10 patches of the published set, so ordered that the first
    25 are the variants and the first 100 those with each flip; in further ones the factor is U(0.2, 1.8).
    In colour point n has hue n / 128 of the circle at a saturation and value of 0.75, which is what the published
    program does: a colour for each point.

    An image has 100,000 points and the margin grows with it. The published set has 200,000 points at 362 × 362.
    """

    name = "fractaldb"
    version = 1
    columns = ("a", "b", "c", "d", "e", "f", "probability")
    points = 100_000
    # The published grid (weights_0.4.csv), in another order, so that few instances are already diverse.
    factors = (0.6, 1.4, 0.2, 1.8)

    def weigh(self, maps: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much maps shrink areas: |a·d − b·c|."""
        return np.abs(maps[:, 0] * maps[:, 3] - maps[:, 1] * maps[:, 2])

    def accepts(self, parameters: Parameters, key: np.uint64) -> bool:
        """Whether the points fill a fifth of the image."""
        maps, probabilities = split(parameters)
        first = play(maps, probabilities, _SIEVE_POINTS, orbit_key(key))
        if first is None:
            return False
        places = np.empty(_SEARCH_SIZE**2, dtype=np.int32)
        lit, once = _count_pixels(places, first)
        promised = lit + (_SEARCH_POINTS - _SIEVE_POINTS) * once / _SIEVE_POINTS
        if promised < _SIEVE_PROMISE * _LEAST_LIT:
            return False
        orbit = play(maps, probabilities, _SEARCH_POINTS, orbit_key(key))
        return orbit is not None and _count_pixels(places, orbit)[0] >= _LEAST_LIT

    def draw_instance(self, parameters: Parameters, instance: int, key: np.uint64) -> Leaf:
        """Instance 0 is the category itself; those of the grid and the further ones are described with the class."""
        flip, pattern = own_uniforms(key, 2)
        flips = instance % _FLIPS if instance < PLANNED else whole_number(flip, 0, _FLIPS - 1)
        return Leaf(
            *split(parameters),
            self.draw_variation(instance, key),
            bool(flips & 1),
            bool(flips & 2),
            whole_number(pattern, 1, PATTERNS - 1),
        )

    def render(self, instance: Leaf, drawing: Drawing, key: np.uint64) -> Image:
        """Draw an attractor so that it fills the image but for a margin.

        Args:
            instance: what `draw_instance` returns.
            drawing: with `drawing.patches` False the points are single pixels.
            key: the instance's key.

        Returns:
            uint8, (size, size) or, in colour, (size, size, 3). Black where points run off to infinity.
        """
        points = self.points if drawing.points is None else drawing.points
        orbit = play_varied(instance.maps, instance.probabilities, instance.variation, points, orbit_key(key))
        canvas = blank_canvas(drawing.image_size)
        if orbit is not None:
            _put_points(canvas, orbit, margin_of(drawing.image_size), instance.flip_columns, instance.flip_rows)
        pattern = mirrored(instance.pattern, instance.flip_columns, instance.flip_rows) if drawing.patches else None
        return develop(canvas, drawing, GRAY, pattern)

    def render_batch(
        self, instances: Sequence[Leaf], drawing: Drawing, keys: Sequence[np.uint64], device: torch.device | str
    ) -> torch.Tensor:
        """Several images at once, by other orbits of the same systems than those of `render`."""
        from .batched.fractals import draw_leaves

        points = self.points if drawing.points is None else drawing.points
        return draw_leaves(instances, drawing, points, [orbit_key(key) for key in keys], device)


def margin_of(image_size: int) -> int:
    """The margin around the points, in pixels."""
    return (_MARGIN * image_size + _MARGIN_SIZE // 2) // _MARGIN_SIZE
