"""Whether the rows of a batch are its examples, in their order: else statistics would be recorded for other samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

_Ends: TypeAlias = tuple[NDArray[np.float32], NDArray[np.float32]]

# So many numbers of a row are compared at either end: an image has a hundred thousand.
_COMPARED = 64
# Names under which Transformers' collators return a column of another name.
_RENAMED = {"label": "labels", "label_ids": "labels"}
_WAY_OUT = (
    "Let it keep every example in its place (leave broken ones out of the dataset; sort inside the model, or pack with "
    '`enforce_sorted=False`), or set hiding_policy="none".'
)


def require_rows(examples: Any, batch: Mapping[str, Any], collator: str) -> None:
    """Check that a batch has not fewer rows than examples, unless one row holds all of them end to end.

    Args:
        examples: what the dataset gave for the batch: a sequence of examples, or a mapping of columns.
        batch: what the data collator made of it.
        collator: its name, for the message.

    Raises:
        ValueError: there are fewer.
    """
    rows = {entry.shape[0] for entry in batch.values() if isinstance(entry, torch.Tensor) and entry.ndim > 0}
    count = len(next(iter(examples.values()))) if isinstance(examples, Mapping) else _length(examples)
    if len(rows) == 1 and count is not None and 1 < max(rows) < count:
        raise ValueError(
            f"The data collator, {collator}, returned {max(rows)} rows for {count} examples, so it cannot be said "
            f"which sample a row is, and hiding would record losses for other samples. {_WAY_OUT}"
        )


def require_order(examples: Any, batch: Mapping[str, Any], collator: str) -> None:
    """Compare a batch with the examples that it was made of, as far as their entries can be compared.

    An entry can be compared if examples and batch both have it, in numbers: a row begins with the example's values, as
    it does with padding on the right, or ends with them, as with padding on the left. What a collator changes, cuts or
    makes anew cannot be compared, and is not held against it.

    Args:
        examples: what the dataset gave for the batch: a sequence of examples, or a mapping of columns.
        batch: what the data collator made of it.
        collator: its name, for the message.

    Raises:
        ValueError: the batch has the examples in another order.
    """
    for name, values in _columns(examples).items():
        entry = batch.get(_RENAMED.get(name, name))
        if isinstance(entry, torch.Tensor) and entry.ndim > 0 and entry.shape[0] == len(values) > 1:
            _require_order(name, values, entry, collator)


def _require_order(name: str, values: Sequence[Any], entry: torch.Tensor, collator: str) -> None:
    wanted = [_ends(value) for value in values]
    rows = entry.detach().reshape(len(values), -1)
    found = list(zip(_as_numpy(rows[:, :_COMPARED]), _as_numpy(rows[:, -_COMPARED:]), strict=True))
    if any(value is None for value in wanted):
        return
    if all(_is_of(row, value) for row, value in zip(found, wanted, strict=True)):
        return
    # In another order only if every example has a row that is its own: else the values were changed.
    for value in wanted:
        place = next((place for place, row in enumerate(found) if _is_of(row, value)), None)
        if place is None:
            return
        del found[place]
    raise ValueError(
        f"The data collator, {collator}, returned the examples in another order (their {name!r} show it), so hiding "
        f"would record losses for other samples. {_WAY_OUT}"
    )


def _is_of(row: _Ends, value: _Ends | None) -> bool:
    if value is None or not 0 < len(value[0]) <= len(row[0]):
        return False
    length = len(value[0])
    return np.array_equal(row[0][:length], value[0]) or np.array_equal(row[1][-length:], value[1])


def _columns(examples: Any) -> dict[str, Sequence[Any]]:
    """The entries that every example has, by name."""
    if isinstance(examples, Mapping):
        return {name: column for name, column in examples.items() if _length(column) is not None}
    if not isinstance(examples, Sequence) or not all(isinstance(example, Mapping) for example in examples):
        return {}
    names = set(examples[0]).intersection(*examples[1:]) if examples else set()
    return {str(name): [example[name] for example in examples] for name in names}


def _length(value: Any) -> int | None:
    return len(value) if hasattr(value, "__len__") and not isinstance(value, (str, bytes)) else None


def _ends(value: Any) -> _Ends | None:
    """The first and the last numbers of an example's entry; None if it is not made of numbers."""
    if isinstance(value, (str, bytes)) or value is None:
        return None
    try:
        if isinstance(value, torch.Tensor):  # which a dataset may have put on a GPU
            row = value.detach().reshape(-1)
            return _as_numpy(row[:_COMPARED]), _as_numpy(row[-_COMPARED:])
        numbers = np.asarray(value).reshape(-1)
        return numbers[:_COMPARED].astype(np.float32), numbers[-_COMPARED:].astype(np.float32)
    except (RuntimeError, TypeError, ValueError):  # a sparse tensor has no rows of numbers
        return None


def _as_numpy(rows: torch.Tensor) -> NDArray[np.float32]:
    return rows.cpu().to(torch.float32).numpy()
