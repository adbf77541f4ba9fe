"""Iterated function systems: points of the attractor of a few affine maps, by the chaos game.

A point is moved over and over, each time by a map drawn with its probability (Barnsley, "Fractals Everywhere", 1988).
Five points are moved beside each other, since one alone waits for its own multiplications and additions; each makes
some moves before its places count, so that where it came from does not show.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled
from .random_numbers import random_bits

TABLE_BITS = 12
"""A map is drawn by so many random bits: its probability is rounded by less than 2**-12."""

MOST_MAPS = 256
LANES = 5
"""Points that are moved beside each other: as many as a random number of 64 bits has choices in it."""

_TABLE_SIZE = 1 << TABLE_BITS
_MASK = np.uint64(_TABLE_SIZE - 1)
_SECOND, _THIRD, _FOURTH, _FIFTH = (np.uint64(lane * TABLE_BITS) for lane in range(1, LANES))

MOVES_BEFORE = 64
# The fifth root of the largest float64: who gets there in a fifth of the moves would leave float64 in all of them.
INFINITY_EXPONENT = 205
_INFINITY = 2.0**INFINITY_EXPONENT
# So often it is looked whether the points are still there.
_MOVES_BETWEEN = 512
# So many numbers are compared side by side: whole numbers of points in 2 and 3 dimensions, and of vector registers.
_FOLD = 192

# After so many the factor differs from 1 by a 256th of what it did.
MOST_HALVINGS = 9

_PROBABILITY_TOLERANCE = 1e-3


class Orbit(NamedTuple):
    """Points of an attractor in D dimensions."""

    points: NDArray[np.float64]
    """(points, D)."""
    low: NDArray[np.float64]
    """The lowest value of each coordinate, (D,)."""
    high: NDArray[np.float64]
    """The highest, (D,)."""


@compiled
def choice_table(probabilities: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The map that each number of `TABLE_BITS` bits stands for: uint8, (2**TABLE_BITS,).

    Args:
        probabilities: of at most 256 maps, (maps,); they need not add up to exactly 1.
    """
    table = np.empty(_TABLE_SIZE, dtype=np.uint8)
    total = 0.0
    for probability in probabilities:
        total += probability
    start, reached = 0, 0.0
    for number in range(len(probabilities)):
        reached += probabilities[number]
        stop = min(int(reached / total * _TABLE_SIZE + 0.5), _TABLE_SIZE)
        table[start:stop] = number
        start = max(start, stop)
    table[start:] = len(probabilities) - 1
    return table


@compiled
def _x_2d(m: NDArray[np.float64], j: np.uint8, x: float, y: float) -> float:
    return m[j, 0] * x + (m[j, 1] * y + m[j, 4])


@compiled
def _y_2d(m: NDArray[np.float64], j: np.uint8, x: float, y: float) -> float:
    return m[j, 2] * x + (m[j, 3] * y + m[j, 5])


# Spelled out lane by lane: the compiler keeps the coordinates in registers, of an array it does not.
@compiled
def _move_2d(
    m: NDArray[np.float64],
    table: NDArray[np.uint8],
    key: np.uint64,
    counter: int,
    places: NDArray[np.float64],
    moves: NDArray[np.float64],
) -> None:
    x0, x1, x2, x3, x4 = places[0], places[2], places[4], places[6], places[8]
    y0, y1, y2, y3, y4 = places[1], places[3], places[5], places[7], places[9]
    for k in range(len(moves)):
        bits = random_bits(key, counter + k)
        j0, j1, j2 = table[bits & _MASK], table[(bits >> _SECOND) & _MASK], table[(bits >> _THIRD) & _MASK]
        j3, j4 = table[(bits >> _FOURTH) & _MASK], table[(bits >> _FIFTH) & _MASK]
        x0, y0 = _x_2d(m, j0, x0, y0), _y_2d(m, j0, x0, y0)
        x1, y1 = _x_2d(m, j1, x1, y1), _y_2d(m, j1, x1, y1)
        x2, y2 = _x_2d(m, j2, x2, y2), _y_2d(m, j2, x2, y2)
        x3, y3 = _x_2d(m, j3, x3, y3), _y_2d(m, j3, x3, y3)
        x4, y4 = _x_2d(m, j4, x4, y4), _y_2d(m, j4, x4, y4)
        moves[k, 0], moves[k, 1] = x0, y0
        moves[k, 2], moves[k, 3] = x1, y1
        moves[k, 4], moves[k, 5] = x2, y2
        moves[k, 6], moves[k, 7] = x3, y3
        moves[k, 8], moves[k, 9] = x4, y4


