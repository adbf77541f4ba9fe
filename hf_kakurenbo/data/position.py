"""Where in an epoch a training is: in samples, since a resumed one may have batches of another size."""

from __future__ import annotations

import math
from typing import NamedTuple


class Position(NamedTuple):
    """How far an epoch has got, in samples of all ranks together."""

    samples_done: int
    """How many were trained on, from the first of the order on."""
    samples: int
    """How many the epoch has."""
    batch_size: int
    """Of all ranks together."""
    accumulation: int
    """How many batches make an update."""
    samples_dropped: int = 0
    """How many of those done are no whole batches of this size, but were trained on before it changed."""
    full_batch_size: int | None = None
    """Of all ranks together, in epochs that hide nothing; None where every epoch has `batch_size`."""

    def left(self, drop_last: bool, batch_size: int) -> int:
        """How many samples are still to be trained on, in batches of a size; with `drop_last`, 0 if they fill none."""
        left = self.samples - self.samples_done
        return 0 if drop_last and left < batch_size else left

    def in_batches_of(self, batch_size: int, accumulation: int, drop_last: bool) -> tuple[int, int]:
        """Where the epoch continues in batches of another size, so that each sample is still trained on once.

        Args:
            batch_size: of all ranks together.
            accumulation: how many batches make an update.
            drop_last: whether an incomplete batch is left out.

        Returns:
            How many whole updates, in batches, the samples done amount to; and how many samples of the order have to
            be left out at its start for these batches to end where the samples done end.
        """
        if self.left(drop_last, batch_size) == 0:
            return (self.samples // batch_size if drop_last else math.ceil(self.samples / batch_size)), 0
        batches = self.samples_done // (batch_size * accumulation) * accumulation
        return batches, self.samples_done - batches * batch_size
