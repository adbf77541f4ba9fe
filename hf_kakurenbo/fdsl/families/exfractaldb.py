"""ExFractalDB: attractors of iterated function systems in space, seen from anywhere.

Kataoka et al., "Replacing Labeled Real-image Datasets with Auto-generated Contours", CVPR 2022, arXiv 2206.09132. What
the paper leaves open is as in the program that its authors published (`category_search.py`, `instance.py` and
`render.py` in `exfractaldb_render` of https://github.com/masora1030/CVPR2022-Pretrained-ViT-PyTorch), but for the
direction of the view: there 12 steps about the y axis, here, as the paper has it, at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..family import Parameters
from ..kernels.drawing import Drawing, Image
from ..kernels.iterated_functions import play
from ..kernels.space import Cloud, View, draw_cloud, least_variance, mean_of, scale_of
from .map_family import MapFamily, orbit_key, own_uniforms, split

if TYPE_CHECKING:
    import torch

_SEARCH_POINTS = 10_000
_TURN = 2**53


class ExFractalDB(MapFamily):
    """Attractors of 2 to 7 affine maps in space, white or coloured on black, in perspective.

    A category: N ~ U{2..7} maps with coefficients a..l ~ U(−1, 1) and a probability proportional to the |determinant|
    of a..i, kept if 10,000 points, scaled to [−1, 1] by the lowest and highest of all coordinates, have a variance
    above 0.05 along each axis. An instance: one of the coefficients of all maps × {0.4, 0.5, …, 1.6}, or none; the
    direction from which it is seen, anywhere on the sphere. The first 145 instances are those variants, the category
    itself first, and so on up to 1000; in further ones the factor is U(0.4, 1.6).

    The points are scaled as in the search, their mean is at the origin, and a camera at a distance of 4 with an angle
    of view of 45 degrees looks at it, y being up. They are single pixels: the published set has no patches and no
    colours. In colour point n has hue n / 128 of the circle, as in FractalDB, and hides those before it. An image has
    10,000 points and is drawn at 224 × 224, as the published set.
    """

    name = "exfractaldb"
    version = 2
    columns = (*"abcdefghijkl", "probability")
    points = 10_000
    draw_size = 224
    # The published grid (weights_ins145.csv), in another order, so that few instances are already diverse.
    factors = (0.4, 1.6, 0.7, 1.3, 0.5, 1.5, 0.8, 1.2, 0.6, 1.4, 0.9, 1.1)

    least_variance: ClassVar[float] = 0.05
    """Above which the points of a category are along each axis."""

    def weigh(self, maps: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much maps shrink volumes: the size of the determinant of a..i."""
        a, b, c, d, e, f, g, h, i = maps.T[:9]
        return np.abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))

    def accepts(self, parameters: Parameters, key: np.uint64) -> bool:
        """Whether the points spread along every axis."""
        orbit = play(*split(parameters), _SEARCH_POINTS, orbit_key(key))
        if orbit is None:
            return False
        return least_variance(orbit.points, mean_of(orbit.points)) * scale_of(orbit) ** 2 > self.least_variance

    def draw_instance(self, parameters: Parameters, instance: int, key: np.uint64) -> Cloud:
        """Instance 0 is the category itself; those of the grid and the further ones are described with the class."""
        turn, height = own_uniforms(key, 2)
        view = View.at(int(turn * _TURN), _TURN, 2.0 * height - 1.0)
        return Cloud(*split(parameters), self.draw_variation(instance, key), view)

    def render(self, instance: Cloud, drawing: Drawing, key: np.uint64) -> Image:
        """Draw what `draw_instance` returned: see `draw_cloud`."""
        return draw_cloud(instance, drawing, self.points_of(drawing), orbit_key(key))

    def render_batch(
        self, instances: Sequence[Cloud], drawing: Drawing, keys: Sequence[np.uint64], device: torch.device | str
    ) -> torch.Tensor:
        """Several images at once, by other orbits of the same systems than those of `render`."""
        from ..kernels.fractals_batch import draw_clouds

        return draw_clouds(instances, drawing, self.points_of(drawing), [orbit_key(key) for key in keys], device)
