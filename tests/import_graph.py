"""Which module of the package imports which, wherever in it the import stands."""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hf_kakurenbo"


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(module):
    """The modules of the package that a module imports, wherever in it."""
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            # A module of a package, or a name in a module.
            inside = [f"{start}.{alias.name}" for alias in node.names]
            names |= {name if name in MODULES else start for name in inside}
    return {name for name in names if name in MODULES and name != "hf_kakurenbo"}


def reached(start):
    found, waiting = set(), {start}
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= imported(module) - found
    return found
