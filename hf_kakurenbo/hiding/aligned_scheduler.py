"""A learning-rate scheduler kept in step with epochs of fewer updates, its rates compensated for what is hidden."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, NamedTuple, Protocol

import torch
from torch.optim.lr_scheduler import LRScheduler

logger = logging.getLogger(__name__)


class HasParamGroups(Protocol):
    """An optimizer, or what stands for several: the groups whose `"lr"` is the rate that is stepped with."""

    param_groups: list[dict[str, Any]]


class SchedulerStart(NamedTuple):
    """A scheduler that has not been stepped yet, and the learning rates that it has set."""

    state: dict[str, Any]
    rates: list[float]


class AlignedScheduler(LRScheduler):
    """Keeps a learning-rate scheduler in step with the epochs when epochs have fewer updates than it was built for.

    A scheduler is stepped once per update and was built for full epochs. This one steps it as often as it takes to be
    where the full training would be at the same fraction of the epoch, so it ends where it would have ended; then it
    multiplies the learning rates by the epoch's compensation. The scheduler underneath never sees the multiplied
    rates, since some compute the next rate from the last.

    With full epochs and a scale of 1 it does nothing but pass `step` on.

    It is a `torch.optim.lr_scheduler.LRScheduler`, as Lightning and others expect. What it does not define itself is
    that of the scheduler underneath.

    A rate that somebody else sets while it is compensated stays as it was set, and is reported once.

    Args:
        scheduler: any object with the methods of a PyTorch scheduler.
        optimizer: the optimizer whose `param_groups` are stepped with, or anything that has them.
    """

    _STATE_KEY = "kakurenbo_alignment"

    def __init__(self, scheduler: Any, optimizer: HasParamGroups) -> None:
        # Not the constructor of the class above, which would take over the optimizer and make its first step.
        self.scheduler = scheduler
        self.optimizer: Any = optimizer
        self.scale = 1.0
        self._plain_rates: list[float | torch.Tensor] = []
        self._updates = self._full_updates = 1
        self._updates_done = self._steps_taken = 0
        self._change_is_reported = False

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

    def step(self, epoch: int | None = None) -> None:
        """Advance by one update of the epoch.

        Args:
            epoch: not taken; PyTorch's own schedulers still have it, and warn.

        Raises:
            ValueError: an epoch is given.
        """
        if epoch is not None:
            raise ValueError(f"step(epoch={epoch}) is not possible: it advances by one update. Call begin_epoch first.")
        self._updates_done += 1
        target = self._updates_done * self._full_updates // self._updates
        self._uncompensate()
        while self._steps_taken < target:
            self.scheduler.step()
            self._steps_taken += 1
        self._compensate()

    def start(self) -> SchedulerStart:
        """What `restart` needs; to be asked for before the first step and before a state is loaded."""
        return SchedulerStart(deepcopy(self.scheduler.state_dict()), list(map(float, self._rates())))

    def restart(self, start: SchedulerStart, steps: int) -> None:
        """Be where the scheduler underneath is after so many steps from its start, whatever state was loaded.

        For a training that continues in batches of another size: a loaded state counts the steps of the old size.
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

    def get_last_lr(self) -> list[float | torch.Tensor]:
        """The learning rates in effect, compensation included."""
        return [rate.clone() if isinstance(rate, torch.Tensor) else rate for rate in self._rates()]

    def get_lr(self) -> Any:
        """What the scheduler underneath computes."""
        return self.scheduler.get_lr()

    def state_dict(self) -> dict[str, Any]:
        """The scheduler's own state, which a plain training can load too, and the place in the epoch beside it."""
        own = {
            "scale": self.scale,
            "plain_rates": list(map(float, self._rates() if self.scale == 1.0 else self._plain_rates)),
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
        self.scale = own["scale"]
        self._updates, self._full_updates = own["updates"], own["full_updates"]
        self._updates_done, self._steps_taken = own["updates_done"], own["steps_taken"]
        if self.scale != 1.0:
            # Not every optimizer's state brings its rates back: a layer-wise one saves none.
            self._set_rates(own["plain_rates"])
            self._compensate()

    def __getattr__(self, name: str) -> Any:
        # What callbacks read off a scheduler (`base_lrs`, `last_epoch`, ...) is the scheduler's own.
        if name.startswith("__") or name == "scheduler":
            raise AttributeError(name)
        return getattr(self.scheduler, name)

    def _rates(self) -> list[float | torch.Tensor]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _compensate(self) -> None:
        if self.scale == 1.0:
            return
        self._plain_rates = self.get_last_lr()
        self._set_rates([rate * self.scale for rate in self._plain_rates])

    def _uncompensate(self) -> None:
        if self.scale == 1.0:
            return
        rates = zip(self._plain_rates, self._rates(), strict=True)
        self._set_rates([self._without_scale(plain, rate) for plain, rate in rates])

    def _without_scale(self, plain: float | torch.Tensor, rate: float | torch.Tensor) -> float | torch.Tensor:
        """The rate before it was compensated, of one group; what somebody else has set is compensated after it too."""
        if isinstance(rate, torch.Tensor):
            return torch.where(rate == plain * self.scale, plain, rate / self.scale)  # asks nothing of the device
        if rate == plain * self.scale:
            return plain
        if not self._change_is_reported:
            self._change_is_reported = True
            logger.warning(
                "Somebody other than the scheduler has set the learning rate, to %g where %g was in effect. What is "
                "set from outside is left as it is and not compensated for hidden samples; a scheduler that drives "
                "the same optimizer, or a callback, does so. Let the trainer's scheduler do it, or set "
                "lr_compensation=False.",
                rate,
                plain * self.scale,
            )
        return rate / self.scale

    def _set_rates(self, rates: Sequence[float | torch.Tensor]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            if not isinstance(group["lr"], torch.Tensor):
                group["lr"] = rate
            elif isinstance(rate, torch.Tensor):
                group["lr"].copy_(rate)  # compiled and capturable optimizers hold on to this tensor
            else:
                group["lr"].fill_(rate)
