"""Where Numba may keep nothing on disk, images are drawn all the same."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import hf_kakurenbo
from hf_kakurenbo.fdsl.kernels import compiling

DRAW = """
import warnings
warnings.simplefilter("always")
from hf_kakurenbo.fdsl.kernels.random_numbers import random_bits
import hf_kakurenbo
from hf_kakurenbo.fdsl.loading.permutation import permute
print(hf_kakurenbo.__file__)
print(random_bits(5, 7), permute(3, 10, 1))
"""


@pytest.fixture
def read_only(tmp_path):
    """A copy of the package beside which nothing can be written, and an environment without any other place.

    Not by permissions, which do not keep root from writing: a file stands where each folder would be made.
    """
    package = tmp_path / "site" / "hf_kakurenbo"
    shutil.copytree(Path(hf_kakurenbo.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [package, *filter(Path.is_dir, package.rglob("*"))]:
        (folder / "__pycache__").touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA", "PYTHON"))}
    nowhere = dict.fromkeys(("HOME", "XDG_CACHE_HOME"), os.devnull)
    return {**kept, **nowhere, "PYTHONPATH": str(package.parent)}


def run(environment, code=DRAW):
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=os.sep, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done


def test_a_read_only_installation_draws_with_one_warning(read_only):
    done = run(read_only)
    assert done.stdout.splitlines()[0].startswith(read_only["PYTHONPATH"])
    expected = run({**os.environ})
    assert done.stdout.splitlines()[1:] == expected.stdout.splitlines()[1:]
    assert done.stderr.count("Numba may write neither beside hf_kakurenbo nor into the user's cache folder") == 1
    assert "Set the environment variable NUMBA_CACHE_DIR" in done.stderr
    assert "Numba may write" not in expected.stderr


def test_a_folder_for_it_is_used(read_only, tmp_path):
    done = run({**read_only, "NUMBA_CACHE_DIR": str(tmp_path / "numba")})
    assert "Numba may write" not in done.stderr
    assert list((tmp_path / "numba").rglob("random_numbers.random_bits*.nbi"))


def test_other_errors_are_not_swallowed(monkeypatch):
    def refuse(**options):
        raise RuntimeError("something else")

    monkeypatch.setattr(compiling, "njit", refuse)
    with pytest.raises(RuntimeError, match="something else"):
        compiling.compiled(len)


STREAM = """
from pathlib import Path
import hf_kakurenbo
example = next(iter(hf_kakurenbo.load_fdsl("rcdb-test", streaming=True, image_size=8)))
print(example["image"].size, sorted(path.name for path in Path(%r).rglob("*")))
"""


def test_a_stream_makes_no_folder(tmp_path):
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "HF_HOME": str(tmp_path / "home")}
    assert run(environment, STREAM % str(tmp_path)).stdout == "(8, 8) []\n"
