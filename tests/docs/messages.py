"""The messages that the package raises or warns with, read from its source: what is filled in stands as `…`."""

import ast
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).parents[2] / "hf_kakurenbo"
HOLE = "…"


class Message(NamedTuple):
    file: str
    line: int
    text: str


def raised(*folders):
    """The messages of errors of these files and folders, and of the warnings that are logged there."""
    for path in _files(folders):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            call = _call_with_message(node)
            text = _text(call.args[0]).strip() if call is not None and call.args else ""
            if len(text.replace(HOLE, "").strip()) > 12:  # else it is filled in from elsewhere
                yield Message(str(path.relative_to(PACKAGE)), call.lineno, text)


def written():
    """Every text of the package that is long enough to be a message, whoever raises it."""
    for path in _files(["."]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp):
                yield _text(node)


def _files(folders):
    return sorted(file for name in folders for file in ([PACKAGE / name] if name.endswith(".py") else _inside(name)))


def _inside(folder):
    return (PACKAGE / folder).rglob("*.py")


def _call_with_message(node):
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return node.exc
    logs = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "warning"
    return node if logs else None


def _text(node):
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else HOLE for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return HOLE
