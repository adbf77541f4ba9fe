"""What a family of formula-driven images is: how a category is drawn, how an instance varies it, how it is drawn."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import repeat
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .kernels.drawing import Drawing, Image
from .kernels.random_numbers import derive_key

if TYPE_CHECKING:
    import torch

__all__ = ["Drawing", "Family", "Image", "Parameters"]

Parameters = NDArray[np.float64]
"""The parameters of a category: a table of shape (rows, len(family.columns)). The rows of a fractal are its maps."""

# What a key is for: the parameters of a category, or what of an image is left to chance.
_FOR_PARAMETERS, _FOR_INSTANCE = 0, 1


class Family(ABC):
    """A formula with its distribution of parameters; every image is a function of (seed, category, instance).

    A subclass names itself in `name`, raises `version` with any change to what is drawn, and lists in `columns` what
    the columns of its parameters are.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    columns: ClassVar[tuple[str, ...]]
    points: ClassVar[int | None] = None
    """How many points an image has by default; None where there are no points."""

    draw_size: ClassVar[int | None] = None
    """Height and width, in pixels, at which the published images were drawn before they were made smaller. None where
    images are drawn at the size that is asked for."""

    published_keys: ClassVar[Mapping[str, str | None]] = MappingProxyType({})
    """Where the published program writes a parameter in each row, `key,value`: the column of a key, or None for what
    this family draws anew for each instance or does not know."""

    categories_of: ClassVar[str | None] = None
    """The family whose categories these are, where they are not the family's own."""

    @cached_property
    def _code(self) -> int:
        return zlib.crc32((self.categories_of or self.name).encode())

    def parameter_key(self, seed: int, category: int, attempt: int) -> np.uint64:
        """The key from which the parameters of an attempt at a category are drawn."""
        return derive_key(seed, self._code, _FOR_PARAMETERS, category, attempt)

    def instance_key(self, seed: int, category: int, instance: int) -> np.uint64:
        """The key from which what is left to chance in an image is drawn."""
        return derive_key(seed, self._code, _FOR_INSTANCE, category, instance)

    @abstractmethod
    def draw_parameters(self, key: np.uint64) -> Parameters:
        """Parameters at random: float64, (rows, len(columns))."""

    def accepts(self, parameters: Parameters, key: np.uint64) -> bool:
        """Whether parameters make a category. All do, unless a family says otherwise."""
        return True

    def attempts(self, seed: int, category: int) -> Iterator[Parameters | None]:
        """For attempt 0, 1, …: the parameters if they are accepted, else None."""
        attempt = 0
        while True:
            key = self.parameter_key(seed, category, attempt)
            parameters = self.draw_parameters(key)
            yield parameters if self.accepts(parameters, key) else None
            attempt += 1

    @abstractmethod
    def check_parameters(self, parameters: Parameters) -> None:
        """Raise a ValueError that says what is wrong with parameters that do not come from `draw_parameters`."""

    @abstractmethod
    def draw_instance(self, parameters: Parameters, instance: int, key: np.uint64) -> Any:
        """How instance number `instance` ≥ 0 varies its category: a NamedTuple that `render` understands."""

    @abstractmethod
    def render(self, instance: Any, drawing: Drawing, key: np.uint64) -> Image:
        """The image: uint8, (size, size) or, when `drawing.color`, (size, size, 3)."""

    def render_batch(
        self, instances: Sequence[Any], drawing: Drawing, keys: Sequence[np.uint64], device: torch.device | str
    ) -> torch.Tensor:
        """Several images at once, on a device: uint8, (images, 1 or 3, size, size).

        This one draws one after the other on the CPU; a family that knows better overrides it. Parameters and
        distribution are those of `render`; the pixels may differ.

        Args:
            instances: what `draw_instance` returned, one for each image.
            drawing: how all are drawn.
            keys: their instances' keys.
            device: where the images shall be.
        """
        import torch

        images = [torch.from_numpy(self.render(*each)) for each in zip(instances, repeat(drawing), keys)]
        channels_last = torch.stack(images).view(len(images), drawing.image_size, drawing.image_size, -1)
        return channels_last.permute(0, 3, 1, 2).contiguous().to(device)
