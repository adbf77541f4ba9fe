"""Contours around a centre, each moved away from the last by noise: what RCDB and VisualAtom have in common.

The formula is that of the programs published with the two papers (`make_rcdb.py` and `render_VisualAtom.py`, see
`rcdb.py` and `visualatom.py`). The vertices of a polygon lie on an ellipse. Before each line every vertex moves along
its own angle, by a bracket that holds Perlin noise; the polygon is then drawn in one gray, over what is there. The
ellipse itself is not drawn. The position in the noise is drawn anew for every vertex, line and axis.
"""

from __future__ import annotations

from math import factorial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled
from .drawing import Drawing, Image
from .random_numbers import random_bits

REFERENCE_SIZE = 512
"""The image size, in pixels, in which lengths are given; other sizes show the same drawing, scaled."""

# What is drawn from an instance's key after the numbers 0..15, which are the families' own.
NOISE_COUNTER, INK_COUNTER = 16, 17

# So far from the image a vertex is cut off: beyond that the slope of a line is no longer exact in 40 bits.
FARTHEST = 2.0**18
SLOPE_BITS = 40
_SLOPE_ONE = 2.0**SLOPE_BITS
_SLOPE_HALF = 1 << (SLOPE_BITS - 1)

_TWO_PI = 6.283185307179586
_SINE = tuple((-1) ** k / factorial(2 * k + 1) for k in range(8))
_COSINE = tuple((-1) ** k / factorial(2 * k) for k in range(9))


@compiled
def sine_and_cosine(numerator: int, denominator: int) -> tuple[float, float]:
    """The sine and the cosine of numerator / denominator turns, within 3e-16, the same bits on every machine.

    The angle is reduced to an eighth of a turn in integers, so it is exact before the Taylor series (to x¹⁵ and x¹⁶).

    Args:
        numerator: any integer of at most 2**59.
        denominator: in 1..2**59.
    """
    eighths = 8 * (numerator % denominator)
    octant = eighths // denominator
    rest = eighths - octant * denominator
    if octant & 1:
        rest = denominator - rest
    angle = _TWO_PI * (rest / (8.0 * denominator))
    square = angle * angle
    sine, cosine = _SINE[7], _COSINE[8]
    for k in range(6, -1, -1):
        sine = sine * square + _SINE[k]
    for k in range(7, -1, -1):
        cosine = cosine * square + _COSINE[k]
    sine *= angle
    if octant in (1, 2, 5, 6):
        sine, cosine = cosine, sine
    return (-sine if octant >= 4 else sine), (-cosine if 2 <= octant < 6 else cosine)


