"""How fast images are drawn from formulas, against what one would write oneself, and how near that is to a bound.

```
python examples/benchmarks/render.py                  # about six minutes on two cores
python examples/benchmarks/render.py --quick          # a smoke test, half a minute
python examples/benchmarks/render.py --device cuda    # only batches that are drawn at once on a GPU, a minute
```

Each family's images are drawn by the library, in one thread and in two; by NumPy and PIL, as one writes it first; and
by plain Numba loops that work out and store all points, or all corners, and then draw them. All of them draw the same
instances, patches, flips, viewpoints and centres included, but each with random numbers of its own. All take turns in
one run; a figure is the median over the rounds.

The bound is what the hardware needs for the least that such a drawing does. It is the sum of two loops, which take
their turns with the others and do nothing else:

- Writes: one for each that the drawing makes, to the same pixels in the same order, from a list of places (4 bytes a
  write) that was made beforehand. A fractal writes a pixel for every point within the image. A contour writes all
  pixels of all its lines that are within the image, however often a pixel was met before: `line_places` counts them,
  independently of how the library draws.
- Moves, of fractals only: for every point the 4 multiplications and 4 additions of a map in the plane, or the 9 and 9
  of one in space. They are a chain, since a move begins where the last one ended; as many points as in the library
  (five) move side by side, all by one map. So this takes as long as the chain's latency divided by five, or as the
  arithmetic of five points if the processor has to work longer on that.

The two add up, for a point's pixel is known only when the extent of all points is. What lies between the bound and the
time are choosing and looking up maps, keeping points and scaling them, and reading the image off the canvas; with
contours, the noise and finding the first pixel and the slope of each segment.

Then the datasets: `fractaldb-1k` map-style through a DataLoader with 0, 1 and 2 workers and as a stream, and the time
from `import hf_kakurenbo` to the first streamed example of `exfractaldb-21k`, in a new process.

With `--device` none of this is measured but batches: `Family.render_batch` of instances that were made beforehand, and
a dataset's `__getitems__`, which makes them. `--device cpu` tries the same code without a GPU.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader, Subset

from hf_kakurenbo import load_fdsl
from hf_kakurenbo.fdsl.catalog import category_parameters, find_entry, find_family
from hf_kakurenbo.fdsl.contours import NOISE_COUNTER, NOISE_SLOPES, ContourFamily, Contours, perlin_noise
from hf_kakurenbo.fdsl.exfractaldb import FOCAL_LENGTH, Cloud, camera_axes
from hf_kakurenbo.fdsl.family import Drawing, Family, Parameters
from hf_kakurenbo.fdsl.fractaldb import GRAY, Leaf, margin_of
from hf_kakurenbo.fdsl.iterated_functions import LANES, MOVES_BEFORE, play, vary
from hf_kakurenbo.fdsl.map_family import MapFamily, orbit_key
from hf_kakurenbo.fdsl.random_numbers import random_bits

FAMILIES = ("fractaldb", "exfractaldb", "rcdb", "visualatom", "ofdb2d", "ofdb3d")
BATCH_SIZE_OF_IMAGES = 224
PACKAGES = ("hf-kakurenbo", "numba", "numpy", "pillow", "torch")

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


def patch_inks(leaf: Leaf) -> np.ndarray:
    """The grays of the nine pixels of a patch, row by row: uint8, (9,)."""
    return np.array([GRAY * (leaf.pattern >> place & 1) for place in range(8, -1, -1)], dtype=np.uint8)


def flip(image: np.ndarray, leaf: Leaf) -> np.ndarray:
    """Exchange left and right, top and bottom, as the instance wants."""
    return np.ascontiguousarray(image[:: -1 if leaf.flip_rows else 1, :: -1 if leaf.flip_columns else 1])


def leaf_in_numpy(points: np.ndarray, leaf: Leaf, size: int) -> np.ndarray:
    """FractalDB's points, a 3×3 patch for each, the later ones over the earlier."""
    places = places_in_plane(points, size)
    # A pixel more on each side, so that patches need not be cut.
    rows, columns = size - places[:, 1:], places[:, :1] + 1
    image = np.zeros((size + 2, size + 2), dtype=np.uint8)
    image[rows + np.repeat([-1, 0, 1], 3), columns + np.tile([-1, 0, 1], 3)] = patch_inks(leaf)
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
    for point in points:
        column = int((point[0] - low[0]) * scale[0]) + margin
        row = size - 1 - margin - int((point[1] - low[1]) * scale[1])
        for below in range(3):
            for right in range(3):
                image[row + below, column + right] = inks[3 * below + right]
    return image


