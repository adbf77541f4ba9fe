"""Packages that only a part of this one needs, which an extra of it brings."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


@contextmanager
def requires_extra(what: str, extra: str) -> Iterator[None]:
    """Around imports: a package that is not installed is reported with the way to it.

    Args:
        what: what needs it, as a message begins: `"A report"`.
        extra: the extra that brings it.

    Raises:
        RuntimeError: one is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f'{what} needs {error.name}: pip install "hf-kakurenbo[{extra}]" brings what it needs.'
        ) from error


def require_extra(what: str, extra: str, packages: Iterable[str]) -> None:
    """Find out at once whether everything is installed that is needed later.

    Raises:
        RuntimeError: it is not.
    """
    with requires_extra(what, extra):
        for package in packages:
            importlib.import_module(package)
