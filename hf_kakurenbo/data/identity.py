"""Ids beside examples: a dataset and a collator that leave the user's own untouched and carry the id along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from .batched_access import may_reorder, require_all_examples, require_order_of_indices, shows_its_order
from .row_order import require_order, require_rows

# Added to the name of the ids: the entry that says to which sample each token belongs.
_OF_TOKENS = "_of_tokens"


class IdentifiedExamples(NamedTuple):
    """What a dataset gave for a batch, with the ids beside it."""

    ids: Sequence[int]
    """The indices of the examples."""
    examples: Any
    """As many examples, in whatever form the dataset gave them: a list, or a dict of columns."""


class BatchIds(NamedTuple):
    """Which samples a batch holds."""

    samples: torch.Tensor
    """(B,) int64, their ids."""
    of_tokens: torch.Tensor | None
    """(T,) int64, where the samples lie end to end in one row of T tokens: for each token the place of its sample in
    the batch, 0 to B − 1, or −1 for padding."""


class IdentifiedDataset(Dataset[tuple[int, Any]]):
    """A map-style dataset whose examples come with their ids, an id being the index.

    `dataset[i]` is (i, example); a batch, which is how a DataLoader asks, is an [`IdentifiedExamples`].

    Args:
        dataset: any dataset with `__len__` and `__getitem__`; batched access through `__getitems__` is kept.

    Raises:
        ValueError: when asked for a batch, if its `__getitems__` returns other examples, or in another order.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._compared = False

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        return index, self.dataset[index]

    def __getitems__(self, indices: Sequence[int]) -> IdentifiedExamples:
        fetch = getattr(self.dataset, "__getitems__", None)
        if fetch is None:
            return IdentifiedExamples(indices, [self.dataset[index] for index in indices])
        examples = fetch(indices)
        require_all_examples(self.dataset, indices, examples)
        if not self._compared and may_reorder(fetch) and shows_its_order(indices):
            self._compared = True
            require_order_of_indices(self.dataset, fetch, indices, examples)
        return IdentifiedExamples(indices, examples)

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on to a dataset that wants to know it."""
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)


class IdentifyingCollator:
    """Collates examples by the user's collator, and adds their ids as one more entry of the batch.

    Where the collator lays the examples end to end in one row, as padding-free ones do, a further entry says to which
    of them each token belongs. [`drop_ids`] takes both out again.

    Args:
        collator: from what the dataset gave for a batch to a mutable mapping.
        id_name: the name of the entry for the ids, (B,) int64.
        active: whether ids are added, as they are once a training begins. Who else takes batches from the loader gets
            them as the user's collator returned them.
    """

    # So many batches of each worker are compared with their examples, a Python loop over their rows.
    _COMPARED_BATCHES = 4

    def __init__(self, collator: Callable[[Any], Any], id_name: str, active: bool = False) -> None:
        self.collator = collator
        self.id_name = id_name
        self.active = active
        self._compared = 0

    def __call__(self, examples: IdentifiedExamples) -> Any:
        """Collate a batch.

        Raises:
            TypeError: the user's collator returned something that is not a mapping.
            ValueError: it already uses the name of the id, or its rows are not the examples in their order.
        """
        batch = self.collator(examples.examples)
        if not self.active:
            return batch
        if not isinstance(batch, Mapping):
            raise TypeError(
                f"The data collator must return a dict, to which the sample ids can be added; "
                f"{_name(self.collator)} returned {type(batch).__name__}."
            )
        require_rows(examples.examples, batch, _name(self.collator))
        if self._compared < self._COMPARED_BATCHES:
            self._compared += 1
            require_order(examples.examples, batch, _name(self.collator))
        ids = _where_the_batch_is(torch.from_numpy(np.array(examples.ids, dtype=np.int64)), batch)
        # A column of ids that the user's collator kept is no hindrance, if they are these.
        if self.id_name in batch and not _is_equal(batch[self.id_name], ids):
            raise ValueError(
                f"The batch that the data collator returned already has an entry {self.id_name!r}, under which the "
                "ids of the samples travel. Rename it, or set `KakurenboConfig(sample_id_column=...)` to another name."
            )
        batch[self.id_name] = ids  # type: ignore[index]
        of_tokens = _samples_of_tokens(examples.examples, batch)
        if of_tokens is not None:
            batch[self.id_name + _OF_TOKENS] = of_tokens  # type: ignore[index]
        return batch


def read_ids(batch: Mapping[str, Any], id_name: str) -> BatchIds:
    """The ids that [`IdentifyingCollator`] put into a batch."""
    return BatchIds(batch[id_name], batch.get(id_name + _OF_TOKENS))


def drop_ids(batch: MutableMapping[str, Any], id_name: str) -> None:
    """Remove from a batch what [`IdentifyingCollator`] put in, before the model can see it."""
    for name in (id_name, id_name + _OF_TOKENS):
        batch.pop(name, None)


def _samples_of_tokens(examples: Any, batch: Mapping[str, Any]) -> torch.Tensor | None:
    """To which example each token of a batch belongs, if the collator laid several end to end in one row."""
    tokens = batch.get("input_ids")
    if not (isinstance(tokens, torch.Tensor) and tokens.ndim == 2 and tokens.shape[0] == 1 and len(examples) > 1):
        return None
    if not all(isinstance(example, Mapping) and "input_ids" in example for example in examples):
        return None
    rows = [_as_array(example["input_ids"]) for example in examples]
    laid = np.concatenate(rows)
    # Only if they are found again: a collator may cut them, or put something in between.
    if laid.size > tokens.shape[1] or not np.array_equal(laid, _as_array(tokens[0, : laid.size])):
        return None
    of_tokens = np.full(tokens.shape[1], -1, dtype=np.int64)
    of_tokens[: laid.size] = np.repeat(np.arange(len(rows)), [row.size for row in rows])
    return torch.from_numpy(of_tokens)


def _where_the_batch_is(ids: torch.Tensor, batch: Mapping[str, Any]) -> torch.Tensor:
    """Ids on the device of a batch that is on one already.

    Alone on the CPU they would be what every step waits for: Accelerate's copies block. This one need not: CUDA reads
    memory that is not pinned before it returns, and nobody writes into it. MPS may read it later, when it is gone.
    """
    device = next((entry.device for entry in batch.values() if isinstance(entry, torch.Tensor)), ids.device)
    on_cpu = any(isinstance(entry, torch.Tensor) and entry.device.type == "cpu" for entry in batch.values())
    return ids if on_cpu else ids.to(device, non_blocking=device.type != "mps")


def _as_array(tokens: Any) -> np.ndarray:
    """Tokens of a row, one after the other; a dataset or a collator may have put them on a GPU."""
    return np.asarray(tokens.cpu() if isinstance(tokens, torch.Tensor) else tokens).reshape(-1)


def _is_equal(entry: Any, ids: torch.Tensor) -> bool:
    return isinstance(entry, torch.Tensor) and torch.equal(entry.cpu(), ids.cpu())


def _name(collator: Any) -> str:
    collator = getattr(collator, "data_collator", collator)  # Transformers' one that removes columns is around it
    return getattr(collator, "__qualname__", None) or type(collator).__name__
