"""The images that `render.py` draws, and the ways in which they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any, NamedTuple

import numpy as np
from _bound import line_places
from _by_hand import (
    cloud_in_numba,
    cloud_in_numpy,
    contours_in_numba,
    contours_in_numpy,
    leaf_in_numba,
    leaf_in_numpy,
    places_in_plane,
    places_in_space,
    play_in_numba,
    play_in_numpy,
)

from hf_kakurenbo.fdsl.catalog import category_parameters, find_entry, find_family
from hf_kakurenbo.fdsl.families.contour_family import ContourFamily
from hf_kakurenbo.fdsl.families.map_family import MapFamily, orbit_key
from hf_kakurenbo.fdsl.family import Family, Parameters
from hf_kakurenbo.fdsl.kernels.drawing import Drawing
from hf_kakurenbo.fdsl.kernels.iterated_functions import play, vary


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


def fractal_subjects(family: MapFamily, images: int, points: int) -> list[Subject]:
    """An instance of each of the first categories, each another one.

    Left out are those whose varied maps drive points to infinity: the library weakens the variation then, the others
    would not know what to do.
    """
    instances = find_entry(f"{family.name}-1k").instances
    subjects = (
        draw_subject(family, number, category_parameters(family, 0, number), number % instances) for number in count()
    )
    return list(islice(filter(partial(_stays_finite, points=points), subjects), images))


def _stays_finite(subject: Subject, points: int) -> bool:
    maps, probabilities, variation, *_ = subject.instance
    return play(vary(maps, variation), probabilities, points, orbit_key(subject.key)) is not None


def fractal_case(name: str, size: int, images: int, points: int | None = None) -> Case:
    """A fractal family with so many points, or with its own number."""
    family = find_family(name)
    assert isinstance(family, MapFamily)
    points, dimensions = points or family.points, 2 if family.coefficients == 6 else 3
    subjects = fractal_subjects(family, images, points)
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

    drawing = Drawing(size, points=points)
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
    yield fractal_case("fractaldb", 224, images, 100_000)
    yield fractal_case("fractaldb", 512, images, 100_000)
    yield fractal_case("ofdb2d", 224, images, 100_000)
    yield fractal_case("fractaldb", 362, images)
    yield fractal_case("exfractaldb", 224, images)
    yield fractal_case("ofdb3d", 224, images)
    yield contour_case("rcdb", 512, images)
    yield contour_case("visualatom", 512, images)
    # A category with 600 vertices, 100 lines, a radius of 25, c = 4, w = 0.005.
    yield contour_case("visualatom", 512, images, np.array([[600.0, 100.0, 25.0, 4.0, 0.005, 1.5, 1.5, 3.0, 7.0]]))
