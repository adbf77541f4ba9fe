"""KAKURENBO (Nguyen et al., NeurIPS 2023, arXiv 2310.10102): hide what the model already knows."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..ledger import SampleLedger
from ..ranking import lowest_loss
from ..schedule import HiddenFractionSchedule
from ._options import is_due, require_refresh_interval
from .base import HidingPolicy, Selection, register_policy


@register_policy("kakurenbo")
class KakurenboPolicy(HidingPolicy):
    """Hide the samples of lowest lagging loss, but for those predicted wrongly or without confidence.

    In epoch e the ⌊F_e·N⌋ samples of lowest lagging loss are candidates (section 3.1), ties broken by id; a candidate
    is hidden only if it was predicted correctly with a confidence of at least tau, and moves back otherwise (section
    3.2). A sample whose loss is not finite ranks last and is never hidden. Selection is O(N).

    Args:
        max_hidden_fraction: F, in [0, 1).
        fraction_milestones: shares of the training at which the next factor starts; see `HiddenFractionSchedule`.
        fraction_factors: the factors of F.
        hiding_warmup_epochs: epochs at the start in which nothing is hidden.
        confidence_threshold: tau, in [0, 1].
        move_back: False hides every candidate with a finite loss.
        refresh_interval: the hidden samples are refreshed at the end of every so many epochs; 0 for never.

    The parts of the method can each be left out, as the paper does in its ablation (section 4.3): moving back
    (`move_back=False`), the falling fraction (`fraction_milestones=[0], fraction_factors=[1]`), the refresh
    (`refresh_interval=0`), and the learning rate's compensation (`lr_compensation=False`, an option of the training).

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        max_hidden_fraction: float = 0.3,
        fraction_milestones: Sequence[float] = (0.0, 0.3, 0.6, 0.8),
        fraction_factors: Sequence[float] = (1.0, 0.8, 0.6, 0.4),
        hiding_warmup_epochs: int = 1,
        confidence_threshold: float = 0.7,
        move_back: bool = True,
        refresh_interval: int = 1,
    ) -> None:
        if not 0 <= confidence_threshold <= 1:
            raise ValueError(
                f"confidence_threshold={confidence_threshold} is not in [0, 1]: it is the probability below which a "
                "candidate moves back, 0.7 in the paper."
            )
        require_refresh_interval(refresh_interval)
        self.maximum_fraction = HiddenFractionSchedule(
            max_hidden_fraction, fraction_milestones, fraction_factors, hiding_warmup_epochs
        )
        self.confidence_threshold = confidence_threshold
        self.move_back = move_back
        self.refresh_interval = refresh_interval

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """Candidates by lagging loss, less those that move back."""
        num_candidates = self.maximum_fraction.count(len(ledger), epoch, progress)
        hidden = lowest_loss(ledger, num_candidates)
        if self.move_back:
            for part in ledger.parts():
                candidates = hidden[part]
                candidates &= ledger.correct_at(part)
                candidates &= ledger.confidence_at(part) >= self.confidence_threshold
        return Selection(torch.from_numpy(hidden), num_candidates)

    def wants_refresh(self, epoch: int) -> bool:
        """At the end of every `refresh_interval`-th epoch."""
        return is_due(epoch, self.refresh_interval)
