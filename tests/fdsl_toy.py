"""A family whose images take no time, and a dataset of it that the catalog knows."""

import sys
from typing import NamedTuple

import numpy as np

from hf_kakurenbo.fdsl import catalog
from hf_kakurenbo.fdsl.family import Family
from hf_kakurenbo.fdsl.kernels.random_numbers import uniforms

NAME = "toy-test"
CATEGORIES, INSTANCES = 3, 7


class Toy(Family):
    """A rectangle in the middle of noise."""

    name = "toy"
    version = 1
    columns = ("width", "shade", "probability")

    def draw_parameters(self, key):
        first, second = uniforms(key, 2)
        return np.array([[first, second, 0.25], [second, first, 0.75]])

    def accepts(self, parameters, key):
        return parameters[0, 0] <= 0.5

    def check_parameters(self, parameters):
        if (parameters[:, 0] > 1).any():
            raise ValueError(f"width must be at most 1, got {parameters[:, 0].max()}.")

    def draw_instance(self, parameters, instance, key):
        return _Rectangle(parameters[0, 0], parameters[0, 1])

    def render(self, instance, drawing, key):
        size = drawing.image_size
        pixels = (uniforms(key, size * size).reshape(size, size) * 255).astype(np.uint8)
        pixels[: int(instance.width * size)] = int(instance.shade * 255)
        return np.stack([pixels] * 3, axis=-1) if drawing.color else pixels


class _Rectangle(NamedTuple):
    width: float
    shade: float


def enter_into_catalog(setitem):
    """Make the toy known, by `monkeypatch.setitem` or `dict.__setitem__`."""
    setitem(sys.modules, "hf_kakurenbo.fdsl.fdsl_toy", sys.modules[__name__])
    setitem(catalog._FAMILIES, "toy", ("fdsl_toy", "Toy"))
    setitem(catalog._CATALOG, NAME, catalog.Entry(NAME, "toy", CATEGORIES, INSTANCES))
