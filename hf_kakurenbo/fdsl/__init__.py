"""Labelled training images computed from formulas, loaded by name: no download, no storage, no photographs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .catalog import list_fdsl, register_dataset, register_family
    from .loading.dataset import FDSLDataset
    from .loading.load import load_fdsl
    from .loading.one_of_each import OneOfEachCategory
    from .loading.rows import FDSLSelection
    from .loading.segmentation import FDSLSegmentation, load_fdsl_segmentation

__all__ = [
    "FDSLDataset",
    "FDSLSegmentation",
    "FDSLSelection",
    "OneOfEachCategory",
    "list_fdsl",
    "load_fdsl",
    "load_fdsl_segmentation",
    "register_dataset",
    "register_family",
]

# Loaded on first use: registering the name with `datasets` shall import neither Numba nor torch.
_HOMES = {
    "FDSLDataset": "loading.dataset",
    "FDSLSegmentation": "loading.segmentation",
    "FDSLSelection": "loading.rows",
    "OneOfEachCategory": "loading.one_of_each",
    "list_fdsl": "catalog",
    "load_fdsl": "loading.load",
    "load_fdsl_segmentation": "loading.segmentation",
    "register_dataset": "catalog",
    "register_family": "catalog",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
