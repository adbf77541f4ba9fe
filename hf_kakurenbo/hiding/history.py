"""What every epoch measured of every sample, for those who ask how a sample was learnt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .record import SampleRecord

_LARGEST_LOSS = float(np.finfo(np.float16).max)

# Samples whose epochs are read together: their intermediate arrays stay small.
_PART = 2**16


class DataMap(NamedTuple):
    """How sure the model was of each sample's label over the epochs (Swayamdipta et al., 2020, arXiv 2009.10795)."""

    confidence: np.ndarray
    """(N,) float32 in [0, 1]: the mean of exp(−loss) over the epochs that measured the sample; NaN if none did."""
    variability: np.ndarray
    """(N,) float32 in [0, 0.5]: the standard deviation of exp(−loss) over them; NaN if none did."""
    correctness: np.ndarray
    """(N,) float32 in [0, 1]: in what fraction of them the sample was predicted correctly; NaN if none did."""


class EpochRecord(NamedTuple):
    """What one epoch measured."""

    epoch: int
    """Its index, from 0."""
    loss: np.ndarray
    """(N,) float16, NaN where the epoch did not measure the sample, or measured no number."""
    correct: np.ndarray
    """(N,) bool, as of the last measurement."""
    hidden: np.ndarray
    """(N,) bool, whether the epoch hid the sample."""


