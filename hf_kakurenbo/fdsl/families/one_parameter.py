"""1p-frac: a single fractal, of which every small perturbation is a category.

Nakamura, Tadokoro et al., "Scaling Backwards: Minimal Synthetic Pre-training?", ECCV 2024, arXiv 2408.00677. What the
paper leaves open is as in the program that its authors published (`1p-frac_generater` of
https://github.com/SUPER-TADORY/1p-frac), with the values of its `generate.sh`. The fractal is drawn as there, by the
singular values of its maps (Anderson and Farrell, "Improving Fractal Pre-training", WACV 2022, arXiv 2110.03091).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from ..family import Parameters
from ..kernels.drawing import Drawing
from ..kernels.iterated_functions import Variation
from ..kernels.plane import Leaf
from ..kernels.random_numbers import derive_key, uniforms
from .contractions import matrix, singular_values
from .fractaldb import FractalDB
from .map_family import split

_MAPS, _SIZE = 2, 512
_SIGMA, _SIGMA_MARGIN = 4.0, 0.1
_DELTA = 0.1
_LEAST_LIT = 0.05
_UNVARIED = Variation(0, 1.0)
# What a key is for, besides what those of `family` are for.
_FOR_THE_FRACTAL = 2


class OnePFrac(FractalDB):
    """Perturbations of one fractal, gray or coloured on black.

    The fractal, one for each seed: 2 maps, each two rotations or reflections around the singular values s₁ ≥ s₂, whose
    sum over both maps of s₁ + 2·s₂, the σ-factor, is U(3.9, 4.1); shifts ~ U(−1, 1); a probability proportional to
    |a·d − b·c|. A category: each coefficient of each map × U(0.9, 1.1), that is Δ = 0.1. Both are kept if their image
    is lit in more than 0.05 of its pixels. An instance: the points and their patches alone; a category has one.

    An image has 100,000 points and is drawn at 512 × 512 with a margin of 6.
    """

    name = "1pfrac"
    version = 1
    points = 100_000
    draw_size = _SIZE

    def attempts(self, seed: int, category: int) -> Iterator[Parameters | None]:
        """For attempt 0, 1, …: the perturbed fractal if its image is lit enough, else None."""
        fractal = self.fractal(seed)
        attempt = 0
        while True:
            key = self.parameter_key(seed, category, attempt)
            perturbed = fractal.copy()
            factors = 1.0 - _DELTA + 2.0 * _DELTA * uniforms(key, _MAPS * self.coefficients)
            perturbed[:, :-1] *= factors.reshape(_MAPS, self.coefficients)
            yield perturbed if self.accepts(perturbed, key) else None
            attempt += 1

    def draw_parameters(self, key: np.uint64) -> Parameters:
        """A fractal at random, of which the perturbations are made: (2, 7)."""
        u = uniforms(key, 4 + 5 * _MAPS)
        values = singular_values(_SIGMA - _SIGMA_MARGIN + 2.0 * _SIGMA_MARGIN * u[0], u[1:4])
        maps = np.empty((_MAPS, self.coefficients))
        for number, (large, small) in enumerate(values):
            turns, shifts = u[4 + 5 * number : 7 + 5 * number], u[7 + 5 * number : 9 + 5 * number]
            maps[number, :4] = matrix(large, small, turns).ravel()
            maps[number, 4:] = 2.0 * shifts - 1.0
        weights = self.weigh(maps)
        return np.column_stack([maps, weights / sum(weights.tolist())])

    def accepts(self, parameters: Parameters, key: np.uint64) -> bool:
        """Whether the image of a fractal is lit in more than a twentieth of its pixels."""
        image = self.render(self.draw_instance(parameters, 0, key), Drawing(_SIZE), key)
        return bool(np.count_nonzero(image) > _LEAST_LIT * image.size)

    @cache  # noqa: B019 (a family is one object for all)
    def fractal(self, seed: int) -> Parameters:
        """The fractal of a seed: the first at random that is lit enough, (2, 7)."""
        attempt = 0
        while True:
            key = derive_key(seed, self._code, _FOR_THE_FRACTAL, attempt)
            parameters = self.draw_parameters(key)
            if self.accepts(parameters, key):
                return parameters
            attempt += 1

    def draw_instance(self, parameters: Parameters, instance: int, key: np.uint64) -> Leaf:
        """The category itself, whatever the number: only the points, which the key decides, are others."""
        return Leaf(*split(parameters), _UNVARIED, False, False)
