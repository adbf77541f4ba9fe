"""The ledger at half the size, for hundreds of millions of samples."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .history import LedgerHistory
from .ledger import SampleLedger
from .record import Where

PRECISIONS = ("auto", "full", "compact")
"""The values of `ledger_precision`."""

COMPACT_FROM = 100_000_000
"""From so many samples on `"auto"` means `"compact"`."""

_LARGEST_LOSS = np.finfo(np.float16).max


class CompactLedger(SampleLedger):
    """The per-sample record in 6 bytes a sample: loss and confidence in half precision, the flag in a sign.

    The confidence's sign bit is set where the prediction was wrong. A finite loss above 65,504 is recorded as that, one
    below 3·10⁻⁸ as 0; between 6·10⁻⁵ and 65,504 the relative rounding error is at most 1 / 2048. So what a policy
    decides by rank is what it decides with the full ledger but among losses that rounding makes equal, and what it
    decides by a threshold but for confidences that rounding brings across it.

    `loss`, `confidence` and `correct` are unpacked copies of all samples at each access: to read a part of them,
    `loss_at`, `confidence_at` and `correct_at` are cheaper. What is written to a copy is lost.
    """

    _FIGURES = torch.float16
    _COUNTS = torch.uint8

    def _make_flags(self) -> None:
        self._confidence.fill_(-0.0)  # nothing is predicted correctly yet

    @property
    def loss(self) -> Tensor:
        """(N,) float32, a copy: the lagging loss, NaN before the first time."""
        return self._loss.float()

    @property
    def confidence(self) -> Tensor:
        """(N,) float32 in [0, 1], a copy."""
        return self._confidence.abs().float()

    @property
    def correct(self) -> Tensor:
        """(N,) bool, a copy."""
        return ~self._confidence.signbit()

    @property
    def times_hidden(self) -> Tensor:
        """(N,) int32: in how many epochs the sample was hidden. Counted in 8 bits, up to 255."""
        return self._times_hidden.to(torch.int32)

    # PyTorch converts many times faster than NumPy, but takes no array that runs backwards: hence the copies.

    def loss_at(self, where: Where) -> np.ndarray:
        """The lagging losses of some samples, float32."""
        return _to_single(super().loss_at(where))

    def confidence_at(self, where: Where) -> np.ndarray:
        """The confidences of some samples, float32."""
        return np.abs(_to_single(super().confidence_at(where)))

    def correct_at(self, where: Where) -> np.ndarray:
        """Which of some samples were predicted correctly, bool."""
        return super().confidence_at(where).view(np.int16) >= 0

    def _write(self, where: Where, loss: np.ndarray, confidence: np.ndarray) -> None:
        within = np.clip(loss, -_LARGEST_LOSS, _LARGEST_LOSS)
        self._loss.numpy()[where] = _to_half(np.where(np.isinf(loss), loss, within))
        self._confidence.numpy()[where] = _to_half(confidence)

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of the ledger by name, not copied; the confidence has its sign."""
        return {
            "loss": self._loss,
            "confidence": self._confidence,
            "hidden": self.hidden,
            "times_hidden": self._times_hidden,
        }


def _to_single(values: np.ndarray) -> np.ndarray:
    single: np.ndarray = torch.from_numpy(values.copy()).float().numpy()
    return single


def _to_half(values: np.ndarray) -> np.ndarray:
    half: np.ndarray = torch.from_numpy(values.copy()).half().numpy()
    return half


def validate_precision(precision: str) -> None:
    """Check a `ledger_precision`.

    Raises:
        ValueError: it is none of [`PRECISIONS`].
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"ledger_precision={precision!r} must be 'full' (12 bytes a sample), 'compact' (6 bytes a sample) or "
            f"'auto' (compact from {COMPACT_FROM:,} samples on)."
        )


def create_ledger(num_samples: int, precision: str = "auto", history: bool = False) -> SampleLedger:
    """A ledger of some precision.

    Args:
        num_samples: N, at least 1.
        precision: `"full"`, `"compact"`, or `"auto"`: compact from 100 million samples on.
        history: whether it keeps what every epoch measured.

    Raises:
        ValueError: the precision is another, or `num_samples` is below 1.
    """
    validate_precision(precision)
    compact = precision == "compact" or (precision == "auto" and num_samples >= COMPACT_FROM)
    ledger: SampleLedger = CompactLedger(num_samples) if compact else SampleLedger(num_samples)
    ledger.history = LedgerHistory(num_samples) if history else None
    return ledger
