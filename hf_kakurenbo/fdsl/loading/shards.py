"""How a stream is cut into equal shards, which workers and ranks split among themselves."""

from __future__ import annotations

DEFAULT_SHARDS = 1024


def count_shards(samples: int, at_most: int = DEFAULT_SHARDS) -> int:
    """Into how many shards of one size a number of samples is cut.

    The smallest prime factors of the number are multiplied as long as the product is not above `at_most`: 960 for
    21,000,000 samples, 320 for 1,000,000, 480 for 60,000. So the shards are equal, which keeps the ranks of a
    distributed training in step, and are divided by as many of the usual numbers of ranks (2, 4, 6, 8, 16, …) as
    divide the samples. The largest divisor would not do: it is 1000 in all three examples, which 16 ranks cannot
    divide, and then each of them would draw every image.

    Args:
        samples: at least 1.
        at_most: at least 1.

    Raises:
        ValueError: at_most is less than 1.
        TypeError: at_most is not an integer.
    """
    if not isinstance(at_most, int) or isinstance(at_most, bool):
        raise TypeError(f"shards must be an integer, got {at_most!r} of type {type(at_most).__name__}.")
    if at_most < 1:
        raise ValueError(f"shards must be at least 1, got {at_most}.")
    count = 1
    while True:
        left = samples // count
        factor = next((factor for factor in range(2, at_most // count + 1) if left % factor == 0), None)
        if factor is None:
            return count
        count *= factor


def cut(length: int, count: int) -> list[range]:
    """The positions 0..length − 1 in so many consecutive shards, as equal as can be."""
    return [range(length * number // count, length * (number + 1) // count) for number in range(count)]
