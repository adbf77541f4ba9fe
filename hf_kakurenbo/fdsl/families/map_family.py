"""What the families of iterated function systems have in common: maps at random, one coefficient varied."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..family import Family, Parameters
from ..kernels.drawing import Drawing
from ..kernels.iterated_functions import MOST_MAPS, Variation, check_probabilities, play
from ..kernels.random_numbers import random_bits, uniforms, whole_number
from .ranges import check_range, whole_between

_UNVARIED = Variation(0, 1.0)

# The first instances of a category follow a plan, as the 1000 that were published do.
PLANNED = 1000

# What is drawn from a key after the families' own numbers.
_ORBIT = 128
# From an instance's key the numbers 0 and 1 make the variation.
_OWN = 2

_POINTS_TO_CHECK = 10_000


class MapFamily(Family):
    """A family of affine maps. Parameters are a row per map: its coefficients, and with what probability it is drawn.

    A category has N ~ U{2..7} maps with coefficients ~ U(−1, 1) and a probability proportional to how much a map
    shrinks areas or volumes. An instance has one coefficient of all maps multiplied by a factor. A subclass may set
    other ranges.

    Raises:
        ValueError: when a subclass is defined whose `map_range` or `coefficient_range` is no range, or too wide.
    """

    points: ClassVar[int]
    map_range: ClassVar[tuple[int, int]] = (2, 7)
    """How many a category has at least and at most."""
    coefficient_range: ClassVar[tuple[float, float]] = (-1.0, 1.0)
    """From which coefficients are drawn."""
    factors: ClassVar[tuple[float, ...]]
    """Those of the first instances, each for every coefficient, besides 1. In further ones the factor is drawn from
    the lowest to the highest."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if hasattr(cls, "columns"):
            # The number that the orbit is drawn of must not be one of those that make the maps.
            check_range(cls, "map_range", 1, min(MOST_MAPS, (_ORBIT - 1) // (len(cls.columns) - 1)))
        check_range(cls, "coefficient_range", -1e6, 1e6, apart=True)

    @property
    def coefficients(self) -> int:
        """How many a map has."""
        return len(self.columns) - 1

    @property
    def variants(self) -> int:
        """How many variations, none included, the first instances go through in turn."""
        return 1 + len(self.factors) * self.coefficients

    def points_of(self, drawing: Drawing) -> int:
        """How many points an image gets: as many as its drawing says, or the family's own number."""
        return self.points if drawing.points is None else drawing.points

    @abstractmethod
    def weigh(self, maps: NDArray[np.float64]) -> NDArray[np.float64]:
        """What the probabilities of maps, (maps, coefficients), are proportional to: (maps,)."""

    def draw_parameters(self, key: np.uint64) -> Parameters:
        """The maps of an attempt at a category: (2..7, coefficients + 1)."""
        numbers = uniforms(key, 1 + self.map_range[1] * self.coefficients)
        count = whole_between(float(numbers[0]), self.map_range)
        low, high = self.coefficient_range
        maps = low + (high - low) * numbers[1 : 1 + count * self.coefficients].reshape(count, self.coefficients)
        weights = self.weigh(maps)
        # Added up one by one: np.sum adds in an order that depends on the machine.
        return np.column_stack([maps, weights / sum(weights.tolist())])

    def draw_variation(self, instance: int, key: np.uint64) -> Variation:
        """Which coefficient an instance varies, and by what factor. Instance 0 varies none."""
        number = instance % self.variants
        if instance < PLANNED and number == 0:
            return _UNVARIED
        if instance < PLANNED:
            factor, column = divmod(number - 1, self.coefficients)
            return Variation(column, self.factors[factor])
        coefficient, fraction = uniforms(key, _OWN).tolist()
        low, high = min(self.factors), max(self.factors)
        return Variation(whole_number(coefficient, 0, self.coefficients - 1), low + (high - low) * fraction)

    def check_parameters(self, parameters: Parameters) -> None:
        """Raise a ValueError unless they are maps with probabilities whose points stay finite."""
        if parameters.ndim != 2 or parameters.shape[1] != len(self.columns) or not 1 <= len(parameters) <= MOST_MAPS:
            raise ValueError(
                f"The parameters of a category of {self.name} are 1 to {MOST_MAPS} rows of {len(self.columns)} numbers "
                f"({', '.join(self.columns)}), got shape {parameters.shape}."
            )
        if not np.isfinite(parameters).all():
            row, column = np.argwhere(~np.isfinite(parameters))[0]
            raise ValueError(
                f"{self.columns[column]} of map {row + 1} of {self.name} must be finite, got {parameters[row, column]}."
            )
        check_probabilities(parameters[:, -1])
        if play(*split(parameters), _POINTS_TO_CHECK, np.uint64(0)) is None:
            raise ValueError(
                f"The {len(parameters)} maps of {self.name} drive points to infinity: there is nothing to draw. Their "
                "coefficients are too large."
            )


def split(parameters: Parameters) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The coefficients, (maps, coefficients), and the probabilities, (maps,), of maps: copies."""
    return parameters[:, :-1].copy(), parameters[:, -1].copy()


def orbit_key(key: np.uint64) -> np.uint64:
    """The key of the random numbers of the chaos game, from that of an instance or of an attempt."""
    return np.uint64(random_bits(key, _ORBIT))


def own_uniforms(key: np.uint64, count: int) -> list[float]:
    """Numbers in [0, 1) for what an instance varies besides a coefficient."""
    return uniforms(key, _OWN + count).tolist()[_OWN:]
