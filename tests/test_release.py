"""What is published: it is built, its texts are shown as they should be, and it works where nothing else of it is."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def call(*command: object, cwd: Path, **environment: str) -> str:
    arguments, env = [str(part) for part in command], {**os.environ, **environment}
    done = subprocess.run(arguments, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source distribution, and the wheel that was built of it."""
    folder = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=ROOT)
    return [next(folder.glob(pattern)) for pattern in ("*.tar.gz", "*.whl")]


@pytest.mark.wide
def test_the_index_would_take_it(built, tmp_path):
    assert call(sys.executable, "-m", "twine", "check", "--strict", *built, cwd=tmp_path).count("PASSED") == 2


@pytest.mark.wide
def test_the_wheel_works_alone(built, tmp_path):
    """In an environment of its own: what the package needs is there, and of the package the wheel."""
    venv.create(tmp_path / "clean", with_pip=False, symlinks=True)
    python = tmp_path / "clean" / "bin" / "python"
    place = call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    alone = {"PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "CUDA_VISIBLE_DEVICES": ""}
    # Packages in a folder that a .pth file names are found, but not this repository, which a .pth file in there names.
    Path(place, "needed.pth").write_text(sysconfig.get_path("purelib"))
    call(python, "-m", "pip", "install", "--no-index", "--no-deps", built[1], cwd=tmp_path, **alone)
    printed = call(python, ROOT / ".ci" / "use_wheel.py", cwd=tmp_path, **alone)
    assert printed.splitlines()[-1].endswith(f" works on Python {sys.version.split()[0]}.")
