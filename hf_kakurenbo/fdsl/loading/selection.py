"""Which categories and which instances of them are meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

Selection: TypeAlias = int | slice | range | Sequence[int] | None
"""All (None), the first n (int), those of a slice or range, or a list of numbers."""

Numbers: TypeAlias = range | tuple[int, ...]
"""Those that are selected."""


def select(what: str, wanted: Selection, count: int, limit: int) -> Numbers:
    """The numbers that are meant.

    Args:
        what: what they are, for messages: `"categories"`.
        wanted: all (None), the first n (int), those of a slice or range, or a list of numbers, in its order.
        count: how many there are by default; what None, an open end and a negative end of a slice refer to.
        limit: how many there are at most.

    Raises:
        TypeError: it is something else.
        ValueError: nothing is selected, something that there is not, or a number twice.
    """
    if wanted is None:
        return range(count)
    if isinstance(wanted, int | np.integer) and not isinstance(wanted, bool):
        if not 1 <= wanted <= limit:
            raise ValueError(f"{what} must be in 1..{limit}, got {wanted}.")
        return range(int(wanted))
    if isinstance(wanted, slice):
        bounds = [bound for bound in (wanted.start, wanted.stop) if bound is not None and bound > 0]
        selected = range(max([count, *bounds]))[wanted]
    elif isinstance(wanted, range):
        selected = wanted
    elif isinstance(wanted, list | tuple | np.ndarray) and all(map(_is_integer, wanted)):
        return _listed(what, [int(number) for number in wanted], count, limit)
    else:
        raise TypeError(
            f"{what} must be None (all), an int n (the first n), a slice, a range or a list of integers, got "
            f"{wanted!r} of type {type(wanted).__name__}."
        )
    if not selected:
        raise ValueError(f"{what}={wanted} selects nothing; there are {count}, numbered from 0.")
    # The ends, not min and max: those would go through all of 2**32 instances.
    lowest, highest = sorted((selected[0], selected[-1]))
    if lowest < 0 or highest >= limit:
        raise ValueError(f"{what}={wanted} reaches outside 0..{limit - 1}; numbers must be in that range.")
    return selected


def _is_integer(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _listed(what: str, numbers: list[int], count: int, limit: int) -> tuple[int, ...]:
    if not numbers:
        raise ValueError(f"{what}={numbers} selects nothing; there are {count}, numbered from 0.")
    lowest, highest = min(numbers), max(numbers)
    if lowest < 0 or highest >= limit:
        raise ValueError(
            f"{what} reaches outside 0..{limit - 1} with {lowest if lowest < 0 else highest}; numbers must be in that "
            "range."
        )
    if len(set(numbers)) < len(numbers):
        twice = next(number for number in numbers if numbers.count(number) > 1)
        raise ValueError(f"{what} has {twice} more than once; each may be selected once.")
    return tuple(numbers)
