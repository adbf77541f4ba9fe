"""ExFractalDB: attractors of iterated function systems in space, seen from anywhere.

Kataoka et al., "Replacing Labeled Real-image Datasets with Auto-generated Contours", CVPR 2022, arXiv 2206.09132. What
the paper leaves open is as in the program that its authors published (`category_search.py`, `instance.py` and
`render.py` in `exfractaldb_render` of https://github.com/masora1030/CVPR2022-Pretrained-ViT-PyTorch), but for the
direction of the view: there 12 steps about the y axis, here, as the paper has it, at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .contours import sine_and_cosine
from .family import Drawing, Image, Parameters
from .iterated_functions import Orbit, Variation, play, play_varied
from .map_family import MapFamily, orbit_key, own_uniforms, split
from .points import blank_canvas, develop

if TYPE_CHECKING:
    import torch

_SEARCH_POINTS, _LEAST_VARIANCE = 10_000, 0.05

DISTANCE, NEAREST = 4.0, 1.0
# 1 / tan(45° / 2).
FOCAL_LENGTH = 1.0 + sqrt(2.0)
WHITE = 255

_TURN = 2**53


class View(NamedTuple):
    """Where the camera is, at a distance of 4 from the origin, at which it looks."""

    height: float
    """The sine of the angle above the plane of x and z, in −1..1."""
    sine: float
    cosine: float
    """Of the angle about the y axis, from the x axis."""

    @classmethod
    def at(cls, numerator: int, denominator: int, height: float = 0.0) -> View:
        """The camera at numerator / denominator turns about the y axis."""
        return cls(height, *sine_and_cosine(numerator, denominator))


class Cloud(NamedTuple):
    """One drawing."""

    maps: NDArray[np.float64]
    """Unvaried, (maps, 12)."""
    probabilities: NDArray[np.float64]
    """(maps,)."""
    variation: Variation
    view: View


@njit(cache=True, nogil=True)
def _mean(points: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, z = 0.0, 0.0, 0.0
    for point in points:
        x += point[0]
        y += point[1]
        z += point[2]
    count = len(points)
    return np.array([x / count, y / count, z / count])


@njit(cache=True, nogil=True)
def _least_variance(points: NDArray[np.float64], mean: NDArray[np.float64]) -> float:
    x, y, z = 0.0, 0.0, 0.0
    for point in points:
        x += (point[0] - mean[0]) * (point[0] - mean[0])
        y += (point[1] - mean[1]) * (point[1] - mean[1])
        z += (point[2] - mean[2]) * (point[2] - mean[2])
    return min(x, y, z) / len(points)


def _scale(orbit: Orbit) -> float:
    """What brings the points between −1 and 1, by the lowest and highest of all coordinates."""
    extent = float(orbit.high.max() - orbit.low.min())
    return 2.0 / extent if extent > 0.0 else 0.0


def camera_axes(view: View) -> NDArray[np.float64]:
    """What points to the right, upwards and towards the camera, y being up: the rows of (3, 3), of length 1."""
    height, sine, cosine = view
    radius = sqrt(max(1.0 - height * height, 0.0))
    right = (sine, 0.0, -cosine)
    up = (-height * cosine, radius, -height * sine)
    towards = (radius * cosine, height, radius * sine)
    return np.array([right, up, towards])


@njit(cache=True, nogil=True)
def _put_points(
    canvas: NDArray[np.int32],
    points: NDArray[np.float64],
    mean: NDArray[np.float64],
    axes: NDArray[np.float64],
) -> None:
    size = len(canvas) - 2
    half = 0.5 * size
    focal_length = FOCAL_LENGTH * half
    mean_x, mean_y, mean_z = mean[0], mean[1], mean[2]
    ax, ay, az = axes[0, 0], axes[0, 1], axes[0, 2]
    bx, by, bz = axes[1, 0], axes[1, 1], axes[1, 2]
    cx, cy, cz = axes[2, 0], axes[2, 1], axes[2, 2]
    # Of arrays in one dimension the compiler makes shorter work.
    pixels, coordinates = canvas.reshape(-1), points.reshape(-1)
    for k in range(len(points)):
        x, y, z = coordinates[3 * k] - mean_x, coordinates[3 * k + 1] - mean_y, coordinates[3 * k + 2] - mean_z
        depth = DISTANCE - (cx * x + cy * y + cz * z)
        # What is nearer than this is cut off; what is level with the camera would be at infinity.
        per_depth = focal_length / (depth if depth > NEAREST else NEAREST)
        column = half + (ax * x + ay * y + az * z) * per_depth
        row = half - (bx * x + by * y + bz * z) * per_depth
        inside = (column >= 0.0) & (column < size) & (row >= 0.0) & (row < size) & (depth >= NEAREST)
        if inside:
            pixels[np.uint64((np.int64(row) + 1) * (size + 2) + np.int64(column) + 1)] = k + 1


class ExFractalDB(MapFamily):
    """Attractors of 2 to 7 affine maps in space, white or coloured on black, in perspective.

    A category: N ~ U{2..7} maps with coefficients a..l ~ U(−1, 1) and a probability proportional to the |determinant|
    of a..i, kept if 10,000 points, scaled to [−1, 1] by the lowest and highest of all coordinates, have a variance
    above 0.05 along each axis. An instance: one of the coefficients of all maps × {0.4, 0.5, …, 1.6}, or none; the
    direction from which it is seen, anywhere on the sphere. The first 145 instances are those variants, the category
    itself first, and so on up to 1000; in further ones the factor is U(0.4, 1.6).

    The points are scaled as in the search, their mean is at the origin, and a camera at a distance of 4 with an angle
    of view of 45 degrees looks at it, y being up. They are single pixels: the published set has no patches and no
    colours. In colour point n has hue n / 128 of the circle, as in FractalDB, and hides those before it.
    """

    name = "exfractaldb"
    version = 1
    columns = (*"abcdefghijkl", "probability")
    points = 10_000
    # The published grid (weights_ins145.csv), in another order, so that few instances are already diverse.
    factors = (0.4, 1.6, 0.7, 1.3, 0.5, 1.5, 0.8, 1.2, 0.6, 1.4, 0.9, 1.1)

    def weigh(self, maps: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much maps shrink volumes: the size of the determinant of a..i."""
        a, b, c, d, e, f, g, h, i = maps.T[:9]
        return np.abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))

    def accepts(self, parameters: Parameters, key: np.uint64) -> bool:
        """Whether the points spread along every axis."""
        orbit = play(*split(parameters), _SEARCH_POINTS, orbit_key(key))
        if orbit is None:
            return False
        return _least_variance(orbit.points, _mean(orbit.points)) * _scale(orbit) ** 2 > _LEAST_VARIANCE

    def draw_instance(self, parameters: Parameters, instance: int, key: np.uint64) -> Cloud:
        """Instance 0 is the category itself; those of the grid and the further ones are described with the class."""
        turn, height = own_uniforms(key, 2)
        view = View.at(int(turn * _TURN), _TURN, 2.0 * height - 1.0)
        return Cloud(*split(parameters), self.draw_variation(instance, key), view)

    def render(self, instance: Cloud, drawing: Drawing, key: np.uint64) -> Image:
        """Draw an attractor as the camera sees it.

        Args:
            instance: what `draw_instance` returns.
            drawing: how it is drawn.
            key: the instance's key.

        Returns:
            uint8, (size, size) or, in colour, (size, size, 3). Black where points run off to infinity.
        """
        points = self.points if drawing.points is None else drawing.points
        orbit = play_varied(instance.maps, instance.probabilities, instance.variation, points, orbit_key(key))
        canvas = blank_canvas(drawing.image_size)
        if orbit is not None:
            axes = camera_axes(instance.view) * _scale(orbit)
            _put_points(canvas, orbit.points, _mean(orbit.points), axes)
        return develop(canvas, drawing, WHITE)

    def render_batch(
        self, instances: Sequence[Cloud], drawing: Drawing, keys: Sequence[np.uint64], device: torch.device | str
    ) -> torch.Tensor:
        """Several images at once, by other orbits of the same systems than those of `render`."""
        from .batched.fractals import draw_clouds

        points = self.points if drawing.points is None else drawing.points
        return draw_clouds(instances, drawing, points, [orbit_key(key) for key in keys], device)
