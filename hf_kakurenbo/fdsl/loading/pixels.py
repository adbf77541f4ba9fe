"""Pixels as what a dataset gives: PIL images or tensors."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image as PILImage

from ..kernels.drawing import Image


def to_pil(pixels: Image, mode: str) -> PILImage.Image:
    """An image in mode `"RGB"` or `"L"`; gray pixels become three channels where that is asked."""
    image = PILImage.fromarray(pixels)
    # Twice as fast as image.convert(mode).
    return image if image.mode == mode else PILImage.merge("RGB", (image,) * 3)


def to_tensor(pixels: Image, mode: str) -> torch.Tensor:
    """The same as a tensor: uint8, (channels of the mode, height, width)."""
    # Copied by NumPy: torch would wake its threads for so little, which takes longer than the copy.
    channels = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels[np.newaxis]
    return torch.from_numpy(np.repeat(channels, len(mode) // len(channels), axis=0))
