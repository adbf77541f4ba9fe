"""Trainings on the stand-in device, and what happened in each of their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from transformers.trainer_callback import CallbackHandler

from standin_device import DEVICE, MODULE, PACKAGE, Event, OnDevice, StandIn


@contextmanager
def standin() -> Iterator[StandIn]:
    """The device, entered; a trainer made meanwhile trains on it."""
    device = StandIn()
    with pytest.MonkeyPatch.context() as patch:
        # The way of Accelerate and Trainer to a device that they do not know, where there is no other one.
        patch.setenv("ACCELERATE_TORCH_DEVICE", str(DEVICE))
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch, DEVICE.type, MODULE, raising=False)
        autocast = torch.is_autocast_enabled
        patch.setattr(torch, "is_autocast_enabled", lambda *kind: (DEVICE.type,) != kind and autocast(*kind))
        try:
            with device:
                yield device
        finally:
            AcceleratorState._reset_state(reset_partial_state=True)


def train_on_standin(make: Callable[..., Any], *args: Any, **options: Any) -> tuple[Any, StandIn]:
    """Make a trainer by a function and train it on the device, without float64; options as for the function."""
    with standin() as device:
        device.missing.add(torch.float64)
        # Quick: a kernel for each parameter. PyTorch's fused optimizers do not know the device.
        trainer = make(*args, **{"use_cpu": False, "optim": "sgd", "logging_steps": 1000, **options})
        assert trainer.args.device == trainer.accelerator.device == DEVICE
        _note_phases(trainer.callback_handler, device)
        trainer.train()
        assert all(isinstance(parameter, OnDevice) for parameter in trainer.model.parameters())
    return trainer, device


def _note_phases(handler: CallbackHandler, device: StandIn) -> None:
    """Note where a training is: (epoch, step) until that step has ended, (epoch, "end") until the next epoch begins.

    It does so before any callback is called, so that the end of an epoch begins with it. Trainer begins an epoch before
    anything else of it: a pass over all samples before the first is in (0, 0).
    """

    def before(event: str, next_phase: Callable[[], Any]) -> None:
        call = getattr(handler, event)

        def noted(*args: Any, **kwargs: Any) -> Any:
            device.phase = next_phase()
            return call(*args, **kwargs)

        setattr(handler, event, noted)

    before("on_epoch_begin", lambda: (0 if device.phase is None else device.phase[0] + 1, 0))
    before("on_step_end", lambda: (device.phase[0], device.phase[1] + 1))
    before("on_epoch_end", lambda: (device.phase[0], "end"))


def steps(device: StandIn) -> list[list[Event]]:
    """The events of each training step, but for the first of each epoch, to which what precedes it belongs."""
    by_phase: dict[tuple[int, int], list[Event]] = {}
    for event in device.events:
        if event.phase is not None and event.phase[1] not in (0, "end"):
            by_phase.setdefault(event.phase, []).append(event)
    # After the last step of an epoch there may be something to log, and no step any more.
    return [events for events in by_phase.values() if any(event.kind == "kernel" for event in events)]


def at_end(device: StandIn, epoch: int) -> list[Event]:
    """The events between the last step of an epoch and the next epoch."""
    return [event for event in device.events if event.phase == (epoch, "end")]


def before_first_step(device: StandIn, epoch: int) -> list[Event]:
    """The events of the first step of an epoch and of what precedes it."""
    return [event for event in device.events if event.phase == (epoch, 0)]


def read_back(events: list[Event]) -> list[Event]:
    """Where the host reads what the device computes: it waits until all that was asked for before is done."""
    return [event for event in events if event.kind == "sync" or event.direction == "to host"]


def waiting_for(events: list[Event]) -> list[Event]:
    """Where the host waits for the device: what is read back, and copies to the device that block."""
    return [event for event in events if event.waits]


def sent(events: list[Event]) -> list[Event]:
    """Copies to the device."""
    return [event for event in events if event.direction == "to device"]


def own(events: list[Event]) -> list[Event]:
    """What the package itself does, and not a model, a collator or a trainer that it calls."""
    return [event for event in events if event.cause.startswith(PACKAGE)]
