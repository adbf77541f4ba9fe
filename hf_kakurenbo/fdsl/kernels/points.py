"""Drawing points: as single pixels or as 3×3 patches, in gray or in colours.

While points are drawn the canvas holds, for each pixel, the number of the last point that fell on it. What is seen is
worked out from that once they are all there, for each pixel and not for each point.
"""

from __future__ import annotations

import colorsys
import threading

import numpy as np
from numba import njit
from numpy.typing import NDArray

from .drawing import LARGEST_IMAGE_SIZE, Drawing, Image
from .random_numbers import random_bits

PATTERNS = 512
"""How many patterns a patch has: of the 9 bits the highest is the upper left pixel, then row by row."""

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


@njit(cache=True, nogil=True)
def _patch_row(
    above: NDArray[np.int32],
    row: NDArray[np.int32],
    below: NDArray[np.int32],
    lit: NDArray[np.int32],
    seen: NDArray[np.int32],
) -> None:
    l0, l1, l2, l3, l4, l5, l6, l7, l8 = lit[0], lit[1], lit[2], lit[3], lit[4], lit[5], lit[6], lit[7], lit[8]
    for k in range(len(seen)):
        n0, n1, n2 = above[k], above[k + 1], above[k + 2]
        n3, n4, n5 = row[k], row[k + 1], row[k + 2]
        n6, n7, n8 = below[k], below[k + 1], below[k + 2]
        last = max(max(max(max(n0, n1), max(n2, n3)), max(max(n4, n5), max(n6, n7))), n8)
        last_lit = max(max(max(n0 & l0, n1 & l1), max(n2 & l2, n3 & l3)), max(max(n4 & l4, n5 & l5), n8 & l8))
        last_lit = max(last_lit, max(n6 & l6, n7 & l7))
        # A patch covers what is below it also where it is dark.
        seen[k] = last if last == last_lit else 0


@njit(cache=True, nogil=True)
def _gray_row(seen: NDArray[np.int32], gray: np.uint8, image: NDArray[np.uint8]) -> None:
    for k in range(len(image)):
        image[k] = gray if seen[k] > 0 else np.uint8(0)


