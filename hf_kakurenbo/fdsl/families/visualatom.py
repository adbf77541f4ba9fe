"""VisualAtom: contours with two waves on them.

Takashima et al., "Visual Atoms: Pre-training Vision Transformers with Sinusoidal Waves", CVPR 2023, arXiv 2303.01112.
What the paper leaves open is as in the program that its authors published (`visual_atomic_renderer` of
https://github.com/masora1030/CVPR2023-FDSL-on-VisualAtom). It comes with two sets of values: `VisualAtom` has the
defaults of `render_VisualAtom.py`, `VisualAtomBest` those of `make_VisualAtom.sh`, which its README calls best
practice.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from ..family import Parameters
from ..kernels.contours import REFERENCE_SIZE, Contours
from ..kernels.random_numbers import uniforms, whole_number
from .contour_family import ContourFamily

_HIGHEST_FREQUENCY = 20


class VisualAtom(ContourFamily):
    """Contours around a centre in grays on black, with two waves that grow from line to line.

    With the default values of the published program; `VisualAtomBest` has those of its best practice.

    A category: 200..1000 vertices; 1..200 lines; a radius of 0..50, times U(1, 2) for x and for y; the noise
    coefficient c ~ U(2, 6); the line width w ~ U(0, 0.01); two different frequencies n₁ and n₂ in 0..20. Each line
    moves the vertex at angle θ outwards by w + c − c · noise + ½ sin(n₁ θ) + ½ sin(n₂ θ), the noise being Perlin's. An
    instance: the centre (512 + U{−512..512}) / 2 for each axis; the noise; the gray of each line. Lengths are in pixels
    at 512 × 512.
    """

    name = "visualatom"
    version = 2
    columns = (
        "vertices",
        "lines",
        "radius",
        "noise_coefficient",
        "line_width",
        "ellipse_x",
        "ellipse_y",
        "frequency_1",
        "frequency_2",
    )
    background = 0
    smallest_radius: ClassVar[int] = 0
    """In pixels; the largest is 50 more."""
    least_noise: ClassVar[float] = 2.0
    """The noise coefficient is drawn from here to 4 more."""
    most_width: ClassVar[float] = 0.01
    """The line width is drawn from 0 to here."""

    def draw_parameters(self, key: np.uint64) -> Parameters:
        """The parameters of a category: (1, 9)."""
        u = uniforms(key, len(self.columns)).tolist()
        first = whole_number(u[7], 0, _HIGHEST_FREQUENCY)
        second = whole_number(u[8], 0, _HIGHEST_FREQUENCY - 1)
        row = [
            whole_number(u[0], 200, 1000),
            whole_number(u[1], 1, 200),
            whole_number(u[2], self.smallest_radius, self.smallest_radius + 50),
            self.least_noise + 4.0 * u[3],
            self.most_width * u[4],
            1.0 + u[5],
            1.0 + u[6],
            first,
            second + (second >= first),
        ]
        return np.array([row], dtype=np.float64)

    def draw_instance(self, parameters: Parameters, instance: int, key: np.uint64) -> Contours:
        """The centre at random; the number of the instance plays no part but through its key."""
        vertices, lines, radius, coefficient, width, ellipse_x, ellipse_y, first, second = parameters[0].tolist()
        center_x, center_y = uniforms(key, 2).tolist()
        return Contours(
            vertices=int(vertices),
            lines=int(lines),
            radius_x=radius * ellipse_x,
            radius_y=radius * ellipse_y,
            center_x=(REFERENCE_SIZE + whole_number(center_x, -512, 512)) / 2,
            center_y=(REFERENCE_SIZE + whole_number(center_y, -512, 512)) / 2,
            noise_gain=coefficient,
            outward=coefficient + width,
            frequencies=(int(first), int(second)),
        )


class VisualAtomBest(VisualAtom):
    """VisualAtom with the values that the published program's README calls best practice (`make_VisualAtom.sh`).

    As `VisualAtom`, with a radius of 10..60, the noise coefficient c ~ U(0, 4) and the line width w ~ U(0, 0.1).
    """

    name = "visualatom_best"
    version = 1
    smallest_radius = 10
    least_noise = 0.0
    most_width = 0.1
