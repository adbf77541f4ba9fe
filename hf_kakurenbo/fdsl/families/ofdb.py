"""OFDB: one instance of each category of the fractal families.

Nakamura et al., "Pre-training Vision Transformers with Very Limited Synthesized Images", ICCV 2023, arXiv 2307.14710,
and the program that its authors published (https://github.com/ryoo-nakamura/OFDB).
"""

from __future__ import annotations

import numpy as np

from ..family import Parameters
from ..kernels.iterated_functions import Variation
from ..kernels.plane import Leaf
from ..kernels.space import Cloud, View
from .exfractaldb import ExFractalDB
from .fractaldb import FractalDB

_VIEWS = 12
# Of weights_0.4.csv.
_PUBLISHED = Variation(0, 0.2)


class OFDB2D(FractalDB):
    """The categories of FractalDB; instance 0 has coefficient a of all maps multiplied by 0.2, and no flip.

    That is the first row of the published program's table of weights, which is all that it draws. Further instances,
    which those of validation are, vary as FractalDB's.
    """

    name = "ofdb2d"
    version = 3
    categories_of = "fractaldb"

    def draw_instance(self, parameters: Parameters, instance: int, key: np.uint64) -> Leaf:
        """Instance 0 is the published one; further ones vary."""
        leaf = super().draw_instance(parameters, instance, key)
        return leaf if instance else leaf._replace(variation=_PUBLISHED)


class OFDB3D(ExFractalDB):
    """The categories of ExFractalDB; instances 0..11 are the category itself, seen from all around.

    View i is at i / 12 turns about the y axis and on the level of the centre. The published program has the same
    views but for a jitter of up to π degrees. It trains on one random view of each category in an epoch, as
    `hf_kakurenbo.fdsl.OneOfEachCategory` draws them; without it an epoch has all twelve. Further instances, which those
    of validation are, vary as ExFractalDB's.
    """

    name = "ofdb3d"
    version = 2
    categories_of = "exfractaldb"

    def draw_instance(self, parameters: Parameters, instance: int, key: np.uint64) -> Cloud:
        """Instances 0..11 are the views; further ones vary."""
        if instance >= _VIEWS:
            return super().draw_instance(parameters, instance, key)
        unvaried = super().draw_instance(parameters, 0, key)
        return unvaried._replace(view=View.at(instance, _VIEWS))