@compiled
def _x_3d(m: NDArray[np.float64], j: np.uint8, x: float, y: float, z: float) -> float:
    return (m[j, 0] * x + m[j, 1] * y) + (m[j, 2] * z + m[j, 9])


@compiled
def _y_3d(m: NDArray[np.float64], j: np.uint8, x: float, y: float, z: float) -> float:
    return (m[j, 3] * x + m[j, 4] * y) + (m[j, 5] * z + m[j, 10])


@compiled
def _z_3d(m: NDArray[np.float64], j: np.uint8, x: float, y: float, z: float) -> float:
    return (m[j, 6] * x + m[j, 7] * y) + (m[j, 8] * z + m[j, 11])


@compiled
def _move_3d(
    m: NDArray[np.float64],
    table: NDArray[np.uint8],
    key: np.uint64,
    counter: int,
    places: NDArray[np.float64],
    moves: NDArray[np.float64],
) -> None:
    x0, x1, x2, x3, x4 = places[0], places[3], places[6], places[9], places[12]
    y0, y1, y2, y3, y4 = places[1], places[4], places[7], places[10], places[13]
    z0, z1, z2, z3, z4 = places[2], places[5], places[8], places[11], places[14]
    for k in range(len(moves)):
        bits = random_bits(key, counter + k)
        j0, j1, j2 = table[bits & _MASK], table[(bits >> _SECOND) & _MASK], table[(bits >> _THIRD) & _MASK]
        j3, j4 = table[(bits >> _FOURTH) & _MASK], table[(bits >> _FIFTH) & _MASK]
        x0, y0, z0 = _x_3d(m, j0, x0, y0, z0), _y_3d(m, j0, x0, y0, z0), _z_3d(m, j0, x0, y0, z0)
        x1, y1, z1 = _x_3d(m, j1, x1, y1, z1), _y_3d(m, j1, x1, y1, z1), _z_3d(m, j1, x1, y1, z1)
        x2, y2, z2 = _x_3d(m, j2, x2, y2, z2), _y_3d(m, j2, x2, y2, z2), _z_3d(m, j2, x2, y2, z2)
        x3, y3, z3 = _x_3d(m, j3, x3, y3, z3), _y_3d(m, j3, x3, y3, z3), _z_3d(m, j3, x3, y3, z3)
        x4, y4, z4 = _x_3d(m, j4, x4, y4, z4), _y_3d(m, j4, x4, y4, z4), _z_3d(m, j4, x4, y4, z4)
        moves[k, 0], moves[k, 1], moves[k, 2] = x0, y0, z0
        moves[k, 3], moves[k, 4], moves[k, 5] = x1, y1, z1
        moves[k, 6], moves[k, 7], moves[k, 8] = x2, y2, z2
        moves[k, 9], moves[k, 10], moves[k, 11] = x3, y3, z3
        moves[k, 12], moves[k, 13], moves[k, 14] = x4, y4, z4


@compiled
def _move(
    m: NDArray[np.float64],
    table: NDArray[np.uint8],
    key: np.uint64,
    counter: int,
    places: NDArray[np.float64],
    moves: NDArray[np.float64],
) -> None:
    if m.shape[1] == 6:
        _move_2d(m, table, key, counter, places, moves)
    else:
        _move_3d(m, table, key, counter, places, moves)
    places[:] = moves[-1]


@compiled
def _play(m: NDArray[np.float64], table: NDArray[np.uint8], key: np.uint64, moves: NDArray[np.float64]) -> bool:
    places = np.zeros(moves.shape[1])
    _move(m, table, key, 0, places, moves[:MOVES_BEFORE])
    for start in range(0, len(moves), _MOVES_BETWEEN):
        _move(m, table, key, MOVES_BEFORE + start, places, moves[start : start + _MOVES_BETWEEN])
        for place in places:
            # Written so that NaN counts as infinite.
            if not abs(place) < _INFINITY:
                return False
    return True


