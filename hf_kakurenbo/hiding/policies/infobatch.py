"""InfoBatch (Qin et al., ICLR 2024, arXiv 2303.04947): prune at random below the mean loss, rescale the rest."""

from __future__ import annotations

import numpy as np
import torch

from ..ledger import SampleLedger
from ..options import require_epochs, require_number, require_type
from ._random import generator
from .base import HidingPolicy, Selection, register_policy


@register_policy("infobatch")
class InfoBatchPolicy(HidingPolicy):
    """Hide each sample of a lagging loss below the mean with probability r; those of them that stay weigh 1 / (1 − r).

    So the expected sum of an epoch's gradients is that of all samples. In the last epochs, from a fraction delta of the
    training on, all samples are trained on, each with weight 1. Since the weights stand for the hidden samples, the
    learning rate is not compensated, and nothing is refreshed: a hidden sample keeps the loss that it had.
    A sample whose loss is not finite is always trained on, with weight 1; the mean is over the others.

    Args:
        pruning_probability: r, in [0, 1).
        full_from: delta, in [0, 1]; 0.875 leaves the last 12.5 % of the epochs whole.
        hiding_warmup_epochs: epochs at the start in which nothing is hidden.
        seed: of the draws.

    Raises:
        ValueError: an argument is out of its range.
    """

    needs_measurements = True
    weighs_samples = True

    def __init__(
        self,
        pruning_probability: float = 0.5,
        full_from: float = 0.875,
        hiding_warmup_epochs: int = 1,
        seed: int = 0,
    ) -> None:
        require_number(
            "pruning_probability", pruning_probability, "[0, 1)", "the probability of hiding a sample below the mean"
        )
        require_number("full_from", full_from, "[0, 1]", "the fraction of the training from which on nothing is hidden")
        require_epochs("hiding_warmup_epochs", hiding_warmup_epochs)
        require_type("seed", seed, int)
        self.pruning_probability = pruning_probability
        self.full_from = full_from
        self.warmup_epochs = hiding_warmup_epochs
        self.seed = seed

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """A coin for each sample below the mean."""
        hidden = np.zeros(len(ledger), dtype=np.bool_)
        if not self.may_hide(epoch, progress):
            return Selection(torch.from_numpy(hidden), 0)
        mean = mean_finite_loss(ledger)
        weights = np.ones(len(ledger), dtype=np.float32)
        random, candidates = generator(self.seed, epoch), 0
        for part in ledger.parts():
            loss = ledger.loss_at(part)
            below = np.isfinite(loss) & (loss < mean)
            candidates += int(np.count_nonzero(below))
            hidden[part] = below & (random.random(len(loss)) < self.pruning_probability)
            weights[part][below] = 1 / (1 - self.pruning_probability)
        return Selection(torch.from_numpy(hidden), candidates, torch.from_numpy(weights))

    def may_hide(self, epoch: int, progress: float) -> bool:
        """Neither in the warm-up nor in the last epochs."""
        return self.warmup_epochs <= epoch and progress < self.full_from

    def wants_refresh(self, epoch: int) -> bool:
        """Never."""
        return False


def mean_finite_loss(ledger: SampleLedger) -> float:
    """The mean of the finite lagging losses; NaN if there is none."""
    total, count = 0.0, 0
    for part in ledger.parts():
        loss = ledger.loss_at(part)
        finite = loss[np.isfinite(loss)]
        total, count = total + float(finite.sum(dtype=np.float64)), count + len(finite)
    return total / count if count else float("nan")
