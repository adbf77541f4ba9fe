"""The ranges from which a family draws, which a subclass may set to others."""

from __future__ import annotations

from numbers import Real

from ..kernels.random_numbers import whole_number


def check_range(family: type, attribute: str, least: float, most: float, *, apart: bool = False) -> None:
    """Raise a ValueError unless a class attribute is a pair of numbers, low ≤ high, both in [least, most].

    Args:
        family: the class.
        attribute: its name.
        least: what low is at least.
        most: what high is at most.
        apart: whether low must be below high.
    """
    value = getattr(family, attribute)
    fits = isinstance(value, tuple) and len(value) == 2 and all(isinstance(each, Real) for each in value)
    if not (fits and least <= value[0] <= value[1] <= most) or (apart and value[0] == value[1]):
        expected = f"(low, high) with {least:g} ≤ low {'<' if apart else '≤'} high ≤ {most:g}"
        raise ValueError(f"{attribute} of {family.__qualname__} must be {expected}, got {value!r}.")


def between(uniform: float, ends: tuple[float, float]) -> float:
    """A number between the ends, from one in [0, 1)."""
    return ends[0] + (ends[1] - ends[0]) * uniform


def whole_between(uniform: float, ends: tuple[int, int]) -> int:
    """A whole number between the ends, both included, from one in [0, 1)."""
    return whole_number(uniform, *ends)
