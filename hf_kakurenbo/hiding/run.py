"""One training with hiding: what is hidden in which epoch, what was measured, what it saved."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..distributed.data_parallel import DataParallelWorld
from .compact_ledger import create_ledger
from .ledger import SampleLedger
from .measurements import Measurements
from .policies import HidingPolicy
from .protection import Protection
from .recorder import Recorder
from .saved_ledger import history_state, ledger_state
from .schedule import compensated_learning_rate_scale, epoch_batch_size
from .statistics import Prediction, SampleStatistics
from .times import SAVED_TIMES, RunTimes

_SAVED_SCALARS = (
    "epoch",
    "epoch_finished",
    "batches_done",
    "batch_fraction",
    "candidates",
    "trained_samples",
    "replaced_samples",
    "refreshed_samples",
    *SAVED_TIMES,
)

_SAVED_SELECTION = ("weights", "repeats")

_POLICY_PREFIX = "policy."


class HidingRun(RunTimes):
    """The state of one training: begin an epoch, record its batches, finish it, refresh what it hid.

    How long it took, and what hiding saved of it, it has from [`RunTimes`].

    Args:
        num_samples: N, the number of samples in the training dataset.
        policy: decides what an epoch hides.
        device: where the model computes.
        compensate_learning_rate: whether `lr_scale` follows the hidden fraction, or stays 1.
        ledger_precision: `"full"`, `"compact"`, or `"auto"`: compact from 100 million samples on.
        data_parallel: which ranks have the same batches, as with tensor parallelism; by default each has its own.
        history: whether the ledger keeps what every epoch measured, 2.25 bytes a sample and epoch.

    Attributes:
        ledger: the per-sample record.
        protection: what is never hidden, whatever the policy decides; None for nothing. To be set before an epoch.
        epoch: the index of the present epoch, from 0.
        epoch_finished: whether its batches are done and their figures are in the ledger.
        batches_done: how many of its batches were trained on, on this rank.
        batch_fraction: the size of its batches ÷ that of batches with nothing hidden.
        candidates: how many samples the policy considered hiding in it.
        weights: (N,) float32, by how much the gradients of its samples count; None for each by 1.
        repeats: (N,) int32, how often each of its samples is drawn; None for each visible one once.
        trained_samples: samples trained on so far, on all ranks together.
        replaced_samples: samples that the same part of the training would have trained on with nothing hidden.
        refreshed_samples: samples of forward-only passes so far.
        samples_this_session: samples trained on since this object was made, a resumed training's earlier ones left out.
    """

    def __init__(
        self,
        num_samples: int,
        policy: HidingPolicy,
        device: torch.device | str = "cpu",
        compensate_learning_rate: bool = True,
        ledger_precision: str = "auto",
        data_parallel: DataParallelWorld | None = None,
        history: bool = False,
    ) -> None:
        super().__init__()
        self.ledger = create_ledger(num_samples, ledger_precision, history)
        self.policy = policy
        self.protection: Protection | None = None
        self.recorder = Recorder(device, num_samples, data_parallel)
        self.compensate_learning_rate = compensate_learning_rate
        self.epoch = -1
        self.epoch_finished = True
        self.batches_done = 0
        self.batch_fraction = 1.0
        self.candidates = 0
        self.weights: Tensor | None = None
        self.repeats: Tensor | None = None
        self.trained_samples = 0
        self.replaced_samples = 0
        self.refreshed_samples = 0
        self.samples_this_session = 0
        self._draws: tuple[int, int] | None = None
        self._measured_before = 0
        self._progress = 0.0

    @property
    def next_epoch(self) -> int:
        """The index of the epoch to begin next, or to continue where one was interrupted: 0 at first."""
        return self.epoch + self.epoch_finished

    @property
    def visible_samples(self) -> int:
        """How many samples this epoch trains on, one that is drawn twice counted twice."""
        return self._draws[0] if self._draws is not None else len(self.ledger) - self.ledger.num_hidden

    @property
    def full_samples(self) -> int:
        """How many it would train on with nothing hidden: N, unless the sampler draws more or fewer."""
        return self._draws[1] if self._draws is not None else len(self.ledger)

    @property
    def hidden_fraction(self) -> float:
        """F*_e: the fraction of the epoch's draws that is hidden."""
        if self.repeats is not None:  # some are drawn more often for what is hidden
            return self.ledger.num_hidden / len(self.ledger)
        return (self.full_samples - self.visible_samples) / self.full_samples if self.full_samples else 0.0

    @property
    def lr_scale(self) -> float:
        """By how much this epoch's learning rate is multiplied: 1 where weights stand for what is hidden.

        Batches that are smaller by as much as is hidden leave it at 1, as nearly as they can.
        """
        if not self.compensate_learning_rate or self.weights is not None or self.repeats is not None:
            return 1.0
        scale = compensated_learning_rate_scale(self.full_samples, self.full_samples - self.visible_samples)
        return scale * self.batch_fraction

    def weights_of(self, ids: Tensor) -> Tensor | None:
        """By how much the gradients of some samples, (B,) integers, count in this epoch: (B,); None for each by 1."""
        if self.weights is None or self.epoch_finished:
            return None
        self.weights = self.weights.to(ids.device)  # once: a transfer for each batch would wait for the device
        return self.weights[ids]

    def begin_epoch(self, epoch: int, progress: float) -> None:
        """Choose what the epoch hides.

        Args:
            epoch: its index, from 0.
            progress: the fraction of the training already done, in [0, 1).
        """
        started = time.perf_counter()
        selection = self.policy.select(self.ledger, epoch, progress)
        hidden = selection.hidden
        self.ledger.hide(hidden if self.protection is None else self.protection.kept_visible(hidden, self.ledger))
        self.epoch, self.epoch_finished, self.batches_done, self.batch_fraction = epoch, False, 0, 1.0
        self.candidates = selection.candidates
        self.weights, self.repeats = selection.weights, selection.repeats
        self._measured_before, self._draws = 0, None
        self._progress = progress
        self.training_seconds, self.refresh_seconds = 0.0, 0.0
        self.selection_seconds = time.perf_counter() - started
        self.start_clock()

    def begin_with(self, earlier: SampleLedger) -> None:
        """Take over, before the first epoch, what an earlier training measured, as if a pass over all samples had.

        Raises:
            ValueError: it is of another number of samples.
        """
        nothing = {name: torch.zeros_like(getattr(earlier, name)) for name in ("hidden", "times_hidden")}
        self.ledger.load_state_dict({**earlier.state_dict(), **nothing})
        if self.policy.observes:
            self.policy.observe(self.ledger, ~self.ledger.loss.isnan().numpy(), -1)

    def hide_nothing(self) -> None:
        """Take the epoch's selection back, before its first batch."""
        self.ledger.unhide()
        self.weights = self.repeats = self._draws = None
        self.batch_fraction = 1.0

    def keep_to_draws(self, draws: np.ndarray) -> None:
        """Hold the fraction hidden to what the sampler draws, where it does not draw each sample once.

        Samples that the epoch does not draw are not hidden in it. Of the others, those of highest loss move back (then
        those of highest id) until no more of the draws is hidden than the policy may hide.

        Args:
            draws: (N,) integers, how often each sample is drawn with nothing hidden.
        """
        most = self.policy.most_hidden(int(draws.sum()), self.epoch, self._progress)
        ids = self.ledger.hidden_ids
        loss = np.nan_to_num(self.ledger.loss_at(ids.numpy()), nan=np.inf)
        ids = ids[np.argsort(loss, kind="stable")]
        counts = draws[ids.numpy()]
        keeps = (counts > 0) & (np.cumsum(counts) <= most)
        self.ledger.unhide(ids[~keeps])

    def keep_updates(self, batch_size: int, multiple: int = 1) -> int:
        """Give the epoch as many updates as one with nothing hidden, in smaller batches; before its first batch.

        Args:
            batch_size: with nothing hidden.
            multiple: what the size is a multiple of.

        Returns:
            The size of the epoch's batches.
        """
        size = epoch_batch_size(batch_size, self.visible_samples, self.full_samples, multiple)
        self.batch_fraction = size / batch_size
        return size

    def epoch_batch_size(self, batch_size: int, multiple: int = 1) -> int:
        """The size of the epoch's batches: `batch_size`, or what `keep_updates` made of it.

        Args:
            batch_size: with nothing hidden; another one than `keep_updates` had is reduced by the same fraction.
            multiple: what the size is a multiple of.
        """
        return max(1, round(batch_size * self.batch_fraction / multiple)) * multiple

    def count_draws(self, samples: int, full_samples: int) -> None:
        """Go by what the sampler draws, in the learning rate, the log and the times.

        Args:
            samples: how many samples the epoch trains on.
            full_samples: how many it would train on with nothing hidden.
        """
        self._draws = samples, full_samples

    def move_back_one(self) -> None:
        """Show one more sample in this epoch: of the hidden ones, that of the highest loss (then of the lowest id)."""
        hidden = self.ledger.hidden_ids
        loss = torch.from_numpy(self.ledger.loss_at(hidden.numpy()))
        self.ledger.unhide(hidden[loss.nan_to_num(torch.inf).argmax()].unsqueeze(0))

    def record(self, ids: Tensor, batch: SampleStatistics | Prediction) -> None:
        """Record a batch: its statistics, or the logits and labels from which they follow; see [`Recorder`]."""
        if isinstance(batch, Prediction):
            self.recorder.add_prediction(ids, batch)
        else:
            self.recorder.add(ids, batch)

    def finish_epoch(self, seen: Tensor | None = None) -> int:
        """Bring what was measured into the ledger, on every rank; a collective call.

        Args:
            seen: (N,) bool, set where a sample was measured in the epoch.

        Returns:
            How many samples were measured in the epoch, on all ranks; a padded one counts each time.
        """
        self.training_seconds = self.training_seconds
        # What is measured beyond the epoch's samples is padding, which fills up the last batch of several ranks.
        observes, history = self.policy.observes, self.ledger.history
        if seen is None and (observes or history is not None):
            seen = torch.zeros_like(self.ledger.hidden)
        measured = self.recorder.merge_into(self.ledger, seen)
        if seen is not None and observes:
            self.policy.observe(self.ledger, seen.numpy(), self.epoch)
        if seen is not None and history is not None:
            history.write(self.epoch, self.ledger, seen)
        trained = min(measured, self.visible_samples)
        self.epoch_finished = True
        self.trained_samples += trained
        self.samples_this_session += trained - min(self._measured_before, self.visible_samples)
        replaced = round(trained * self.full_samples / self.visible_samples) if trained else 0
        self.replaced_samples += replaced
        self.count_epoch(trained, replaced, whole_batches=self.batch_fraction == 1)
        return measured

    def wants_refresh(self) -> bool:
        """Whether hidden samples of this epoch are to be refreshed, provided that another epoch follows."""
        return self.ledger.num_hidden > 0 and self.policy.wants_refresh(self.epoch)

    @contextmanager
    def refreshing(self) -> Iterator[Tensor]:
        """Around the forward passes over hidden samples, whose batches go to `record`; a collective call.

        It gives the samples to look at, (N,) bool: all that are hidden, unless the policy says which of them.
        """
        some = self.policy.to_refresh(self.ledger, self.epoch)
        history = self.ledger.history
        seen = None if history is None else torch.zeros_like(self.ledger.hidden)
        with self._measuring(self.ledger.hidden if some is None else some & self.ledger.hidden, seen) as chosen:
            yield chosen
        if seen is not None and history is not None:
            history.write(self.epoch, self.ledger, seen)

    @contextmanager
    def measuring_all(self) -> Iterator[Tensor]:
        """Around the forward passes over all samples before the first epoch; a collective call, as `refreshing`.

        The policy learns of it as of an epoch −1 in which those were trained that came: a stream may leave some out.
        """
        everything = torch.ones_like(self.ledger.hidden)
        seen = torch.zeros_like(everything) if self.policy.observes else None
        with self._measuring(everything, seen):
            yield everything
        if seen is not None:
            self.policy.observe(self.ledger, seen.numpy(), -1)

    @contextmanager
    def _measuring(self, chosen: Tensor, seen: Tensor | None = None) -> Iterator[Tensor]:
        started = time.perf_counter()
        yield chosen
        self.recorder.merge_into(self.ledger, seen)
        self.refreshed_samples += int(chosen.count_nonzero())
        self.count_refresh(time.perf_counter() - started)

    def report(self) -> dict[str, float]:
        """The figures of the epoch for the log."""
        hidden = self.ledger.num_hidden
        return {
            "kakurenbo/hidden_fraction": self.hidden_fraction,
            "kakurenbo/candidates": self.candidates,
            "kakurenbo/moved_back": self.candidates - hidden,
            "kakurenbo/visible_samples": self.visible_samples,
            "kakurenbo/lr_scale": self.lr_scale,
            "kakurenbo/refresh_runtime": round(self.refresh_seconds, 4),
            "kakurenbo/time_saved": round(self.time_saved, 4),
            "kakurenbo/time_saved_fraction": round(self.time_saved_fraction, 4),
        }

    def totals(self) -> dict[str, float]:
        """The figures of the whole training, when it has ended."""
        return {
            "kakurenbo/trained_samples": self.trained_samples,
            "kakurenbo/refreshed_samples": self.refreshed_samples,
            "kakurenbo/time_saved": round(self.time_saved, 4),
            "kakurenbo/time_saved_fraction": round(self.time_saved_fraction, 4),
        }

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, on the CPU, and scalars from which `load_state` continues; a collective call."""
        pending = self.recorder.gathered()
        ledger, described = ledger_state(self.ledger)
        tensors = {**ledger, "pending_ids": pending.ids, "pending_figures": pending.statistics}
        if not self.epoch_finished:
            selected = {name: getattr(self, name) for name in _SAVED_SELECTION}
            tensors.update({name: tensor.cpu() for name, tensor in selected.items() if tensor is not None})
        tensors.update({_POLICY_PREFIX + name: tensor for name, tensor in self.policy.state_dict().items()})
        return tensors, {**described, **self.scalars()}

    def scalars(self) -> dict[str, Any]:
        """The numbers of the training so far, by name, as JSON holds them."""
        return {name: getattr(self, name) for name in _SAVED_SCALARS}

    def load_state(self, tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
        """Take over what `state` gave, on any number of ranks.

        Raises:
            ValueError: it belongs to another number of samples, or to a policy with a state of another kind.
        """
        self.ledger.load_state_dict(tensors)
        if self.ledger.history is not None and (history := history_state(tensors)):
            self.ledger.history.load_state_dict(history)
        self._load_policy_state(tensors)
        for name in _SAVED_SELECTION:
            setattr(self, name, tensors.get(name))
        self.recorder.restore(Measurements(tensors["pending_ids"], tensors["pending_figures"]))
        self._measured_before = tensors["pending_ids"].numel()
        for name in _SAVED_SCALARS:
            setattr(self, name, scalars.get(name, 0))  # an earlier release saved fewer
        self.batch_fraction = self.batch_fraction or 1.0

    def state_dict(self) -> dict[str, Any]:
        """`state` as one dict, as Accelerate and Lightning ask objects for it; a collective call."""
        return dict(zip(("tensors", "scalars"), self.state(), strict=True))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over `state_dict`; see `load_state`."""
        self.load_state(state["tensors"], state["scalars"])

    def _load_policy_state(self, tensors: dict[str, Tensor]) -> None:
        state = {
            name.removeprefix(_POLICY_PREFIX): tensor
            for name, tensor in tensors.items()
            if name.startswith(_POLICY_PREFIX)
        }
        if not state:
            return  # the first epoch had not ended, or the policy knows nothing beside the ledger
        try:
            self.policy.load_state_dict(state)
        except KeyError as error:
            raise ValueError(
                f"It was saved with another hiding_policy: {type(self.policy).__name__} looks for {error}, one of the "
                f"figures that it keeps of each sample, and finds {', '.join(map(repr, state))}."
            ) from error
