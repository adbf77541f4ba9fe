"""Instance-dependent early stopping (Yuan et al., ICLR 2025, arXiv 2502.07547): hide what changes no more."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..ledger import SampleLedger
from ..options import require_epochs, require_number
from .base import HidingPolicy, Selection, register_policy

# Three second differences.
_LOSSES = 5


@register_policy("ies")
class IESPolicy(HidingPolicy):
    """Hide the samples whose loss has changed evenly: the mean absolute second difference of three epochs is small.

    With the losses L_t of a sample, one an epoch, the second difference is L_t − 2·L_(t−1) + L_(t−2). A sample is
    hidden while the mean of the last three, taken absolutely, is below delta. It takes five epochs to know them; the
    authors' program waits for a fourth difference, which is `hiding_warmup_epochs=6`. All hidden samples are refreshed
    at the end of each epoch, and come back as soon as their loss moves. If all samples would be hidden, none is; one
    with a loss among the five that is not finite is not hidden.

    It hides what the model will not learn as well as what it knows. In the authors' program delta is 1e-3, on CIFAR-100
    2e-3, and the learning rate is left as it is: `lr_compensation=False`.

    It needs more than the ledger, the last five losses, 21 bytes a sample in all.

    Args:
        max_second_difference: delta, above 0.
        hiding_warmup_epochs: epochs at the start in which nothing is hidden.

    Raises:
        ValueError: an argument is out of its range.
    """

    needs_measurements = True

    def __init__(self, max_second_difference: float = 1e-3, hiding_warmup_epochs: int = 1) -> None:
        require_number(
            "max_second_difference",
            max_second_difference,
            "(0, inf)",
            "the mean absolute second difference of a loss below which its sample is hidden, 0.001 for the authors",
        )
        require_epochs("hiding_warmup_epochs", hiding_warmup_epochs)
        self.max_second_difference = max_second_difference
        self.warmup_epochs = hiding_warmup_epochs
        self._losses: np.ndarray | None = None
        self._awaited: np.ndarray | None = None

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """The samples whose loss has changed evenly."""
        hidden = np.zeros(len(ledger), dtype=np.bool_)
        if self._losses is not None and self._awaited is not None:
            self._take_in(ledger, self._awaited)
            self._awaited[:] = False
        if epoch < self.warmup_epochs or self._losses is None:
            return Selection(torch.from_numpy(hidden), 0)
        for part in ledger.parts():
            with np.errstate(invalid="ignore", over="ignore"):  # of losses that are not finite
                change = np.abs(np.diff(self._losses[part], 2)).mean(1)
            hidden[part] = change < self.max_second_difference
        even = int(np.count_nonzero(hidden))
        if even == len(ledger):
            hidden[:] = False
        return Selection(torch.from_numpy(hidden), even)

    def may_hide(self, epoch: int, progress: float) -> bool:
        """Neither in the warm-up nor before five losses can be known, of which a pass over all may give the first."""
        return epoch >= max(self.warmup_epochs, _LOSSES - 1)

    def wants_refresh(self, epoch: int) -> bool:
        """At the end of each epoch."""
        return True

    def observe(self, ledger: SampleLedger, trained: np.ndarray, epoch: int) -> None:
        """Take in the losses of the samples that were trained; those of the hidden ones follow with their refresh."""
        if self._losses is None:
            self._losses = np.full((len(ledger), _LOSSES), np.nan, dtype=np.float32)
        self._take_in(ledger, trained)
        self._awaited = ledger.hidden.numpy() & ~trained

    def _take_in(self, ledger: SampleLedger, measured: np.ndarray) -> None:
        """Append the losses of some samples, (N,) bool, to those that each of them had."""
        assert self._losses is not None
        for part in ledger.parts():
            new, losses = measured[part], self._losses[part]
            losses[new] = np.column_stack((losses[new, 1:], ledger.loss_at(part)[new]))

    def state_dict(self) -> dict[str, Tensor]:
        """`losses`, (N, 5) float32, the last one last, and `awaited`, (N,) bool: whose refresh is not among them."""
        if self._losses is None or self._awaited is None:
            return {}
        return {"losses": torch.from_numpy(self._losses), "awaited": torch.from_numpy(self._awaited)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over `state_dict`."""
        self._losses, self._awaited = (state[name].clone().numpy() for name in ("losses", "awaited"))
