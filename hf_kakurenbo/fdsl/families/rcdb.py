"""RCDB, the radial contour database.

Kataoka et al., "Replacing Labeled Real-image Datasets with Auto-generated Contours", CVPR 2022, arXiv 2206.09132. What
the paper leaves open is as in the program that its authors published, with its default values (`rcdb_render` of
https://github.com/masora1030/CVPR2022-Pretrained-ViT-PyTorch).
"""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..family import Parameters
from ..kernels.contours import REFERENCE_SIZE, Contours
from ..kernels.random_numbers import uniforms
from .contour_family import ContourFamily
from .ranges import between, check_range, whole_between

# exp(−1 / 100): the whole part of an exponential of mean 100 is n with a probability ∝ exp(−n / 100).
_NEXT_TO_ONE = 0.9900498337491681


# What the ranges of a subclass may be.
_WIDEST = {
    "vertex_range": (3, 100_000),
    "line_range": (1, 100_000),
    "noise_range": (-1e6, 1e6),
    "width_range": (-1e6, 1e6),
    "radius_range": (0, 1e6),
    "ellipse_range": (0, 1e6),
    "center_range": (-1e6, 1e6),
}


@cache
def vertex_distribution(fewest: int, most: int) -> NDArray[np.float64]:
    """The fraction of categories with at most fewest, fewest + 1, …, most vertices: (most − fewest + 1,)."""
    weights = [1.0]
    while len(weights) <= most - fewest:
        weights.append(weights[-1] * _NEXT_TO_ONE)
    total = np.cumsum(weights)
    return total / total[-1]


class RCDB(ContourFamily):
    """Contours around a centre in grays on white, each a noisy step away from the last.

    A category: 3..200 vertices, from an exponential distribution of mean 100; 1..200 lines; the noise coefficient
    c ~ U(0, 4) and the line width w ~ U(0, 0.1). Each line moves every vertex outwards by w − c · (2 · noise − 1), the
    noise being Perlin's; so by c + w on average. An instance: a radius of 0..100, times U(1, 2) for x and for y; the
    centre (512 + U{−400..400}) / 2 for each axis; the noise; the gray of each line. Lengths are in pixels at 512 × 512.
    A subclass may set other ranges.

    Raises:
        ValueError: when a subclass is defined with something else than a range, or one out of `render`'s.
    """

    name = "rcdb"
    version = 2
    columns = ("vertices", "lines", "noise_coefficient", "line_width")
    # Of `make_rcdb.py`, and of `SegRCDB_params.py` (Shinoda et al., "SegRCDB: Semantic Segmentation via Formula-Driven
    # Supervised Learning", ICCV 2023, https://github.com/dahlian00/SegRCDB), whose contours are RCDB's.
    published_keys = MappingProxyType(
        {
            "Vertex": "vertices",
            "Line_num": "lines",
            "Perlin_noise": "noise_coefficient",
            "line_width": "line_width",
            **dict.fromkeys(("Center_rad", "Oval_rate_x", "Oval_rate_y", "start_pos_h", "start_pos_w")),
            **dict.fromkeys(("Category_num", "Color_Gray")),
        }
    )
    background = 255
    vertex_range: ClassVar[tuple[int, int]] = (3, 200)
    """Of the exponential distribution of mean 100, what is kept."""
    line_range: ClassVar[tuple[int, int]] = (1, 200)
    noise_range: ClassVar[tuple[float, float]] = (0.0, 4.0)
    width_range: ClassVar[tuple[float, float]] = (0.0, 0.1)
    radius_range: ClassVar[tuple[int, int]] = (0, 100)
    """In pixels."""
    ellipse_range: ClassVar[tuple[float, float]] = (1.0, 2.0)
    center_range: ClassVar[tuple[int, int]] = (-400, 400)
    """Of which half is added to the middle of the image, in pixels."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for attribute, (least, most) in _WIDEST.items():
            check_range(cls, attribute, least, most)

    def draw_parameters(self, key: np.uint64) -> Parameters:
        """The parameters of a category: (1, 4)."""
        vertices, lines, coefficient, width = uniforms(key, 4).tolist()
        distribution = vertex_distribution(*self.vertex_range)
        row = [
            self.vertex_range[0] + int(np.searchsorted(distribution, vertices, side="right")),
            whole_between(lines, self.line_range),
            between(coefficient, self.noise_range),
            between(width, self.width_range),
        ]
        return np.array([row], dtype=np.float64)

    def draw_instance(self, parameters: Parameters, instance: int, key: np.uint64) -> Contours:
        """The ellipse and its centre at random; the number of the instance plays no part but through its key."""
        vertices, lines, coefficient, width = parameters[0].tolist()
        radius, ellipse_x, ellipse_y, center_x, center_y = uniforms(key, 5).tolist()
        length = whole_between(radius, self.radius_range)
        return Contours(
            vertices=int(vertices),
            lines=int(lines),
            radius_x=length * between(ellipse_x, self.ellipse_range),
            radius_y=length * between(ellipse_y, self.ellipse_range),
            center_x=(REFERENCE_SIZE + whole_between(center_x, self.center_range)) / 2,
            center_y=(REFERENCE_SIZE + whole_between(center_y, self.center_range)) / 2,
            noise_gain=2.0 * coefficient,
            outward=coefficient + width,
        )
