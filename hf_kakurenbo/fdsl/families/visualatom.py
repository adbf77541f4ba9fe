"""VisualAtom: contours with two waves on them.

Takashima et al., "Visual Atoms: Pre-training Vision Transformers with Sinusoidal Waves", CVPR 2023, arXiv 2303.01112.
What the paper leaves open is as in the program that its authors published, with its default values
(`visual_atomic_renderer` of https://github.com/masora1030/CVPR2023-FDSL-on-VisualAtom), which differ from those of the
script beside it.
"""

from __future__ import annotations

import numpy as np

from ..family import Parameters
from ..kernels.contours import REFERENCE_SIZE, Contours
from ..kernels.random_numbers import uniforms, whole_number
from .contour_family import ContourFamily

_HIGHEST_FREQUENCY = 20


class VisualAtom(ContourFamily):
    """Contours around a centre in grays on black, with two waves that grow from line to line.

    A category: 200..1000 vertices; 1..200 lines; a radius of 0..50, times U(1, 2) for x and for y; the noise
    coefficient c ~ U(2, 6); the line width w ~ U(0, 0.01); two different frequencies n₁ and n₂ in 0..20. Each line
    moves the vertex at angle θ outwards by w + c − c · noise + ½ sin(n₁ θ) + ½ sin(n₂ θ), the noise being Perlin's. An
    instance: the centre (512 + U{−512..512}) / 2 for each axis; the noise; the gray of each line. Lengths are in pixels
    at 512 × 512.
    """

    name = "visualatom"
    version = 1
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
    whole = frozenset({"vertices", "lines", "frequency_1", "frequency_2"})
    limits = {  # noqa: RUF012
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

    def draw_parameters(self, key: np.uint64) -> Parameters:
        """The parameters of a category: (1, 9)."""
        u = uniforms(key, len(self.columns)).tolist()
        first = whole_number(u[7], 0, _HIGHEST_FREQUENCY)
        second = whole_number(u[8], 0, _HIGHEST_FREQUENCY - 1)
        row = [
            whole_number(u[0], 200, 1000),
            whole_number(u[1], 1, 200),
            whole_number(u[2], 0, 50),
            2.0 + 4.0 * u[3],
            0.01 * u[4],
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