class LedgerHistory:
    """Loss, correctness and hiding of every sample in every epoch, in 2.25 bytes a sample and epoch.

    The loss is kept in half precision, the two flags as bits. An epoch measures the samples it trains on, and those it
    hides if it ends with a refresh; of the others its loss is NaN, and `correct` is that of the measurement before. The
    last epoch of a training has no refresh. The probability of the label is not stored beside the loss: for a
    cross entropy it is exp(−loss), for a mean over tokens or pixels their geometric mean.

    Args:
        num_samples: N.
    """

    def __init__(self, num_samples: int) -> None:
        self.num_samples = num_samples
        self._epochs: list[int] = []
        self._loss: list[np.ndarray] = []
        self._correct: list[np.ndarray] = []
        self._hidden: list[np.ndarray] = []

    def __len__(self) -> int:
        """How many epochs there are."""
        return len(self._epochs)

    def __repr__(self) -> str:
        return f"LedgerHistory of {len(self)} epochs of {self.num_samples:,} samples"

    @property
    def nbytes(self) -> int:
        """Bytes held in all."""
        return sum(array.nbytes for arrays in (self._loss, self._correct, self._hidden) for array in arrays)

    # ---- As arrays ----

    @property
    def epochs(self) -> np.ndarray:
        """(E,) int64, the indices of the epochs, from 0; those before the history was switched on are missing."""
        return np.array(self._epochs, dtype=np.int64)

    @property
    def loss(self) -> np.ndarray:
        """(E, N) float16, a copy: NaN where an epoch did not measure a sample, or measured no number."""
        return np.stack(self._loss) if self._loss else np.empty((0, self.num_samples), dtype=np.float16)

    @property
    def correct(self) -> np.ndarray:
        """(E, N) bool, unpacked: whether the sample's last prediction was right when the epoch ended."""
        return self._unpacked(self._correct)

    @property
    def hidden(self) -> np.ndarray:
        """(E, N) bool, unpacked: whether the epoch hid the sample."""
        return self._unpacked(self._hidden)

    def _unpacked(self, rows: list[np.ndarray]) -> np.ndarray:
        return np.stack([self._unpack(row) for row in rows]) if rows else np.empty((0, self.num_samples), dtype=bool)

    def _unpack(self, row: np.ndarray) -> np.ndarray:
        return np.unpackbits(row, count=self.num_samples).view(bool)

    def rows(self) -> Iterator[EpochRecord]:
        """The epochs one after the other, without a copy of all of them."""
        for epoch, loss, correct, hidden in zip(self._epochs, self._loss, self._correct, self._hidden, strict=True):
            yield EpochRecord(epoch, loss, self._unpack(correct), self._unpack(hidden))

    # ---- What follows from them ----

    def forgetting_events(self) -> np.ndarray:
        """(N,) int32: how often a wrong prediction followed a right one (Toneva et al., 2019, arXiv 1812.05159)."""
        events = np.zeros(self.num_samples, dtype=np.int32)
        for before, after in zip(self._correct, self._correct[1:], strict=False):
            events += self._unpack(before & ~after)
        return events

    def never_learnt(self) -> np.ndarray:
        """(N,) bool: measured at least once, and predicted wrongly each time. Among them are wrong labels."""
        ever_right = np.zeros(-(-self.num_samples // 8), dtype=np.uint8)
        measured = np.zeros(self.num_samples, dtype=bool)
        for loss, correct in zip(self._loss, self._correct, strict=True):
            ever_right |= correct
            measured |= ~np.isnan(loss)
        return measured & ~self._unpack(ever_right)

    def data_map(self) -> DataMap:
        """Confidence, variability and correctness of each sample over the epochs."""
        columns = DataMap(*(np.full(self.num_samples, np.nan, dtype=np.float32) for _ in range(3)))
        for start in range(0, self.num_samples if self._epochs else 0, _PART):
            part = slice(start, start + _PART)
            probability = np.exp(-np.stack([row[part] for row in self._loss]).astype(np.float32))
            measured = ~np.isnan(probability)
            count = measured.sum(axis=0)
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = np.where(measured, probability, 0).sum(axis=0) / count
                deviations = np.where(measured, probability - mean, 0)
                columns.variability[part] = np.sqrt((deviations**2).sum(axis=0) / count)
                columns.correctness[part] = (self._correct_in(part) & measured).sum(axis=0) / count
            columns.confidence[part] = mean
        return columns

    def _correct_in(self, part: slice) -> np.ndarray:
        """(E, n) bool of the samples of a part, which begins at a multiple of 8."""
        count = min(part.stop, self.num_samples) - part.start
        packed = np.stack([row[part.start // 8 : -(-part.stop // 8)] for row in self._correct])
        return np.unpackbits(packed, axis=1, count=count).view(bool)

    # ---- Changes ----

    def write(self, epoch: int, ledger: SampleRecord, measured: Tensor) -> None:
        """Add what an epoch has just measured: its own samples first, later those that it refreshed.

        Args:
            epoch: its index, from 0.
            ledger: with the epoch's measurements.
            measured: (N,) bool, the samples that they are of.
        """
        if not self._epochs or self._epochs[-1] != epoch:
            self._epochs.append(epoch)
            self._loss.append(np.full(self.num_samples, np.nan, dtype=np.float16))
            self._correct.append(np.empty(0, dtype=np.uint8))
            self._hidden.append(np.packbits(ledger.hidden.numpy()))
        correct = np.empty(self.num_samples, dtype=bool)
        for part in ledger.parts():
            now = measured.numpy()[part]
            self._loss[-1][part][now] = _in_half_precision(ledger.loss_at(part)[now])
            correct[part] = ledger.correct_at(part)
        self._correct[-1] = np.packbits(correct)

    # ---- Saving ----

    def state_dict(self) -> dict[str, Tensor]:
        """The epochs as tensors by name: their indices, (E, N) losses, and (E, ⌈N / 8⌉) bytes of each flag."""
        flags = np.empty((0, -(-self.num_samples // 8)), dtype=np.uint8)
        return {
            "epochs": torch.from_numpy(self.epochs),
            "loss": torch.from_numpy(self.loss),
            "correct": torch.from_numpy(np.stack(self._correct) if self._correct else flags),
            "hidden": torch.from_numpy(np.stack(self._hidden) if self._hidden else flags),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            ValueError: it belongs to another number of samples.
        """
        count = state["loss"].shape[1]
        if count != self.num_samples:
            raise ValueError(f"The history is of {count} samples, the ledger of {self.num_samples}.")
        self._epochs = state["epochs"].tolist()
        self._loss, self._correct, self._hidden = (
            [row.numpy().copy() for row in state[name]] for name in ("loss", "correct", "hidden")
        )


def _in_half_precision(loss: np.ndarray) -> np.ndarray:
    """Finite losses stay finite."""
    within = np.clip(loss, -_LARGEST_LOSS, _LARGEST_LOSS)
    half: np.ndarray = np.where(np.isinf(loss), loss, within).astype(np.float16)
    return half
