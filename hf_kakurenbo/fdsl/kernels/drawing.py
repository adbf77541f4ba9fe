"""How an image is to be drawn, and what an image is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""(size, size) when gray, (size, size, 3) in colour."""

LARGEST_IMAGE_SIZE = 2**15 - 2
"""How many pixels a side an image has at most: with a margin of one, 4 GiB of numbers of points."""

MOST_POINTS = 2**31 - 1
"""How many points are drawn at most: their numbers are int32."""


@dataclass(frozen=True)
class Drawing:
    """How an image is to be drawn.

    Args:
        image_size: height and width in pixels, at least 1.
        color: True draws in colours, False in gray.
        points: how many points are drawn, where the family draws points; None for the family's own number.
        patches: where the family draws points as 3×3 patches, False draws single pixels.
    """

    image_size: int
    color: bool = False
    points: int | None = None
    patches: bool = True
