"""Modules under the names that they had before 0.2, for code that imports them; to go in the release after next."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = __name__.partition(".")[0]
_HOMES = {
    "fdsl.builder": "fdsl.loading.builder",
    "fdsl.contours": "fdsl.kernels.contours",
    "fdsl.dataset": "fdsl.loading.dataset",
    "fdsl.exfractaldb": "fdsl.families.exfractaldb",
    "fdsl.fractaldb": "fdsl.families.fractaldb",
    "fdsl.gallery": "fdsl.export.gallery",
    "fdsl.iterated_functions": "fdsl.kernels.iterated_functions",
    "fdsl.map_family": "fdsl.families.map_family",
    "fdsl.ofdb": "fdsl.families.ofdb",
    "fdsl.points": "fdsl.kernels.points",
    "fdsl.random_numbers": "fdsl.kernels.random_numbers",
    "fdsl.rcdb": "fdsl.families.rcdb",
    "fdsl.rendering": "fdsl.export.rendering",
    "fdsl.visualatom": "fdsl.families.visualatom",
    "hiding.distributed": "distributed.collectives",
}
MOVED = {f"{_PACKAGE}.{old}": f"{_PACKAGE}.{new}" for old, new in _HOMES.items()}
"""The old name of each module, and the new one."""


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        moved = import_module(MOVED[module.__name__])
        message = f"{module.__name__} has moved to {moved.__name__}; the old name goes in a later release."
        warnings.warn(message, FutureWarning, stacklevel=2)
        vars(module).update({name: value for name, value in vars(moved).items() if not name.startswith("__")})


def find_moved() -> None:
    """Let the old names be imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
