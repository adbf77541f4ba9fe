"""Selective-Backprop (Jiang et al., 2019, arXiv 1910.00762): train on a sample the more likely, the higher its loss."""

from __future__ import annotations

import numpy as np
import torch

from ..ledger import SampleLedger
from ..options import is_due, require_epochs, require_number, require_refresh_interval, require_type
from ._random import generator
from .base import HidingPolicy, Selection, register_policy

# So many losses stand for all: the fraction of those below is off by 0.002 at most, as good as always.
_HISTORY = 2**16


@register_policy("selective_backprop")
class SelectiveBackpropPolicy(HidingPolicy):
    """Train on a sample with the probability P = CDF(loss)^beta, else hide it.

    CDF(x) is the fraction of the losses that are at most x. The paper takes it over the last losses seen (1,024 of
    them), this policy over all lagging losses, or 65,536 drawn of more. With beta = 1 a half is trained on, with beta =
    2 a
    third: 1 / (1 + beta) of the samples.

    The paper decides batch by batch, after a forward pass over every sample. Here a sample is decided on once an epoch
    by its lagging loss, and the refresh is the forward pass over those that are not backpropagated. That is the paper's
    StaleSB, which selects by losses of an earlier epoch. The paper leaves the learning rate as it is:
    `lr_compensation=False`. A sample whose loss is not finite is always trained on.

    Args:
        beta: the selectivity, above 0.
        hiding_warmup_epochs: epochs at the start in which nothing is hidden.
        refresh_interval: the hidden samples are refreshed at the end of every so many epochs; 0 for never.
        seed: of the draws.

    Raises:
        ValueError: an argument is out of its range.
    """

    needs_measurements = True

    def __init__(
        self, beta: float = 1.0, hiding_warmup_epochs: int = 1, refresh_interval: int = 1, seed: int = 0
    ) -> None:
        require_number("beta", beta, "(0, inf)", "the selectivity: 1 / (1 + beta) of the samples are trained on")
        require_epochs("hiding_warmup_epochs", hiding_warmup_epochs)
        require_refresh_interval(refresh_interval)
        require_type("seed", seed, int)
        self.beta = beta
        self.warmup_epochs = hiding_warmup_epochs
        self.refresh_interval = refresh_interval
        self.seed = seed

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """Each sample by its lagging loss."""
        hidden = np.zeros(len(ledger), dtype=np.bool_)
        random = generator(self.seed, epoch)
        history = _history(ledger, random)
        if epoch < self.warmup_epochs or not len(history):
            return Selection(torch.from_numpy(hidden), 0)
        candidates = 0
        for part in ledger.parts():
            loss = ledger.loss_at(part)
            fraction = np.searchsorted(history, loss, side="right") / len(history)
            known = np.isfinite(loss)
            candidates += int(np.count_nonzero(known))
            # The highest of the losses drawn has fraction 1, and no draw reaches 1: at least one sample stays.
            hidden[part] = known & (random.random(len(loss)) >= fraction**self.beta)
        return Selection(torch.from_numpy(hidden), candidates)

    def wants_refresh(self, epoch: int) -> bool:
        """At the end of every `refresh_interval`-th epoch."""
        return is_due(epoch, self.refresh_interval)


def _history(ledger: SampleLedger, random: np.random.Generator) -> np.ndarray:
    """The finite ones of so many losses, in ascending order."""
    total = len(ledger)
    loss = ledger.loss_at(slice(0, total) if total <= _HISTORY else random.integers(0, total, _HISTORY))
    return np.sort(loss[np.isfinite(loss)])
