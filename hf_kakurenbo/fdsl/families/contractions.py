"""Contractions of the plane at random, by their singular values, which add up to a given σ-factor.

Anderson and Farrell, "Improving Fractal Pre-training", WACV 2022, arXiv 2110.03091. A map has singular values
1 ≥ s₁ ≥ s₂ ≥ 0; the σ-factor of a system is the sum over its maps of s₁ + 2·s₂. What the paper leaves open is as in
the program that its authors published (`sample_svs` and `sample_system` of `fractals/ifs.py` of
https://github.com/catalys1/fractal-pretraining).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..kernels.contours import sine_and_cosine
from .ranges import between

_TURN = 2**53
# Of one map: both singular values at 1.
_MOST = 3.0


def singular_values(sigma: float, uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of N maps, (N, 2), s₁ before s₂, each in 0..1, with s₁ + 2·s₂ adding up to a σ-factor.

    Each in turn is uniform over what leaves the later ones possible; the last follows from the others.

    Args:
        sigma: the σ-factor, in 0..3·N.
        uniforms: numbers in [0, 1), (2·N − 1,).
    """
    count = (len(uniforms) + 1) // 2
    values = np.empty((count, 2))
    left, needed = sigma, sigma - _MOST * (count - 1)
    for number in range(count - 1):
        large = between(float(uniforms[2 * number]), (max(0.0, needed / _MOST), min(1.0, left)))
        left, needed = left - large, needed - large
        small = between(float(uniforms[2 * number + 1]), (max(0.0, needed / 2.0), min(large, left / 2.0)))
        left, needed = left - 2.0 * small, needed - 2.0 * small + _MOST
        values[number] = large, small
    small = between(float(uniforms[-1]), (max(0.0, (left - 1.0) / 2.0), left / _MOST))
    values[-1] = left - 2.0 * small, small
    return values


def matrix(large: float, small: float, turns: NDArray[np.float64]) -> NDArray[np.float64]:
    """A matrix of two singular values between two rotations, with a reflection in half of the cases: (2, 2).

    Args:
        large: the larger singular value.
        small: the smaller one.
        turns: numbers in [0, 1), (3,): the two rotations, and whether to reflect.
    """
    (sine, cosine), (other_sine, other_cosine) = (sine_and_cosine(int(turn * _TURN), _TURN) for turn in turns[:2])
    small = -small if turns[2] < 0.5 else small
    before = np.array([[other_cosine, -other_sine], [other_sine, other_cosine]])
    # Spelled out: what a library multiplies in which order depends on the machine.
    scaled = np.array([[large * before[0, 0], large * before[0, 1]], [small * before[1, 0], small * before[1, 1]]])
    return np.array(
        [
            [cosine * scaled[0, 0] - sine * scaled[1, 0], cosine * scaled[0, 1] - sine * scaled[1, 1]],
            [sine * scaled[0, 0] + cosine * scaled[1, 0], sine * scaled[0, 1] + cosine * scaled[1, 1]],
        ]
    )


def largest_singular_value(matrices: NDArray[np.float64]) -> float:
    """The largest of matrices, rows a, b, c, d: (matrices, 4) or more columns. A contraction has at most 1."""
    a, b, c, d = matrices[:, 0], matrices[:, 1], matrices[:, 2], matrices[:, 3]
    rotating = np.sqrt((a + d) * (a + d) + (b - c) * (b - c))
    reflecting = np.sqrt((a - d) * (a - d) + (b + c) * (b + c))
    return float(((rotating + reflecting) / 2.0).max())
