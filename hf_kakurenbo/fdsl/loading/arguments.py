"""What the datasets of images from formulas check of their arguments."""

from __future__ import annotations

from numbers import Integral
from typing import Any

from ..kernels.drawing import LARGEST_IMAGE_SIZE

SPLITS = ("train", "validation")
MODES = ("RGB", "L")

VALIDATION_FROM = 2**32
"""The instance numbers of validation begin here, and those of training end."""


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> str:
    """The value, or a ValueError unless it is one of those that are allowed."""
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, got {value!r}.")
    return value


def side_of(name: str, value: Any, least: int) -> int:
    """Height and width of an image in pixels, at least `least`, or a TypeError or ValueError that names the value."""
    if isinstance(value, list | tuple):
        raise TypeError(
            f"{name} must be an integer, got {value!r}: images are square. For another shape cut it out of a square, "
            "as transform=torchvision.transforms.v2.CenterCrop((height, width)) does."
        )
    return integer_in(name, value, least, LARGEST_IMAGE_SIZE)


def integer_in(name: str, value: Any, least: int, most: int) -> int:
    """An integer in least..most, or a TypeError or ValueError that names the value."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, got {value!r} of type {type(value).__name__}.")
    number = int(value)
    if not least <= number <= most:
        raise ValueError(f"{name} must be in {least}..{most}, got {value}.")
    return number
