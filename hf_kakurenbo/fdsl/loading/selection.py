"""Which categories and which instances of them are meant."""

from __future__ import annotations

from numbers import Integral
from typing import TypeAlias

Selection: TypeAlias = int | slice | range | None
"""All (None), the first n (int), or those of a slice or range."""


def select(what: str, wanted: Selection, count: int, limit: int) -> range:
    """The numbers that are meant.

    Args:
        what: what they are, for messages: `"categories"`.
        wanted: all (None), the first n (int), or those of a slice or range.
        count: how many there are by default; what None, an open end and a negative end of a slice refer to.
        limit: how many there are at most.

    Raises:
        TypeError: it is something else.
        ValueError: nothing is selected, or something that there is not.
    """
    if wanted is None:
        return range(count)
    if isinstance(wanted, Integral) and not isinstance(wanted, bool):
        if not 1 <= wanted <= limit:
            raise ValueError(f"{what} must be in 1..{limit}, got {wanted}.")
        return range(int(wanted))
    if isinstance(wanted, slice):
        bounds = [bound for bound in (wanted.start, wanted.stop) if bound is not None and bound > 0]
        selected = range(max([count, *bounds]))[wanted]
    elif isinstance(wanted, range):
        selected = wanted
    else:
        raise TypeError(
            f"{what} must be None (all), an int n (the first n), a slice or a range, got {wanted!r} of type "
            f"{type(wanted).__name__}."
        )
    if not selected:
        raise ValueError(f"{what}={wanted} selects nothing; there are {count}, numbered from 0.")
    # The ends, not min and max: those would go through all of 2**32 instances.
    lowest, highest = sorted((selected[0], selected[-1]))
    if lowest < 0 or highest >= limit:
        raise ValueError(f"{what}={wanted} reaches outside 0..{limit - 1}; numbers must be in that range.")
    return selected
