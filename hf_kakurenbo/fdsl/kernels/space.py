"""Attractors of iterated function systems in space, seen in perspective by a camera that looks at their mean."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled
from .contours import sine_and_cosine
from .drawing import Drawing, Image
from .iterated_functions import Orbit, Variation, play_varied
from .points import blank_canvas, develop

DISTANCE, NEAREST = 4.0, 1.0
# 1 / tan(45° / 2).
FOCAL_LENGTH = 1.0 + sqrt(2.0)
WHITE = 255


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


@compiled
def mean_of(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of points, (points, 3): (3,)."""
    x, y, z = 0.0, 0.0, 0.0
    for point in points:
        x += point[0]
        y += point[1]
        z += point[2]
    count = len(points)
    return np.array([x / count, y / count, z / count])


@compiled
def least_variance(points: NDArray[np.float64], mean: NDArray[np.float64]) -> float:
    """The least of the variances of points, (points, 3), along the three axes, given their mean, (3,)."""
    x, y, z = 0.0, 0.0, 0.0
    for point in points:
        x += (point[0] - mean[0]) * (point[0] - mean[0])
        y += (point[1] - mean[1]) * (point[1] - mean[1])
        z += (point[2] - mean[2]) * (point[2] - mean[2])
    return min(x, y, z) / len(points)


def scale_of(orbit: Orbit) -> float:
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


@compiled
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


def draw_cloud(cloud: Cloud, drawing: Drawing, points: int, key: np.uint64) -> Image:
    """Draw an attractor as the camera sees it.

    Args:
        cloud: the drawing.
        drawing: how it is drawn.
        points: how many points are drawn.
        key: of the orbit's random numbers.

    Returns:
        uint8, (size, size) or, in colour, (size, size, 3). Black where points run off to infinity.
    """
    orbit = play_varied(cloud.maps, cloud.probabilities, cloud.variation, points, key)
    canvas = blank_canvas(drawing.image_size)
    if orbit is not None:
        axes = camera_axes(cloud.view) * scale_of(orbit)
        _put_points(canvas, orbit.points, mean_of(orbit.points), axes)
    return develop(canvas, drawing, WHITE)
