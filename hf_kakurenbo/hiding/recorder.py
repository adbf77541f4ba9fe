"""What was measured since the last time the ranks met."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..distributed.data_parallel import DataParallelWorld
from .ledger import SampleLedger
from .measurements import Measurements
from .pending import PendingMeasurements
from .statistics import Prediction, SampleStatistics, describe
from .statistics.checks import require_statistics


class Recorder:
    """Collects the statistics of each batch on the device, so that no step waits for them.

    Args:
        device: where the model computes; also the device of the collective calls.
        num_samples: N. Below 2³¹ the ids take 4 bytes each, else, or if it is not known, 8.
        data_parallel: which ranks have the same batches; by default each has its own.
    """

    # Logits that wait for their statistics, 1 MB of them. Small batches are expensive one by one: their statistics are
    # a dozen operations, each of which takes as long on 64 rows as on 4,096.
    _WAITING_ELEMENTS = 2**18
    # Batches that wait, however small: their three tensors take 512 bytes each of a GPU at least, 6 MB of these.
    _WAITING_BATCHES = 2**12

    def __init__(
        self,
        device: torch.device | str = "cpu",
        num_samples: int | None = None,
        data_parallel: DataParallelWorld | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.data_parallel = data_parallel
        self._pending = PendingMeasurements(self.device, num_samples, data_parallel or DataParallelWorld.of_all_ranks())
        self._waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self._versions: list[int] = []
        self._waiting_kind: Any = None
        self._waiting_elements = 0

    def to(self, device: torch.device | str) -> None:
        """Take measurements from another device from now on."""
        self.device = self._pending.device = torch.device(device)

    @torch.no_grad()
    def add(self, ids: Tensor, statistics: SampleStatistics) -> None:
        """Record a batch.

        Args:
            ids: (B,) integers, the samples of the batch.
            statistics: theirs, in the same order.

        Raises:
            ValueError: a field of the statistics is not of shape (B,), or of another dtype than it has to be.
        """
        statistics = require_statistics(statistics, len(ids))
        self._settle()
        loss, correct, confidence = (field.detach().to(self.device, torch.float32) for field in statistics)
        self._pending.append(ids.to(self.device, torch.int64), torch.stack([loss, confidence, correct], dim=1))

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
        self._versions.append(_version(ids) + _version(labels))
        self._waiting_elements += logits.numel()
        if self._waiting_elements >= self._WAITING_ELEMENTS or len(self._waiting) >= self._WAITING_BATCHES:
            self._settle()

    def _settle(self) -> None:
        if not self._waiting:
            return
        self._require_unchanged()
        ids, logits, labels = (torch.cat(parts).to(self.device) for parts in zip(*self._waiting, strict=True))
        self._forget_waiting()
        self.add(ids, self._waiting_kind[0](logits, labels))

    def restore(self, measurements: Measurements) -> None:
        """Take over this rank's fraction of what all ranks had measured, as `gathered` gave it."""
        self.clear()
        # By default asked for only now: the ranks may have met after this object was made.
        ranks, rank, *_ = self.data_parallel or DataParallelWorld.of_all_ranks()
        self._pending.append_packed(Measurements(*(rows[rank::ranks] for rows in measurements)))

    def clear(self) -> None:
        """Forget everything."""
        self._pending.clear()
        self._forget_waiting()

    def _forget_waiting(self) -> None:
        self._waiting, self._versions, self._waiting_elements = [], [], 0

    def _require_unchanged(self) -> None:
        """Check that labels and ids that wait are still those of their logits, by how often they were written into."""
        if self._versions != [_version(ids) + _version(labels) for ids, _, labels in self._waiting]:
            raise RuntimeError(
                "The labels or the ids of an earlier batch have been written over since its loss was computed, and the "
                "statistics of its samples would follow from others. Something changes a batch in place, or copies all "
                "batches into the same tensors. Let it make new tensors, or train without hiding "
                '(hiding_policy="none").'
            )

    def gathered(self) -> Measurements:
        """What all ranks have measured, on the CPU, the same on every rank; a collective call.

        The order is by position within the rank, then by rank.
        """
        self._settle()
        return self._pending.gathered()

    def merge_into(self, ledger: SampleLedger, seen: Tensor | None = None) -> int:
        """Bring what all ranks have measured into the ledger, and forget it; a collective call.

        Of a sample measured twice, the measurement that is first in the order of `gathered` counts.

        Args:
            ledger: the record, the same on every rank.
            seen: (N,) bool, set where a sample was measured.

        Returns:
            How many measurements there were on all ranks.

        Raises:
            ValueError: an id is outside 0..N−1.
        """
        self._settle()
        count = 0
        for measurements in self._pending.rounds_backwards():
            ledger.update(measurements)
            count += len(measurements.ids)
            if seen is not None:
                seen.numpy()[measurements.ids.numpy()] = True
        self.clear()
        return count


def _version(tensor: Tensor) -> int:
    """How often a tensor was written into; those of inference mode do not say so."""
    return 0 if tensor.is_inference() else tensor._version
