"""Several contours in one image, and which of them is where: an image with its mask."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .contours import INK_COUNTER, Contours, draw_over, line_shades
from .drawing import Image
from .random_numbers import random_bits


class Labelled(NamedTuple):
    """Contours of a class."""

    contours: Contours
    label: int
    """What the mask holds where they are, in 1..255."""
    key: np.uint64
    """Of which their noise and the grays of their lines are drawn."""


def draw_labelled(shapes: Iterable[Labelled], size: int, color: bool = False) -> tuple[Image, NDArray[np.uint8]]:
    """Draw contours over each other, in their order, on black, and the class of each pixel beside them.

    Args:
        shapes: the contours.
        size: height and width in pixels; the geometry scales with it, the lines stay one pixel wide.
        color: draw each line in a colour instead of a gray, in the same places.

    Returns:
        The image, uint8, (size, size) or, in colour, (size, size, 3). The mask, uint8, (size, size), 0 without a line.
    """
    # One canvas for both, so that they cannot differ: a pixel has three bytes of ink and one of class.
    canvas = np.zeros((size, size), dtype=np.uint32)
    for shape in shapes:
        inks = line_shades(shape.contours.lines, np.uint64(random_bits(shape.key, INK_COUNTER)))
        inks[:, 3] = shape.label
        draw_over(canvas, shape.contours, inks.view(np.uint32)[:, 0], shape.key)
    pixels = canvas.view(np.uint8).reshape(size, size, 4)
    image = pixels[..., :3] if color else pixels[..., 0]
    return np.ascontiguousarray(image), np.ascontiguousarray(pixels[..., 3])
