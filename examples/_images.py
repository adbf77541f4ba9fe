"""Reading images whatever their mode: pictures as 8-bit RGB, masks as the numbers that they hold.

Pillow's `convert("RGB")` cuts gray values at 255, so that a picture of 16 or 32 bits, as microscopes, scanners and
cameras of depth make them, comes out white.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

# What may be meant by white where the mode does not say: of whole numbers of 32 bits, and of floats.
_WHITE = {"I": (255, 65535), "F": (1, 255, 65535)}


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture as 8-bit RGB, upright as its EXIF data say, transparency left out.

    Gray values of more than 8 bits are scaled to 0..255:

    - 16 bits (`I;16`, `I;16B`): 65535 is white, so they are divided by 257.
    - 32 bits (`I`) and floats (`F`) have no white of their own. It is the first of 1 (floats alone), 255 and 65535 that
      no value exceeds. Where one does, or where one is negative, the least value becomes black and the greatest white.

    Args:
        image: of any mode that Pillow converts to RGB.
    """
    image = ImageOps.exif_transpose(image)
    return (_scaled_to_8_bits(image) if image.mode.startswith(("I", "F")) else image).convert("RGB")


def _scaled_to_8_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    black, white = _range_of(values[np.isfinite(values)], image.mode)
    scaled = (values - black) / (white - black or 1)
    return Image.fromarray(np.round(255 * np.nan_to_num(scaled, nan=0, posinf=1, neginf=0)).astype(np.uint8))


def _range_of(values: NDArray[np.float64], mode: str) -> tuple[float, float]:
    """What is black and what is white in a picture of such gray values."""
    least, greatest = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    fitting = [white for white in _WHITE.get(mode, (65535,)) if greatest <= white]
    return (0, fitting[0]) if least >= 0 and fitting else (least, greatest)


def class_numbers(mask: Image.Image, size: int | None = None) -> NDArray[np.int64]:
    """The class of each pixel, (H, W), as the mask holds it: of a palette its indices, never its colours.

    Args:
        mask: of one channel, or of several that are alike; transparency beside it is left out.
        size: to which it is brought, without mixing classes; None for its own.

    Raises:
        ValueError: it is coloured, or holds fractions.
    """
    mask = ImageOps.exif_transpose(mask)
    resized = mask if size is None else mask.resize((size, size), Image.Resampling.NEAREST)
    values = np.asarray(resized)
    if values.ndim == 3:
        channels = values[..., : len(mask.getbands()) - ("A" in mask.getbands())]
        if (channels != channels[..., :1]).any():
            raise ValueError(
                f"A mask must have one number for each pixel, its class; this one has colours (mode {mask.mode!r}). "
                "Bring it into one channel first: an image of the mode 'L', 'P' or 'I;16'."
            )
        values = channels[..., 0]
    numbers = values.astype(np.int64)
    if (numbers != values).any():
        raise ValueError(
            f"A mask must have a whole number for each pixel, its class; this one has fractions (mode {mask.mode!r})."
        )
    return numbers