@compiled
def turn(count: int, frequency: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sines and cosines of frequency · k / count turns for k in 0..count − 1: two arrays (count,) float64."""
    sines, cosines = np.empty(count), np.empty(count)
    for k in range(count):
        sines[k], cosines[k] = sine_and_cosine(frequency * k, count)
    return sines, cosines


# Perlin's permutation of 0..255 (Ken Perlin, "Improving noise", SIGGRAPH 2002), two hexadecimal digits a number.
_PERMUTATION = bytes.fromhex(
    "97a0895b5a0f830dc95f6035c2e907e18c24671e458e086325f0150a17be0694f778ea4b001ac53e5efcdbcb75230b2039b12158"
    "ed953857ae147d88aba844af4aa547868b301ba64d929ee7536fe57a3cd385e6dc695c29372ef528f4668f3641193fa101d85049"
    "d14c84bbd05912a9c8c4878274bc9f56a4646dc6adba034034d9e2fa7c7b05ca2693767eff5255d4cfce3be32f103a11b6bd1c2a"
    "dfb7aad577f898022c9aa346dd99659ba72bac09811627fd13626c6e4f71e0e8b2b97068daf661e4fb22f2c1eed2900cbfb3a2f1"
    "513391ebf90eef6b31c0d61fb5c76a9db854ccb07379322d7f0496fe8aeccd5dde72431d1848f38d80c34e42d73d9cb4"
)
# The slope of the noise at each whole number, as in `pnoise1` of the Python package "noise" (1.2.2), which both
# programs use with its defaults (one octave): −1 for half of them, 1..8 for the others; a period of 256 cells, of
# which the program's positions cover the first 10,000.
NOISE_SLOPES = np.array([-1.0 if h & 8 else (h & 7) + 1.0 for h in _PERMUTATION + _PERMUTATION[:1]])
NOISE_CELLS = 10_000
NOISE_HEIGHT = 0.4
_32, _LOW_32 = np.uint64(32), np.uint64(0xFFFFFFFF)
_CELLS_U64, _PERIOD_MASK = np.uint64(NOISE_CELLS), np.uint64(255)
_TWO_TO_MINUS_32 = 2.0**-32


@compiled
def perlin_noise(bits: np.uint64) -> float:
    """Perlin's noise in one dimension at a position drawn from 0..10,000 by 32 random bits; in about ±1.6.

    Args:
        bits: below 2**32; the position is bits · 10,000 / 2**32.
    """
    position = bits * _CELLS_U64
    cell = (position >> _32) & _PERIOD_MASK
    here = np.float64(np.int64(position & _LOW_32)) * _TWO_TO_MINUS_32
    fade = here * here * here * (here * (here * 6.0 - 15.0) + 10.0)
    left = NOISE_SLOPES[cell] * here
    right = NOISE_SLOPES[cell + np.uint64(1)] * (here - 1.0)
    return (left + fade * (right - left)) * NOISE_HEIGHT


@compiled
def _draw_clipped(
    flat: NDArray[np.generic], size: int, x: int, y: int, width: int, height: int, slope: int, ink: int
) -> None:
    x_step, y_step = (1 if width > 0 else -1), (1 if height > 0 else -1)
    steep = abs(height) > abs(width)
    major, major_step, major_place = (y, y_step, size) if steep else (x, x_step, 1)
    minor, minor_step, minor_place = (x, x_step, 1) if steep else (y, y_step, size)
    count = max(abs(width), abs(height), 1)
    first = max(0, -major if major_step > 0 else major - size + 1)
    last = min(count, size - major if major_step > 0 else major + 1)
    for step in range(first, last):
        across = minor + minor_step * ((slope * step + _SLOPE_HALF) >> SLOPE_BITS)
        if 0 <= across < size:
            flat[np.uint64((major + major_step * step) * major_place + across * minor_place)] = ink


@compiled
def draw_polygon(flat: NDArray[np.generic], size: int, x: NDArray[np.int64], y: NDArray[np.int64], ink: int) -> None:
    """Draw the outline of a polygon, one pixel wide: the pixels of `PIL.ImageDraw.line` from corner to corner, exactly.

    PIL steps along the longer axis and rounds the other coordinate, halves in the direction of the line. Here its
    remainder is a fixed-point number, so no step waits for a comparison in the one before.

    Args:
        flat: the image, (size · size,), contiguous.
        size: its height and width.
        x: the columns of the corners, (corners,) in ±2**18; may be outside the image.
        y: their rows.
        ink: what is written.
    """
    previous = len(x) - 1
    for corner in range(len(x)):
        x0, y0, x1, y1 = x[previous], y[previous], x[corner], y[corner]
        previous = corner
        left, right, top, bottom = min(x0, x1), max(x0, x1), min(y0, y1), max(y0, y1)
        if right < 0 or bottom < 0 or left >= size or top >= size:
            continue
        width, height = right - left, bottom - top
        # A line that ends where it begins is a point.
        count = max(width, height, 1)
        # Rounded up by at most 1.1 · 2^-40, which over 2^19 steps stays below the distance between two remainders.
        slope = int(min(width, height) * _SLOPE_ONE / count) + 1
        if left < 0 or top < 0 or right >= size or bottom >= size:
            _draw_clipped(flat, size, x0, y0, x1 - x0, y1 - y0, slope, ink)
            continue
        x_step, y_step = (1 if x1 > x0 else -1), (size if y1 > y0 else -size)
        along, across = (y_step, x_step) if height > width else (x_step, y_step)
        place, remainder = y0 * size + x0, _SLOPE_HALF
        for _ in range(count):
            flat[np.uint64(place + across * (remainder >> SLOPE_BITS))] = ink
            place += along
            remainder += slope


# Each a loop of its own over the vertices: these the compiler turns into vector instructions, one loop for all it
# does not.
@compiled
def _fill_bits(bits: NDArray[np.uint64], key: np.uint64, start: int) -> None:
    for k in range(len(bits)):
        bits[k] = random_bits(key, start + k)


@compiled
def _fill_noise(noise: NDArray[np.float64], bits: NDArray[np.uint64], shift: np.uint64) -> None:
    for k in range(len(noise)):
        noise[k] = perlin_noise((bits[k] >> shift) & _LOW_32)


@compiled
def _move(
    positions: NDArray[np.float64],
    directions: NDArray[np.float64],
    outward: NDArray[np.float64],
    noise_gain: float,
    noise: NDArray[np.float64],
) -> None:
    for k in range(len(positions)):
        positions[k] += directions[k] * (outward[k] - noise_gain * noise[k])


@compiled
def _to_pixels(pixels: NDArray[np.int64], positions: NDArray[np.float64], scale: float) -> None:
    for k in range(len(pixels)):
        # Truncated towards 0, as PIL does.
        pixels[k] = np.int64(min(max(positions[k] * scale, -FARTHEST), FARTHEST))


@compiled
def _draw_contours(
    flat: NDArray[np.generic],
    size: int,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    noise_gain: float,
    outward: NDArray[np.float64],
    inks: NDArray[np.generic],
    key: np.uint64,
) -> None:
    scale = size / REFERENCE_SIZE
    vertices = len(outward)
    sines, cosines = turn(vertices, 1)
    bits, noise = np.empty(vertices, dtype=np.uint64), np.empty(vertices)
    columns, rows = np.empty(vertices, dtype=np.int64), np.empty(vertices, dtype=np.int64)
    for line in range(len(inks)):
        _fill_bits(bits, key, line * vertices)
        _fill_noise(noise, bits, _32)
        _move(x, cosines, outward, noise_gain, noise)
        _fill_noise(noise, bits, np.uint64(0))
        _move(y, sines, outward, noise_gain, noise)
        _to_pixels(columns, x, scale)
        _to_pixels(rows, y, scale)
        draw_polygon(flat, size, columns, rows, inks[line])


class Contours(NamedTuple):
    """One drawing. Lengths are in pixels of an image of 512 × 512."""

    vertices: int
    """Corners of each polygon, ≥ 3."""
    lines: int
    """How many polygons are drawn, ≥ 1."""
    radius_x: float
    radius_y: float
    """Half the axes of the ellipse that the first polygon leaves from."""
    center_x: float
    center_y: float
    """Its centre; may be outside the image."""
    noise_gain: float
    """By how much noise of 1 moves a vertex inwards, per line."""
    outward: float
    """By how much every vertex moves outwards, per line."""
    frequencies: tuple[int, ...] = ()
    """Of the waves along the contour, each adding half the sine of frequency · angle to `outward`."""


def first_polygon(instance: Contours) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The columns and the rows, each (vertices,), from which the first line moves away."""
    sines, cosines = turn(instance.vertices, 1)
    return instance.center_x + instance.radius_x * cosines, instance.center_y + instance.radius_y * sines


def outward_moves(instance: Contours) -> NDArray[np.float64]:
    """By how much each line moves each vertex outwards, noise apart: (vertices,)."""
    outward = np.full(instance.vertices, instance.outward)
    for frequency in instance.frequencies:
        outward += 0.5 * turn(instance.vertices, frequency)[0]
    return outward


@compiled
def line_shades(lines: int, key: np.uint64) -> NDArray[np.uint8]:
    """The ink of each line, four channels at random of which gray uses the first and colour three: (lines, 4)."""
    shades = np.empty((lines, 4), dtype=np.uint8)
    for line in range(lines):
        bits = random_bits(key, line)
        for channel in range(4):
            shades[line, channel] = np.uint8((bits >> np.uint64(8 * channel)) & np.uint64(255))
    return shades


def draw_over(canvas: NDArray[np.generic], instance: Contours, inks: NDArray[np.generic], key: np.uint64) -> None:
    """Draw contours over what is there.

    Args:
        canvas: (size, size), contiguous; it is drawn on.
        instance: the drawing.
        inks: what each line writes, (lines,), contiguous, of the canvas's dtype.
        key: the instance's key, of which the noise is drawn.
    """
    (x, y), outward = first_polygon(instance), outward_moves(instance)
    noise_key = np.uint64(random_bits(key, NOISE_COUNTER))
    _draw_contours(canvas.reshape(-1), len(canvas), x, y, instance.noise_gain, outward, inks, noise_key)


def draw_contours(instance: Contours, drawing: Drawing, background: int, key: np.uint64) -> Image:
    """Draw contours: each line in a gray, or a colour, at random, over those before it.

    Args:
        instance: the drawing.
        drawing: the geometry scales with `image_size`, the lines stay one pixel wide. In colour the lines are in the
            same places as in gray.
        background: the gray under the lines, in 0..255.
        key: the instance's key.

    Returns:
        uint8, (size, size) or, in colour, (size, size, 3).
    """
    shades = line_shades(instance.lines, np.uint64(random_bits(key, INK_COUNTER)))
    inks = shades.view(np.uint32)[:, 0] if drawing.color else shades[:, 0]
    size = drawing.image_size
    canvas = np.full((size, size), background * (0x01010101 if drawing.color else 1), dtype=inks.dtype)
    draw_over(canvas, instance, np.ascontiguousarray(inks), key)
    if not drawing.color:
        return canvas
    return np.ascontiguousarray(canvas.view(np.uint8).reshape(size, size, 4)[..., :3])
