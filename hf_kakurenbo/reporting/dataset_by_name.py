"""A training dataset by what one would type for it: a name, a folder, a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets

from ..fdsl import list_fdsl, load_fdsl

_KINDS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json", ".arrow": "arrow"}


def load_by_name(name: str, split: str = "train", config: str | None = None) -> Any:
    """Load a map-style dataset.

    Args:
        name: of a dataset of images from formulas; a folder that `save_to_disk` wrote, or another one that
            `datasets.load_dataset` reads; a file of Parquet, CSV, JSON or Arrow; or a name on the Hub.
        split: which split of it.
        config: which configuration, of a name that has several.

    Raises:
        ValueError: there is no such dataset, or no such split.
    """
    try:
        return _load(name, split, config)
    except Exception as error:  # of a dozen libraries' own classes
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ValueError(f"The dataset {name!r} (split {split!r}) could not be loaded: {reason}") from error


def _load(name: str, split: str, config: str | None) -> Any:
    path = Path(name)
    if name in list_fdsl():
        return load_fdsl(name, split)
    if path.is_file():
        if path.suffix not in _KINDS:
            raise ValueError(f"a file must end in one of {', '.join(_KINDS)}")
        return datasets.load_dataset(_KINDS[path.suffix], data_files=str(path), split="train")
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        stored = datasets.load_from_disk(name)
        return stored[split] if isinstance(stored, datasets.DatasetDict) else stored
    return datasets.load_dataset(name, config, split=split)
