"""Docstrings in the Markdown that the package writes, for Sphinx, which reads reStructuredText.

Three things differ: blocks of code between fences, `code` between single backticks, and [`Name`], which leads to the
page of that name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from docutils.nodes import Element
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

_FENCE = re.compile(r"^(\s*)```(\w*)$")
_LINK_OR_CODE = re.compile(r"\[`([\w.]+)`\]|(?<!`)`([^`]+)`(?!`)")


def convert(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Turn the lines of a docstring into reStructuredText, in place."""
    lines[:] = list(_converted(lines))


def _converted(lines: Iterable[str]) -> Iterable[str]:
    inside = False
    for line in lines:
        fence = _FENCE.match(line)
        if fence:
            inside = not inside
            if inside:
                yield from (f"{fence[1]}.. code-block:: {fence[2] or 'text'}", "")
            else:
                yield ""
        elif inside:
            yield f"    {line}" if line else line
        else:
            yield _LINK_OR_CODE.sub(_role, line)


def _role(found: re.Match[str]) -> str:
    return f":py:class:`{found[1]}`" if found[1] else f"``{found[2]}``"


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, text: Element) -> Element | None:
    """Find an object of the package by the last part of its name, wherever the annotation that names it found it."""
    if node.get("refdomain") != "py":
        return None
    domain = env.get_domain("py")
    last = str(node.get("reftarget", "")).rpartition(".")[2]
    found = [name for name, *_ in domain.get_objects() if name.rpartition(".")[2] == last]
    if len(found) != 1:
        return None
    assert app.builder is not None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", found[0], node, text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register both with Sphinx."""
    app.connect("autodoc-process-docstring", convert, priority=100)  # before napoleon
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
