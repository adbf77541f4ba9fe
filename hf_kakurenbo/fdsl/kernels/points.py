"""Drawing points: as single pixels or as 3×3 patches, in gray or in colours.

While points are drawn the canvas holds, for each pixel, the number of the last point that fell on it. What is seen is
worked out from that once they are all there, for each pixel and not for each point.
"""

from __future__ import annotations

import colorsys
import threading

import numpy as np
from numpy.typing import NDArray

from .compiling import compiled
from .drawing import LARGEST_IMAGE_SIZE, Drawing, Image
from .random_numbers import random_bits

PATTERNS = 512
"""How many patterns a patch has: of the 9 bits the highest is the upper left pixel, then row by row."""

_PATTERN_BITS, _PATTERN_MASK = 9, np.uint64(PATTERNS - 1)
# The numbers of so many points and their patterns fit into an int32.
_FEW_POINTS = 2 ** (31 - _PATTERN_BITS)

# Between numbers of points, the hue goes round once in so many: as in the published program for FractalDB.
HUES = 128
_SATURATION, _VALUE = 0.75, 0.75


class _Scratch(threading.local):
    """A canvas that a thread uses again: new pages from the system for each image take longer than zeroing them."""

    numbers = np.empty(0, dtype=np.int32)

    def room(self, size: int) -> NDArray[np.int32]:
        if self.numbers.size < size * size:
            self.numbers = np.empty(size * size, dtype=np.int32)
        return self.numbers[: size * size].reshape(size, size)


_scratch = _Scratch()


def blank_canvas(image_size: int) -> NDArray[np.int32]:
    """A canvas on which no point has fallen: zeros, int32, (image_size + 2, image_size + 2).

    It is a pixel larger than the image on each side, so that patches need not be cut. The next call in the same
    thread gives the same memory.

    Raises:
        ValueError: the image is too large.
    """
    if image_size > LARGEST_IMAGE_SIZE:
        raise ValueError(f"Points are drawn in images of at most {LARGEST_IMAGE_SIZE} pixels a side, got {image_size}.")
    canvas = _scratch.room(image_size + 2)
    canvas.fill(0)
    return canvas


@compiled
def _gray_row(seen: NDArray[np.int32], gray: np.uint8, image: NDArray[np.uint8]) -> None:
    for k in range(len(image)):
        image[k] = gray if seen[k] > 0 else np.uint8(0)


