"""Spaced repetition: a rule of this library's own, after the way in which people learn vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..ledger import SampleLedger
from ..options import require_epochs, require_number, require_type
from ..schedule import FactorSchedule, floor_of
from ._random import draw_without_replacement, generator
from .base import HidingPolicy, Selection, register_policy
from .coin import is_known


@register_policy("spaced_repetition")
class SpacedRepetitionPolicy(HidingPolicy):
    """A sample that is known is asked again after a growing pause; the asking is a training step like any other.

    Each sample has an interval I, 1 at first, and an epoch in which it is due; in epoch e the samples with due > e are
    hidden. After a sample was trained in epoch e: if it was right with a confidence of at least tau in that very
    forward pass, I ← min(2·I, K), else I ← 1; due ← e + a uniform random integer in ⌈I / 2⌉..I, so that returns come in
    no waves. There is no refresh: no figure that counts is stale for longer than K epochs.

    Each of the rule's parts can be left out, to see what it is worth: the chance in the return (`random_pause=False`),
    the growth (`growing=False`), the doing without a refresh (`refreshes=True`).

    It needs more than the ledger, the interval and the epochs left to rest, 2 bytes a sample, since whether a sample
    was known the time before last is not in the ledger. If all samples would be hidden, none is.

    Args:
        confidence_threshold: tau, in [0, 1].
        max_interval: K, the longest interval, in 1..255 epochs; 1 hides nothing.
        max_resting_fraction: at most this fraction is hidden, in [0, 1]; of more that rest, it is drawn at random.
            Without the limit (1) more time is saved and accuracy lost, where the model has soon memorised most samples
            (docs/comparison.md).
        resting_milestones: fractions of the training in [0, 1) at which the limit takes its next factor; the first is
            0, and they rise. `(0, 0.875)` with the factors `(1, 0)` trains on everything in the last eighth.
        resting_factors: as many, each in [0, 1]: they scale `max_resting_fraction`.
        hiding_warmup_epochs: epochs at the start in which nothing is hidden; intervals grow in them already.
        seed: of the pauses.
        random_pause: False for a return after exactly I epochs.
        growing: False for I = K from the first time on that a sample is known.
        refreshes: refresh the resting samples, forward-only, at the end of each epoch; one that is not known any more
            is due in the next epoch, with I = 1.
        random_first_pause: the pause of a sample that was not known the time before is a uniform random integer in
            1..I, whatever the others are. With K = 2 and `random_pause=False` this is a duty cycle: of the samples that
            stay known one half is hidden in each epoch, and not all of them in every other one.

    Raises:
        ValueError: an argument is out of its range.
    """

    needs_measurements = True

    def __init__(
        self,
        confidence_threshold: float = 0.9,
        max_interval: int = 8,
        max_resting_fraction: float = 0.3,
        hiding_warmup_epochs: int = 1,
        seed: int = 0,
        random_pause: bool = True,
        growing: bool = True,
        refreshes: bool = False,
        resting_milestones: Sequence[float] = (0.0,),
        resting_factors: Sequence[float] = (1.0,),
        random_first_pause: bool = False,
    ) -> None:
        require_number(
            "confidence_threshold", confidence_threshold, "[0, 1]", "the probability from which on a sample is known"
        )
        require_epochs("max_interval", max_interval, 1)
        require_number("max_interval", max_interval, "[1, 255]", "the longest pause, in epochs")
        require_number(
            "max_resting_fraction", max_resting_fraction, "[0, 1]", "the fraction of the samples that may rest at once"
        )
        require_epochs("hiding_warmup_epochs", hiding_warmup_epochs)
        require_type("random_pause", random_pause, bool)
        require_type("growing", growing, bool)
        require_type("refreshes", refreshes, bool)
        require_type("random_first_pause", random_first_pause, bool)
        require_type("seed", seed, int)
        self.confidence_threshold = confidence_threshold
        self.max_interval = int(max_interval)
        self.max_resting_fraction = max_resting_fraction
        self.resting_factor = FactorSchedule(
            resting_milestones, resting_factors, ("resting_milestones", "resting_factors"), "max_resting_fraction"
        )
        self.warmup_epochs = hiding_warmup_epochs
        self.seed = seed
        self.random_pause = random_pause
        self.growing = growing
        self.refreshes = refreshes
        self.random_first_pause = random_first_pause
        self._interval: np.ndarray | None = None
        self._rest: np.ndarray | None = None

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """The samples that rest."""
        if epoch < self.warmup_epochs or self._rest is None:
            return Selection(torch.zeros(len(ledger), dtype=torch.bool), 0)
        if self.refreshes:
            self._wake_the_forgotten(ledger)
        hidden = self._rest > 0
        resting = int(np.count_nonzero(hidden))
        most = self.most_hidden(len(ledger), epoch, progress)
        if resting > most:
            hidden = draw_without_replacement(ledger, hidden, most, generator(self.seed, epoch))
        if hidden.all():
            hidden[:] = False
        return Selection(torch.from_numpy(hidden), resting)

    def most_hidden(self, draws: int, epoch: int, progress: float) -> int:
        """The fraction of them that may rest at this progress, rounded down."""
        return floor_of(draws, self.max_resting_fraction, self.resting_factor(progress))

    def may_hide(self, epoch: int, progress: float) -> bool:
        """Not in the warm-up, nor where the limit's factor is 0."""
        return epoch >= self.warmup_epochs and self.resting_factor(progress) > 0

    def wants_refresh(self, epoch: int) -> bool:
        """Never, unless it `refreshes`: a sample is asked when it is due."""
        return self.refreshes

    def _wake_the_forgotten(self, ledger: SampleLedger) -> None:
        """Let the samples be due that rest and were found unknown by a refresh. A second time this changes nothing."""
        assert self._interval is not None
        assert self._rest is not None
        for part in ledger.parts():
            forgotten = (self._rest[part] > 0) & ~is_known(ledger, part, self.confidence_threshold)
            self._interval[part][forgotten] = 1
            self._rest[part][forgotten] = 0

    def observe(self, ledger: SampleLedger, trained: np.ndarray, epoch: int) -> None:
        """Set the pauses of the samples that were trained; the others have rested one epoch more."""
        if self._interval is None or self._rest is None:
            self._interval = np.ones(len(ledger), dtype=np.uint8)
            self._rest = np.zeros(len(ledger), dtype=np.uint8)
        # Apart from the generator of the same epoch's `select`.
        random = generator(self.seed, epoch, 1)
        for part in ledger.parts():
            known = is_known(ledger, part, self.confidence_threshold)
            interval = np.where(known, self._longer(self._interval[part]), 1)
            pause = random.integers(self._shortest(interval, self._interval[part]), interval, endpoint=True)
            asked, rest = trained[part], self._rest[part]
            self._interval[part] = np.where(asked, interval, self._interval[part])
            self._rest[part] = np.where(asked, pause - 1, rest - (rest > 0))

    def _longer(self, interval: np.ndarray) -> np.ndarray | int:
        """The intervals after they have grown once."""
        return np.minimum(2 * interval.astype(np.int64), self.max_interval) if self.growing else self.max_interval

    def _shortest(self, interval: np.ndarray, before: np.ndarray) -> np.ndarray:
        """The shortest pauses that may be drawn with these intervals, of which those before tell what was known."""
        shortest = (interval + 1) // 2 if self.random_pause else interval
        return np.where(before == 1, 1, shortest) if self.random_first_pause else shortest

    def state_dict(self) -> dict[str, Tensor]:
        """`interval` and `rest`, (N,) uint8 each: I, and the epochs that the sample has yet to rest."""
        if self._interval is None or self._rest is None:
            return {}
        return {"interval": torch.from_numpy(self._interval), "rest": torch.from_numpy(self._rest)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over `state_dict`."""
        self._interval, self._rest = (state[name].clone().numpy() for name in ("interval", "rest"))
