"""The images from formulas stand alone, and are whole where the package is installed."""

import shutil
import subprocess
import sys
import zipfile

import pytest

from import_graph import MODULES, PACKAGE, ROOT, reached

# What training consists of.
TRAINING = {"trainer", "integrations", "data", "hiding", "distributed", "config", "_compat"}


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
    done = subprocess.run([sys.executable, "-c", build], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("hf_kakurenbo/")}
        there = {path for path in (tmp_path / "hf_kakurenbo").rglob("*") if path.is_file()}
        assert packed == {path.relative_to(tmp_path).as_posix() for path in there}
        for family in ("fractaldb", "exfractaldb"):
            name = f"hf_kakurenbo/fdsl/accepted/{family}.npy"
            assert archive.read(name) == (ROOT / name).read_bytes()
