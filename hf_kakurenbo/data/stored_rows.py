"""Some rows of a dataset as they are stored, by column, without running any code of the dataset's own.

What `__getitem__` makes may be random or expensive, may move a generator that training draws from, or may open a file
that workers must not share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

import datasets
import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import torch
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

# So many datasets may stand around each other.
_DEPTH = 5
# Of a long list in a table, so many parts are taken; of a wide table, so many columns.
_PARTS, _COLUMNS = 2**10, 64
# A row of so many parts at most is one of several things, such as (image, label), and not of many numbers.
_THINGS = 8


def stored_rows(dataset: Any, rows: Sequence[int]) -> dict[str, list[Any]]:
    """What a dataset holds for some of its rows: a value for each row, by column.

    Looked into are `datasets.Dataset`, lists, arrays, tables of pandas, `TensorDataset`, `Subset`, `ConcatDataset`, and
    of another class what its attributes hold for each row. A string attribute `rows_fingerprint` stands for all rows.

    Args:
        dataset: with a length.
        rows: the indices.
    """
    return dict(islice(_columns(dataset, rows, _DEPTH).items(), _COLUMNS))


def source_of(dataset: Any) -> str | None:
    """The name, the configuration and the split that a stream of `datasets` was loaded by; None if that is not known.

    Args:
        dataset: any dataset, or a `SampleStream` of one.
    """
    dataset = getattr(dataset, "dataset", dataset)
    if not isinstance(dataset, datasets.IterableDataset):
        return None
    info: Any = dataset.info
    if info.dataset_name in (None, info.builder_name):
        return None  # made in the script, or read from files of some format
    # Without the digest of files' paths, which differ from machine to machine.
    configuration = re.sub(r"-[0-9a-f]{16}$", "", info.config_name or "")
    return f"{info.dataset_name} {configuration} {dataset.split}"


def _columns(stored: Any, rows: Sequence[int], depth: int) -> dict[str, list[Any]]:
    if depth == 0:
        return {}
    if isinstance(getattr(stored, "rows_fingerprint", None), str):
        return {"rows_fingerprint": [stored.rows_fingerprint] * len(rows)}
    if isinstance(stored, datasets.Dataset):
        return _columns_of_table(stored.with_format("arrow")[list(rows)])
    if isinstance(stored, Subset):
        indices = [int(stored.indices[row]) for row in rows]
        return {"indices": indices, **_columns(stored.dataset, indices, depth - 1)}
    if isinstance(stored, ConcatDataset):
        return _columns_of_parts(stored, rows, depth)
    if isinstance(stored, TensorDataset):
        return {str(place): [tensor[row] for row in rows] for place, tensor in enumerate(stored.tensors)}
    if isinstance(stored, (np.ndarray, torch.Tensor)):
        return {"": [stored[row] for row in rows]}
    if _is_of_pandas(stored):
        return _columns_of_rows([_row_of_pandas(stored.iloc[row]) for row in rows])
    if type(stored) in (list, tuple, range):
        return _columns_of_rows([stored[row] for row in rows])
    if isinstance(stored, Mapping):
        return _columns_of_attributes(stored, len(next(iter(stored.values()))), rows, depth)
    return _columns_of_attributes(vars(stored), len(stored), rows, depth)


def _columns_of_table(table: pa.Table) -> dict[str, list[Any]]:
    return {name: [_of_arrow(value) for value in table.column(name)] for name in table.column_names[:_COLUMNS]}


def _of_arrow(value: pa.Scalar) -> Any:
    """A value of a table, of a long list its beginning."""
    if isinstance(value, pa.ExtensionScalar):
        value = value.value
    if not isinstance(value, pa.ListScalar) or value.values is None:
        return value.as_py()
    flat = value.values
    while isinstance(flat, (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray)):
        flat = flat.flatten()
    return len(value.values), flat.slice(0, _PARTS).to_pylist()


def _is_of_pandas(stored: Any) -> bool:
    return hasattr(stored, "iloc")


def _row_of_pandas(row: Any) -> Any:
    return row.to_dict() if hasattr(row, "to_dict") else row


def _columns_of_parts(joined: ConcatDataset[Any], rows: Sequence[int], depth: int) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    ends = np.asarray(joined.cumulative_sizes)
    for place, row in enumerate(rows):
        part = int(np.searchsorted(ends, row, side="right"))
        start = int(ends[part - 1]) if part else 0
        for name, values in _columns(joined.datasets[part], [row - start], depth - 1).items():
            columns.setdefault(name, [None] * len(rows))[place] = values[0]
    return columns


def _columns_of_rows(rows: list[Any]) -> dict[str, list[Any]]:
    """Of rows at hand: by their keys, or by the places in a tuple."""
    if all(isinstance(row, Mapping) for row in rows):
        names = dict.fromkeys(name for row in rows for name in row)
        return {str(name): [row.get(name) for row in rows] for name in names}
    lengths = {len(row) if type(row) in (list, tuple) else 0 for row in rows}
    if len(lengths) == 1 and 0 < max(lengths) <= _THINGS:
        return {str(place): list(values) for place, values in enumerate(zip(*rows, strict=True))}
    return {"": rows}


def _columns_of_attributes(
    attributes: Mapping[Any, Any], count: int, rows: Sequence[int], depth: int
) -> dict[str, list[Any]]:
    """Of what holds something for each row: attributes of an object, or entries of a mapping."""
    columns: dict[str, list[Any]] = {}
    for name, stored in attributes.items():
        if _holds_rows(stored, count):
            for inner, values in _columns(stored, rows, depth - 1).items():
                columns[f"{name}.{inner}".strip(".")] = values
    return columns


def _holds_rows(stored: Any, count: int) -> bool:
    if isinstance(stored, Mapping):
        return bool(stored) and all(_holds_rows(values, count) for values in stored.values())
    known = (np.ndarray, torch.Tensor, Dataset, datasets.Dataset)
    if not (isinstance(stored, known) or _is_of_pandas(stored) or type(stored) in (list, tuple, range)):
        return False
    return getattr(stored, "ndim", 1) > 0 and hasattr(stored, "__len__") and len(stored) == count
