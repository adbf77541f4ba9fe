"""One training with hiding: what is hidden in which epoch, what was measured, what it saved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .ledger import Measurements, Recorder, SampleLedger
from .policies import HidingPolicy
from .schedule import compensated_learning_rate_scale
from .statistics import Classification, SampleStatistics

_SAVED_SCALARS = (
    "epoch",
    "epoch_finished",
    "batches_done",
    "candidates",
    "time_saved",
    "trained_samples",
    "refreshed_samples",
    "selection_seconds",
)


class HidingRun:
    """The state of one training: begin an epoch, record its batches, finish it, refresh what it hid.

    Args:
        num_samples: N, the number of samples in the training dataset.
        policy: decides what an epoch hides.
        device: where the model computes.
        compensate_learning_rate: whether `lr_scale` follows the hidden share, or stays 1.

    Attributes:
        ledger: the per-sample record.
        epoch: the index of the present epoch, from 0.
        epoch_finished: whether its batches are done and their figures are in the ledger.
        batches_done: how many of its batches were trained on, on this rank.
        candidates: how many samples the policy considered hiding in it.
        time_saved: estimated seconds saved so far, against the same epochs with nothing hidden.
        trained_samples: samples trained on so far, on all ranks together.
        refreshed_samples: samples looked at forward-only so far.
        samples_this_session: samples trained on since this object was made, a resumed training's earlier ones left out.
    """

    def __init__(
        self,
        num_samples: int,
        policy: HidingPolicy,
        device: torch.device | str = "cpu",
        compensate_learning_rate: bool = True,
    ) -> None:
        self.ledger = SampleLedger(num_samples)
        self.policy = policy
        self.recorder = Recorder(device)
        self.compensate_learning_rate = compensate_learning_rate
        self.epoch = -1
        self.epoch_finished = True
        self.batches_done = 0
        self.candidates = 0
        self.time_saved = 0.0
        self.trained_samples = 0
        self.refreshed_samples = 0
        self.samples_this_session = 0
        self.selection_seconds = 0.0
        self.refresh_seconds = 0.0
        self._batches_in_epoch = 0
        self._batches_skipped = 0
        self._training_seconds = 0.0
        self._training_since = time.perf_counter()

    @property
    def visible_samples(self) -> int:
        """How many samples this epoch trains on."""
        return len(self.ledger) - self.ledger.num_hidden

    @property
    def lr_scale(self) -> float:
        """By how much this epoch's learning rate is multiplied."""
        if not self.compensate_learning_rate:
            return 1.0
        return compensated_learning_rate_scale(len(self.ledger), self.ledger.num_hidden)

    def begin_epoch(self, epoch: int, progress: float) -> None:
        """Choose what the epoch hides.

        Args:
            epoch: its index, from 0.
            progress: the share of the training already done, in [0, 1).
        """
        started = time.perf_counter()
        selection = self.policy.select(self.ledger, epoch, progress)
        self.ledger.hide(selection.hidden)
        self.epoch, self.epoch_finished, self.batches_done = epoch, False, 0
        self.candidates = selection.candidates
        self.selection_seconds = time.perf_counter() - started

    def hide_nothing(self) -> None:
        """Take the epoch's selection back, before its first batch."""
        self.ledger.unhide()

    def move_back_one(self) -> None:
        """Show one more sample in this epoch: of the hidden ones, that of the highest loss (then of the lowest id)."""
        hidden = self.ledger.hidden_ids
        self.ledger.unhide(hidden[self.ledger.loss[hidden].nan_to_num(torch.inf).argmax()].unsqueeze(0))

    def start_clock(self, batches_in_epoch: int) -> None:
        """Training begins now, in an epoch of so many batches a rank; those already done were done before."""
        self._batches_in_epoch, self._batches_skipped = batches_in_epoch, self.batches_done
        self._training_seconds, self.refresh_seconds = 0.0, 0.0
        self._training_since = time.perf_counter()

    @contextmanager
    def clock_stopped(self) -> Iterator[None]:
        """Leave out of the training time what happens inside: logging, evaluating, saving."""
        self._training_seconds += time.perf_counter() - self._training_since
        try:
            yield
        finally:
            self._training_since = time.perf_counter()

    def record(self, ids: Tensor, batch: SampleStatistics | Classification) -> None:
        """Record a batch: its statistics, or the logits and labels from which they follow; see [`Recorder`]."""
        if isinstance(batch, Classification):
            self.recorder.add_classification(ids, batch)
        else:
            self.recorder.add(ids, batch)

    def finish_epoch(self) -> None:
        """Bring what was measured into the ledger, on every rank; a collective call."""
        self._training_seconds += time.perf_counter() - self._training_since
        self._merge()
        self.epoch_finished = True
        visible, batches = self.visible_samples, max(self._batches_in_epoch, 1)
        self.trained_samples += round(visible * self.batches_done / batches)
        trained_now = visible * (self.batches_done - self._batches_skipped) / batches
        self.samples_this_session += round(trained_now)
        if trained_now:
            seconds_per_sample = self._training_seconds / trained_now
            left_out = self.ledger.num_hidden * trained_now / visible
            self.time_saved += left_out * seconds_per_sample - self.selection_seconds

    def wants_refresh(self) -> bool:
        """Whether this epoch's hidden samples are to be looked at, provided that another epoch follows."""
        return self.ledger.num_hidden > 0 and self.policy.wants_refresh(self.epoch)

    @contextmanager
    def refreshing(self) -> Iterator[None]:
        """Around the forward passes over the hidden samples, whose batches go to `record`; a collective call."""
        started = time.perf_counter()
        yield
        self._merge()
        self.refreshed_samples += self.ledger.num_hidden
        self.refresh_seconds = time.perf_counter() - started
        self.time_saved -= self.refresh_seconds

    def report(self) -> dict[str, float]:
        """The figures of the epoch for the log."""
        hidden = self.ledger.num_hidden
        return {
            "kakurenbo/hidden_fraction": hidden / len(self.ledger),
            "kakurenbo/candidates": self.candidates,
            "kakurenbo/moved_back": self.candidates - hidden,
            "kakurenbo/visible_samples": self.visible_samples,
            "kakurenbo/lr_scale": self.lr_scale,
            "kakurenbo/refresh_runtime": round(self.refresh_seconds, 4),
            "kakurenbo/time_saved": round(self.time_saved, 4),
        }

    def totals(self) -> dict[str, float]:
        """The figures of the whole training, when it has ended."""
        return {
            "kakurenbo/trained_samples": self.trained_samples,
            "kakurenbo/refreshed_samples": self.refreshed_samples,
            "kakurenbo/time_saved": round(self.time_saved, 4),
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and scalars from which `load_state` goes on; a collective call."""
        pending = self.recorder.gathered()
        tensors = {**self.ledger.state_dict(), "pending_ids": pending.ids, "pending_figures": pending.figures}
        return tensors, {name: getattr(self, name) for name in _SAVED_SCALARS}

    def load_state(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        """Take over what `state` gave, on any number of ranks.

        Raises:
            ValueError: it belongs to another number of samples.
        """
        self.ledger.load_state_dict(tensors)
        self.recorder.restore(Measurements(tensors["pending_ids"], tensors["pending_figures"]))
        for name in _SAVED_SCALARS:
            setattr(self, name, scalars[name])

    def _merge(self) -> None:
        self.ledger.update(self.recorder.gathered())
        self.recorder.clear()
