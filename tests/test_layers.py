"""The layers of the package: each part imports from those below it, and no module imports itself by a way round."""

from graphlib import CycleError, TopologicalSorter

import pytest

from import_graph import MODULES, PACKAGE, ROOT, imported

# From the bottom; parts of one line do not know each other.
LAYERS = (
    {"utils", "_version"},
    {"distributed", "fdsl"},
    {"hiding"},
    {"data"},
    {"config"},
    {"integrations"},
    {"_compat"},
    {"reporting"},
    {"trainer"},
    {"compare"},
    {"cli"},
    {"__main__"},
)
HEIGHT = {part: height for height, parts in enumerate(LAYERS) for part in parts}


def part_of(module):
    return module.split(".")[1]


def test_every_part_has_a_layer():
    assert {part_of(module) for module in MODULES if module != "hf_kakurenbo"} <= set(HEIGHT)


@pytest.mark.parametrize("module", [name for name in MODULES if name != "hf_kakurenbo"])
def test_a_module_imports_from_the_layers_below(module):
    part = part_of(module)
    parts = {part_of(other) for other in imported(module)} - {part}
    above = {other for other in parts if HEIGHT[other] >= HEIGHT[part]}
    assert not above, f"{module} imports from {above}"


def test_no_module_imports_itself_by_a_way_round():
    # A package's own names, `__init__.py`, are imported by nothing inside it.
    graph = {module: imported(module) - {module} for module in MODULES}
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_no_file_is_long():
    paths = [*MODULES.values(), *(ROOT / "examples").rglob("*.py")]
    lines = {path.relative_to(ROOT): len(path.read_text(encoding="utf-8").splitlines()) for path in paths}
    assert not {path: count for path, count in lines.items() if count > 400}


def test_the_root_has_no_private_modules_but_two():
    assert {path.name for path in PACKAGE.glob("_*.py")} <= {"__init__.py", "__main__.py", "_compat.py", "_version.py"}
