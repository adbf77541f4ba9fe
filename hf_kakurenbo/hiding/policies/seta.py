"""SeTa (Zhou et al., CVPR 2025, arXiv 2503.13385): a window of groups of losses that slides from easy to hard."""

from __future__ import annotations

import numpy as np
import torch

from ..ledger import SampleLedger
from ..options import require_epochs, require_number, require_type
from ..ranking import has_finite_loss
from ..schedule import floor_of
from ._random import draw_without_replacement, generator
from .base import HidingPolicy, Selection, register_policy

# So many losses stand for all when the groups are formed.
_CLUSTERED = 2**16

# As many iterations as scikit-learn, with which the authors' program clusters, makes at most.
_ITERATIONS = 300


@register_policy("seta")
class SeTaPolicy(HidingPolicy):
    """Hide a random fraction, and of the rest the groups of loss that a sliding window leaves out.

    In epoch e, from 0, the fraction r of the samples is dropped at random. The lagging losses of the rest are clustered
    by k-means into G groups, in ascending order, and a window of W = round(w · G) groups is trained on, from group e
    mod (G − W + 1) on: it slides from the easiest groups to the hardest, and begins anew. In the last epochs, from a
    fraction delta of the training on, only the random fraction is hidden. There are no weights, and nothing is
    refreshed. A sample whose loss is not finite is always trained on.

    With G = 5 and w = 0.9, the authors' setting on CIFAR-100, the window has 4 groups, and leaves out the hardest
    group and the easiest one in turns; on ImageNet they have r = 0 and w = 0.6. They leave the learning rate as it
    is: `lr_compensation=False`. Where there are fewer different losses than groups, there are fewer groups. Of more
    than 65,536 samples the groups are formed on as many drawn at random.

    Args:
        dropped_fraction: r, in [0, 1).
        groups: G, in 1..1000.
        window_fraction: w, in (0, 1]; the window has at least one group.
        random_from: delta, in [0, 1]; 0.875 for the last 12.5 % of the epochs.
        hiding_warmup_epochs: epochs at the start in which nothing is hidden.
        seed: of the draws.

    Raises:
        ValueError: an argument is out of its range.
    """

    needs_measurements = True

    def __init__(
        self,
        dropped_fraction: float = 0.1,
        groups: int = 5,
        window_fraction: float = 0.9,
        random_from: float = 0.875,
        hiding_warmup_epochs: int = 1,
        seed: int = 0,
    ) -> None:
        require_number("dropped_fraction", dropped_fraction, "[0, 1)", "the fraction that is dropped at random")
        require_type("groups", groups, int)
        require_number("groups", groups, "[1, 1000]", "how many groups the losses form")
        require_number("window_fraction", window_fraction, "(0, 1]", "the fraction of the groups that is trained on")
        require_number(
            "random_from", random_from, "[0, 1]", "the fraction of the training from which on the window is left out"
        )
        require_epochs("hiding_warmup_epochs", hiding_warmup_epochs)
        require_type("seed", seed, int)
        self.dropped_fraction = dropped_fraction
        self.groups = int(groups)
        self.window_fraction = window_fraction
        self.random_from = random_from
        self.warmup_epochs = hiding_warmup_epochs
        self.seed = seed

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """The random ones, and those outside the window."""
        if epoch < self.warmup_epochs:
            return Selection(torch.zeros(len(ledger), dtype=torch.bool), 0)
        measured, random = has_finite_loss(ledger), generator(self.seed, epoch)
        dropped = floor_of(int(np.count_nonzero(measured)), self.dropped_fraction)
        hidden = draw_without_replacement(ledger, measured, dropped, random)
        if progress < self.random_from:
            measured ^= hidden
            self._hide_outside_the_window(ledger, measured, hidden, epoch, random)
        return Selection(torch.from_numpy(hidden), int(np.count_nonzero(hidden)))

    def _hide_outside_the_window(
        self, ledger: SampleLedger, rest: np.ndarray, hidden: np.ndarray, epoch: int, random: np.random.Generator
    ) -> None:
        """Hide those of the rest, (N,) bool, whose group the window leaves out in this epoch."""
        total = len(ledger)
        ids = np.flatnonzero(rest) if total <= _CLUSTERED else random.integers(0, total, _CLUSTERED)
        borders = group_borders(ledger.loss_at(ids[rest[ids]]), self.groups)
        groups = len(borders) + 1
        window = max(1, round(self.window_fraction * groups))
        first = epoch % (groups - window + 1)
        for part in ledger.parts():
            group = np.searchsorted(borders, ledger.loss_at(part))
            hidden[part] |= rest[part] & ((group < first) | (group >= first + window))

    def may_hide(self, epoch: int, progress: float) -> bool:
        """Not in the warm-up, nor, if none is dropped at random, in the last epochs."""
        return self.warmup_epochs <= epoch and (progress < self.random_from or self.dropped_fraction > 0)

    def wants_refresh(self, epoch: int) -> bool:
        """Never."""
        return False


def group_borders(losses: np.ndarray, groups: int) -> np.ndarray:
    """Where the groups meet into which k-means clusters some losses.

    Lloyd's iterations on sorted losses: each is a few sums and searches, and the result is a pure function of the
    losses.

    Args:
        losses: (n,) finite, in any order.
        groups: G, at least 1.

    Returns:
        (G − 1,) float64, ascending; fewer if there are fewer different losses. A loss belongs to the group whose index
        is the number of borders below it. No group is empty, unless there are no losses at all.
    """
    ordered = np.sort(losses).astype(np.float64)
    if not len(ordered):
        return np.empty(0)
    sums = np.concatenate(([0.0], np.cumsum(ordered)))
    centers, before = first_centers(ordered, groups), np.empty(0, dtype=np.int64)
    for _ in range(_ITERATIONS):
        inner = np.searchsorted(ordered, (centers[1:] + centers[:-1]) / 2, side="right")
        ends = np.unique([0, *inner, len(ordered)])  # which leaves out what has become empty
        if np.array_equal(before, ends):
            break
        centers, before = np.diff(sums[ends]) / np.diff(ends), ends
    return (ordered[before[1:-1] - 1] + ordered[before[1:-1]]) / 2


def first_centers(ordered: np.ndarray, groups: int) -> np.ndarray:
    """Where the iterations begin: as dense as the cube root of the density of the losses.

    That is how dense the best centers are, if there are many (Panter & Dite, 1951). Equally large groups instead would
    stay where nearly all losses are, close to 0.

    Args:
        ordered: (n,) float64, ascending, n at least 1.
        groups: G, at least 1.

    Returns:
        (G,) float64, ascending; fewer if some would be the same.
    """
    # The density is 1 / (n · gap): over the gap its cube root has the integral gap ^ (2 / 3) / n ^ (1 / 3).
    mass = np.cumsum(np.diff(ordered, prepend=ordered[0]) ** (2 / 3))
    return np.unique(np.interp((np.arange(groups) + 0.5) / groups * mass[-1], mass, ordered))
