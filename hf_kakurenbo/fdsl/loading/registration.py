"""Makes `datasets.load_dataset("fdsl", name)` work.

`datasets` has no public registry for builders, and since 4.0 no loading scripts. Every way to a builder
(`load_dataset`, `load_dataset_builder`, `get_dataset_config_names`, …) goes through one function,
`datasets.load.dataset_module_factory`, which answers a name with the module of its builder; here it learns one more
name. An entry among the modules that are packaged with `datasets` would not do: for those it looks through the files
of the current folder, fails where there are none, and sends a request to count the loading.
"""

from __future__ import annotations

import functools
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

NAME = "fdsl"

_BUILDER = "hf_kakurenbo.fdsl.loading.builder"
_LOAD, _INSPECT, _FACTORY = "datasets.load", "datasets.inspect", "dataset_module_factory"
_WAY_OUT = 'Use hf_kakurenbo.load_fdsl(name, split="train", streaming=True), which gives the same.'


def register() -> None:
    """Let `datasets` know the name, now if it is imported, else as soon as it is."""
    if _LOAD in sys.modules:
        _teach(sys.modules[_LOAD])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Waits for the import of `datasets.load`, which takes long and which not everybody needs."""

    def __init__(self) -> None:
        self._searching = False

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != _LOAD or self._searching:
            return None
        self._searching = True
        try:
            spec = find_spec(fullname)
        finally:
            self._searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _TeachingLoader(spec.loader)
        return spec


class _TeachingLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _teach(module)


def _teach(load: ModuleType) -> None:
    factory = getattr(load, _FACTORY, None)
    if factory is None or not hasattr(load, "DatasetModule"):
        warnings.warn(
            f'load_dataset("{NAME}", …) does not work with the installed release of datasets. {_WAY_OUT}', stacklevel=2
        )
        return
    if getattr(factory, "knows_fdsl", False):
        return

    @functools.wraps(factory)
    def knowing_factory(path: str, *args: Any, **kwargs: Any) -> Any:
        return _module_of_builder(load) if path == NAME else factory(path, *args, **kwargs)

    knowing_factory.knows_fdsl = True  # type: ignore[attr-defined]
    for module in (load, sys.modules.get(_INSPECT)):
        if getattr(module, _FACTORY, None) is factory:
            setattr(module, _FACTORY, knowing_factory)


def _module_of_builder(load: ModuleType) -> Any:
    try:
        # Without a hash, which would be part of the name of the folder in the cache: the version says what is in it.
        return load.DatasetModule(_BUILDER, "", {"dataset_name": NAME})
    except TypeError as error:
        raise RuntimeError(
            f'load_dataset("{NAME}", …) does not work with the installed release of datasets ({error}). {_WAY_OUT}'
        ) from error
