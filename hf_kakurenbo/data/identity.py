"""Ids beside examples: a dataset and a collator that leave the user's own untouched and carry the id along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset


class IdentifiedExamples(NamedTuple):
    """What a dataset gave for a batch, with the ids beside it."""

    ids: Sequence[int]
    """The indices of the examples."""
    examples: Any
    """As many examples, in whatever form the dataset gave them: a list, or a dict of columns."""


class IdentifiedDataset(Dataset[tuple[int, Any]]):
    """A map-style dataset whose examples come with their ids, an id being the index.

    `dataset[i]` is (i, example); a batch, which is how a DataLoader asks, is an [`IdentifiedExamples`].

    Args:
        dataset: any dataset with `__len__` and `__getitem__`; batched access through `__getitems__` is kept.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.dataset[index]

    def __getitems__(self, indices: Sequence[int]) -> IdentifiedExamples:
        fetch = getattr(self.dataset, "__getitems__", None)
        examples = fetch(indices) if fetch else [self.dataset[index] for index in indices]
        return IdentifiedExamples(indices, examples)

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on to a dataset that wants to know it."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


class IdentifyingCollator:
    """Collates examples by the user's collator, and adds their ids as one more entry of the batch.

    Args:
        collator: from what the dataset gave for a batch to a mutable mapping.
        id_name: the name of the entry for the ids, (B,) int64.
    """

    def __init__(self, collator: Callable[[Any], Any], id_name: str) -> None:
        self.collator = collator
        self.id_name = id_name

    def __call__(self, examples: IdentifiedExamples) -> Any:
        """Collate a batch.

        Raises:
            TypeError: the user's collator returned something that is not a mapping.
            ValueError: it already uses the name of the id.
        """
        batch = self.collator(examples.examples)
        if not isinstance(batch, Mapping):
            raise TypeError(
                f"The data collator must return a dict, to which the sample ids can be added; "
                f"{type(self.collator).__name__} returned {type(batch).__name__}."
            )
        ids = torch.from_numpy(np.array(examples.ids, dtype=np.int64))
        # A column of ids that the user's collator kept is no hindrance, if they are these.
        if self.id_name in batch and not _is_equal(batch[self.id_name], ids):
            raise ValueError(
                f"The batch that the data collator returned already has an entry {self.id_name!r}, under which the "
                "ids of the samples travel. Rename it, or set `KakurenboConfig(sample_id_column=...)` to another name."
            )
        batch[self.id_name] = ids  # type: ignore[index]
        return batch


def _is_equal(entry: Any, ids: torch.Tensor) -> bool:
    return isinstance(entry, torch.Tensor) and torch.equal(entry, ids)
