"""The least that drawing an image takes, as loops that do nothing else: its writes, and the moves of its points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from _by_hand import Start
from numba import njit

from hf_kakurenbo.fdsl.kernels.contours import NOISE_COUNTER, Contours, perlin_noise
from hf_kakurenbo.fdsl.kernels.iterated_functions import LANES
from hf_kakurenbo.fdsl.kernels.random_numbers import random_bits


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
