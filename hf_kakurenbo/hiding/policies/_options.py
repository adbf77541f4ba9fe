"""Checks of options that several policies have."""

from __future__ import annotations

from typing import Any


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
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    above = number and (value >= low if within[0] == "[" else value > low)
    below = number and (value <= high if within[-1] == "]" else value < high)
    if not (above and below):
        raise ValueError(f"{name}={value} is not in {within}: it is {meaning}.")


def require_switch(name: str, value: Any) -> None:
    """Check an option that is on or off.

    Raises:
        ValueError: it is neither.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name}={value!r} must be true or false.")


def require_epochs(name: str, value: Any, least: int = 0) -> None:
    """Check an option that is a whole number of epochs.

    Raises:
        ValueError: it is not, or below `least`.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value) or value < least:
        raise ValueError(f"{name}={value} must be a whole number of epochs, {least} or more.")


def require_refresh_interval(value: Any) -> None:
    """Check a `refresh_interval`.

    Raises:
        ValueError: it is no whole number of epochs.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0 or value != int(value):
        raise ValueError(
            f"refresh_interval={value} must be a whole number of epochs: 1 looks at the hidden samples at the end of "
            "each, 0 never."
        )


def is_due(epoch: int, interval: int) -> bool:
    """Whether an epoch, counted from 0, is the last of `interval` ones; never, if that is 0."""
    return interval > 0 and (epoch + 1) % interval == 0