@compiled
def _fold(low: NDArray[np.float64], high: NDArray[np.float64], numbers: NDArray[np.float64]) -> None:
    for k in range(len(numbers)):
        low[k] = numbers[k] if numbers[k] < low[k] else low[k]
        high[k] = numbers[k] if numbers[k] > high[k] else high[k]


@compiled
def _spans(numbers: NDArray[np.float64], dimensions: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    # There may be fewer points than are compared side by side.
    low = np.empty(_FOLD)
    for k in range(_FOLD):
        low[k] = numbers[k % dimensions]
    high = low.copy()
    for start in range(0, len(numbers), _FOLD):
        _fold(low, high, numbers[start : start + _FOLD])
    for start in range(dimensions, _FOLD, dimensions):
        _fold(low[:dimensions], high[:dimensions], low[start : start + dimensions])
        _fold(low[:dimensions], high[:dimensions], high[start : start + dimensions])
    return low[:dimensions], high[:dimensions]


class _Scratch(threading.local):
    """Room for the moves of a thread: new pages from the system for each image would take as long as the moves."""

    numbers = np.empty(0)

    def room(self, rows: int, columns: int) -> NDArray[np.float64]:
        if self.numbers.size < rows * columns:
            self.numbers = np.empty(rows * columns)
        return self.numbers[: rows * columns].reshape(rows, columns)


_scratch = _Scratch()


def play(maps: NDArray[np.float64], probabilities: NDArray[np.float64], points: int, key: np.uint64) -> Orbit | None:
    """Play the chaos game.

    Args:
        maps: (maps, 6), rows a, b, c, d, e, f of x′ = a·x + b·y + e and y′ = c·x + d·y + f; or (maps, 12), rows
            a..l of x′ = a·x + b·y + c·z + j, y′ = d·x + e·y + f·z + k and z′ = g·x + h·y + i·z + l.
        probabilities: with which each map is drawn, (maps,).
        points: how many points, at least 1.
        key: of the random numbers.

    Returns:
        The points, in memory that the next call in the same thread writes over; None if they run off to infinity.
    """
    dimensions = 2 if maps.shape[1] == 6 else 3
    rows = max(-(-points // LANES), MOVES_BEFORE)
    moves = _scratch.room(rows, LANES * dimensions)
    if not _play(maps, choice_table(probabilities), np.uint64(key), moves):
        return None
    numbers = moves.reshape(-1)[: points * dimensions]
    low, high = _spans(numbers, dimensions)
    return Orbit(numbers.reshape(points, dimensions), low, high)


class Variation(NamedTuple):
    """One coefficient of all maps, multiplied by a factor."""

    column: int
    """Which coefficient."""
    factor: float


def vary(maps: NDArray[np.float64], variation: Variation) -> NDArray[np.float64]:
    """A copy of maps, (maps, coefficients), with one coefficient of each multiplied."""
    varied = maps.copy()
    varied[:, variation.column] *= variation.factor
    return varied


def play_varied(
    maps: NDArray[np.float64],
    probabilities: NDArray[np.float64],
    variation: Variation,
    points: int,
    key: np.uint64,
) -> Orbit | None:
    """Play the chaos game with varied maps.

    While the points run off to infinity the factor is moved half way towards 1, and at last the maps are left as they
    are: in the published programs such an image is almost empty. For the arguments and what it returns see `play`.
    """
    factor = variation.factor
    for _ in range(MOST_HALVINGS):
        orbit = play(vary(maps, variation._replace(factor=factor)), probabilities, points, key)
        if orbit is not None:
            return orbit
        factor = (factor + 1.0) / 2.0
    return play(maps, probabilities, points, key)


def check_probabilities(probabilities: NDArray[np.float64]) -> None:
    """Raise a ValueError unless probabilities, (maps,), are at least 0 and add up to 1 within 1e-3."""
    if (probabilities < 0).any():
        number = int(np.argmax(probabilities < 0))
        raise ValueError(f"The probability of map {number + 1} is {probabilities[number]}; it must be at least 0.")
    total = float(probabilities.sum())
    if abs(total - 1.0) > _PROBABILITY_TOLERANCE:
        raise ValueError(
            f"The probabilities of {len(probabilities)} maps must add up to 1, they add up to {total:.6g}."
        )
