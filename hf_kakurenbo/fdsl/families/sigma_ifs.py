"""σ-factor fractals: systems of contractions whose singular values are drawn so that they fill the image well.

Anderson and Farrell, "Improving Fractal Pre-training", WACV 2022, arXiv 2110.03091. What the paper leaves open is as in
the program that its authors published (https://github.com/catalys1/fractal-pretraining): `sample_system` and the
defaults of `fractals/ifs.py`, `IFSGenerator` of `training/datamodule/datasets/generator.py` with its defaults, and
`fractals/diamondsquare.py`. There are two differences: a patch is never empty, where the program draws one image of 512
without any point; and points up to a pixel above or left of the window are not drawn on its first row or column. The
paper's images of several fractals, which have several labels, are not here: an image is one fractal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..family import Family, Parameters
from ..kernels.density import blur, color_by_density, count_in_window, spread_patch
from ..kernels.drawing import Drawing, Image
from ..kernels.iterated_functions import play
from ..kernels.random_numbers import random_bits, uniforms, whole_number
from ..kernels.terrain import Terrain, draw_terrain
from .contractions import largest_singular_value, matrix, singular_values
from .map_family import MapFamily, orbit_key, split
from .ranges import between, check_range, whole_between

if TYPE_CHECKING:
    import torch

_GRAY = 127
_POINT = 1 << 4
# Of a key: two numbers of the system, then as many of each map.
_OF_SYSTEM, _OF_MAP, _MOST_MAPS = 2, 7, 16
# Of an instance's key, the number that the background's heights are drawn of; the orbit's is one less.
_BACKGROUND = 129

_TRIES = 4
_FACTORS = (0.8, 1.1)
_SHIFTS = (-0.2, 0.2)
_ZOOMS = (0.5, 2.0)
_BLURS = (0.5, 1.0)
_SATURATIONS, _VALUES = (0.3, 1.0), (0.5, 1.0)
_DECAYS = (0.4, 0.8)
_GROUND_SCALES = ((0.25, 1.0), (0.1, 0.3), (0.3, 0.6))
_GROUND_SHIFTS = ((0.0, 1.0), (0.4, 0.6), (0.4, 0.6))


class Placed(NamedTuple):
    """One drawing."""

    maps: NDArray[np.float64]
    """(maps, 6), one of them scaled."""
    probabilities: NDArray[np.float64]
    """(maps,)."""
    shift: tuple[float, float]
    """By how much of the fractal's extent the window is moved."""
    zoom: tuple[float, float]
    """How large the window is, in extents of the fractal."""
    pattern: int
    """The patch of all points, 9 bits."""
    flips: tuple[bool, bool, bool]
    """Whether rows and columns are exchanged, then top and bottom, then left and right."""
    hue: float
    """In 0..255, as saturation and value."""
    saturation: int
    value: int
    background: Terrain
    blurred: float
    """The Gaussian's σ in pixels, or 0."""


