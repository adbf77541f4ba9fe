"""KAKURENBO (Nguyen et al., NeurIPS 2023, arXiv 2310.10102): hide what the model already knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from ..ledger import SampleLedger
from ..options import is_due, require_number, require_refresh_interval, require_type
from ..ranking import lowest_loss
from ..schedule import HiddenFractionSchedule
from ._random import draw_without_replacement, generator
from ._streak import StreakLimitedPolicy
from .base import Selection, register_policy

REFRESH_FIRST = ("least_confident", "random")
"""The values of `refresh_first`."""


@register_policy("kakurenbo")
class KakurenboPolicy(StreakLimitedPolicy):
    """Hide the samples of lowest lagging loss, but for those predicted wrongly or without confidence.

    In epoch e the ⌊F_e·N⌋ samples of lowest lagging loss are candidates (section 3.1), ties broken by id; a candidate
    is hidden only if it was predicted correctly with a confidence of at least tau, and moves back otherwise (section
    3.2). A sample whose loss is not finite ranks last and is never hidden. Selection is O(N).

    Args:
        max_hidden_fraction: F, in [0, 1).
        fraction_milestones: fractions of the training at which the next factor starts; see `HiddenFractionSchedule`.
        fraction_factors: the factors of F.
        hiding_warmup_epochs: epochs at the start in which nothing is hidden.
        confidence_threshold: tau, in [0, 1].
        move_back: False hides every candidate with a finite loss.
        refresh_interval: the hidden samples are refreshed at the end of every so many epochs; 0 for never.
        max_consecutive_hidden: a sample that was not trained on for so many epochs, hidden in each of them, is shown in
            the next one, in 1..255; None for no such limit. It takes 1 byte a sample beside the ledger.
        refreshed_fraction: the fraction of the hidden samples that a refresh measures, in (0, 1], rounded up.
        refresh_first: which these are: `"least_confident"`, those of least recorded confidence, ties broken by id; or
            `"random"`.
        seed: of what is random in it.

    The parts of the method can each be left out, as the paper does in its ablation (section 4.3): moving back
    (`move_back=False`), the falling fraction (`fraction_milestones=[0], fraction_factors=[1]`), the refresh
    (`refresh_interval=0`), and the learning rate's compensation (`lr_compensation=False`, an option of the training).

    Raises:
        ValueError: an argument is out of its range.
    """

    needs_measurements = True

    def __init__(
        self,
        max_hidden_fraction: float = 0.3,
        fraction_milestones: Sequence[float] = (0.0, 0.3, 0.6, 0.8),
        fraction_factors: Sequence[float] = (1.0, 0.8, 0.6, 0.4),
        hiding_warmup_epochs: int = 1,
        confidence_threshold: float = 0.7,
        move_back: bool = True,
        refresh_interval: int = 1,
        max_consecutive_hidden: int | None = None,
        refreshed_fraction: float = 1.0,
        refresh_first: str = "least_confident",
        seed: int = 0,
    ) -> None:
        require_number(
            "confidence_threshold",
            confidence_threshold,
            "[0, 1]",
            "the probability below which a candidate moves back, 0.7 in the paper",
        )
        require_type("move_back", move_back, bool)
        require_refresh_interval(refresh_interval)
        self._limit(max_consecutive_hidden)
        require_number(
            "refreshed_fraction",
            refreshed_fraction,
            "(0, 1]",
            "the fraction of the hidden samples that a refresh measures; refresh_interval=0 leaves it out altogether",
        )
        if refresh_first not in REFRESH_FIRST:
            raise ValueError(f"refresh_first={refresh_first!r} must be one of {', '.join(map(repr, REFRESH_FIRST))}.")
        require_type("seed", seed, int)
        self.maximum_fraction = HiddenFractionSchedule(
            max_hidden_fraction, fraction_milestones, fraction_factors, hiding_warmup_epochs
        )
        self.warmup_epochs = hiding_warmup_epochs
        self.confidence_threshold = confidence_threshold
        self.move_back = move_back
        self.refresh_interval = refresh_interval
        self.refreshed_fraction = refreshed_fraction
        self.refresh_first = refresh_first
        self.seed = seed

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """Candidates by lagging loss, less those that move back."""
        num_candidates = self.maximum_fraction.count(len(ledger), epoch, progress)
        hidden = lowest_loss(ledger, num_candidates)
        if self.move_back:
            for part in ledger.parts():
                candidates = hidden[part]
                candidates &= ledger.correct_at(part)
                candidates &= ledger.confidence_at(part) >= self.confidence_threshold
        self._show_what_is_due(hidden)
        return Selection(torch.from_numpy(hidden), num_candidates)

    def most_hidden(self, draws: int, epoch: int, progress: float) -> int:
        """⌊F_e · draws⌋."""
        return self.maximum_fraction.count(draws, epoch, progress)

    def wants_refresh(self, epoch: int) -> bool:
        """At the end of every `refresh_interval`-th epoch."""
        return is_due(epoch, self.refresh_interval)

    def may_hide(self, epoch: int, progress: float) -> bool:
        """Not in the warm-up, nor where the factor of F is 0."""
        return self.maximum_fraction.factor(epoch, progress) > 0

    def to_refresh(self, ledger: SampleLedger, epoch: int) -> Tensor | None:
        """All hidden samples, or a fraction of them."""
        if self.refreshed_fraction == 1:
            return None
        count = math.ceil(Fraction(str(self.refreshed_fraction)) * ledger.num_hidden)
        if self.refresh_first == "random":
            # Of a number of its own, whatever a selection of the same epoch may come to draw.
            random = generator(self.seed, epoch, 1)
            chosen = draw_without_replacement(ledger, ledger.hidden.numpy(), count, random)
        else:
            chosen = _least_confident(ledger, count)
        return torch.from_numpy(chosen)


def _least_confident(ledger: SampleLedger, count: int) -> np.ndarray:
    """So many of the hidden samples, at least one, of least confidence, NaN being the least: (N,) bool."""
    ids = ledger.hidden_ids.numpy()
    confidence = np.nan_to_num(ledger.confidence_at(ids), nan=-1.0)
    threshold = np.partition(confidence, count - 1)[count - 1]
    below = confidence < threshold
    ties = np.flatnonzero(confidence == threshold)[: count - int(np.count_nonzero(below))]
    chosen = np.zeros(len(ledger), dtype=np.bool_)
    chosen[ids[below]] = True
    chosen[ids[ties]] = True
    return chosen
