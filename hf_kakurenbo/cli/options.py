"""Options that several commands have, and how values are read that people write in more than one way."""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from .errors import exit_with

_MULTIPLES = {"": 1, "k": 1_000, "m": 1_000_000}


def count(text: str | int) -> int:
    """A whole number as people write it: `1000`, `1,000`, `10k`, `1.5M`.

    Raises:
        typer.BadParameter: it is none.
    """
    found = re.fullmatch(r"(-?[\d,_]*\.?\d+)([kM]?)", str(text), re.IGNORECASE)
    number = float(re.sub("[,_]", "", found[1])) * _MULTIPLES[found[2].lower()] if found else 0.5
    if number != round(number):
        raise typer.BadParameter(f"{text!r} is no count: write it as 1000, 1,000, 10k or 1.5M.")
    return round(number)


def pixels(text: str | int) -> int:
    """The side of a square image: `224`, `224px` or `224x224`.

    Raises:
        typer.BadParameter: it is none.
    """
    found = re.fullmatch(r"(-?\d+)(?:px|[x×]\1)?", str(text))
    if found is None:
        raise typer.BadParameter(f"{text!r} is no size of a square image: write it as 224 or 224x224.")
    return int(found[1])


def names(given: Iterable[str]) -> list[str]:
    """Names that were given with commas between them, in options that were repeated, or both."""
    return [name.strip() for text in given for name in text.split(",") if name.strip()]


def require_processes(num_proc: int) -> None:
    """Refuse a number of processes that is not at least 1.

    Raises:
        ValueError: it is less.
    """
    if num_proc < 1:
        raise ValueError(f"--num-proc must be at least 1, got {num_proc}.")


def search_current_folder() -> None:
    """Let modules be found in the folder where the command is given.

    After everything else, as its files may have the names of packages.
    """
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.append(folder)


def _import_modules(given: list[str] | None) -> list[str]:
    wanted = names(given or ())
    if wanted:
        search_current_folder()
    for name in wanted:
        try:
            importlib.import_module(name)
        except Exception as error:  # whatever a module of one's own may raise
            exit_with(f"Error: --import {name}: {_explain(name, error)}", 2)
    return wanted


def _explain(name: str, error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
        hint = f" Name it as Python imports it: {name.removesuffix('.py')}." if name.endswith(".py") else ""
        return f"there is no such module, neither in the current folder nor among the installed packages.{hint}"
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({where.filename}, line {where.lineno})"


Imports = Annotated[
    list[str] | None,
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Import a module of your own first, which registers policies, families or datasets.",
        callback=_import_modules,
        is_eager=True,
        show_default=False,
    ),
]
NumProc = Annotated[int, typer.Option("--num-proc", help="How many processes work.")]
