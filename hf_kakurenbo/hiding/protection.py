"""Samples that stay visible whatever a policy decides: some by name, and so many of each class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .ledger import SampleLedger


class Protection:
    """What a selection may not hide.

    A policy's selection is made first. Of what it would hide, samples that are never hidden are shown; then, of each
    class that is left with too few visible samples, those of highest lagging loss, ties broken by id. So less is hidden
    than the policy chose, and nothing else in its place.

    Args:
        never: (N,) bool, the samples that are never hidden; None for none.
        classes: (N,) integers from 0, the class of each sample, −1 for none; needed for `min_visible`.
        min_visible: of each class at least so many samples stay visible, or all if it has fewer; 0 for no floor.
    """

    def __init__(
        self, never: np.ndarray | None = None, classes: np.ndarray | None = None, min_visible: int = 0
    ) -> None:
        self.never = never
        self.classes = None if classes is None or min_visible == 0 else classes.astype(np.int32)
        self._floor = np.zeros(0, dtype=np.int64)
        if self.classes is not None:
            self._floor = np.minimum(np.bincount(self.classes[self.classes >= 0]), min_visible)

    def kept_visible(self, hidden: Tensor, ledger: SampleLedger) -> Tensor:
        """A mask of what a policy would hide, (N,) bool, without what is to stay visible; the mask is not changed."""
        kept = hidden.numpy().copy()
        if self.never is not None:
            kept &= ~self.never
        if self.classes is not None:
            kept[self._missing(kept, self.classes, ledger)] = False
        return torch.from_numpy(kept)

    def _missing(self, hidden: np.ndarray, classes: np.ndarray, ledger: SampleLedger) -> np.ndarray:
        """The ids of the hidden samples that the floor of their class asks for."""
        visible = np.bincount(classes[~hidden & (classes >= 0)], minlength=len(self._floor))
        lacking = np.maximum(self._floor - visible, 0)
        if not lacking.any():
            return np.empty(0, dtype=np.int64)
        ids = np.flatnonzero(hidden & (classes >= 0))
        ids = ids[lacking[classes[ids]] > 0]
        loss = np.nan_to_num(ledger.loss_at(ids), nan=np.inf)
        ids = ids[np.lexsort((ids, -loss, classes[ids]))]
        own = classes[ids]
        place = np.arange(len(ids)) - np.searchsorted(own, own)  # within the class
        missing: np.ndarray = ids[place < lacking[own]]
        return missing
