"""The images from formulas stand alone, and are whole where the package is installed."""

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "hf_kakurenbo"
# What training consists of.
TRAINING = {"trainer", "data", "hiding", "config", "_compat"}


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
            names |= {start, *(f"{start}.{alias.name}" for alias in node.names)}
    return {name for name in names if name in MODULES and name != "hf_kakurenbo"}


def reached(start):
    found, waiting = set(), {start}
    while waiting:
        module = waiting.pop()
        found.add(module)
        waiting |= imported(module) - found
    return found


@pytest.mark.parametrize("module", [name for name in MODULES if name.startswith("hf_kakurenbo.fdsl")])
def test_nothing_of_training_is_imported(module):
    parts = {name.split(".")[1] for name in reached(module)}
    assert "fdsl" in parts
    assert not parts & TRAINING


def test_imports_are_found():
    assert "hf_kakurenbo.fdsl.catalog" in reached("hf_kakurenbo.cli")
    assert "hf_kakurenbo.fdsl.kernels.points" in reached("hf_kakurenbo.fdsl.kernels.fractals_batch")
    assert "hf_kakurenbo.hiding" in reached("hf_kakurenbo.trainer")


def test_the_wheel_has_all_files(tmp_path):
    """Without accepted/*.npy the categories would be searched for, slowly, and nobody would be told."""
    pytest.importorskip("setuptools", minversion="77", reason="it builds the wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(PACKAGE, tmp_path / "hf_kakurenbo", ignore=shutil.ignore_patterns("__pycache__"))
    build = "import setuptools.build_meta as backend; backend.build_wheel('dist')"
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("hf_kakurenbo/")}
        there = {path for path in (tmp_path / "hf_kakurenbo").rglob("*") if path.is_file()}
        assert packed == {path.relative_to(tmp_path).as_posix() for path in there}
        for family in ("fractaldb", "exfractaldb"):
            name = f"hf_kakurenbo/fdsl/accepted/{family}.npy"
            assert archive.read(name) == (ROOT / name).read_bytes()
