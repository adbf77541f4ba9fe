"""OrderDP (Jin et al., ICLR 2026, arXiv 2606.08574): of a random subset, train on the highest losses."""

from __future__ import annotations

import numpy as np
import torch

from ..ledger import SampleLedger
from ..options import require_epochs, require_number, require_type
from ..ranking import has_finite_loss, lowest_loss
from ..schedule import floor_of
from ._random import draw_without_replacement, generator
from ._streak import StreakLimitedPolicy
from .base import Selection, register_policy


@register_policy("order_dp")
class OrderDPPolicy(StreakLimitedPolicy):
    """Train on the highest lagging losses of a random subset, and hide all other samples.

    Of the n samples of a finite loss, s = ⌊drawn_fraction · n⌋ are drawn uniformly without replacement, anew in each
    epoch; the q = ⌊kept_fraction · s⌋ of them of highest lagging loss are trained on, of equal ones those of higher id.
    So the fraction hidden is known beforehand: about 1 − drawn_fraction · kept_fraction. There are neither weights nor
    whole epochs at the end, and nothing is refreshed. A sample whose loss is not finite is always trained on.

    The authors leave the learning rate as it is: `lr_compensation=False`. Their program begins in the first epoch, in
    which all losses count as equal; here a sample is hidden only once it was measured. Its two fractions are 0.8 and
    0.9 for ResNet-18 on ImageNet, 0.75 and 0.8 for ResNet-50 there, 0.8 and 0.375 for ResNet-50 on CIFAR-100.

    With `drawn_fraction=1` chance is left out, and with `max_consecutive_hidden=1` each epoch then hides the lowest
    losses of those that the last one trained on: a gate by rank, for models that are never sure of a sample.

    Args:
        drawn_fraction: the fraction of the samples that is drawn, in (0, 1].
        kept_fraction: the fraction of these that is trained on, in (0, 1].
        max_consecutive_hidden: a sample that was not trained on for so many epochs, hidden in each of them, is shown in
            the next one, drawn or not, as if its loss were the highest; in 1..255, None for no such limit. It takes 1
            byte a sample beside the ledger.
        hiding_warmup_epochs: epochs at the start in which nothing is hidden.
        seed: of the draws.

    Raises:
        ValueError: an argument is out of its range.
    """

    needs_measurements = True

    def __init__(
        self,
        drawn_fraction: float = 0.8,
        kept_fraction: float = 0.9,
        max_consecutive_hidden: int | None = None,
        hiding_warmup_epochs: int = 1,
        seed: int = 0,
    ) -> None:
        require_number("drawn_fraction", drawn_fraction, "(0, 1]", "the fraction of the samples that is drawn")
        require_number("kept_fraction", kept_fraction, "(0, 1]", "the fraction of the drawn ones that is trained on")
        self._limit(max_consecutive_hidden)
        require_epochs("hiding_warmup_epochs", hiding_warmup_epochs)
        require_type("seed", seed, int)
        self.drawn_fraction = drawn_fraction
        self.kept_fraction = kept_fraction
        self.warmup_epochs = hiding_warmup_epochs
        self.seed = seed

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """All but the highest losses of a random subset."""
        if epoch < self.warmup_epochs:
            return Selection(torch.zeros(len(ledger), dtype=torch.bool), 0)
        subset = has_finite_loss(ledger)
        measured = int(np.count_nonzero(subset))
        drawn, kept = self._counts(measured)
        hidden = draw_without_replacement(ledger, subset, measured - drawn, generator(self.seed, epoch))
        subset ^= hidden
        self._show_what_is_due(subset)
        hidden |= lowest_loss(ledger, drawn - kept, subset)
        self._show_what_is_due(hidden)
        return Selection(torch.from_numpy(hidden), measured - kept)

    def _counts(self, measured: int) -> tuple[int, int]:
        """How many of so many samples are drawn, and how many of these trained on: at least one, if there is one."""
        least = min(measured, 1)
        drawn = max(least, floor_of(measured, self.drawn_fraction))
        return drawn, max(least, floor_of(drawn, self.kept_fraction))

    def most_hidden(self, draws: int, epoch: int, progress: float) -> int:
        """All of the draws but ⌊kept_fraction · ⌊drawn_fraction · draws⌋⌋."""
        return draws - self._counts(draws)[1]

    def wants_refresh(self, epoch: int) -> bool:
        """Never: chance, or the limit, brings a hidden sample back."""
        return False