@compiled
def _color_row(seen: NDArray[np.int32], palette: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
    for k in range(len(image)):
        hue = np.uint32(seen[k]) & np.uint32(HUES - 1)
        # Not a branch: what is lit and what not follows no pattern that the processor could foresee.
        lit = np.uint8(255) if seen[k] > 0 else np.uint8(0)
        image[k, 0], image[k, 1], image[k, 2] = palette[hue, 0] & lit, palette[hue, 1] & lit, palette[hue, 2] & lit


@compiled
def _to_gray(canvas: NDArray[np.int32], gray: np.uint8, image: NDArray[np.uint8]) -> None:
    for number in range(len(image)):
        _gray_row(canvas[number + 1, 1:-1], gray, image[number])


@compiled
def _to_color(canvas: NDArray[np.int32], palette: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
    for number in range(len(image)):
        _color_row(canvas[number + 1, 1:-1], palette, image[number])


def develop(canvas: NDArray[np.int32], drawing: Drawing, gray: int) -> Image:
    """The image of the points on a canvas, or of what is seen of their patches, on black.

    Args:
        canvas: for each pixel the number, from 1, of the point that is seen there, or 0; int32, (size + 2, size + 2).
        drawing: its size and colour.
        gray: how bright points are when gray, in 1..255. In colour point n has hue n / 128 of the circle.

    Returns:
        uint8, (size, size) or, in colour, (size, size, 3).
    """
    size = drawing.image_size
    if drawing.color:
        image = np.empty((size, size, 3), dtype=np.uint8)
        _to_color(canvas, PALETTE, image)
        return image
    image = np.empty((size, size), dtype=np.uint8)
    _to_gray(canvas, np.uint8(gray), image)
    return image


# A point's number with its pattern below it: the larger of two is that of the later point.
@compiled
def _code_row(numbers: NDArray[np.int32], key: np.uint64, codes: NDArray[np.integer]) -> None:
    for k in range(len(codes)):
        number = np.int64(numbers[k])
        pattern = np.int64(random_bits(key, number) & _PATTERN_MASK)
        # Not a branch: the compiler makes vector instructions of the loop.
        codes[k] = ((number << _PATTERN_BITS) | pattern) * np.int64(number > 0)


# Of the codes around a pixel each keeps, of its pattern, the bit that would light it: the largest tells if it is lit.
@compiled
def _cover_row(
    above: NDArray[np.integer],
    row: NDArray[np.integer],
    below: NDArray[np.integer],
    kept: NDArray[np.integer],
    seen: NDArray[np.int32],
) -> None:
    k0, k1, k2, k3, k4, k5, k6, k7, k8 = kept[0], kept[1], kept[2], kept[3], kept[4], kept[5], kept[6], kept[7], kept[8]
    for k in range(len(seen)):
        upper = max(max(above[k] & k0, above[k + 1] & k1), above[k + 2] & k2)
        middle = max(max(row[k] & k3, row[k + 1] & k4), row[k + 2] & k5)
        lower = max(max(below[k] & k6, below[k + 1] & k7), below[k + 2] & k8)
        last = max(max(upper, middle), lower)
        # A patch covers what is below it also where it is dark.
        seen[k] = last >> _PATTERN_BITS if last & (PATTERNS - 1) else 0


@compiled
def _cover(canvas: NDArray[np.int32], key: np.uint64, kept: NDArray[np.integer], codes: NDArray[np.integer]) -> None:
    _code_row(canvas[0], key, codes[0])
    _code_row(canvas[1], key, codes[1])
    for row in range(1, len(canvas) - 1):
        _code_row(canvas[row + 1], key, codes[(row + 1) % 3])
        # What stood there is in the codes already.
        _cover_row(codes[(row - 1) % 3], codes[row % 3], codes[(row + 1) % 3], kept, canvas[row, 1:-1])


def cover_with_patches(
    canvas: NDArray[np.int32], points: int, key: np.uint64, columns: bool, rows: bool
) -> NDArray[np.int32]:
    """Draw around each point a 3×3 patch with a random pattern of its own, over those of the points before it.

    Args:
        canvas: for each pixel the number, from 1, of the last point on it, or 0; int32, (size + 2, size + 2). It is
            written over.
        points: how many there are: the largest number on the canvas is no larger.
        key: point n has the pattern of the 9 lowest bits of random number n of it.
        columns: the patterns have their columns in the opposite order.
        rows: and their rows.

    Returns:
        The canvas, which now has, for each pixel, the number of the point whose patch lights it, or 0.
    """
    kind: type[np.signedinteger] = np.int32 if points < _FEW_POINTS else np.int64
    codes = np.zeros((3, len(canvas)), dtype=kind)
    kept = np.array([-PATTERNS | 1 << bit for bit in pattern_bits(columns, rows)], dtype=kind)
    _cover(canvas, key, kept, codes)
    return canvas


def pattern_bits(columns: bool, rows: bool) -> list[int]:
    """Which bit of a pattern lights a pixel, by the place around it of the point: row by row from the upper left."""
    return [
        (place // 3 if not rows else 2 - place // 3) * 3 + (place % 3 if not columns else 2 - place % 3)
        for place in range(9)
    ]


def _make_palette() -> NDArray[np.uint8]:
    colors = [colorsys.hsv_to_rgb(hue / HUES, _SATURATION, _VALUE) for hue in range(HUES)]
    # The published program means blue, green, red and writes them as red, green, blue.
    palette = np.array([[int(channel * 255) for channel in color[::-1]] for color in colors], dtype=np.uint8)
    palette.flags.writeable = False
    return palette


PALETTE = _make_palette()
