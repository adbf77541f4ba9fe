"""FractalDB: attractors of iterated function systems in the plane.

Kataoka et al., "Pre-training without Natural Images", ACCV 2020, IJCV 2022. What the paper leaves open is as in the
program that its authors published (`ifs_search.py`, `make_fractaldb.py`, `ifs_function.py` and `exe.sh` of
https://github.com/hirokatsukataoka16/FractalDB-Pretrained-ResNet-PyTorch). As there, each point is a patch with a
random pattern of its own; the paper reads as if an image had one pattern. There are two differences: the middle of a
patch is the point, where the program has its upper left beside it; and a variation that drives points to infinity is
weakened, see `iterated_functions.play_varied`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..family import Parameters
from ..kernels.drawing import Drawing, Image
from ..kernels.iterated_functions import play
from ..kernels.plane import Leaf, count_pixels, draw_leaf
from ..kernels.random_numbers import whole_number
from .map_family import PLANNED, MapFamily, orbit_key, own_uniforms, split

if TYPE_CHECKING:
    import torch

_FLIPS = 4
_SEARCH_SIZE, _SEARCH_POINTS = 512, 100_000
# A first look at an attempt: the next point lights a new pixel as often as, so far, a pixel was met just once (Good,
# 1953), and ever more rarely from there on. Points that will light enough pixels promise 1.58 times as many at this
# stage if they are spread evenly, and more if they are not; the rest is a margin for chance.
_SIEVE_POINTS, _SIEVE_PROMISE = _SEARCH_POINTS // 8, 1.5
# They promise the more, the fewer pixels are enough; where more than a fifth of the image is asked, at least as many as
# they will light.
_SIEVE_PROMISE_OF_MORE = 0.95


class FractalDB(MapFamily):
    """Attractors of 2 to 7 affine maps, gray or coloured on black.

    A category: N ~ U{2..7} maps with coefficients a..f ~ U(−1, 1) and a probability proportional to |a·d − b·c|, kept
    if 100,000 points light at least 0.2 of an image of 512 × 512 with a margin of 6. An instance: one of the
    coefficients of all maps × {0.2, 0.6, 1.4, 1.8}, or none; a flip; the points and, around each, a random 3×3 patch.
    The first 1000 instances are the 25 variants × 4 flips × 10 drawings of the published set, so ordered that the first
    25 are the variants and the first 100 those with each flip; in further ones the factor is U(0.2, 1.8).
    In colour point n has hue n / 128 of the circle at a saturation and value of 0.75, which is what the published
    program does: a colour for each point.

    An image has 200,000 points and is drawn at 362 × 362 with a margin of 6, as the published set; smaller
    images have a smaller margin.
    """

    name = "fractaldb"
    version = 2
    columns = ("a", "b", "c", "d", "e", "f", "probability")
    points = 200_000
    draw_size = 362
    # The published grid (weights_0.4.csv), in another order, so that few instances are already diverse.
    factors = (0.6, 1.4, 0.2, 1.8)
    least_lit: ClassVar[float] = 0.2
    """The fraction of the image that the points of a category light at least, the filling rate of the paper."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # So many points light 0.31 of the image where they are spread evenly over all of it.
        if not 0 < cls.least_lit <= 0.3:
            raise ValueError(f"least_lit of {cls.__qualname__} must be in (0, 0.3], got {cls.least_lit!r}.")

    def weigh(self, maps: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much maps shrink areas: |a·d − b·c|."""
        return np.abs(maps[:, 0] * maps[:, 3] - maps[:, 1] * maps[:, 2])

    def accepts(self, parameters: Parameters, key: np.uint64) -> bool:
        """Whether the points fill a fifth of the image, or another fraction that a subclass sets."""
        least = self.least_lit * _SEARCH_SIZE**2
        maps, probabilities = split(parameters)
        first = play(maps, probabilities, _SIEVE_POINTS, orbit_key(key))
        if first is None:
            return False
        places = np.empty(_SEARCH_SIZE**2, dtype=np.int32)
        lit, once = count_pixels(places, first, _SEARCH_SIZE)
        promised = lit + (_SEARCH_POINTS - _SIEVE_POINTS) * once / _SIEVE_POINTS
        if promised < least * (_SIEVE_PROMISE if self.least_lit <= 0.2 else _SIEVE_PROMISE_OF_MORE):
            return False
        orbit = play(maps, probabilities, _SEARCH_POINTS, orbit_key(key))
        return orbit is not None and count_pixels(places, orbit, _SEARCH_SIZE)[0] >= least

    def draw_instance(self, parameters: Parameters, instance: int, key: np.uint64) -> Leaf:
        """Instance 0 is the category itself; those of the grid and the further ones are described with the class."""
        (flip,) = own_uniforms(key, 1)
        flips = instance % _FLIPS if instance < PLANNED else whole_number(flip, 0, _FLIPS - 1)
        return Leaf(
            *split(parameters),
            self.draw_variation(instance, key),
            bool(flips & 1),
            bool(flips & 2),
        )

    def render(self, instance: Leaf, drawing: Drawing, key: np.uint64) -> Image:
        """Draw what `draw_instance` returned: see `draw_leaf`."""
        return draw_leaf(instance, drawing, self.points_of(drawing), orbit_key(key))

    def render_batch(
        self, instances: Sequence[Leaf], drawing: Drawing, keys: Sequence[np.uint64], device: torch.device | str
    ) -> torch.Tensor:
        """Several images at once, by other orbits of the same systems than those of `render`."""
        from ..kernels.fractals_batch import draw_leaves

        return draw_leaves(instances, drawing, self.points_of(drawing), [orbit_key(key) for key in keys], device)
