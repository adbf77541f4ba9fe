"""A monitored barrier without a time limit: a rank that waits for one which will never come raises instead of hanging.

A rank may wait long for good reasons: another writes a checkpoint, or compiles its model. So no time limit separates a
slow rank from one that has left the loop; but the ranks do the same steps and wait at the same barriers between them,
and a rank that has begun a step which comes after a barrier without having been there will not come any more.
"""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import suppress
from typing import Any

from .collectives import from_rank_0, rank, world_size

# How often a waiting rank checks the others, and how often a rank reports where it is.
_SECONDS = 5.0


class MonitoredBarrier:
    """Counts the steps and the barriers of this rank, and those of the others while it waits for them.

    Made on every rank at the start of a training (a collective call), and left at its end. With one process it does
    nothing.
    """

    def __init__(self) -> None:
        self.steps = 0
        self.barriers = 0
        self._left = ""
        self._store: Any = None
        self._ended = threading.Event()
        if world_size() > 1:
            # Only here: a build of PyTorch without torch.distributed has none of it.
            from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

            # Not public, but the one way between ranks that no device and no other collective call waits for.
            # A name of its own, since the store of a launcher outlives the attempts of a training.
            session, store = from_rank_0(uuid.uuid4().hex), _get_default_store()
            if store is None:  # the ranks of MPI have none
                return
            self._store = PrefixStore(f"kakurenbo/{session}", store)
            self._report()
            threading.Thread(target=self._keep_reporting, daemon=True).start()

    def begin_step(self) -> None:
        """Count a training step."""
        self.steps += 1

    def wait(self, moment: str) -> None:
        """Wait for all ranks to come here; a collective call.

        Args:
            moment: where this is, for the message.

        Raises:
            RuntimeError: a rank has continued without coming here, has come elsewhere, or has left the training.
        """
        if self._store is None:
            return
        self.barriers += 1
        place = f"{moment}, after {self.steps} steps"
        first = self._store.compare_set(f"{self.barriers}/place", "", place).decode()
        if first != place:
            raise RuntimeError(_message(f"Rank {rank()} is {place}; another rank is {first}."))
        if self._store.add(f"{self.barriers}/arrived", 1) == world_size():
            self._store.set(f"{self.barriers}/complete", "")
        while not self._is_complete():
            missing = self._find_missing()
            # It may have come and gone in the meantime.
            if missing and not self._store.check([f"{self.barriers}/complete"]):
                raise RuntimeError(_message(f"Rank {rank()} is {place}; {missing}."))

    def __enter__(self) -> MonitoredBarrier:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._store is None:
            return
        self._left = "it has come to its end" if error is None else f"{type(error).__name__}: {error}"
        self._ended.set()
        self._report()

    def _is_complete(self) -> bool:
        """Whether all have come, or do so in the next seconds."""
        pause, until = 0.001, time.monotonic() + _SECONDS
        # `Store.wait` with a time limit would write two warnings for each that passes.
        while not self._store.check([f"{self.barriers}/complete"]):
            if time.monotonic() > until:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.1)
        return True

    def _find_missing(self) -> str:
        for other in range(world_size()):
            if not self._store.check([f"rank {other}"]):
                continue
            steps, barriers, left = self._store.get(f"rank {other}").decode().split(" ", 2)
            if left:
                return f"rank {other} has left the training: {left}"
            if int(steps) > self.steps and int(barriers) < self.barriers:
                return f"rank {other} is in step {steps}"
        return ""

    def _keep_reporting(self) -> None:
        reported = None
        while not self._ended.wait(_SECONDS):
            if reported != (self.steps, self.barriers):
                reported = self.steps, self.barriers
                self._report()

    def _report(self) -> None:
        # The process that keeps the store may have ended already; then nobody is left to read it.
        with suppress(RuntimeError):
            self._store.set(f"rank {rank()}", f"{self.steps} {self.barriers} {self._left}")


def _message(places: str) -> str:
    return (
        f"The ranks are out of sync and would wait for each other forever. {places} A callback or a sampler that ends "
        "an epoch or the training, or that asks for a checkpoint, has to do so on every rank at the same step."
    )
