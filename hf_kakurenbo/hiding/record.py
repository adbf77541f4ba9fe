"""What reads a ledger sees of it."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Protocol, TypeAlias

import numpy as np
from torch import Tensor

Where: TypeAlias = "slice | np.ndarray"
"""Some of the samples: a slice, or an array of ids."""


class SampleRecord(Sized, Protocol):
    """A ledger as its tables, its words and its history read it; `SampleLedger` says what each is."""

    hidden: Tensor
    rows: str

    @property
    def history(self) -> Sized | None:
        """What every epoch measured."""

    @property
    def num_hidden(self) -> int:
        """How many samples are hidden."""

    def parts(self) -> Iterator[slice]:
        """All samples, so many at a time."""

    def loss_at(self, where: Where) -> np.ndarray:
        """The lagging losses of some samples."""

    def correct_at(self, where: Where) -> np.ndarray:
        """Which of some samples were predicted correctly."""
