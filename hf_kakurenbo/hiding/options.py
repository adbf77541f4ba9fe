"""Checks of options: each error says the name, the value and what was expected."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral, Real
from types import UnionType
from typing import Any, Union, get_args, get_origin


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    # A float with nothing behind the point: JSON has 1.28e6 for a number of samples.
    return _is_number(value) and (isinstance(value, Integral) or float(value).is_integer())


_TYPES: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("true or false", lambda value: isinstance(value, bool)),
    int: ("a whole number", _is_whole),
    float: ("a number", _is_number),
    str: ("a string", lambda value: isinstance(value, str)),
    list[float]: ("a list of numbers", lambda value: isinstance(value, (list, tuple)) and all(map(_is_number, value))),
    dict[str, Any]: ("a dict", lambda value: isinstance(value, dict)),
    Callable[..., Any]: ("a function", callable),
    type(None): ("None", lambda value: value is None),
}


def require_type(name: str, value: Any, kind: Any, note: str = "") -> None:
    """Check that an option is of the type that it is annotated with.

    Args:
        name: of the option, for the message.
        value: what was given. A whole number may be a float, a list a tuple; true and false are no numbers.
        kind: `bool`, `int`, `float`, `str`, `list[float]`, `dict[str, Any]`, `Callable[..., Any]`, None, or a union.
        note: what else the message says, such as the default: further sentences, with a space before them.

    Raises:
        ValueError: it is of another type.
    """
    kinds = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    if not any(_TYPES[one][1](value) for one in kinds):
        expected = " or ".join(_TYPES[one][0] for one in kinds)
        raise ValueError(f"{name}={value!r} must be {expected}, got {type(value).__name__}.{note}")


def require_number(name: str, value: Any, within: str, meaning: str) -> None:
    """Check an option that is a number in an interval.

    Args:
        name: of the option, for the message.
        value: what was given.
        within: the interval, a square bracket where its end belongs to it: `"[0, 1)"`.
        meaning: what the option is, for the message.

    Raises:
        ValueError: it is no number, or outside.
    """
    low, high = map(float, within[1:-1].split(","))
    number = _is_number(value)
    above = number and (value >= low if within[0] == "[" else value > low)
    below = number and (value <= high if within[-1] == "]" else value < high)
    if not (above and below):
        raise ValueError(f"{name}={value!r} is not in {within}: it must be a number, {meaning}.")


def require_epochs(name: str, value: Any, least: int = 0) -> None:
    """Check an option that is a whole number of epochs.

    Raises:
        ValueError: it is not, or below `least`.
    """
    if not _is_whole(value) or value < least:
        raise ValueError(f"{name}={value!r} must be a whole number of epochs, {least} or more.")


def require_refresh_interval(value: Any) -> None:
    """Check a `refresh_interval`.

    Raises:
        ValueError: it is no whole number of epochs.
    """
    if not _is_whole(value) or value < 0:
        raise ValueError(
            f"refresh_interval={value!r} must be a whole number of epochs: 1 refreshes the hidden samples at the end "
            "of each, 0 never."
        )


def is_due(epoch: int, interval: int) -> bool:
    """Whether an epoch, counted from 0, is the last of `interval` ones; never, if that is 0."""
    return interval > 0 and (epoch + 1) % interval == 0