@njit(cache=True, nogil=True)
def _color_row(seen: NDArray[np.int32], palette: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
    for k in range(len(image)):
        hue = np.uint32(seen[k]) & np.uint32(HUES - 1)
        # Not a branch: what is lit and what not follows no pattern that the processor could foresee.
        lit = np.uint8(255) if seen[k] > 0 else np.uint8(0)
        image[k, 0], image[k, 1], image[k, 2] = palette[hue, 0] & lit, palette[hue, 1] & lit, palette[hue, 2] & lit


@njit(cache=True, nogil=True)
def _see_row(
    canvas: NDArray[np.int32], number: int, lit: NDArray[np.int32], patches: bool, seen: NDArray[np.int32]
) -> NDArray[np.int32]:
    if not patches:
        return canvas[number + 1, 1:-1]
    _patch_row(canvas[number], canvas[number + 1], canvas[number + 2], lit, seen)
    return seen


@njit(cache=True, nogil=True)
def _to_gray(
    canvas: NDArray[np.int32], lit: NDArray[np.int32], patches: bool, gray: np.uint8, image: NDArray[np.uint8]
) -> None:
    seen = np.empty(image.shape[1], dtype=np.int32)
    for number in range(len(image)):
        _gray_row(_see_row(canvas, number, lit, patches, seen), gray, image[number])


@njit(cache=True, nogil=True)
def _to_color(
    canvas: NDArray[np.int32],
    lit: NDArray[np.int32],
    patches: bool,
    palette: NDArray[np.uint8],
    image: NDArray[np.uint8],
) -> None:
    seen = np.empty(image.shape[1], dtype=np.int32)
    for number in range(len(image)):
        _color_row(_see_row(canvas, number, lit, patches, seen), palette, image[number])


def develop(canvas: NDArray[np.int32], drawing: Drawing, gray: int, pattern: int | None = None) -> Image:
    """The image of the points on a canvas, on black.

    Args:
        canvas: for each pixel the number, from 1, of the last point on it, or 0; int32, (size + 2, size + 2).
        drawing: its size and colour.
        gray: how bright points are when gray, in 1..255. In colour point n has hue n / 128 of the circle.
        pattern: draws a 3×3 patch around each point over those of the points before it: of its pixels those in the
            pattern are lit, the others black. In 1..511, see `PATTERNS`. None draws single pixels.

    Returns:
        uint8, (size, size) or, in colour, (size, size, 3).
    """
    patches = pattern is not None
    # The point that lights a pixel with the lower right of its patch lies to the upper left of it.
    lit = -np.array([(pattern or 0) >> place & 1 for place in range(9)], dtype=np.int32)
    size = drawing.image_size
    if drawing.color:
        image = np.empty((size, size, 3), dtype=np.uint8)
        _to_color(canvas, lit, patches, PALETTE, image)
        return image
    image = np.empty((size, size), dtype=np.uint8)
    _to_gray(canvas, lit, patches, np.uint8(gray), image)
    return image


@njit(cache=True, nogil=True)
def _last_row(
    above: NDArray[np.int32], row: NDArray[np.int32], below: NDArray[np.int32], last: NDArray[np.int32]
) -> None:
    for k in range(len(last)):
        upper = max(max(above[k], above[k + 1]), above[k + 2])
        lower = max(max(below[k], below[k + 1]), below[k + 2])
        last[k] = max(max(upper, lower), max(max(row[k], row[k + 1]), row[k + 2]))


@njit(cache=True, nogil=True)
def _cover(canvas: NDArray[np.int32], key: np.uint64, bits: NDArray[np.int64], covered: NDArray[np.int32]) -> None:
    last = np.empty(len(canvas) - 2, dtype=np.int32)
    for row in range(1, len(canvas) - 1):
        _last_row(canvas[row - 1], canvas[row], canvas[row + 1], last)
        for k in range(len(last)):
            if last[k] == 0:
                continue
            place = 0
            while canvas[row - 1 + place // 3, k + place % 3] != last[k]:
                place += 1
            lit = (random_bits(key, last[k]) >> np.uint64(bits[place])) & np.uint64(1)
            # A patch covers what is below it also where it is dark.
            covered[row, k + 1] = last[k] if lit else 0


def cover_with_patches(canvas: NDArray[np.int32], key: np.uint64, columns: bool, rows: bool) -> NDArray[np.int32]:
    """Draw around each point a 3×3 patch with a random pattern of its own, over those of the points before it.

    Args:
        canvas: for each pixel the number, from 1, of the last point on it, or 0; int32, (size + 2, size + 2).
        key: point n has the pattern of the 9 lowest bits of random number n of it.
        columns: the patterns have their columns in the opposite order.
        rows: and their rows.

    Returns:
        The same for what is seen of the patches: a canvas for `develop` without a pattern.
    """
    covered = np.zeros_like(canvas)
    _cover(canvas, key, np.array(pattern_bits(columns, rows)), covered)
    return covered


def pattern_bits(columns: bool, rows: bool) -> list[int]:
    """Which bit of a pattern lights a pixel, by the place around it of the point: row by row from the upper left."""
    return [
        (place // 3 if not rows else 2 - place // 3) * 3 + (place % 3 if not columns else 2 - place % 3)
        for place in range(9)
    ]


def mirrored(pattern: int, columns: bool, rows: bool) -> int:
    """A pattern with its columns, its rows or both in the opposite order."""
    return sum((pattern >> bit & 1) << place for place, bit in enumerate(pattern_bits(columns, rows)))


def _make_palette() -> NDArray[np.uint8]:
    colors = [colorsys.hsv_to_rgb(hue / HUES, _SATURATION, _VALUE) for hue in range(HUES)]
    # The published program means blue, green, red and writes them as red, green, blue.
    palette = np.array([[int(channel * 255) for channel in color[::-1]] for color in colors], dtype=np.uint8)
    palette.flags.writeable = False
    return palette


PALETTE = _make_palette()
