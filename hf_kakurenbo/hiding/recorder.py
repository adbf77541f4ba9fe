"""What was measured since the last time the ranks met."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .distributed import gather_rows, rank, world_size
from .measurements import Measurements
from .statistics import Prediction, SampleStatistics, describe


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

    def add_prediction(self, ids: Tensor, batch: Prediction) -> None:
        """Record a batch whose statistics follow from its logits; they may be computed together with later ones.

        Args:
            ids: (B,) integers, the samples of the batch.
            batch: their logits and labels, in the same order; logits that wait are copied.

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
        kind = (rule, logits.shape[1:], logits.dtype, labels.shape[1:], labels.dtype)
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