def leaf_in_numba(points: np.ndarray, leaf: Leaf, size: int) -> np.ndarray:
    """What `leaf_in_numpy` draws."""
    return flip(put_patches(points, patch_inks(leaf), size, margin_of(size))[1:-1, 1:-1], leaf)


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


# ---- The bound ----


@njit(cache=True)
def store(pixels: np.ndarray, places: np.ndarray) -> None:
    """Nothing but the writes."""
    for place in places:
        pixels[np.uint64(place)] = 1


@njit(cache=True)
def _moved_in_plane(m: tuple[float, ...], place: tuple[float, ...]) -> tuple[float, ...]:
    x, y = place
    return m[0] * x + (m[1] * y + m[4]), m[2] * x + (m[3] * y + m[5])


@njit(cache=True)
def _moved_in_space(m: tuple[float, ...], place: tuple[float, ...]) -> tuple[float, ...]:
    x, y, z = place
    return (
        (m[0] * x + m[1] * y) + (m[2] * z + m[9]),
        (m[3] * x + m[4] * y) + (m[5] * z + m[10]),
        (m[6] * x + m[7] * y) + (m[8] * z + m[11]),
    )


def _make_moves(moved: Callable[..., Any]) -> Callable[..., Any]:
    @njit
    def moves(m: tuple[float, ...], places: tuple[tuple[float, ...], ...], times: int) -> Any:
        p0, p1, p2, p3, p4 = places
        for _ in range(times):
            p0, p1, p2, p3, p4 = moved(m, p0), moved(m, p1), moved(m, p2), moved(m, p3), moved(m, p4)
        # All are returned, so that none is left out.
        return p0, p1, p2, p3, p4

    return moves


_MOVES = {2: _make_moves(_moved_in_plane), 3: _make_moves(_moved_in_space)}
# A map of which the points stay where numbers have their usual length: it turns and shrinks a little.
_A_MAP = {
    2: (0.6, -0.5, 0.5, 0.6, 0.3, 0.2),
    3: (0.6, -0.5, 0.1, 0.5, 0.6, 0.2, 0.1, -0.2, 0.7, 0.3, 0.2, 0.1),
}


