"""SegRCDB, the segmentation radial contour database: what its categories are.

Shinoda et al., "SegRCDB: Semantic Segmentation via Formula-Driven Supervised Learning", ICCV 2023, arXiv 2309.17083.
The values are those of the program that its authors published (https://github.com/dahlian00/SegRCDB), as its
`make_SegRCDB.sh` calls it; the defaults of `SegRCDB_params.py` are the same, but for a line width up to 0.01.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from ..family import Parameters
from ..kernels.contours import REFERENCE_SIZE, Contours
from ..kernels.random_numbers import uniforms, whole_number
from .contour_family import ContourFamily
from .rcdb import vertex_distribution

_FEWEST_VERTICES, _MOST_VERTICES = 3, 500


class SegRCDB(ContourFamily):
    """Contours around a centre in grays on black, of which an image of SegRCDB has many.

    A category: 3..500 vertices, from an exponential distribution of mean 100; 1..50 lines; a radius of 0..50, times
    U(1, 2) for x and for y; the noise coefficient c ~ U(0, 4) and the line width w ~ U(0, 0.1). The lines are RCDB's:
    each moves every vertex outwards by w − c · (2 · noise − 1). An instance: the centre (512 + U{−512..512}) / 2 for
    each axis; the noise; the gray of each line. Lengths are in pixels at 512 × 512.
    """

    name = "segrcdb"
    version = 1
    columns = ("vertices", "lines", "radius", "noise_coefficient", "line_width", "ellipse_x", "ellipse_y")
    published_keys = MappingProxyType(
        {
            "Vertex": "vertices",
            "Line_num": "lines",
            "Center_rad": "radius",
            "Perlin_noise": "noise_coefficient",
            "line_width": "line_width",
            "Oval_rate_x": "ellipse_x",
            "Oval_rate_y": "ellipse_y",
            **dict.fromkeys(("Category_num", "Color_Gray")),
        }
    )
    background = 0

    def draw_parameters(self, key: np.uint64) -> Parameters:
        """The parameters of a category: (1, 7)."""
        vertices, lines, radius, coefficient, width, ellipse_x, ellipse_y = uniforms(key, 7).tolist()
        distribution = vertex_distribution(_FEWEST_VERTICES, _MOST_VERTICES)
        row = [
            _FEWEST_VERTICES + int(np.searchsorted(distribution, vertices, side="right")),
            whole_number(lines, 1, 50),
            whole_number(radius, 0, 50),
            4.0 * coefficient,
            0.1 * width,
            1.0 + ellipse_x,
            1.0 + ellipse_y,
        ]
        return np.array([row], dtype=np.float64)

    def draw_instance(self, parameters: Parameters, instance: int, key: np.uint64) -> Contours:
        """The centre at random; the number of the instance plays no part but through its key."""
        vertices, lines, radius, coefficient, width, ellipse_x, ellipse_y = parameters[0].tolist()
        center_x, center_y = uniforms(key, 2).tolist()
        return Contours(
            vertices=int(vertices),
            lines=int(lines),
            radius_x=radius * ellipse_x,
            radius_y=radius * ellipse_y,
            center_x=(REFERENCE_SIZE + whole_number(center_x, -512, 512)) / 2,
            center_y=(REFERENCE_SIZE + whole_number(center_y, -512, 512)) / 2,
            noise_gain=2.0 * coefficient,
            outward=coefficient + width,
        )
