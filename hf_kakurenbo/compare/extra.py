"""Packages that only a comparison needs."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def requires_extra() -> Iterator[None]:
    """Around imports: a package that is not installed is reported with the way to it.

    Raises:
        RuntimeError: one is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f'A comparison needs {error.name}: pip install "hf-kakurenbo[compare]" brings what it needs.'
        ) from error


def require_extra() -> None:
    """Find out before the first training whether everything is installed that is needed after the last.

    Raises:
        RuntimeError: it is not.
    """
    with requires_extra():
        for package in ("matplotlib", "scipy", "sklearn"):
            importlib.import_module(package)
