"""Images made smaller many at a time: the bytes of `shrinking.shrink`."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from .shrinking import WEIGHT_BITS, shrinking_filter

# Of each, some ten times its bytes are held.
_IMAGES_AT_A_TIME = 64


@lru_cache(maxsize=16)
def _matrix(large: int, small: int, device: torch.device) -> Tensor:
    starts, weights = shrinking_filter(large, small)
    matrix = torch.zeros(small, large, dtype=torch.float64)
    for row, (start, of_row) in enumerate(zip(starts.tolist(), weights.tolist(), strict=True)):
        matrix[row, start : start + len(of_row)] = torch.tensor(of_row, dtype=torch.float64)
    return matrix.to(device)


def _to_grays(totals: Tensor) -> Tensor:
    return torch.floor((totals + 2.0 ** (WEIGHT_BITS - 1)) * 2.0**-WEIGHT_BITS).clamp_(0, 255)


def shrink_batch(images: Tensor, image_size: int) -> Tensor:
    """Make images smaller.

    The sums are of whole numbers below 2⁵³, which float64 adds up exactly in any order: what comes out depends neither
    on the device nor on the batch.

    Args:
        images: uint8, (images, channels, size, size).
        image_size: height and width of the smaller ones, 1..size.

    Returns:
        uint8, (images, channels, image_size, image_size); the images themselves if they have that size already.
    """
    if images.shape[-1] == image_size:
        return images
    matrix = _matrix(images.shape[-1], image_size, images.device)
    parts = torch.split(images, _IMAGES_AT_A_TIME)
    return torch.cat([_to_grays(_to_grays(matrix @ part.double()) @ matrix.T).to(torch.uint8) for part in parts])
