"""Draws fdsl_segrcdb.png beside itself: `python docs/images/fdsl_segrcdb.py`.

The first images of `segrcdb-118k` above their masks, in which each category has a colour of its own.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hf_kakurenbo.fdsl import load_fdsl_segmentation
from hf_kakurenbo.fdsl.export.gallery import make_gallery

HERE = Path(__file__).parent
IMAGES, SIZE = 3, 216
# So far apart are the hues of neighbouring categories, in degrees: the golden angle, which repeats none.
_HUE_STEP = 137.5


def palette() -> np.ndarray:
    """The colour of each value of a mask, uint8, (256, 3); the background is black."""
    hues = np.arange(256) * _HUE_STEP % 360 / 360 * 255
    hsv = np.stack([hues, np.full(256, 150), np.full(256, 235)], axis=-1).astype(np.uint8)
    colors = np.asarray(Image.fromarray(hsv[None], "HSV").convert("RGB"))[0].copy()
    colors[0] = 0
    return colors


def draw() -> Image.Image:
    """Images above masks."""
    data, colors = load_fdsl_segmentation("segrcdb-118k", image_size=SIZE), palette()
    rows = [data[index] for index in range(IMAGES)]
    masks = [Image.fromarray(colors[np.asarray(row["mask"])]) for row in rows]
    return make_gallery([[row["image"] for row in rows], masks])


if __name__ == "__main__":
    draw().save(HERE / "fdsl_segrcdb.png", optimize=True)
