"""Forgetting events (Toneva et al., ICLR 2019, arXiv 1812.05159): prune what, once learned, was never forgotten."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..ledger import SampleLedger
from ..options import require_number, require_type
from ..schedule import HiddenFractionSchedule
from ._random import draw_without_replacement, generator
from .base import HidingPolicy, Selection, register_policy

_NEVER_LEARNED = 255


@register_policy("forgetting")
class ForgettingPolicy(HidingPolicy):
    """Hide the ⌊F·N⌋ samples that were forgotten least often.

    A forgetting event is a sample predicted correctly the time before and wrongly now. Samples never predicted
    correctly count as forgotten infinitely often. Ties are broken at random.

    The paper counts over one whole training and starts another on what is left. Here one training does both: the
    events of the first epochs count, and the training continues with the rest. With `online`, as in the comparison of
    the KAKURENBO paper, the samples are chosen anew in each epoch and the hidden ones are refreshed, so that one that
    is forgotten while it is hidden can come back; what a refresh shows counts at the end of the next epoch.
    Both papers leave the learning rate as it is: `lr_compensation=False`.

    It needs more than the ledger, which has the last prediction only: the one before it and the number of events, 3
    bytes a sample.

    Args:
        max_hidden_fraction: F, in [0, 1).
        prune_at: the fraction of the training after which samples are hidden, in (0, 1).
        online: choose anew in each epoch, instead of once.
        seed: of the ties.

    Raises:
        ValueError: an argument is out of its range.
    """

    needs_measurements = True

    def __init__(
        self, max_hidden_fraction: float = 0.3, prune_at: float = 0.2, online: bool = False, seed: int = 0
    ) -> None:
        require_number("prune_at", prune_at, "(0, 1)", "the fraction of the training after which samples are hidden")
        require_type("online", online, bool)
        require_type("seed", seed, int)
        self.fraction = HiddenFractionSchedule(max_hidden_fraction, [0.0], [1.0], 0)
        self.prune_at = prune_at
        self.online = online
        self.seed = seed
        self._events: np.ndarray | None = None
        self._was_correct: np.ndarray | None = None
        self._learned: np.ndarray | None = None

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """The samples of fewest events; if they were chosen before, once and for all, the same."""
        if not self.may_hide(epoch, progress) or self._events is None or self._learned is None:
            return Selection(torch.zeros(len(ledger), dtype=torch.bool), 0)
        if not self.online and ledger.num_hidden:
            return Selection(ledger.hidden.clone(), ledger.num_hidden)
        count = self.fraction.count(len(ledger), epoch, progress)
        rank = np.where(self._learned, np.minimum(self._events, _NEVER_LEARNED - 1), _NEVER_LEARNED).astype(np.uint8)
        up_to = np.cumsum(np.bincount(rank, minlength=256))
        last = int(np.searchsorted(up_to, count))  # of the samples with so many events some are hidden
        hidden = rank < last
        ties = count - int(np.count_nonzero(hidden))
        hidden |= draw_without_replacement(ledger, rank == last, ties, generator(self.seed, epoch))
        return Selection(torch.from_numpy(hidden), count)

    def most_hidden(self, draws: int, epoch: int, progress: float) -> int:
        """⌊F_e · draws⌋."""
        return self.fraction.count(draws, epoch, progress)

    def may_hide(self, epoch: int, progress: float) -> bool:
        """From `prune_at` on."""
        return progress >= self.prune_at

    def wants_refresh(self, epoch: int) -> bool:
        """Only online: what was pruned for good is not measured again."""
        return self.online

    def observe(self, ledger: SampleLedger, trained: np.ndarray, epoch: int) -> None:
        """Count the samples that were known and are not any more."""
        if self._events is None or self._was_correct is None or self._learned is None:
            self._events = np.zeros(len(ledger), dtype=np.uint8)
            self._was_correct = np.zeros(len(ledger), dtype=np.bool_)
            self._learned = np.zeros(len(ledger), dtype=np.bool_)
        for part in ledger.parts():
            # A sample that went through the model neither to train nor to refresh has the statistics that it had.
            correct, events = ledger.correct_at(part), self._events[part]
            events += self._was_correct[part] & ~correct & (events < _NEVER_LEARNED - 1)
            self._was_correct[part] = correct
            self._learned[part] |= correct

    def state_dict(self) -> dict[str, Tensor]:
        """`events` (N,) uint8, counted up to 254; `was_correct` and `learned`, (N,) bool each."""
        if self._events is None or self._was_correct is None or self._learned is None:
            return {}
        own = {"events": self._events, "was_correct": self._was_correct, "learned": self._learned}
        return {name: torch.from_numpy(values) for name, values in own.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over `state_dict`."""
        names = ("events", "was_correct", "learned")
        self._events, self._was_correct, self._learned = (state[name].clone().numpy() for name in names)
