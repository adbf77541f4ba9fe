"""How long a training with hiding took, and an estimate of what hiding saved of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

SAVED_TIMES = (
    "time_saved",
    "selection_seconds",
    "training_seconds",
    "seconds",
    "full_seconds",
    "full_samples_trained",
)
"""The attributes that a checkpoint keeps."""


class RunTimes:
    """The clock of a training, and the estimate.

    Attributes:
        time_saved: estimated seconds saved so far, against the same epochs with nothing hidden.
        seconds: what the finished epochs took: training, choosing and refreshing.
        selection_seconds: what choosing took in this epoch.
        refresh_seconds: what the last forward-only pass took.
        full_seconds: what training took in the finished epochs that hid nothing.
        full_samples_trained: how many samples they trained on.
    """

    def __init__(self) -> None:
        self.time_saved = 0.0
        self.seconds = 0.0
        self.selection_seconds = 0.0
        self.refresh_seconds = 0.0
        self.full_seconds = 0.0
        self.full_samples_trained = 0
        self._training_seconds = 0.0
        self._training_since: float | None = None

    @property
    def training_seconds(self) -> float:
        """How long this epoch has trained, an interrupted one in all its parts."""
        running = 0.0 if self._training_since is None else time.perf_counter() - self._training_since
        return self._training_seconds + running

    @training_seconds.setter
    def training_seconds(self, seconds: float) -> None:
        self._training_seconds, self._training_since = seconds, None

    def start_clock(self) -> None:
        """Training begins, or continues, now; `begin_epoch` has said so already where nothing comes in between."""
        self._training_since = time.perf_counter()

    @contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Leave out of the training time what happens inside: logging, evaluating, saving."""
        self.training_seconds = self.training_seconds
        try:
            yield
        finally:
            self._training_since = time.perf_counter()

    def count_epoch(self, trained: int, replaced: int, whole_batches: bool) -> None:
        """Count an epoch that was trained, and estimate what it saved.

        The epoch's own time for a sample stands for that of the samples left out. In smaller batches a sample may take
        longer; there the time for a sample is that of the epochs before that hid nothing, if there were any.

        Args:
            trained: how many samples it trained on.
            replaced: how many it would have trained on with nothing hidden.
            whole_batches: whether its batches had the size that they have with nothing hidden.
        """
        self.seconds += self.training_seconds + self.selection_seconds
        if not trained:
            return
        if replaced == trained:
            self.full_seconds += self.training_seconds
            self.full_samples_trained += trained
        if whole_batches or not self.full_samples_trained:
            without = self.training_seconds * replaced / trained
        else:
            without = self.full_seconds * replaced / self.full_samples_trained
        self.time_saved += without - self.training_seconds - self.selection_seconds

    def count_refresh(self, seconds: float) -> None:
        """Count a forward-only pass."""
        self.refresh_seconds = seconds
        self.time_saved -= seconds
        self.seconds += seconds

    @property
    def time_saved_fraction(self) -> float:
        """`time_saved` as a fraction of what the finished epochs would have taken with nothing hidden, estimated."""
        without = self.seconds + self.time_saved
        return self.time_saved / without if without > 0 else 0.0
