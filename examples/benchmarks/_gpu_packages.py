"""The packages without which nothing is measured, and how they come onto a machine without a network."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

NEEDED = {
    "torch": "torch",
    "transformers": "transformers",
    "accelerate": "accelerate",
    "datasets": "datasets",
    "dill": "dill",
    "multiprocess": "multiprocess",
    "numba": "numba",
    "numpy": "numpy",
    "packaging": "packaging",
    "pandas": "pandas",
    "PIL": "pillow",
    "pyarrow": "pyarrow",
    "safetensors": "safetensors",
    "tqdm": "tqdm",
    "xxhash": "xxhash",
}
"""Of every stage: the module that is imported, and the package that has it."""

NEEDED_BY_TESTS = {
    "hypothesis": "hypothesis",
    "pytest": "pytest",
    "pytest_timeout": "pytest-timeout",
    "xdist": "pytest-xdist",
}
"""The same of the stage `tests` alone."""


def missing_packages() -> list[str]:
    """The packages that this Python does not have."""
    return [package for module, package in {**NEEDED, **NEEDED_BY_TESTS}.items() if find_spec(module) is None]


def missing_text() -> list[str]:
    """Which packages are missing, and how to bring them, as lines for people; none if none is."""
    missing = missing_packages()
    if not missing:
        return []
    return [
        "",
        f"Missing here: {', '.join(missing)}. On a machine with a network:",
        f"  python -m pip download --only-binary=:all: --no-deps -d wheels {' '.join(missing)}",
        "(for another Python than that machine's with --python-version 3.12, say), then here: --wheels wheels",
    ]


def install_wheels(wheels: Path, target: Path) -> None:
    """Install all wheels of a folder into another folder, without a network.

    Raises:
        SystemExit: there are none, or pip fails.
    """
    found = sorted(map(str, wheels.glob("*.whl")))
    if not found:
        raise SystemExit(f"--wheels {wheels}: there are no wheels (*.whl) in it.")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade"]
    if subprocess.run([*command, "--target", str(target), *found], check=False).returncode:
        raise SystemExit(f"--wheels {wheels}: pip could not install them, see above.")
