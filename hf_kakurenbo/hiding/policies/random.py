"""Hide a random fraction: the control against which every policy that measures the samples has to prove itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..ledger import SampleLedger
from ..options import require_type
from ..schedule import HiddenFractionSchedule
from ._random import draw_without_replacement, generator
from .base import HidingPolicy, Selection, register_policy


@register_policy("random")
class RandomPolicy(HidingPolicy):
    """Hide ⌊F_e·N⌋ samples, drawn uniformly and without replacement anew in each epoch.

    F_e is KAKURENBO's (section 3.3), so that the same options hide at most the same fraction, whoever chooses.
    Nothing is refreshed.

    Args:
        max_hidden_fraction: F, in [0, 1).
        fraction_milestones: fractions of the training at which the next factor starts; see `HiddenFractionSchedule`.
        fraction_factors: the factors of F.
        hiding_warmup_epochs: epochs at the start in which nothing is hidden.
        seed: of the draws.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        max_hidden_fraction: float = 0.3,
        fraction_milestones: Sequence[float] = (0.0, 0.3, 0.6, 0.8),
        fraction_factors: Sequence[float] = (1.0, 0.8, 0.6, 0.4),
        hiding_warmup_epochs: int = 1,
        seed: int = 0,
    ) -> None:
        require_type("seed", seed, int)
        self.fraction = HiddenFractionSchedule(
            max_hidden_fraction, fraction_milestones, fraction_factors, hiding_warmup_epochs
        )
        self.warmup_epochs = hiding_warmup_epochs
        self.seed = seed

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """So many samples, whatever is known about them."""
        count = self.fraction.count(len(ledger), epoch, progress)
        hidden = draw_without_replacement(ledger, None, count, generator(self.seed, epoch))
        return Selection(torch.from_numpy(hidden), count)

    def most_hidden(self, draws: int, epoch: int, progress: float) -> int:
        """⌊F_e · draws⌋."""
        return self.fraction.count(draws, epoch, progress)

    def may_hide(self, epoch: int, progress: float) -> bool:
        """Not in the warm-up, nor where the factor of F is 0."""
        return self.fraction.factor(epoch, progress) > 0

    def wants_refresh(self, epoch: int) -> bool:
        """Never: nobody would read the statistics."""
        return False
