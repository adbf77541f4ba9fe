"""A coin for each sample that is known: a rule of this library's own."""

from __future__ import annotations

import numpy as np
import torch

from ..ledger import SampleLedger
from ..options import require_epochs, require_number, require_type
from ._random import generator
from .base import HidingPolicy, Selection, register_policy


@register_policy("coin")
class CoinPolicy(HidingPolicy):
    """Hide each known sample with probability p, independently and anew in each epoch.

    A sample is known if it was predicted correctly with a confidence of at least tau and has a finite loss, the last
    time that it was trained on. There is no refresh: the coin itself brings a hidden sample back, after 1 / (1 − p)
    epochs on average, and then it is asked by a training step. If all samples would be hidden, none is.

    With `weighted` the known samples that stay weigh 1 / (1 − p), as InfoBatch has it (arXiv 2303.04947): the expected
    sum of an epoch's gradients is that of all samples, and the learning rate is not compensated.

    Args:
        confidence_threshold: tau, in [0, 1].
        hiding_probability: p, in [0, 1).
        hiding_warmup_epochs: epochs at the start in which nothing is hidden.
        seed: of the coins.
        weighted: weigh the known samples that stay for those that are hidden.

    Raises:
        ValueError: an argument is out of its range.
    """

    needs_measurements = True

    def __init__(
        self,
        confidence_threshold: float = 0.95,
        hiding_probability: float = 0.8,
        hiding_warmup_epochs: int = 1,
        seed: int = 0,
        weighted: bool = False,
    ) -> None:
        require_number(
            "confidence_threshold", confidence_threshold, "[0, 1]", "the probability from which on a sample is known"
        )
        require_number("hiding_probability", hiding_probability, "[0, 1)", "the probability of hiding a known sample")
        require_epochs("hiding_warmup_epochs", hiding_warmup_epochs)
        require_type("seed", seed, int)
        require_type("weighted", weighted, bool)
        self.confidence_threshold = confidence_threshold
        self.hiding_probability = hiding_probability
        self.warmup_epochs = hiding_warmup_epochs
        self.seed = seed
        self.weighs_samples = weighted

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """A coin for each sample that is known."""
        hidden = np.zeros(len(ledger), dtype=np.bool_)
        if epoch < self.warmup_epochs:
            return Selection(torch.from_numpy(hidden), 0)
        weights = np.ones(len(ledger) if self.weighs_samples else 0, dtype=np.float32)
        random, known = generator(self.seed, epoch), 0
        for part in ledger.parts():
            mask = hidden[part]
            mask |= is_known(ledger, part, self.confidence_threshold)
            known += int(np.count_nonzero(mask))
            if self.weighs_samples:
                weights[part][mask] = 1 / (1 - self.hiding_probability)
            mask &= random.random(len(mask), dtype=np.float32) < self.hiding_probability
        if hidden.all():
            return Selection(torch.zeros(len(ledger), dtype=torch.bool), known)
        return Selection(torch.from_numpy(hidden), known, torch.from_numpy(weights) if self.weighs_samples else None)

    def wants_refresh(self, epoch: int) -> bool:
        """Never: a hidden sample comes back by itself."""
        return False


def is_known(ledger: SampleLedger, part: slice, confidence_threshold: float) -> np.ndarray:
    """Which samples of a part were predicted correctly, with such confidence and a finite loss: (n,) bool."""
    sure = ledger.confidence_at(part) >= confidence_threshold
    known: np.ndarray = sure & ledger.correct_at(part) & np.isfinite(ledger.loss_at(part))
    return known
