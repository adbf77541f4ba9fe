"""Trainings that take turns in one process, so that whatever else happens on the machine meets all of them alike."""

from __future__ import annotations

import contextvars
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl


class Lane:
    """A function in a thread of its own that runs only while `advance` waits for its next pause.

    Args:
        function: what to run; it is handed the lane and calls its `pause`.
    """

    def __init__(self, function: Callable[[Lane], None]) -> None:
        self.finished = False
        self.at_epoch_end = False
        self._error: BaseException | None = None
        self._seconds = 0.0
        self._since = 0.0
        self._may_run, self._has_paused = threading.Semaphore(0), threading.Semaphore(0)
        self._threads = torch.get_num_threads()  # PyTorch keeps it for each thread
        # In the context of whoever makes it: PyTorch's settings of compilation are variables of a context.
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run, function), daemon=True).start()

    def advance(self) -> float:
        """Let it run to its next pause, or to its end; the seconds that this took.

        Raises:
            RuntimeError: it failed; the cause is attached.
        """
        self._may_run.release()
        self._has_paused.acquire()
        if self._error is not None:
            raise RuntimeError("A training failed.") from self._error
        return self._seconds

    def pause(self, at_epoch_end: bool = False) -> None:
        """Called by the function: stop here until the next turn."""
        _synchronize()
        self._seconds = time.perf_counter() - self._since
        self.at_epoch_end = at_epoch_end
        self._has_paused.release()
        self._may_run.acquire()
        self._since = time.perf_counter()

    def _run(self, function: Callable[[Lane], None]) -> None:
        self._may_run.acquire()
        torch.set_num_threads(self._threads)
        self._since = time.perf_counter()
        try:
            function(self)
        except BaseException as error:
            self._error = error
        self.finished = True
        self._has_paused.release()


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class TakeTurns(TrainerCallback):
    """Pauses a training every few steps and at the end of each epoch, and ends it after some epochs.

    Args:
        trainer: whose training it is; its clock, if it hides, stands still while the others run.
        lane: the lane in which it runs.
        steps_per_turn: how many steps it runs at a time.
        epochs: after how many epochs it ends.
    """

    def __init__(self, trainer: Any, lane: Lane, steps_per_turn: int, epochs: int) -> None:
        self.trainer, self.lane = trainer, lane
        self.steps_per_turn, self.epochs_left = steps_per_turn, epochs
        self.steps_in_epoch = 0

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Pause if it is time to."""
        self.steps_in_epoch += 1
        if self.steps_in_epoch % self.steps_per_turn == 0:
            training = getattr(self.trainer, "_training", None)
            with training.run.clock_stopped() if training is not None else nullcontext():
                self.lane.pause()

    def on_epoch_end(self, args: Any, state: Any, control: TrainerControl, **kwargs: Any) -> None:
        """Pause after everything that hiding does in this event, since this callback is the last."""
        self.steps_in_epoch = 0
        self.epochs_left -= 1
        control.should_training_stop = self.epochs_left == 0
        self.lane.pause(at_epoch_end=True)


Epoch = list[float]
"""The seconds of each stretch of an epoch: one for every turn, then one from the last step to the epoch's end."""


def take_turns(lanes: dict[str, Lane], epochs: int) -> dict[str, list[Epoch]]:
    """Run every lane for so many epochs, a turn each in random order; none begins an epoch before all ended theirs."""
    order = random.Random(0)
    measured: dict[str, list[Epoch]] = {name: [] for name in lanes}
    for _ in range(epochs):
        for of_lane in measured.values():
            of_lane.append([])
        under_way = list(lanes)
        while under_way:
            for name in order.sample(under_way, len(under_way)):
                measured[name][-1].append(lanes[name].advance())
            under_way = [name for name in under_way if not lanes[name].at_epoch_end]
    for lane in lanes.values():
        while not lane.finished:
            lane.advance()
    return measured


def typical(epochs: Sequence[Epoch]) -> np.ndarray:
    """The epoch as it usually goes: of each of its stretches the median over the epochs."""
    return np.median(np.array(epochs), axis=0)
