"""The ledger as tables of other libraries, and in words."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from ..utils.files import written_beside
from .record import SampleRecord

_PREFIX = "kakurenbo_"


def columns_of(ledger: SampleRecord) -> dict[str, np.ndarray]:
    """The ledger's columns by name, (N,) each: `sample_id` int64, then copies of those of the ledger."""
    names = ("loss", "confidence", "correct", "hidden", "times_hidden")
    # Copies: an Arrow table would share its memory with the ledger, which training goes on writing to.
    return {"sample_id": np.arange(len(ledger)), **{name: getattr(ledger, name).numpy().copy() for name in names}}


def to_dataset(ledger: SampleRecord, dataset: Any = None, columns: Sequence[str] | None = None) -> Any:
    """See [`SampleLedger.to_dataset`]."""
    import datasets
    import pyarrow as pa  # type: ignore[import-untyped]

    def own(columns: dict[str, np.ndarray]) -> Any:
        # A fingerprint that is given need not be computed, for which all of the table would be copied.
        return datasets.Dataset(pa.table(columns), fingerprint=uuid4().hex[:16])

    if dataset is None:
        return own(columns_of(ledger))
    if not isinstance(dataset, datasets.Dataset):
        raise TypeError(
            f"Only a `datasets.Dataset` can stand beside the ledger, got {type(dataset).__name__}. Leave it out and "
            "join the rows by `sample_id`."
        )
    if len(dataset) != len(ledger):
        raise ValueError(
            f"The ledger is of {len(ledger):,} samples and the dataset has {len(dataset):,} rows. A `sample_id` is "
            f"{ledger.rows}."
        )
    beside = dataset if columns is None else dataset.select_columns(list(columns))
    taken = set(beside.column_names)
    named = {_PREFIX + name if name in taken else name: values for name, values in columns_of(ledger).items()}
    return datasets.concatenate_datasets([beside, own(named)], axis=1)


def to_pandas(ledger: SampleRecord, dataset: Any, columns: Sequence[str] | None) -> Any:
    """See [`SampleLedger.to_pandas`]."""
    import pandas as pd  # type: ignore[import-untyped]

    if dataset is None:
        return pd.DataFrame(columns_of(ledger))
    return to_dataset(ledger, dataset, columns).to_pandas()


def to_parquet(ledger: SampleRecord, path: str | os.PathLike[str], dataset: Any, columns: Sequence[str] | None) -> None:
    """See [`SampleLedger.to_parquet`]."""
    with written_beside(Path(path)) as stream:
        to_dataset(ledger, dataset, columns).to_parquet(stream.name)


def in_words(ledger: SampleRecord) -> str:
    """A line for each field: samples, hidden ones, accuracy, mean loss, and what an id means."""
    count, hidden = len(ledger), ledger.num_hidden
    measured, right, finite, total = 0, 0, 0, 0.0
    for part in ledger.parts():
        loss = ledger.loss_at(part)
        is_finite = np.isfinite(loss)
        measured += int(np.count_nonzero(~np.isnan(loss)))
        right += int(np.count_nonzero(ledger.correct_at(part)))
        finite += int(np.count_nonzero(is_finite))
        total += float(loss[is_finite].sum(dtype=np.float64))
    lines = {
        "samples": f"{count:,}",
        "hidden": f"{hidden:,} ({hidden / count:.1%})",
        "accuracy": f"{right / measured:.1%} of {measured:,} measured" if measured else "nothing measured yet",
        "mean loss": f"{total / finite:.4g}" if finite else "nothing measured yet",
        "sample_id": ledger.rows,
    }
    if ledger.history is not None:
        lines["history"] = f"{len(ledger.history)} epochs"
    return "\n".join([type(ledger).__name__, *(f"  {name:<9}  {value}" for name, value in lines.items())])
