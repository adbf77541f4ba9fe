"""How much may be hidden in an epoch, by how much its learning rate grows, and how many updates are to be expected."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from .options import require_epochs, require_number, require_type


def floor_of(count: int, *fractions: float) -> int:
    """The product of a count and of fractions, rounded down; exact for the decimals as they are written.

    0.29 of 100 samples are 29. In binary fractions they would be 28, a little more than 0.29 · 100 =
    28.999999999999996.
    """
    return math.floor(math.prod(Fraction(str(fraction)) for fraction in fractions) * count)


class FactorSchedule:
    """A factor that changes at fractions of the training: a step function of the progress.

    Args:
        milestones: fractions of the training in [0, 1) at which the next factor starts; the first is 0, and they rise.
        factors: as many, each in [0, 1].
        names: of these two options, for messages.
        scales: name of the option that the factor scales.

    Raises:
        ValueError: an argument is out of its range, or milestones and factors do not match.
    """

    def __init__(
        self,
        milestones: Sequence[float],
        factors: Sequence[float],
        names: tuple[str, str] = ("fraction_milestones", "fraction_factors"),
        scales: str = "max_hidden_fraction",
    ) -> None:
        for name, values in zip(names, (milestones, factors), strict=True):
            require_type(name, values, list[float])
        of_milestones, of_factors = names
        if len(milestones) != len(factors):
            raise ValueError(
                f"{of_milestones} has {len(milestones)} values ({list(milestones)}) and {of_factors} has "
                f"{len(factors)} ({list(factors)}): give one factor for each milestone."
            )
        rising = all(before < after for before, after in pairwise(milestones))  # which NaN never is
        if not milestones or milestones[0] != 0 or not rising:
            raise ValueError(
                f"{of_milestones}={list(milestones)} must start at 0 and rise: they are the fractions of the training "
                "at which the next factor starts, such as [0.0, 0.3, 0.6, 0.8]."
            )
        if milestones[-1] >= 1:
            raise ValueError(f"{of_milestones}={list(milestones)} must stay below 1, the end of the training.")
        if any(not 0 <= factor <= 1 for factor in factors):
            raise ValueError(f"{of_factors}={list(factors)} must each be in [0, 1]: they scale {scales}.")
        self._milestones, self._factors = tuple(milestones), tuple(factors)

    def __call__(self, progress: float) -> float:
        """The factor of an epoch that starts when a fraction `progress` of the training is done."""
        return self._factors[bisect_right(self._milestones, progress) - 1]


class HiddenFractionSchedule:
    """The largest fraction of the samples that an epoch may hide: F × factor, the factor falling as training continues.

    KAKURENBO, section 3.3: late in training little is left to learn from what stays visible, so less is hidden. Here
    it goes by the fraction of the training done, not by a count of updates: epochs that hide have fewer of them.

    Args:
        maximum: F, in [0, 1).
        milestones: fractions of the training in [0, 1) at which the next factor starts; the first is 0, and they rise.
        factors: as many, each in [0, 1].
        warmup_epochs: epochs at the start in which nothing is hidden, at least 0.

    Raises:
        ValueError: an argument is out of its range, or milestones and factors do not match.
    """

    def __init__(
        self,
        maximum: float = 0.3,
        milestones: Sequence[float] = (0.0, 0.3, 0.6, 0.8),
        factors: Sequence[float] = (1.0, 0.8, 0.6, 0.4),
        warmup_epochs: int = 1,
    ) -> None:
        require_number(
            "max_hidden_fraction",
            maximum,
            "[0, 1)",
            "the fraction of the samples that an epoch may hide, 0.3 for up to 30 %; 0 hides nothing",
        )
        require_epochs("hiding_warmup_epochs", warmup_epochs)
        self.maximum, self.warmup_epochs = maximum, warmup_epochs
        self._factor = FactorSchedule(milestones, factors)

    def __call__(self, epoch: int, progress: float) -> float:
        """F_e, for the epoch of an index from 0 that starts when a fraction `progress` of the training is done."""
        return self.maximum * self.factor(epoch, progress)

    def count(self, num_samples: int, epoch: int, progress: float) -> int:
        """⌊F_e · N⌋."""
        return floor_of(num_samples, self.maximum, self.factor(epoch, progress))

    def factor(self, epoch: int, progress: float) -> float:
        """By what F is multiplied in an epoch: 0 in the warm-up."""
        return 0.0 if epoch < self.warmup_epochs else self._factor(progress)


def compensated_learning_rate_scale(num_samples: int, num_hidden: int) -> float:
    """1 / (1 − F*_e): by how much the learning rate grows when `num_hidden` of `num_samples` are really hidden.

    KAKURENBO, section 3.3, with the fraction that is hidden in fact (the authors' program takes the most that may be).
    """
    return num_samples / (num_samples - num_hidden)


UPDATES = ("scaled", "constant")
"""The values of `hidden_epoch_updates`."""


def validate_updates(updates: str) -> None:
    """Check a `hidden_epoch_updates`.

    Raises:
        ValueError: it is no such value.
    """
    if updates not in UPDATES:
        raise ValueError(
            f"hidden_epoch_updates={updates!r} must be 'scaled' (an epoch that hides has fewer updates, at a higher "
            "learning rate) or 'constant' (as many updates, in smaller batches)."
        )


def epoch_batch_size(batch_size: int, samples: int, full_samples: int, multiple: int = 1) -> int:
    """The batch size with which an epoch that hides has as many updates as one with nothing hidden.

    round(B · samples ÷ full samples), as in airbench96 (Jordan, 2025) and Progressive Data Dropout (2025), which keep
    the number of updates. A training that normalizes over the batch needs two samples of a rank.

    Args:
        batch_size: B, with nothing hidden; a multiple of `multiple`.
        samples: how many samples the epoch trains on.
        full_samples: how many it would train on with nothing hidden.
        multiple: what the result is a multiple of.

    Returns:
        From two multiples, or B if that is less, to B.
    """
    wanted = round(Fraction(batch_size * samples, full_samples * multiple)) * multiple
    return min(max(wanted, 2 * multiple), batch_size)


class EpochPlan(NamedTuple):
    """What is to be expected of an epoch and of the whole training, in updates."""

    updates: int
    """Updates of this epoch, or of the part of it that is asked for."""
    full_updates: int
    """What they would be with nothing hidden: as far as the scheduler has to go in this epoch."""
    total: int
    """Updates of the whole training: exact in the last epoch, before that by the length of this one."""


def plan_epoch(epoch: int, num_epochs: float, updates: int, full_updates: int, updates_before: int) -> EpochPlan:
    """Plan an epoch of a training that is measured in epochs.

    Args:
        epoch: its index, from 0.
        num_epochs: how many there are, perhaps with a fraction.
        updates: how many updates the whole epoch has with its visible samples.
        full_updates: how many it has with all samples.
        updates_before: how many were made in the epochs before.
    """
    remaining = math.ceil(num_epochs * full_updates) - epoch * full_updates
    full = min(full_updates, remaining)
    planned = math.ceil(full * updates / full_updates)
    later = math.ceil((remaining - full) * updates / full_updates)
    return EpochPlan(planned, full, updates_before + planned + later)
