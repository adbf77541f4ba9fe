"""What is known about every sample, and what was measured since the last time the ranks met."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .distributed import digest, gather_rows, rank, world_size
from .statistics import Classification, SampleStatistics, describe


class SampleLedger:
    """The per-sample record: 12 bytes a sample, on the CPU, the same on every rank.

    Args:
        num_samples: N, the number of samples in the training dataset; at least 1.

    Attributes:
        loss: (N,) float32, the lagging loss: the one recorded the last time the sample went through the model;
            NaN before the first time.
        confidence: (N,) float32 in [0, 1], recorded with it.
        correct: (N,) bool, recorded with it.
        hidden: (N,) bool, whether the sample is hidden in this epoch.

    Raises:
        ValueError: `num_samples` is below 1.
    """

    def __init__(self, num_samples: int) -> None:
        if num_samples < 1:
            raise ValueError(f"A ledger needs at least one sample, got num_samples={num_samples}.")
        self.loss = torch.full((num_samples,), torch.nan)
        self.confidence = torch.zeros(num_samples)
        self.correct = torch.zeros(num_samples, dtype=torch.bool)
        self.hidden = torch.zeros(num_samples, dtype=torch.bool)
        self._times_hidden = torch.zeros(num_samples, dtype=torch.int16)

    def __len__(self) -> int:
        return self.loss.numel()

    @property
    def times_hidden(self) -> Tensor:
        """(N,) int32: in how many epochs the sample was hidden. Counted in 16 bits, which 32,767 epochs fit."""
        return self._times_hidden.to(torch.int32)

    @property
    def visible_ids(self) -> Tensor:
        """(N − hidden,) int64, ascending: the samples to train on in this epoch."""
        return (~self.hidden).nonzero().squeeze(1)

    @property
    def hidden_ids(self) -> Tensor:
        """(hidden,) int64, ascending: the samples that this epoch leaves out."""
        return self.hidden.nonzero().squeeze(1)

    @property
    def num_hidden(self) -> int:
        """How many samples this epoch leaves out."""
        return int(self.hidden.count_nonzero())

    @property
    def nbytes(self) -> int:
        """Bytes held in all."""
        return sum(tensor.nbytes for tensor in self.state_dict().values())

    def digest(self) -> int:
        """A 64-bit digest of the hidden set, to compare it between ranks."""
        return digest(self.hidden.numpy())

    def hide(self, hidden: Tensor) -> None:
        """Begin an epoch in which the samples of a mask, (N,) bool, are hidden.

        Raises:
            ValueError: the mask has another shape or dtype.
        """
        if hidden.shape != self.hidden.shape or hidden.dtype != torch.bool:
            raise ValueError(f"The mask must be ({len(self)},) bool, got {describe(hidden)}.")
        self.hidden.copy_(hidden)
        self._times_hidden += hidden

    def unhide(self, ids: Tensor | None = None) -> None:
        """Take the last `hide` back for hidden samples of some ids, (n,) int64, or for all."""
        ids = self.hidden_ids if ids is None else ids
        self._times_hidden[ids] -= 1
        self.hidden[ids] = False

    def update(self, measurements: Measurements) -> None:
        """Record what was measured. Of a sample measured twice (padding), the first measurement counts.

        Raises:
            ValueError: an id is outside 0..N−1.
        """
        ids, figures = measurements.ids.numpy(), measurements.figures.numpy()
        if ids.size and (ids.min() < 0 or ids.max() >= len(self)):
            raise ValueError(f"Sample ids must be in 0..{len(self) - 1}, got {ids.min()}..{ids.max()}.")
        # NumPy assigns in order and leaves the last value of a repeated index: backwards, the first one stays.
        ids, figures = ids[::-1], figures[::-1]
        self.loss.numpy()[ids] = figures[:, 0]
        self.confidence.numpy()[ids] = figures[:, 1]
        self.correct.numpy()[ids] = figures[:, 2] != 0

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of the ledger by name, not copied."""
        return {
            "loss": self.loss,
            "confidence": self.confidence,
            "correct": self.correct,
            "hidden": self.hidden,
            "times_hidden": self._times_hidden,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ValueError: it belongs to another number of samples.
        """
        if state["loss"].numel() != len(self):
            raise ValueError(
                f"The ledger is of a dataset of {state['loss'].numel()} samples, the training dataset has {len(self)}."
            )
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


class Measurements(NamedTuple):
    """Figures of n measured samples, in the order in which they were measured."""

    ids: Tensor
    """(n,) int64."""
    figures: Tensor
    """(n, 3) float32: loss, confidence, and correct as 0 or 1."""


class Recorder:
    """Collects the statistics of each batch on the device, so that no step waits for them.

    Args:
        device: where the model computes; also the device of the collective calls.
    """

    # Logits that wait for their statistics, 1 MB of them. Small batches are dear one by one: their statistics are a
    # dozen operations, each of which takes as long on 64 rows as on 4,096.
    _WAITING_ELEMENTS = 2**18

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._ids: list[Tensor] = []
        self._figures: list[Tensor] = []
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._waiting_kind: Any = None
        self._waiting_elements = 0

    @torch.no_grad()
    def add(self, ids: Tensor, statistics: SampleStatistics) -> None:
        """Record a batch.

        Args:
            ids: (B,) integers, the samples of the batch.
            statistics: theirs, in the same order.

        Raises:
            ValueError: a field of the statistics is not of shape (B,).
        """
        wrong = [
            f"{name} {describe(field)}" for name, field in statistics._asdict().items() if field.shape != ids.shape
        ]
        if wrong:
            raise ValueError(
                f"Each of the sample statistics must have shape {tuple(ids.shape)}, one figure per sample of the "
                f"batch; got {', '.join(wrong)}."
            )
        self._settle()
        loss, correct, confidence = (field.detach().to(self.device, torch.float32) for field in statistics)
        self._ids.append(ids.to(self.device))
        self._figures.append(torch.stack([loss, confidence, correct], dim=1))

    def add_classification(self, ids: Tensor, batch: Classification) -> None:
        """Record a batch whose statistics follow from its logits; they may be computed together with later ones.

        Args:
            ids: (B,) integers, the samples of the batch.
            batch: their logits and labels; the logits are copied.

        Raises:
            ValueError: logits or labels are of another number of samples.
        """
        rule, logits, labels = batch
        if not ids.shape[0] == logits.shape[0] == labels.shape[0]:
            raise ValueError(
                f"The batch has {ids.shape[0]} samples, but its logits are {describe(logits)} and its labels "
                f"{describe(labels)}."
            )
        if logits.numel() > self._WAITING_ELEMENTS:
            self.add(ids, rule(logits, labels))
            return
        kind = (rule, logits.shape[1], logits.dtype, labels.ndim, labels.dtype)
        if kind != self._waiting_kind:
            self._settle()
            self._waiting_kind = kind
        # A compiled model may write its next outputs into the same memory, hence the copy. Anything more is left for
        # later: beside a step, when no cache holds it, a call costs several times what it does in a loop of its own.
        self._waiting.append((ids, logits.detach().clone(), labels))
        self._waiting_elements += logits.numel()
        if self._waiting_elements >= self._WAITING_ELEMENTS:
            self._settle()

    def _settle(self) -> None:
        if not self._waiting:
            return
        ids, logits, labels = (torch.cat(parts).to(self.device) for parts in zip(*self._waiting, strict=True))
        self._waiting, self._waiting_elements = [], 0
        self.add(ids, self._waiting_kind[0](logits, labels))

    def restore(self, measurements: Measurements) -> None:
        """Take over this rank's share of what all ranks had measured, as `gathered` gave it."""
        self.clear()
        self._ids.append(measurements.ids[rank() :: world_size()].to(self.device))
        self._figures.append(measurements.figures[rank() :: world_size()].to(self.device))

    def clear(self) -> None:
        """Forget everything."""
        self._ids, self._figures = [], []
        self._waiting, self._waiting_elements = [], 0

    def gathered(self) -> Measurements:
        """What all ranks have measured, on the CPU, the same on every rank; a collective call.

        The order is by position within the rank, then by rank. Padding repeats the first samples of an epoch in its
        last batch, so a sample's own place comes before its repetition, whatever the number of ranks.
        """
        self._settle()
        ids = torch.cat([torch.empty(0, dtype=torch.int64, device=self.device), *self._ids])
        figures = torch.cat([torch.empty(0, 3, device=self.device), *self._figures])
        ids_by_rank = [part.cpu() for part in gather_rows(ids)]
        figures_by_rank = [part.cpu() for part in gather_rows(figures)]
        order = _interleaved([part.numel() for part in ids_by_rank])
        return Measurements(torch.cat(ids_by_rank)[order], torch.cat(figures_by_rank)[order])


def _interleaved(lengths: list[int]) -> Tensor:
    """The order that takes the first of each part, then the second of each part, and so on: a (sum,) index."""
    positions = np.concatenate([np.arange(length) for length in lengths])
    return torch.from_numpy(np.argsort(positions, kind="stable"))
