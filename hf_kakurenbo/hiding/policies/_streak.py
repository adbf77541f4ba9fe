"""A limit to how many epochs in a row a sample is hidden, for the policies that have one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..ledger import SampleLedger
from ..options import require_epochs, require_number
from .base import HidingPolicy

_LONGEST = np.iinfo(np.uint8).max


class StreakLimitedPolicy(HidingPolicy):
    """A policy that may have a limit; how long each sample has been hidden is kept only where there is one.

    Attributes:
        max_consecutive_hidden: a sample that was not trained on for so many epochs, hidden in each of them, is shown in
            the next one; None for no such limit.
    """

    max_consecutive_hidden: int | None = None
    _streak: np.ndarray | None = None

    def _limit(self, max_consecutive_hidden: int | None) -> None:
        """Set the limit, in 1..255 or None.

        Raises:
            ValueError: it is another value.
        """
        if max_consecutive_hidden is not None:
            require_epochs("max_consecutive_hidden", max_consecutive_hidden, 1)
            require_number("max_consecutive_hidden", max_consecutive_hidden, "[1, 255]", "a number of epochs")
        self.max_consecutive_hidden = max_consecutive_hidden

    def _show_what_is_due(self, hidden: np.ndarray) -> None:
        """Take out of a mask, (N,) bool, what was hidden for as long as may be."""
        if self._streak is not None:
            hidden &= self._streak < self.max_consecutive_hidden

    @property
    def observes(self) -> bool:
        """Whether there is a limit to how long a sample is hidden."""
        return self.max_consecutive_hidden is not None

    def observe(self, ledger: SampleLedger, trained: np.ndarray, epoch: int) -> None:
        """Count the epochs for which samples are hidden; one that was left out of a last batch counts on."""
        if self.max_consecutive_hidden is None:
            return
        if self._streak is None:
            self._streak = np.zeros(len(ledger), dtype=np.uint8)
        for part in ledger.parts():
            streak = self._streak[part]
            streak += ledger.hidden.numpy()[part] & (streak < _LONGEST)
            streak[trained[part]] = 0

    def state_dict(self) -> dict[str, Tensor]:
        """`streak`, (N,) uint8: for how many epochs the sample has been hidden; with a limit to it alone."""
        return {} if self._streak is None else {"streak": torch.from_numpy(self._streak)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over `state_dict`; without a limit, nothing."""
        if self.max_consecutive_hidden is not None:
            self._streak = state["streak"].clone().numpy()
