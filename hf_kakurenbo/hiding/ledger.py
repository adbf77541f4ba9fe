"""What is known about every sample."""

from __future__ import annotations

import torch
from torch import Tensor

from .distributed import digest
from .measurements import Measurements as Measurements
from .recorder import Recorder as Recorder
from .statistics import describe


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
