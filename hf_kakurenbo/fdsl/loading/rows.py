"""Rows that are drawn on access, and had as those of a `datasets.Dataset`: slices, lists, select, with_transform."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from hashlib import blake2b
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from ..family import Family

RowTransform = Callable[[dict[str, list[Any]]], dict[str, Sequence[Any]]]
Self = TypeVar("Self", bound="Rows")


class Rows(Dataset[dict[str, Any]]):
    """A map-style dataset whose examples are drawn when they are asked for; a subclass says how."""

    _row_transform: RowTransform | None = None

    @abstractmethod
    def __len__(self) -> int:
        """How many rows there are."""

    @property
    @abstractmethod
    def features(self) -> Any:
        """The `datasets.Features` of a row, transforms apart."""

    @property
    @abstractmethod
    def rows_fingerprint(self) -> str:
        """What decides which sample is where, at any size and in any colours; a resumed training compares it."""

    @abstractmethod
    def _draw_rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of several indices in 0..len − 1, before `with_transform`."""

    def __getitem__(self, index: Any) -> dict[str, Any]:
        """A row by its index; for a slice or a list of indices a list for each column, as `datasets.Dataset` has it."""
        several = isinstance(index, slice | list | tuple | range) or (isinstance(index, np.ndarray) and index.ndim > 0)
        if not several:
            return self._rows([self._to_index(index)])[0]
        rows = self._rows(self._to_indices(index))
        names = rows[0] if rows else self.features
        return {name: [row[name] for row in rows] for name in names}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The rows of several indices, which a DataLoader asks for."""
        return self._rows([self._to_index(index) for index in indices])

    def select(self, indices: Iterable[int]) -> FDSLSelection:
        """Some rows, in the order of their indices; nothing is drawn. Labels and sample ids stay as they are.

        Args:
            indices: integers in −len..len − 1; a row may be taken more than once.

        Raises:
            IndexError: an index is out of range.
            TypeError: it is not an integer.
        """
        return FDSLSelection(self, self._to_indices(indices))

    def with_transform(self: Self, transform: RowTransform | None) -> Self:
        """The same rows, of which a function makes something else when they are asked for.

        Args:
            transform: called as by `datasets.Dataset.with_transform`: with a list for each column, of one row too; what
                it returns, a list for each column, are the rows instead. None leaves them as they are.

        Raises:
            TypeError: transform cannot be called.
        """
        if transform is not None and not callable(transform):
            raise TypeError(f"with_transform needs a function of a batch of columns, or None; got {transform!r}.")
        other = copy(self)
        other._row_transform = transform
        return other

    def _rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        rows = self._draw_rows(indices)
        if self._row_transform is None or not rows:
            return rows
        columns = self._row_transform({name: [row[name] for row in rows] for name in rows[0]})
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _to_indices(self, indices: Any) -> list[int]:
        if isinstance(indices, slice):
            return list(range(*indices.indices(len(self))))
        return [self._to_index(index) for index in indices]

    def _to_index(self, index: Any) -> int:
        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(
                f"An index must be an integer, got {index!r} of type {type(index).__name__}; a slice or a list of "
                "integers gives several rows."
            ) from None
        if not -len(self) <= number < len(self):
            raise IndexError(f"Index {number} is out of range: {self._title} has {len(self)} images.")
        return number % len(self)

    @property
    @abstractmethod
    def _title(self) -> str:
        """What is named in an error."""


class NamedRows(Rows):
    """The rows of a split of a named dataset, of which a stream can be made.

    Attributes:
        name: as it was loaded.
        split: `"train"` or `"validation"`.
        family: whose categories these are.
    """

    name: str
    split: str
    family: Family

    @property
    def _title(self) -> str:
        return f"{self.name} {self.split}"


class FDSLSelection(Rows):
    """Some rows of a map-style dataset, what `select` returns.

    Attributes:
        dataset: of which these are rows.
        indices: which, int64, (len(self),).
        label: the label of each, int64, (len(self),).
    """

    def __init__(self, dataset: Rows, indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices: NDArray[np.int64] = np.array(indices, dtype=np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def features(self) -> Any:
        """The `datasets.Features`, those of the dataset."""
        return self.dataset.features

    @property
    def label(self) -> NDArray[np.int64]:
        """The label of each row, int64, (len(self),); nothing is drawn."""
        return np.asarray(self.dataset.label, dtype=np.int64)[self.indices]  # type: ignore[attr-defined]

    @property
    def rows_fingerprint(self) -> str:
        """That of the dataset, and which rows."""
        return f"{self.dataset.rows_fingerprint}, rows {blake2b(self.indices.tobytes()).hexdigest()}"

    def _draw_rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        return self.dataset.__getitems__(self.indices[np.asarray(indices, dtype=np.int64)].tolist())

    @property
    def _title(self) -> str:
        return f"a selection of {self.dataset._title}"

    def __repr__(self) -> str:
        return f"FDSLSelection({len(self):,} rows of {self.dataset!r})"