class SigmaIFS(MapFamily):
    """Attractors of 2 to 4 contractions, gray on black, or in hues of their density on a coloured texture.

    A category: N ~ U{2..4} maps (`min_n`, `max_n` of `ifs.py`). Each is two rotations or reflections around singular
    values s₁ ≥ s₂ in 0..1, whose sum over all maps of s₁ + 2·s₂, the σ-factor, is U((5 + N) / 2, (6 + N) / 2) (`beta`
    of `sample_system`); shifts ~ U(−1, 1) (`bval`); a probability proportional to |a·d − b·c| (`iterate`). All are
    kept: there is no search.

    An instance (`IFSGenerator`): all coefficients of one map × U(0.8, 1.1), so that the maps are still contractions,
    else again, and after four tries the category itself; a window moved by U(−0.2, 0.2) and U(0.5, 2) times as large
    as the fractal, on each axis; one random 3×3 patch for all points; transposed, flipped up and down and from left to
    right, each in half of the cases; in half of them a Gaussian blur of 3×3 pixels with σ ~ U(0.5, 1). In colour: the
    hue h of the densest pixel is 255 · density further than that of none, of a circle of 180; a saturation of
    U(0.3, 1) and a value of U(0.5, 1) (`colorize`); behind it a diamond-square texture of decay U(0.4, 0.8), whose
    hue, saturation and value follow its height (`colorized_ds`).

    An image has 100,000 points (`niter`) and is drawn at 224 × 224 (`size`).

    Raises:
        ValueError: when a subclass is defined whose `map_range` is not in 2..16, or a range is none.
    """

    name = "sigma_ifs"
    version = 1
    columns = ("a", "b", "c", "d", "e", "f", "probability")
    points = 100_000
    draw_size = 224
    map_range = (2, 4)
    coefficient_range = (-1.0, 1.0)
    """Of the shifts e and f."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # One map alone cannot have the σ-factor.
        check_range(cls, "map_range", 2, _MOST_MAPS)

    def weigh(self, maps: NDArray[np.float64]) -> NDArray[np.float64]:
        """By how much maps shrink areas: |a·d − b·c|."""
        return np.abs(maps[:, 0] * maps[:, 3] - maps[:, 1] * maps[:, 2])

    def draw_parameters(self, key: np.uint64) -> Parameters:
        """The maps of a category: (2..4, 7)."""
        numbers = uniforms(key, _OF_SYSTEM + _OF_MAP * self.map_range[1])
        count = whole_between(float(numbers[0]), self.map_range)
        sigma = between(float(numbers[1]), ((5 + count) / 2, (6 + count) / 2))
        of_maps = numbers[_OF_SYSTEM : _OF_SYSTEM + _OF_MAP * count].reshape(count, _OF_MAP)
        values = singular_values(sigma, of_maps[:, :2].ravel()[:-1])
        matrices = [matrix(pair[0], pair[1], each[2:5]).ravel() for pair, each in zip(values, of_maps, strict=True)]
        low, high = self.coefficient_range
        maps = np.column_stack([np.array(matrices), low + (high - low) * of_maps[:, 5:]])
        weights = self.weigh(maps)
        # Added up one by one: np.sum adds in an order that depends on the machine.
        return np.column_stack([maps, weights / sum(weights.tolist())])

    def draw_instance(self, parameters: Parameters, instance: int, key: np.uint64) -> Placed:
        """All at random; the number of the instance plays no part but through its key."""
        numbers = iter(uniforms(key, 2 * _TRIES + 20).tolist())
        scaled, probabilities = _scale_one_map(
            *split(parameters), [(next(numbers), next(numbers)) for _ in range(_TRIES)]
        )
        return Placed(
            scaled,
            probabilities,
            shift=(between(next(numbers), _SHIFTS), between(next(numbers), _SHIFTS)),
            zoom=(between(next(numbers), _ZOOMS), between(next(numbers), _ZOOMS)),
            pattern=whole_number(next(numbers), 1, 511),
            flips=(next(numbers) < 0.5, next(numbers) < 0.5, next(numbers) < 0.5),
            hue=255.0 * next(numbers),
            saturation=int(255.0 * between(next(numbers), _SATURATIONS)),
            value=int(255.0 * between(next(numbers), _VALUES)),
            background=_draw_background(numbers),
            blurred=between(next(numbers), _BLURS) if next(numbers) < 0.5 else 0.0,
        )

    def render(self, instance: Placed, drawing: Drawing, key: np.uint64) -> Image:
        """Draw what `draw_instance` returned; without the background where points run off to infinity."""
        density = self._density(instance, drawing, key)
        if drawing.color:
            ground = draw_terrain(instance.background, drawing.image_size, random_bits(key, _BACKGROUND))
            image = color_by_density(density, instance.hue, instance.saturation, instance.value, ground)
        else:
            image = np.where(density > 0, np.uint8(_GRAY), np.uint8(0))
        return blur(image, instance.blurred) if instance.blurred else image

    def render_batch(
        self, instances: Sequence[Placed], drawing: Drawing, keys: Sequence[np.uint64], device: torch.device | str
    ) -> torch.Tensor:
        """Several images, those of `render`, one after the other on the CPU."""
        return Family.render_batch(self, instances, drawing, keys, device)

    def _density(self, instance: Placed, drawing: Drawing, key: np.uint64) -> NDArray[np.int32]:
        size = drawing.image_size
        orbit = play(instance.maps, instance.probabilities, self.points_of(drawing), orbit_key(key))
        if orbit is None:
            return np.zeros((size, size), dtype=np.int32)
        extent, center = orbit.high - orbit.low, (orbit.high + orbit.low) / 2.0
        middle = center + extent * np.array(instance.shift)
        half = extent * np.array(instance.zoom) / 2.0
        counts = count_in_window(orbit.points, (middle[0], middle[1]), (half[0], half[1]), size)
        density = spread_patch(counts, instance.pattern if drawing.patches else _POINT)
        transpose, rows, columns = instance.flips
        density = density.T if transpose else density
        return np.ascontiguousarray(density[:: -1 if rows else 1, :: -1 if columns else 1])


def _scale_one_map(
    maps: NDArray[np.float64], probabilities: NDArray[np.float64], tries: Sequence[tuple[float, float]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The maps and their probabilities with one map scaled, or as they are if no try leaves contractions."""
    for which, factor in tries:
        number, scale = whole_number(which, 0, len(maps) - 1), between(factor, _FACTORS)
        scaled, weights = maps.copy(), probabilities.copy()
        scaled[number] *= scale
        weights[number] *= scale * scale
        if largest_singular_value(scaled) <= 1.0:
            return scaled, weights / sum(weights.tolist())
    return maps, probabilities


def _draw_background(numbers: Iterator[float]) -> Terrain:
    decay = between(next(numbers), _DECAYS)
    scales = [255.0 * between(next(numbers), ends) for ends in _GROUND_SCALES]
    shifts = [255.0 * between(next(numbers), ends) for ends in _GROUND_SHIFTS]
    return Terrain(decay, (scales[0], scales[1], scales[2]), (shifts[0], shifts[1], shifts[2]))
