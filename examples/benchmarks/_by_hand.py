"""Images from formulas as one would write their drawing oneself: in NumPy with PIL, and in plain Numba loops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from PIL import Image, ImageDraw

from hf_kakurenbo.fdsl.kernels.contours import NOISE_SLOPES, Contours
from hf_kakurenbo.fdsl.kernels.iterated_functions import MOVES_BEFORE
from hf_kakurenbo.fdsl.kernels.plane import GRAY, Leaf, margin_of
from hf_kakurenbo.fdsl.kernels.space import FOCAL_LENGTH, Cloud, camera_axes

# ---- Fractals, as one would write them oneself ----


def play_in_numpy(maps: np.ndarray, probabilities: np.ndarray, points: int) -> np.ndarray:
    """The chaos game, a Python loop, in space over NumPy's matrix products: (points, dimensions)."""
    chosen = np.random.default_rng(0).choice(len(maps), points + MOVES_BEFORE, p=probabilities / probabilities.sum())
    return (_play_in_plane if maps.shape[1] == 6 else _play_in_space)(maps, chosen)[MOVES_BEFORE:]


def _play_in_plane(maps: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    points = np.empty((len(chosen), 2))
    x = y = 0.0
    rows = maps.tolist()
    for number, index in enumerate(chosen.tolist()):
        a, b, c, d, e, f = rows[index]
        x, y = a * x + b * y + e, c * x + d * y + f
        points[number] = x, y
    return points


def _play_in_space(maps: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    matrices, shifts = maps[:, :9].reshape(-1, 3, 3), maps[:, 9:]
    points, place = np.empty((len(chosen), 3)), np.zeros(3)
    for number, index in enumerate(chosen.tolist()):
        place = matrices[index] @ place + shifts[index]
        points[number] = place
    return points


@njit(cache=True)
def play_in_numba(maps: np.ndarray, cumulative: np.ndarray, points: int) -> np.ndarray:
    """The chaos game in two or three dimensions, a plain loop that stores all points: (points, dimensions)."""
    np.random.seed(0)
    dimensions = 2 if maps.shape[1] == 6 else 3
    found = np.empty((points + MOVES_BEFORE, dimensions))
    place, moved = np.zeros(dimensions), np.zeros(dimensions)
    for number in range(len(found)):
        index = min(np.searchsorted(cumulative, np.random.random()), len(cumulative) - 1)
        for row in range(dimensions):
            moved[row] = maps[index, dimensions * dimensions + row]
            for column in range(dimensions):
                moved[row] += maps[index, dimensions * row + column] * place[column]
        place[:] = moved
        found[number] = place
    return found[MOVES_BEFORE:]


def places_in_plane(points: np.ndarray, size: int) -> np.ndarray:
    """Columns and rows of points in the image, which they fill but for a margin: (points, 2), the rows upwards."""
    margin = margin_of(size)
    low, high = points.min(0), points.max(0)
    return ((points - low) / (high - low) * (size - 2 * margin - 1e-6) + margin).astype(np.int64)


def patch_inks(points: int) -> np.ndarray:
    """The grays of the nine pixels of each point's patch, row by row: uint8, (points, 9)."""
    patterns = np.random.default_rng(0).integers(0, 512, points)
    return (GRAY * (patterns[:, None] >> np.arange(8, -1, -1) & 1)).astype(np.uint8)


def flip(image: np.ndarray, leaf: Leaf) -> np.ndarray:
    """Exchange left and right, top and bottom, as the instance wants."""
    return np.ascontiguousarray(image[:: -1 if leaf.flip_rows else 1, :: -1 if leaf.flip_columns else 1])


def leaf_in_numpy(points: np.ndarray, leaf: Leaf, size: int) -> np.ndarray:
    """FractalDB's points, a 3×3 patch for each, the later ones over the earlier."""
    places = places_in_plane(points, size)
    # A pixel more on each side, so that patches need not be cut.
    rows, columns = size - places[:, 1:], places[:, :1] + 1
    image = np.zeros((size + 2, size + 2), dtype=np.uint8)
    image[rows + np.repeat([-1, 0, 1], 3), columns + np.tile([-1, 0, 1], 3)] = patch_inks(len(points))
    return flip(image[1:-1, 1:-1], leaf)


@njit(cache=True)
def put_patches(points: np.ndarray, inks: np.ndarray, size: int, margin: int) -> np.ndarray:
    """FractalDB's points as plain loops: the extent, then nine pixels for each point; (size + 2, size + 2)."""
    low, high = points[0].copy(), points[0].copy()
    for point in points:
        for axis in range(2):
            low[axis], high[axis] = min(low[axis], point[axis]), max(high[axis], point[axis])
    scale = (size - 2 * margin - 1e-6) / (high - low)
    image = np.zeros((size + 2, size + 2), dtype=np.uint8)
    for number, point in enumerate(points):
        patch = inks[number]
        column = int((point[0] - low[0]) * scale[0]) + margin
        row = size - 1 - margin - int((point[1] - low[1]) * scale[1])
        for below in range(3):
            for right in range(3):
                image[row + below, column + right] = patch[3 * below + right]
    return image


def leaf_in_numba(points: np.ndarray, leaf: Leaf, size: int) -> np.ndarray:
    """What `leaf_in_numpy` draws."""
    return flip(put_patches(points, patch_inks(len(points)), size, margin_of(size))[1:-1, 1:-1], leaf)


def places_in_space(points: np.ndarray, cloud: Cloud, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the points that the camera sees, in perspective."""
    points = 2 * (points - points.min()) / (points.max() - points.min()) - 1
    right, up, towards = camera_axes(cloud.view) @ (points - points.mean(0)).T
    scale = FOCAL_LENGTH * size / 2 / (4 - towards)
    columns, rows = size / 2 + right * scale, size / 2 - up * scale
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size) & (towards <= 3)
    return columns[inside].astype(np.int64), rows[inside].astype(np.int64)


def cloud_in_numpy(points: np.ndarray, cloud: Cloud, size: int) -> np.ndarray:
    """ExFractalDB's points, white on black."""
    columns, rows = places_in_space(points, cloud, size)
    image = np.zeros((size, size), dtype=np.uint8)
    image[rows, columns] = 255
    return image


@njit(cache=True)
def put_in_perspective(points: np.ndarray, axes: np.ndarray, focal_length: float, size: int) -> np.ndarray:
    """ExFractalDB's points as plain loops: the extent and the mean, then a pixel for each point."""
    scale = 2 / (points.max() - points.min())
    mean = np.zeros(3)
    for point in points:
        mean += point / len(points)
    image = np.zeros((size, size), dtype=np.uint8)
    seen = np.empty(3)
    for point in points:
        for axis in range(3):
            seen[axis] = 0.0
            for k in range(3):
                seen[axis] += axes[axis, k] * (point[k] - mean[k]) * scale
        if seen[2] > 3:
            continue
        column = size / 2 + seen[0] * focal_length / (4 - seen[2])
        row = size / 2 - seen[1] * focal_length / (4 - seen[2])
        if 0 <= column < size and 0 <= row < size:
            image[int(row), int(column)] = 255
    return image


def cloud_in_numba(points: np.ndarray, cloud: Cloud, size: int) -> np.ndarray:
    """What `cloud_in_numpy` draws."""
    return put_in_perspective(points, camera_axes(cloud.view), FOCAL_LENGTH * size / 2, size)


# ---- Contours, as one would write them oneself ----


class Start(NamedTuple):
    """What a contour's vertices leave from, each (vertices,)."""

    x: np.ndarray
    y: np.ndarray
    cosines: np.ndarray
    """Of the direction in which a vertex moves."""
    sines: np.ndarray
    outward: np.ndarray
    """By how much each line moves it, noise apart."""

    @classmethod
    def of(cls, instance: Contours) -> Start:
        """The ellipse of an instance, and the waves on it."""
        angles = 2 * np.pi * np.arange(instance.vertices) / instance.vertices
        cosines, sines = np.cos(angles), np.sin(angles)
        x, y = instance.center_x + instance.radius_x * cosines, instance.center_y + instance.radius_y * sines
        waves = [0.5 * np.sin(frequency * angles) for frequency in instance.frequencies]
        return cls(x, y, cosines, sines, sum(waves, np.full(instance.vertices, instance.outward)))


def perlin(positions: np.ndarray) -> np.ndarray:
    """Perlin's noise in one dimension."""
    cells = np.floor(positions).astype(np.int64)
    here = positions - cells
    fade = here**3 * (here * (here * 6 - 15) + 10)
    left, right = NOISE_SLOPES[cells % 256] * here, NOISE_SLOPES[cells % 256 + 1] * (here - 1)
    return 0.4 * (left + fade * (right - left))


def contours_in_numpy(instance: Contours, size: int, background: int) -> np.ndarray:
    """Contours by NumPy, a polygon of PIL's for each line."""
    generator = np.random.default_rng(0)
    x, y, cosines, sines, outward = Start.of(instance)
    image = Image.new("L", (size, size), background)
    draw = ImageDraw.Draw(image)
    for _ in range(instance.lines):
        noise = perlin(generator.uniform(0, 10_000, (2, instance.vertices)))
        x = x + cosines * (outward - instance.noise_gain * noise[0])
        y = y + sines * (outward - instance.noise_gain * noise[1])
        corners = list(zip((x * size / 512).tolist(), (y * size / 512).tolist(), strict=True))
        draw.line([*corners, corners[0]], fill=int(generator.integers(256)))
    return np.asarray(image)


@njit(cache=True)
def perlin_at(position: float) -> float:
    """Perlin's noise in one dimension, at one place."""
    cell = int(position)
    here = position - cell
    fade = here**3 * (here * (here * 6 - 15) + 10)
    left, right = NOISE_SLOPES[cell % 256] * here, NOISE_SLOPES[cell % 256 + 1] * (here - 1)
    return 0.4 * (left + fade * (right - left))


@njit(cache=True)
def corners_in_numba(start: Start, lines: int, noise_gain: float, scale: float) -> np.ndarray:
    """The corners of all polygons, a plain loop that stores them: int64, (lines, vertices, 2)."""
    np.random.seed(0)
    vertices = len(start.x)
    corners = np.empty((lines, vertices, 2), dtype=np.int64)
    x, y = start.x.copy(), start.y.copy()
    for line in range(lines):
        for k in range(vertices):
            x[k] += start.cosines[k] * (start.outward[k] - noise_gain * perlin_at(10_000 * np.random.random()))
            y[k] += start.sines[k] * (start.outward[k] - noise_gain * perlin_at(10_000 * np.random.random()))
            corners[line, k, 0], corners[line, k, 1] = int(x[k] * scale), int(y[k] * scale)
    return corners


@njit(cache=True)
def bresenham(image: np.ndarray, x: int, y: int, last_x: int, last_y: int, ink: int) -> None:
    """A line, as in every textbook; what is outside the image is not drawn."""
    width, height = abs(last_x - x), -abs(last_y - y)
    x_step, y_step = 1 if x < last_x else -1, 1 if y < last_y else -1
    error = width + height
    while True:
        if 0 <= x < image.shape[1] and 0 <= y < image.shape[0]:
            image[y, x] = ink
        if x == last_x and y == last_y:
            return
        doubled = 2 * error
        if doubled >= height:
            error += height
            x += x_step
        if doubled <= width:
            error += width
            y += y_step


@njit(cache=True)
def draw_polygons(image: np.ndarray, corners: np.ndarray) -> None:
    """The outlines of polygons, (polygons, vertices, 2), each in a gray at random."""
    vertices = corners.shape[1]
    for polygon in corners:
        ink = np.random.randint(256)
        for k in range(vertices):
            bresenham(image, polygon[k - 1, 0], polygon[k - 1, 1], polygon[k, 0], polygon[k, 1], ink)


def contours_in_numba(instance: Contours, size: int, background: int) -> np.ndarray:
    """Contours by plain Numba loops: all corners first, then the lines between them."""
    image = np.full((size, size), background, dtype=np.uint8)
    draw_polygons(image, corners_in_numba(Start.of(instance), instance.lines, instance.noise_gain, size / 512))
    return image
