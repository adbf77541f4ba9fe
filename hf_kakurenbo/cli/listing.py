"""Lists of what there is, for a terminal of 80 columns."""

from __future__ import annotations

import inspect
import textwrap
from typing import Any

import typer

_WIDTH, _NAME = 80, 22


def show_entry(name: str, *paragraphs: str) -> None:
    """Print a name and, beside or below it, what it stands for."""
    indent = " " * _NAME
    fill = textwrap.TextWrapper(_WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False).fill
    fill = textwrap.TextWrapper(_WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False).fill
    body = "\n".join(map(fill, paragraphs))
    typer.echo(f"{name:<{_NAME}}{body.lstrip()}" if len(name) < _NAME - 1 else f"{name}\n{body}")


def summary_of(documented: Any) -> str:
    """The first sentence of a docstring, or nothing where there is none."""
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split())
