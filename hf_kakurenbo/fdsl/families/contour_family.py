"""What the families of contours have in common: one row of parameters, lines drawn around a centre."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..family import Family, Parameters
from ..kernels.contours import REFERENCE_SIZE, Contours, draw_contours
from ..kernels.drawing import Drawing, Image

if TYPE_CHECKING:
    import torch


class ContourFamily(Family):
    """A family of contours: a subclass has the distribution of the parameters and of the instances.

    Parameters are one row; `limits` has the lowest and highest value of each column that a family has, `whole` those
    that are whole numbers. Images are drawn at 512 × 512, as the published ones.
    """

    draw_size = REFERENCE_SIZE
    background: ClassVar[int]
    """The gray, in 0..255, on which lines are drawn."""
    limits: ClassVar[Mapping[str, tuple[float, float]]] = MappingProxyType(
        {
            "vertices": (3, 100_000),
            "lines": (1, 100_000),
            "radius": (0, 1e6),
            "noise_coefficient": (-1e6, 1e6),
            "line_width": (-1e6, 1e6),
            "ellipse_x": (0, 1e6),
            "ellipse_y": (0, 1e6),
            "frequency_1": (0, 1e6),
            "frequency_2": (0, 1e6),
        }
    )
    whole: ClassVar[frozenset[str]] = frozenset({"vertices", "lines", "frequency_1", "frequency_2"})

    def check_parameters(self, parameters: Parameters) -> None:
        """Raise a ValueError unless parameters are one row of finite numbers in the range of `render`.

        The range is wider than that from which categories are drawn.
        """
        if parameters.shape != (1, len(self.columns)):
            raise ValueError(
                f"The parameters of a category of {self.name} are one row of {len(self.columns)} numbers "
                f"({', '.join(self.columns)}), got shape {parameters.shape}."
            )
        for column, value in zip(self.columns, parameters[0].tolist(), strict=True):
            low, high = self.limits[column]
            # Written so that NaN is refused.
            if not low <= value <= high:
                raise ValueError(f"{column} of {self.name} must be in [{low:g}, {high:g}], got {value}.")
            if column in self.whole and value != int(value):
                raise ValueError(f"{column} of {self.name} must be a whole number, got {value}.")

    def render(self, instance: Contours, drawing: Drawing, key: np.uint64) -> Image:
        """Draw what `draw_instance` returned: see `draw_contours`."""
        return draw_contours(instance, drawing, self.background, key)

    def render_batch(
        self, instances: Sequence[Contours], drawing: Drawing, keys: Sequence[np.uint64], device: torch.device | str
    ) -> torch.Tensor:
        """Several images at once; they differ from those of `render` by the rounding of sums alone."""
        from ..kernels.contours_batch import draw_contours_batch

        return draw_contours_batch(instances, drawing, keys, self.background, device)