def move_only(points: int, dimensions: int) -> None:
    """The arithmetic of as many moves, by one map, of five points side by side; neither drawn at random nor kept."""
    # Unlike each other, so that the compiler does not take them for one.
    places = tuple(tuple(0.1 * (lane + axis) for axis in range(dimensions)) for lane in range(LANES))
    _MOVES[dimensions](_A_MAP[dimensions], places, points // LANES)


@njit(cache=True)
def _noise(key: np.uint64, lines: int, vertices: int) -> np.ndarray:
    noise = np.empty((2, lines, vertices))
    for line in range(lines):
        for k in range(vertices):
            bits = random_bits(key, line * vertices + k)
            noise[0, line, k] = perlin_noise(bits >> np.uint64(32))
            noise[1, line, k] = perlin_noise(bits & np.uint64(0xFFFFFFFF))
    return noise


def line_places(instance: Contours, key: np.uint64, size: int) -> np.ndarray:
    """The pixels that the library writes, each as often as it does and in its order, as row · size + column: (writes,).

    Worked out by other means: all corners at once, with the instance's own noise, and every line by a formula for the
    n-th of its pixels.
    """
    noise = _noise(np.uint64(random_bits(key, NOISE_COUNTER)), instance.lines, instance.vertices)
    start = Start.of(instance)
    moves = ((start.x, start.cosines, noise[0]), (start.y, start.sines, noise[1]))
    x, y = (
        first + np.cumsum(direction * (start.outward - instance.noise_gain * along), 0)
        for first, direction, along in moves
    )
    # Rounded before it is cut: what is meant to be on the edge of a pixel may be 1e-14 short of it.
    x, y = (np.trunc(np.round(positions * (size / 512), 9)) for positions in (x, y))
    return np.concatenate([_places_of_polygon(*each, size) for each in zip(x, y, strict=True)]).astype(np.uint32)


def _places_of_polygon(x: np.ndarray, y: np.ndarray, size: int) -> np.ndarray:
    from_x, from_y = np.roll(x, 1), np.roll(y, 1)
    length = np.maximum(np.maximum(abs(x - from_x), abs(y - from_y)), 1)
    line = np.repeat(np.arange(len(length)), length.astype(np.int64))
    step = np.arange(len(line)) - (np.cumsum(length) - length)[line]
    # Along the shorter axis rounded, halves in the direction of the line. Whole numbers, so the division is exact.
    columns, rows = (
        first[line]
        + np.sign(last - first)[line] * ((2 * abs(last - first)[line] * step + length[line]) // (2 * length[line]))
        for first, last in ((from_x, x), (from_y, y))
    )
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    return (rows * size + columns)[inside].astype(np.int64)


# ---- What is measured ----


class Subject(NamedTuple):
    """One image: what is drawn, and the key of its random numbers."""

    instance: Any
    key: np.uint64


Way = Callable[[Subject], Any]


@dataclass(frozen=True)
class Case:
    """Images of a family of one size, and the ways in which they are drawn.

    Attributes:
        title: of its row.
        size: of an image in pixels.
        subjects: the images, the same for every way.
        units: the points or line segments of an image, on average, for the time of one.
        ways: by name; the first is the library.
        places: for each image the pixels that are written, in that order, as row · size + column.
        written_as: the type of what is written: the number of a point, or a gray.
        dimensions: of the points that move; 0 where none do.
    """

    title: str
    size: int
    subjects: Sequence[Subject]
    units: int
    ways: dict[str, Way]
    places: Sequence[np.ndarray]
    written_as: type[np.generic]
    dimensions: int


def draw_subject(family: Family, category: int, parameters: Parameters, instance: int) -> Subject:
    """An instance of a category."""
    key = family.instance_key(0, category, instance)
    return Subject(family.draw_instance(parameters, instance, key), key)


def fractal_subjects(family: MapFamily, images: int) -> list[Subject]:
    """An instance of each of the first categories, each another one.

    Left out are those whose varied maps drive points to infinity: the library weakens the variation then, the others
    would not know what to do.
    """
    instances = find_entry(f"{family.name}-1k").instances
    subjects = (
        draw_subject(family, number, category_parameters(family, 0, number), number % instances) for number in count()
    )
    return list(islice(filter(partial(_stays_finite, points=family.points), subjects), images))


def _stays_finite(subject: Subject, points: int) -> bool:
    maps, probabilities, variation, *_ = subject.instance
    return play(vary(maps, variation), probabilities, points, orbit_key(subject.key)) is not None


def fractal_case(name: str, size: int, images: int) -> Case:
    """A fractal family with its own number of points."""
    family = find_family(name)
    assert isinstance(family, MapFamily)
    points, dimensions = family.points or 0, 2 if family.coefficients == 6 else 3
    subjects = fractal_subjects(family, images)
    put_in_numpy, put_in_numba = (leaf_in_numpy, leaf_in_numba) if dimensions == 2 else (cloud_in_numpy, cloud_in_numba)

    def numba_points(subject: Subject) -> np.ndarray:
        maps, probabilities, variation, *_ = subject.instance
        return play_in_numba(vary(maps, variation), np.cumsum(probabilities), points)

    def numpy_points(subject: Subject) -> np.ndarray:
        maps, probabilities, variation, *_ = subject.instance
        return play_in_numpy(vary(maps, variation), probabilities, points)

    def places(subject: Subject) -> np.ndarray:
        found = numba_points(subject)
        if dimensions == 3:
            columns, rows = places_in_space(found, subject.instance, size)
        else:
            columns, rows = places_in_plane(found, size).T
        return (rows * size + columns).astype(np.uint32)

    drawing = Drawing(size)
    ways: dict[str, Way] = {
        "library": lambda subject: family.render(subject.instance, drawing, subject.key),
        "NumPy": lambda subject: put_in_numpy(numpy_points(subject), subject.instance, size),
        "Numba": lambda subject: put_in_numba(numba_points(subject), subject.instance, size),
    }
    title = f"{name}, {points:,} points, {size} px"
    return Case(title, size, subjects, points, ways, list(map(places, subjects)), np.int32, dimensions)


def contour_case(name: str, size: int, images: int, parameters: Parameters | None = None) -> Case:
    """An instance of each of the first categories of a contour family, or as many of one category."""
    family = find_family(name)
    assert isinstance(family, ContourFamily)
    subjects = [
        draw_subject(family, number, category_parameters(family, 0, number) if parameters is None else parameters, 0)
        for number in range(images)
    ]
    drawing, background = Drawing(size), family.background
    ways: dict[str, Way] = {
        "library": lambda subject: family.render(subject.instance, drawing, subject.key),
        "NumPy": lambda subject: contours_in_numpy(subject.instance, size, background),
        "Numba": lambda subject: contours_in_numba(subject.instance, size, background),
    }
    segments = int(np.mean([instance.vertices * instance.lines for instance, _ in subjects]))
    places = [line_places(*subject, size) for subject in subjects]
    first = subjects[0].instance
    kind = f"{segments:,} segments" if parameters is None else f"{first.vertices} vertices × {first.lines} lines"
    return Case(f"{name}, {kind}, {size} px", size, subjects, segments, ways, places, np.uint8, 0)


def make_cases(images: int) -> Iterable[Case]:
    """The rows of the tables, each of so many images."""
    yield fractal_case("fractaldb", 224, images)
    yield fractal_case("fractaldb", 512, images)
    yield fractal_case("ofdb2d", 224, images)
    yield fractal_case("exfractaldb", 224, images)
    yield fractal_case("ofdb3d", 224, images)
    yield contour_case("rcdb", 512, images)
    yield contour_case("visualatom", 512, images)
    # A category with 600 vertices, 100 lines, a radius of 25, c = 4, w = 0.005.
    yield contour_case("visualatom", 512, images, np.array([[600.0, 100.0, 25.0, 4.0, 0.005, 1.5, 1.5, 3.0, 7.0]]))


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def take_turns(turns: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """The seconds of each call, (rounds,), after one that is not counted."""
    for turn in turns.values():
        turn()
    found: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            found[name].append(seconds(turn))
    return {name: np.array(times) for name, times in found.items()}


def measure(case: Case, rounds: int) -> dict[str, np.ndarray]:
    """The seconds of an image, (rounds,): of each way, of "two threads", and of the "writes" and "moves" alone."""
    library, images = case.ways["library"], len(case.subjects)
    pixels = np.zeros(case.size**2, dtype=case.written_as)
    halves = case.subjects[::2], case.subjects[1::2]
    with ThreadPoolExecutor(2) as pool:
        turns: dict[str, Callable[[], Any]] = {
            name: (lambda way=way: [way(subject) for subject in case.subjects]) for name, way in case.ways.items()
        }
        turns["two threads"] = lambda: list(pool.map(lambda half: [library(subject) for subject in half], halves))
        turns["writes"] = lambda: [store(pixels, places) for places in case.places]
        if case.dimensions:
            turns["moves"] = lambda: [move_only(case.units, case.dimensions) for _ in case.subjects]
        return {name: times / images for name, times in take_turns(turns, rounds).items()}


def speed_row(case: Case, found: dict[str, np.ndarray]) -> list[str]:
    """How fast the library is, and how much slower the others."""
    own, two = np.median(found["library"]), np.median(found["two threads"])
    low, high = np.percentile(found["library"], [25, 75]) * 1e3
    others = [np.median(found[way]) for way in ("NumPy", "Numba")]
    return [
        case.title,
        f"{own * 1e3:.2f} ms ({low:.2f} to {high:.2f})",
        f"{1 / own:,.0f}",
        f"{own / case.units * 1e9:.1f} ns",
        f"{1 / two:,.0f} ({own / two:.2f} ×)",
        *(f"{other * 1e3:.1f} ms ({other / own:.1f} ×)" for other in others),
    ]


def bound_row(case: Case, found: dict[str, np.ndarray]) -> list[str]:
    """The bound, and how close the library is to it."""
    own, writes = np.median(found["library"]), np.median(found["writes"])
    moves = np.median(found["moves"]) if "moves" in found else 0.0
    return [
        case.title,
        f"{np.mean([len(places) for places in case.places]):,.0f}",
        f"{writes * 1e3:.3f} ms",
        f"{moves * 1e3:.3f} ms" if moves else "–",
        f"{(writes + moves) * 1e3:.3f} ms",
        f"{own * 1e3:.3f} ms",
        f"{(writes + moves) / own:.0%}",
    ]


def measure_loading(rounds: int, images: int) -> list[list[str]]:
    """Images a second through a DataLoader and as a stream, each against the map-style dataset in this process."""
    dataset = load_fdsl("fractaldb-1k", as_tensor=True)
    part = Subset(dataset, range(0, len(dataset), len(dataset) // images))
    stream = load_fdsl("fractaldb-1k", streaming=True, as_tensor=True).shuffle(seed=0)
    shuffled = Subset(dataset, np.random.default_rng(0).permutation(len(dataset))[:images].tolist())
    names = {0: "DataLoader, no workers", 1: "DataLoader, 1 worker", 2: "DataLoader, 2 workers"}
    turns: dict[str, Callable[[], Any]] = {}
    for workers, name in names.items():
        loader = DataLoader(part, 25, num_workers=workers, persistent_workers=workers > 0)
        turns[name] = lambda loader=loader: [None for _ in loader]
    turns["map-style, at random"] = lambda: [shuffled[index] for index in range(images)]
    turns["stream, shuffled"] = lambda: list(islice(stream, images))
    found = take_turns(turns, rounds)
    against = {names[2]: names[1], "stream, shuffled": "map-style, at random"}
    rows = []
    for name, times in found.items():
        other = against.get(name)
        ratio = f"{np.median(found[other] / times):.2f} × {other}" if other else ""
        rows.append([name, f"{np.median(images / times):,.0f}", ratio])
    return rows


FIRST_EXAMPLE = """
import hf_kakurenbo, time
started = time.perf_counter()
next(iter(hf_kakurenbo.load_fdsl("exfractaldb-21k", streaming=True)))
print(time.perf_counter() - started)
"""


def first_examples(times: int) -> list[float]:
    """The seconds from the import to the first streamed example, each in a new process."""
    command = [sys.executable, "-c", FIRST_EXAMPLE]
    return [float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout) for _ in range(times)]


def measure_batches(name: str, device: torch.device, sizes: Sequence[int], rounds: int) -> list[list[str]]:
    """Images of a family a second, drawn at once on a device, for batches of several sizes; one row for each."""
    dataset = load_fdsl(f"{name}-1k", image_size=BATCH_SIZE_OF_IMAGES, as_tensor=True, device=device)
    family, drawing = dataset.family, Drawing(BATCH_SIZE_OF_IMAGES)
    chosen = np.random.default_rng(0).permutation(len(dataset))[: max(sizes)].tolist()
    subjects = []
    for index in chosen:
        category, instance = divmod(index, dataset.instances)
        subjects.append(draw_subject(family, category, category_parameters(family, 0, category), instance))
    synchronize = torch.get_device_module(device).synchronize

    def batch(size: int) -> None:
        instances, keys = zip(*subjects[:size], strict=True)
        family.render_batch(instances, drawing, keys, device)
        synchronize()

    def items(size: int) -> None:
        dataset.__getitems__(chosen[:size])
        synchronize()

    turns: dict[str, Callable[[], Any]] = {"CPU": lambda: [family.render(s.instance, drawing, s.key) for s in subjects]}
    for size in sizes:
        turns |= {f"batch of {size}": partial(batch, size), f"items, {size}": partial(items, size)}
    found = {turn: np.median(times) for turn, times in take_turns(turns, rounds).items()}
    on_cpu = len(subjects) / found["CPU"]
    rows = []
    for size in sizes:
        drawn, loaded = size / found[f"batch of {size}"], size / found[f"items, {size}"]
        rows.append(
            [
                name,
                f"{size}",
                f"{found[f'batch of {size}'] * 1e3:.2f} ms",
                f"{drawn:,.0f}",
                f"{loaded:,.0f}",
                f"{on_cpu:,.0f} ({drawn / on_cpu:.2f} ×)",
            ]
        )
    return rows


# ---- The report ----


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def processor() -> str:
    """The name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def environment(device: torch.device | None) -> str:
    """The machine and the versions, as one sentence."""
    names = [f"{processor()}, {os.cpu_count()} CPU cores"]
    if device is not None and device.type == "cuda":
        names.insert(0, torch.cuda.get_device_name(device))
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"{'; '.join(names)}. Python {platform.python_version()}, {packages}."


def report_drawing(rounds: int, quick: bool) -> str:
    """Everything but batches on a device."""
    images = 4 if quick else 24
    speed, bounds = [], []
    for case in make_cases(images):
        print(case.title, flush=True)
        found = measure(case, rounds)
        speed.append(speed_row(case, found))
        bounds.append(bound_row(case, found))
    print("loading", flush=True)
    loading = measure_loading(rounds, 100 if quick else 1000)
    # The first one finds the files in no cache.
    starts = first_examples(1) if quick else first_examples(6)[1:]
    header = ["images", "one thread", "images/s", "a point or segment", "two threads, images/s"]
    bound_header = ["images", "writes", "writes alone", "moves alone", "bound", "one thread", "bound ÷ one thread"]
    parts = [
        f"Median of {rounds} rounds of {images} images (interquartile range).",
        table([*header, "NumPy and PIL", "plain Numba"], speed),
        "The bound: as many writes as the drawing makes, to the same pixels in the same order, the places known "
        f"beforehand; and, for fractals, the multiplications and additions of the points' moves, {LANES} points side "
        "by side, by one map that stays in registers. Moves come before writes: a point's pixel is known only when the "
        "extent of all points is. Both are measured in the same run.",
        table(bound_header, bounds),
        table(["`fractaldb-1k`, 224 px", "images/s", "against"], loading),
        f"First streamed example of `exfractaldb-21k`, after the import: {np.median(starts):.1f} s "
        f"({min(starts):.1f} to {max(starts):.1f}).",
    ]
    return "\n\n".join(parts)


def report_batches(device: torch.device, sizes: Sequence[int], rounds: int) -> str:
    """Batches on a device."""
    rows = []
    for name in FAMILIES:
        print(name, flush=True)
        rows += measure_batches(name, device, sizes, rounds)
    return "\n\n".join(
        [
            f"Median of {rounds} rounds; {BATCH_SIZE_OF_IMAGES} px, the families' own numbers of points.",
            table(
                [
                    "family",
                    "batch",
                    "a batch",
                    "`render_batch`, images/s",
                    "dataset, images/s",
                    "one CPU thread, images/s",
                ],
                rows,
            ),
        ]
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure how fast images are drawn from formulas.")
    parser.add_argument("--quick", action="store_true", help="a smoke test: figures worth little")
    parser.add_argument("--rounds", type=int, help="how often each figure is measured; 9 by default, quick 1")
    parser.add_argument("--device", help="measure only batches that are drawn at once, on this device, such as cuda")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", help="with --device; 64 and 256 by default, quick 2 and 4"
    )
    parser.add_argument("--output", type=Path, help="a file for the Markdown, beside printing it")
    args = parser.parse_args()
    if args.batch_sizes and not args.device:
        parser.error("--batch-sizes needs --device.")
    if args.device and torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: PyTorch finds no GPU; --device cpu tries the same code without one.")
    return args


def main() -> None:
    """Measure and print Markdown."""
    args = parse_arguments()
    rounds = args.rounds or (1 if args.quick else 9)
    device = None if args.device is None else torch.device(args.device)
    torch.set_num_threads(1)
    if device is None:
        measured = report_drawing(rounds, args.quick)
    else:
        measured = report_batches(device, args.batch_sizes or ((2, 4) if args.quick else (64, 256)), rounds)
    report = f"{environment(device)} {measured}"
    print("\n" + report)
    if args.output is not None:
        args.output.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
