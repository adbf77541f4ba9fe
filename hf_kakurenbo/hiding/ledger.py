"""What is known about every sample."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..distributed.collectives import digest
from . import exports
from .history import LedgerHistory
from .measurements import Measurements as Measurements
from .record import Where
from .statistics import describe

# What a pass over all samples takes at a time: its intermediate arrays stay in the cache, and small at any N.
_PART = 2**17


class SampleLedger:
    """The per-sample record: 12 bytes a sample, on the CPU, the same on every rank.

    Args:
        num_samples: N, the number of samples in the training dataset; at least 1.

    Attributes:
        hidden: (N,) bool, whether the sample is hidden in this epoch.
        history: what every epoch measured, if it is kept.
        rows: which row a sample's id means, in words.

    Raises:
        ValueError: `num_samples` is below 1.
    """

    _FIGURES = torch.float32
    _COUNTS = torch.int16

    def __init__(self, num_samples: int) -> None:
        if num_samples < 1:
            raise ValueError(f"A ledger needs at least one sample, got num_samples={num_samples}.")
        self._loss = _filled(num_samples, torch.nan, self._FIGURES)
        self._confidence = _filled(num_samples, 0.0, self._FIGURES)
        self.hidden = torch.zeros(num_samples, dtype=torch.bool)
        self._times_hidden = torch.zeros(num_samples, dtype=self._COUNTS)
        self.history: LedgerHistory | None = None
        self.rows = "the index of a row of the training dataset"
        self._make_flags()

    def _make_flags(self) -> None:
        self._correct = torch.zeros(len(self), dtype=torch.bool)

    def __len__(self) -> int:
        return self._loss.numel()

    def __repr__(self) -> str:
        return exports.in_words(self)

    # ---- All samples ----

    @property
    def loss(self) -> Tensor:
        """(N,) float32, the lagging loss: the one recorded the last time the sample went through the model.

        NaN before the first time.
        """
        return self._loss

    @property
    def confidence(self) -> Tensor:
        """(N,) float32 in [0, 1], recorded with the loss."""
        return self._confidence

    @property
    def correct(self) -> Tensor:
        """(N,) bool, recorded with the loss."""
        return self._correct

    @property
    def times_hidden(self) -> Tensor:
        """(N,) int32: in how many epochs the sample was hidden. Counted in 16 bits, up to 32,767."""
        return self._times_hidden.to(torch.int32)

    @property
    def num_without_loss(self) -> int:
        """How many samples have no finite loss, those that never went through the model included."""
        return len(self) - int(self._loss.isfinite().count_nonzero())

    @property
    def visible_ids(self) -> Tensor:
        """(N − hidden,) int64, ascending: the samples to train on in this epoch."""
        return (~self.hidden).nonzero().squeeze(1)

    @property
    def hidden_ids(self) -> Tensor:
        """The ids of the samples that this epoch leaves out, ascending, int64."""
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

    # ---- Some samples: what a policy reads, so that no copy of everything is made whatever the ledger's precision ----

    def parts(self) -> Iterator[slice]:
        """All samples, so many at a time that intermediate arrays stay small."""
        return (slice(start, min(start + _PART, len(self))) for start in range(0, len(self), _PART))

    def loss_at(self, where: Where) -> np.ndarray:
        """The lagging losses of some samples, float32; not to be written to."""
        return self._loss.numpy()[where]

    def confidence_at(self, where: Where) -> np.ndarray:
        """The confidences of some samples, float32; not to be written to."""
        return self._confidence.numpy()[where]

    def correct_at(self, where: Where) -> np.ndarray:
        """Which of some samples were predicted correctly, bool; not to be written to."""
        return self._correct.numpy()[where]

    # ---- Changes ----

    def hide(self, hidden: Tensor) -> None:
        """Begin an epoch in which the samples of a mask, (N,) bool, are hidden.

        Raises:
            ValueError: the mask has another shape or dtype.
        """
        if hidden.shape != self.hidden.shape or hidden.dtype != torch.bool:
            raise ValueError(f"The mask must be ({len(self)},) bool, got {describe(hidden)}.")
        self.hidden.copy_(hidden)
        for part in self.parts():
            counts = self._times_hidden[part]
            counts += self.hidden[part] & (counts < torch.iinfo(self._COUNTS).max)

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
        ids, figures = measurements.ids.numpy(), measurements.statistics.numpy()
        if ids.size and (ids.min() < 0 or ids.max() >= len(self)):
            raise ValueError(f"Sample ids must be in 0..{len(self) - 1}, got {ids.min()}..{ids.max()}.")
        # NumPy assigns in order and leaves the last value of a repeated index: backwards, the first one stays.
        self._write(ids[::-1], figures[::-1, 0], figures[::-1, 1])

    def _write(self, where: Where, loss: np.ndarray, confidence: np.ndarray) -> None:
        """Take over figures as [`Measurements`] has them: the sign of the confidence says whether it was right."""
        self._loss.numpy()[where] = loss
        self._confidence.numpy()[where] = np.abs(confidence)
        self._correct.numpy()[where] = ~np.signbit(confidence)

    # ---- For other libraries ----

    def to_pandas(self, dataset: Any = None, columns: Sequence[str] | None = None) -> Any:
        """The ledger as a `pandas.DataFrame` of N rows in the order of the ids.

        Its columns are `sample_id` int64, `loss` float32 (NaN before the first measurement), `confidence` float32,
        `correct` bool, `hidden` bool and `times_hidden` int32. `rows` says which row of which dataset an id means.

        Args:
            dataset: the training dataset, a `datasets.Dataset`, some of whose columns are to stand before the ledger's,
                for example those with ids of your own. A column of the ledger whose name it has becomes
                `kakurenbo_<name>`.
            columns: the names of these columns; by default all.

        Raises:
            TypeError: the dataset is of another class.
            ValueError: it has another number of rows than the ledger has samples.
        """
        return exports.to_pandas(self, dataset, columns)

    def to_dataset(self, dataset: Any = None, columns: Sequence[str] | None = None) -> Any:
        """The ledger as a `datasets.Dataset` of N rows in the order of the ids; see `to_pandas`.

        The columns of the training dataset that stand beside it are not copied.
        """
        return exports.to_dataset(self, dataset, columns)

    def to_parquet(
        self, path: str | os.PathLike[str], dataset: Any = None, columns: Sequence[str] | None = None
    ) -> None:
        """Write the ledger into a Parquet file, which appears whole or not at all; see `to_pandas`."""
        exports.to_parquet(self, path, dataset, columns)

    # ---- Saving ----

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of the ledger by name, not copied."""
        return {
            "loss": self._loss,
            "confidence": self._confidence,
            "correct": self._correct,
            "hidden": self.hidden,
            "times_hidden": self._times_hidden,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave, of a ledger of any precision.

        Raises:
            ValueError: it belongs to another number of samples.
        """
        if state["loss"].numel() != len(self):
            raise ValueError(
                f"The ledger is of a dataset of {state['loss'].numel()} samples, the training dataset has {len(self)}."
            )
        self.hidden.copy_(state["hidden"])
        for part in self.parts():
            self._times_hidden[part] = state["times_hidden"][part].int().clamp(max=torch.iinfo(self._COUNTS).max)
            confidence = state["confidence"][part].float()
            if "correct" in state:
                confidence = torch.where(state["correct"][part], confidence, -confidence)
            self._write(part, state["loss"][part].float().numpy(), confidence.numpy())


def _filled(count: int, value: float, dtype: torch.dtype) -> Tensor:
    """As `torch.full`, in memory from NumPy, which asks for large pages: writing all over it is then twice as fast."""
    return torch.from_numpy(np.empty(count, dtype=str(dtype).removeprefix("torch."))).fill_(value)
