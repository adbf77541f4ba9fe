"""How much may be hidden in an epoch, and how the learning rate follows."""

from __future__ import annotations

import math
import warnings
from bisect import bisect_right
from collections.abc import Sequence
from copy import deepcopy
from fractions import Fraction
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch.optim import Optimizer

from .options import require_epochs, require_number, require_type


class HiddenFractionSchedule:
    """The largest share of the samples that an epoch may hide: F × factor, the factor falling as training goes on.

    KAKURENBO, section 3.3: late in training little is left to learn from what stays visible, so less is hidden. Here
    it goes by the share of the training done, not by a count of updates: epochs that hide have fewer of them.

    Args:
        maximum: F, in [0, 1).
        milestones: shares of the training in [0, 1) at which the next factor starts; the first is 0, and they rise.
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
        require_type("fraction_milestones", milestones, list[float])
        require_type("fraction_factors", factors, list[float])
        if len(milestones) != len(factors):
            raise ValueError(
                f"fraction_milestones has {len(milestones)} values ({list(milestones)}) and fraction_factors has "
                f"{len(factors)} ({list(factors)}): give one factor for each milestone."
            )
        rising = all(before < after for before, after in pairwise(milestones))  # which NaN never is
        if not milestones or milestones[0] != 0 or not rising:
            raise ValueError(
                f"fraction_milestones={list(milestones)} must start at 0 and rise: they are the fractions of the "
                "training at which the next factor starts, such as [0.0, 0.3, 0.6, 0.8]."
            )
        if milestones[-1] >= 1:
            raise ValueError(f"fraction_milestones={list(milestones)} must stay below 1, the end of the training.")
        if any(not 0 <= factor <= 1 for factor in factors):
            raise ValueError(
                f"fraction_factors={list(factors)} must each be in [0, 1]: they scale max_hidden_fraction."
            )
        require_epochs("hiding_warmup_epochs", warmup_epochs)
        self.maximum, self.warmup_epochs = maximum, warmup_epochs
        self.milestones, self.factors = tuple(milestones), tuple(factors)

    def __call__(self, epoch: int, progress: float) -> float:
        """F_e, for the epoch of an index from 0 that starts when a share `progress` of the training is done."""
        return self.maximum * self.factor(epoch, progress)

    def count(self, num_samples: int, epoch: int, progress: float) -> int:
        """⌊F_e · N⌋, exact for the decimals as they are written: 0.29 of 100 samples are 29.

        In binary fractions they would be 28, a little more than 0.29 · 100 = 28.999999999999996.
        """
        factors = (self.maximum, self.factor(epoch, progress))
        return math.floor(math.prod(Fraction(str(factor)) for factor in factors) * num_samples)

    def factor(self, epoch: int, progress: float) -> float:
        """By what F is multiplied in an epoch: 0 in the warm-up."""
        return 0.0 if epoch < self.warmup_epochs else self.factors[bisect_right(self.milestones, progress) - 1]


def compensated_learning_rate_scale(num_samples: int, num_hidden: int) -> float:
    """1 / (1 − F*_e): by how much the learning rate grows when `num_hidden` of `num_samples` are really hidden.

    KAKURENBO, section 3.3, with the share that is hidden in fact (the authors' program takes the most that may be).
    """
    return num_samples / (num_samples - num_hidden)


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


class SchedulerStart(NamedTuple):
    """A scheduler that has not been stepped yet, and the learning rates that it has set."""

    state: dict[str, Any]
    rates: list[float]


class AlignedScheduler:
    """Keeps a learning-rate scheduler in step with the epochs when epochs have fewer updates than it was built for.

    A scheduler is stepped once per update and was built for full epochs. This one steps it as often as it takes to be
    where the full training would be at the same share of the epoch, so it ends where it would have ended; then it
    multiplies the learning rates by the epoch's compensation. The scheduler underneath never sees the multiplied
    rates, since some compute the next rate from the last.

    With full epochs and a scale of 1 it does nothing but pass `step` on.

    Args:
        scheduler: any object with the methods of a PyTorch scheduler.
        optimizer: the optimizer whose `param_groups` it drives.
    """

    _STATE_KEY = "kakurenbo_alignment"

    def __init__(self, scheduler: Any, optimizer: Optimizer) -> None:
        self.scheduler = scheduler
        self.optimizer = optimizer
        self.scale = 1.0
        self._plain_rates: list[float] = []
        self._updates = self._full_updates = 1
        self._updates_done = self._steps_taken = 0

    def begin_epoch(self, updates: int, full_updates: int, scale: float = 1.0) -> None:
        """Prepare an epoch, or what is left of one.

        Args:
            updates: how many updates it will have, at least 1.
            full_updates: how many the scheduler was built for.
            scale: what to multiply the learning rates by.

        Raises:
            ValueError: `updates` is below 1.
        """
        if updates < 1:
            raise ValueError(f"An epoch needs at least one update, got updates={updates}.")
        self._uncompensate()
        self._updates, self._full_updates = updates, full_updates
        self._updates_done = self._steps_taken = 0
        self.scale = scale
        self._compensate()

    def step(self) -> None:
        """Advance by one update of the epoch."""
        self._updates_done += 1
        target = self._updates_done * self._full_updates // self._updates
        self._uncompensate()
        while self._steps_taken < target:
            self.scheduler.step()
            self._steps_taken += 1
        self._compensate()

    def start(self) -> SchedulerStart:
        """What `restart` needs; to be asked for before the first step and before a state is loaded."""
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        return SchedulerStart(deepcopy(self.scheduler.state_dict()), rates)

    def restart(self, start: SchedulerStart, steps: int) -> None:
        """Be where the scheduler underneath is after so many steps from its start, whatever state was loaded.

        For a training that goes on in batches of another size: a loaded state counts the steps of the old size.
        """
        self.close()
        self.scheduler.load_state_dict(start.state)
        self._set_rates(start.rates)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is stepped before the optimizer
            for _ in range(steps):
                self.scheduler.step()

    def close(self) -> None:
        """Give the optimizer back the rates that the scheduler underneath has set, and compensate no more."""
        self._uncompensate()
        self.scale = 1.0

    def get_last_lr(self) -> list[Any]:
        """The learning rates in force, compensation included."""
        if self.scale == 1.0:
            return list(self.scheduler.get_last_lr())
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's own state, which a plain training can load too, and the place in the epoch beside it."""
        own = {
            "scale": self.scale,
            "plain_rates": self._plain_rates,
            "updates": self._updates,
            "full_updates": self._full_updates,
            "updates_done": self._updates_done,
            "steps_taken": self._steps_taken,
        }
        return {**self.scheduler.state_dict(), self._STATE_KEY: own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over `state_dict`, this class's or the bare scheduler's. Optimizer states are loaded beforehand."""
        plain = {name: value for name, value in state.items() if name != self._STATE_KEY}
        self.scheduler.load_state_dict(plain)
        own = state.get(self._STATE_KEY)
        if own is None:
            return
        self.scale, self._plain_rates = own["scale"], own["plain_rates"]
        self._updates, self._full_updates = own["updates"], own["full_updates"]
        self._updates_done, self._steps_taken = own["updates_done"], own["steps_taken"]

    def __getattr__(self, name: str) -> Any:
        # What callbacks read off a scheduler (`base_lrs`, `last_epoch`, ...) is the scheduler's own.
        if name.startswith("__") or name == "scheduler":
            raise AttributeError(name)
        return getattr(self.scheduler, name)

    def _compensate(self) -> None:
        if self.scale == 1.0:
            return
        self._plain_rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self._set_rates([rate * self.scale for rate in self._plain_rates])

    def _uncompensate(self) -> None:
        if self.scale != 1.0:
            self._set_rates(self._plain_rates)

    def _set_rates(self, rates: Sequence[float]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate)  # compiled and capturable optimizers hold on to this tensor
            else:
                group["lr"] = rate
