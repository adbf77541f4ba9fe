"""Importance sampling with replacement (Katharopoulos & Fleuret, ICML 2018, arXiv 1803.00942), by the lagging loss."""

from __future__ import annotations

import numpy as np
import torch

from ..ledger import SampleLedger
from ..options import require_epochs, require_type
from ._random import generator
from .base import HidingPolicy, Selection, register_policy
from .infobatch import mean_finite_loss


@register_policy("importance")
class ImportancePolicy(HidingPolicy):
    """Draw N samples with replacement, each with the probability q ∝ its loss; a drawn one weighs 1 / (N·q).

    So the expected mean of an epoch's gradients is that of all samples, with less variance where the loss tells the
    size of the gradient. The baseline ISWR of the KAKURENBO paper draws in the same way, but leaves the weights out:
    `weighted=False`. An epoch has as many updates as without hiding, so this saves no time; samples that are not drawn
    are the hidden ones. The learning rate is not compensated, and nothing is refreshed.

    The paper draws each batch by an upper bound on the gradient's norm in a further forward pass (and compares with the
    loss); here an epoch is drawn at once by the lagging loss. A sample whose loss is not finite is drawn as one of mean
    loss. It needs more than which samples and which weights: how often each is drawn, which no stream can do.

    Args:
        weighted: weigh the samples so that the gradient is unbiased.
        hiding_warmup_epochs: epochs at the start in which each sample is drawn once.
        seed: of the draws.

    Raises:
        ValueError: an argument is out of its range.
    """

    needs_measurements = True
    repeats_samples = True

    def __init__(self, weighted: bool = True, hiding_warmup_epochs: int = 1, seed: int = 0) -> None:
        require_type("weighted", weighted, bool)
        require_epochs("hiding_warmup_epochs", hiding_warmup_epochs)
        require_type("seed", seed, int)
        self.weighs_samples = weighted
        self.warmup_epochs = hiding_warmup_epochs
        self.seed = seed

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """N draws: first how many fall into each part of the ledger, then which samples of it."""
        total = len(ledger)
        mean = mean_finite_loss(ledger)
        if epoch < self.warmup_epochs or not mean > 0:
            return Selection(torch.zeros(total, dtype=torch.bool), 0)
        random = generator(self.seed, epoch)
        mass = np.array([_mass(ledger, part, mean).sum() for part in ledger.parts()])
        draws = random.multinomial(total, mass / mass.sum())
        repeats = np.zeros(total, dtype=np.int32)
        weights = np.ones(total if self.weighs_samples else 0, dtype=np.float32)
        for part, count in zip(ledger.parts(), draws, strict=True):
            if count == 0:
                continue
            own = _mass(ledger, part, mean)
            repeats[part] = random.multinomial(count, own / own.sum())
            if self.weighs_samples:
                drawn = repeats[part] > 0
                weights[part][drawn] = mass.sum() / (total * own[drawn])
        return Selection(
            torch.from_numpy(repeats == 0),
            total,
            torch.from_numpy(weights) if self.weighs_samples else None,
            torch.from_numpy(repeats),
        )

    def wants_refresh(self, epoch: int) -> bool:
        """Never."""
        return False


def _mass(ledger: SampleLedger, part: slice, mean: float) -> np.ndarray:
    """What the probabilities of a part are proportional to, float64."""
    loss = ledger.loss_at(part).astype(np.float64)
    return np.where(np.isfinite(loss), np.maximum(loss, 0), mean)
