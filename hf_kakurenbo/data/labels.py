"""The class of every sample of a dataset, where it is stored and need not be computed from its examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from torch.utils.data import ConcatDataset, Subset, TensorDataset

NAMES = ("label", "labels", "target", "targets")
"""Where labels are looked for, if no column is named."""

# More different values than this for each sample are no classes but numbers of rows, or measurements.
_CLASSES_PER_SAMPLE = 0.5


class Labels(NamedTuple):
    """The class of each sample."""

    values: np.ndarray
    """(N,) int64: the place of its class in `names`; −1 for none."""
    names: list[str]
    """What the classes are called."""
    column: str
    """Where they stand."""


def labels_of(dataset: Any, column: str | None = None) -> Labels | None:
    """The class of every sample; None where there are no classes, or none that are stored.

    Looked into are columns of a `datasets.Dataset` (by default one of classes, else one of [`NAMES`]), entries of dicts
    in a list, attributes of [`NAMES`], and the last tensor of a `TensorDataset`.

    Args:
        dataset: with a length.
        column: the column or entry with the classes.

    Raises:
        ValueError: there is no such column, or it does not hold a class for each sample.
    """
    for name in (column,) if column else NAMES:
        found = _stored(dataset, name, asked_for=column is not None)
        labels = None if found is None else _as_classes(*found, name)
        if labels is not None:
            return labels
    if column is not None:
        raise ValueError(
            f"The dataset ({type(dataset).__name__}) has no column {column!r} with a class for each sample."
        )
    return None


def stored_column(dataset: Any, name: str) -> Any:
    """The values of a column or entry, one for each row, where they are stored; None where they are not.

    Args:
        dataset: with a length; see `labels_of` for what is looked into.
        name: of the column.
    """
    found = None if isinstance(dataset, TensorDataset) else _stored(dataset, name, asked_for=True)
    return None if found is None else found[0]


def _stored(dataset: Any, name: str, asked_for: bool) -> tuple[Any, list[str] | None] | None:
    """The values of a column, and the names of its classes if it has names."""
    if isinstance(dataset, datasets.Dataset):
        return _of_table(dataset, name, asked_for)
    if isinstance(dataset, Subset):
        inner = _stored(dataset.dataset, name, asked_for)
        return None if inner is None else (np.asarray(inner[0])[np.asarray(dataset.indices)], inner[1])
    if isinstance(dataset, ConcatDataset):
        parts = [_stored(part, name, asked_for) for part in dataset.datasets]
        known = [part for part in parts if part is not None]
        return (np.concatenate([part[0] for part in known]), known[0][1]) if len(known) == len(parts) else None
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[-1], None
    if isinstance(dataset, Sequence) and dataset and all(isinstance(row, Mapping) and name in row for row in dataset):
        return [row[name].tolist() if isinstance(row[name], torch.Tensor) else row[name] for row in dataset], None
    if name in NAMES and hasattr(dataset, "category_numbers") and hasattr(dataset, "instance_numbers"):
        # Images from formulas: those of a category stand together.
        return np.repeat(np.arange(len(dataset.category_numbers)), len(dataset.instance_numbers)), None
    values: Any = getattr(dataset, name, None)
    return (values, None) if hasattr(values, "__len__") and len(values) == len(dataset) else None


def _of_table(table: datasets.Dataset, name: str, asked_for: bool) -> tuple[Any, list[str] | None] | None:
    if not asked_for:
        classes = [column for column, kind in table.features.items() if isinstance(kind, datasets.ClassLabel)]
        name = classes[0] if classes else name
    if name not in table.column_names:
        return None
    names = getattr(table.features[name], "names", None)
    return table.with_format("arrow").select_columns([name])[:].column(name).to_pylist(), names


def _as_classes(values: Any, names: list[str] | None, column: str) -> Labels | None:
    if len(values) and isinstance(values[0], (list, tuple)):
        return None  # several for each sample, and not always as many
    found = np.asarray(values)
    if found.ndim != 1 or not len(found):
        return None
    if names is not None and found.dtype.kind in "iu":
        return Labels(np.where(found < len(names), found, -1).astype(np.int64), list(names), column)
    if found.dtype.kind not in "iubUS":
        return None
    distinct, places = np.unique(found, return_inverse=True)
    if len(distinct) > max(_CLASSES_PER_SAMPLE * len(found), 2):
        return None
    return Labels(places.astype(np.int64), [str(name) for name in distinct.tolist()], column)
