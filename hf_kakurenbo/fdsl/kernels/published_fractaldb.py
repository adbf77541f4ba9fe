"""The pixels of the program that was published with FractalDB, bit for bit, from its parameter files.

Kataoka et al., "Pre-training without Natural Images", ACCV 2020; `ifs_function.py` of
https://github.com/hirokatsukataoka16/FractalDB-Pretrained-ResNet-PyTorch. The orbit begins at (0, 0), which is drawn;
its random numbers are those of NumPy's RandomState(100) in each image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .compiling import compiled
from .iterated_functions import check_probabilities

_COEFFICIENTS = 6
_SEED = 100


@compiled
def _orbit(
    maps: NDArray[np.float64], cumulative: NDArray[np.float64], numbers: NDArray[np.float64]
) -> NDArray[np.float64]:
    orbit = np.zeros((2, len(numbers)))
    x, y = 0.0, 0.0
    for k in range(len(numbers) - 1):
        for j in range(len(maps)):
            if numbers[k] <= cumulative[j]:
                # In this order of operations: another rounds differently.
                x, y = x * maps[j, 0] + y * maps[j, 1] + maps[j, 4], x * maps[j, 2] + y * maps[j, 3] + maps[j, 5]
                break
        orbit[0, k + 1], orbit[1, k + 1] = x, y
    return orbit


def reference_mask(params: ArrayLike, weights: ArrayLike, points: int, size: int, pad: int) -> NDArray[np.uint8]:
    """Draw a category of FractalDB as the published program does, in single pixels and without a flip.

    Args:
        params: a row of a, b, c, d, e, f and probability for each map, (maps, 7), as in the published CSV files.
        weights: by what a..f are multiplied, (6,): a row of the published tables of weights.
        points: how many points are drawn, at least 2.
        size: height and width in pixels.
        pad: the margin in pixels, at least 1 and less than half the size.

    Returns:
        uint8, (size, size): 1 where a point falls, else 0.

    Raises:
        ValueError: an argument is out of range, or the points run off to infinity or all fall on a line along an axis,
            so that there is no image.
        TypeError: points, size or pad is not an integer.
    """
    table, factors = _check(params, weights)
    _check_integer("points", points, 2)
    _check_integer("size", size, 3)
    _check_integer("pad", pad, 1)
    if 2 * pad >= size:
        raise ValueError(f"pad must be less than half of size = {size}, got {pad}.")
    numbers = np.random.RandomState(_SEED).random_sample(points)
    maps = table[:, :_COEFFICIENTS] * factors
    # Added up one by one, as np.cumsum does.
    orbit = _orbit(maps, np.cumsum(table[:, _COEFFICIENTS]), numbers)
    if not np.isfinite(orbit).all():
        number = int(np.argmin(np.isfinite(orbit).all(axis=0)))
        raise ValueError(
            f"The points run off to infinity: point {number} of {points} is not finite. Use smaller weights."
        )
    mask = np.zeros((size, size), dtype=np.uint8)
    columns, rows = (_to_pixels(coordinates, size, pad) for coordinates in orbit)
    mask[rows, columns] = 1
    return np.ascontiguousarray(mask[::-1])


def _to_pixels(coordinates: NDArray[np.float64], size: int, pad: int) -> NDArray[np.uint16]:
    lowest, highest = coordinates.min(), coordinates.max()
    if highest == lowest:
        raise ValueError("All points have one coordinate in common: there is no image. Use other params or weights.")
    # Never above 0, since the orbit begins there.
    coordinates = coordinates - lowest
    extent = coordinates.max() - coordinates.min()
    return (coordinates / extent * float(size - 2 * pad) + float(pad)).astype(np.uint16)


def _check(params: ArrayLike, weights: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    table, factors = np.asarray(params, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != _COEFFICIENTS + 1 or not len(table):
        raise ValueError(
            f"params must have shape (maps, {_COEFFICIENTS + 1}), the columns a, b, c, d, e, f and probability, got "
            f"{table.shape}."
        )
    if factors.shape != (_COEFFICIENTS,):
        raise ValueError(f"weights must have shape ({_COEFFICIENTS},), one for each of a..f, got {factors.shape}.")
    for name, array in (("params", table), ("weights", factors)):
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}.")
    check_probabilities(table[:, _COEFFICIENTS])
    return table, factors


def _check_integer(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")
