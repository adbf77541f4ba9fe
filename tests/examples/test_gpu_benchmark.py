"""The measurements for a GPU: listed, recorded, resumed and shown here; rehearsed on the CPU, every line of them.

No figure is judged: there is no GPU that it could be of.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "examples" / "benchmarks"
HERE = {"rehearsal": True, "device": "a CPU", "torch": "2"}


def call(*options, code=0):
    """What the command prints, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *map(str, options)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def gpu():
    """Its modules, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module
    for name in [name for name in sys.modules if name == "gpu" or name.startswith("_gpu_")]:
        del sys.modules[name]


# ---- Stages ----


def test_the_stages_are_listed_and_none_is_longer_than_eight_minutes(gpu, tmp_path):
    stages = gpu("_gpu_stages")
    listed = call("--list", "--records", tmp_path)
    for stage in stages.STAGES.values():
        assert 0 < stage.seconds <= stages.LONGEST_STAGE
        assert re.search(rf"^{stage.name} .* 0 of +{len(stage.pieces)} done", listed, re.MULTILINE)
        assert len({piece.name for piece in stage.pieces}) == len(stage.pieces)
        for piece in stage.pieces:
            module, _, function = piece.function.partition(":")
            assert callable(getattr(gpu(module), function))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--stage", "step"], "unknown stage 'step'; there are: tests, steps, tokens, drawing, trainings, processes"),
        (["--budget-seconds", "0"], "--budget-seconds 0: some time is needed, 480 by default."),
        (["--data", "nowhere"], "--data nowhere: there is no such folder."),
        (["--wheels", "nowhere"], "--wheels nowhere: there is no such folder."),
    ],
)
def test_what_cannot_be_is_said(options, message):
    assert message in call(*options, code=2)


def test_without_a_gpu_nothing_is_measured(tmp_path):
    said = call("--stage", "tokens", "--records", tmp_path, code=1)
    assert "PyTorch finds no GPU here. --rehearse runs the same code on the CPU, small." in said
    assert not list(tmp_path.iterdir())


def test_packages_come_from_a_folder_of_wheels(gpu, tmp_path, monkeypatch):
    packages = gpu("_gpu_packages")
    with pytest.raises(SystemExit, match=r"there are no wheels \(\*.whl\) in it"):
        packages.install_wheels(tmp_path, tmp_path / "site")
    with zipfile.ZipFile(tmp_path / "carried-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried.py", "HERE = True\n")
        wheel.writestr("carried-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: carried\nVersion: 1\n")
        wheel.writestr("carried-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("carried-1.dist-info/RECORD", "")
    packages.install_wheels(tmp_path, tmp_path / "site")
    assert (tmp_path / "site" / "carried.py").is_file()
    monkeypatch.setitem(packages.NEEDED, "not_there", "not-there")
    assert any("-d wheels not-there" in line for line in packages.missing_text())


# ---- Records ----


def measure_one(setting):
    return {"value": 1, "seen": sorted(setting.earlier)}


def fail(setting):
    raise ZeroDivisionError("as it had to")


def be_killed(setting):
    raise KeyboardInterrupt


@pytest.fixture
def stage(gpu, monkeypatch):
    """From the functions of its pieces to a stage, and to its record in a folder."""
    stages, records = gpu("_gpu_stages"), gpu("_gpu_records")

    def make(folder, *functions):
        names = [function.__name__ for function in functions]
        pieces = [stages.Piece(f"{n} {name}", f"{__name__}:{name}", 10) for n, name in enumerate(names)]
        record = records.Record(folder, stages.Stage("some", "Some", pieces))
        record.require_environment(HERE)
        return record

    monkeypatch.setitem(sys.modules, __name__, sys.modules[measure_one.__module__])
    return make


def go(gpu, record, budget=100.0, rehearse=True):
    said = []
    left = gpu("_gpu_records").measure_stage(record, gpu("_gpu_stages").Setting(rehearse), budget, said.append)
    return [piece.name for piece in left], said


def test_each_piece_sees_the_earlier_ones_and_is_written_at_once(gpu, stage, tmp_path):
    assert go(gpu, stage(tmp_path, measure_one, measure_one))[0] == []
    held = json.loads((tmp_path / "some.json").read_text())
    assert held["environment"] == HERE
    seen = [piece["result"]["seen"] for piece in held["pieces"].values()]
    assert seen == [[], ["0 measure_one"]]
    assert [path.name for path in tmp_path.iterdir()] == ["some.json"]


def test_a_piece_that_fails_is_said_and_tried_again(gpu, stage, tmp_path):
    left, said = go(gpu, stage(tmp_path, fail, measure_one))
    assert left == []
    assert "ZeroDivisionError: as it had to" in said[1]
    again = stage(tmp_path, fail, measure_one)
    assert [piece.name for piece in again.left] == ["0 fail"]
    assert set(again.results) == {"1 measure_one"}


def test_a_stage_that_is_killed_continues_and_does_not_end_in_the_same_piece_for_ever(gpu, stage, tmp_path):
    functions = (measure_one, be_killed, measure_one)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            go(gpu, stage(tmp_path, *functions))
        assert set(stage(tmp_path, *functions).results) == {"0 measure_one"}
    left, said = go(gpu, stage(tmp_path, *functions))
    assert (left, said) == ([], ["some: 2 measure_one"])
    assert set(stage(tmp_path, *functions).results) == {"0 measure_one", "2 measure_one"}


def test_a_piece_is_begun_only_if_it_has_the_time(gpu, stage, tmp_path):
    left, said = go(gpu, stage(tmp_path, measure_one, measure_one), budget=5, rehearse=False)
    assert (left, said) == (["0 measure_one", "1 measure_one"], [])
    assert not (tmp_path / "some.json").exists()


def test_figures_of_two_machines_do_not_mix(gpu, stage, tmp_path):
    record = stage(tmp_path, measure_one)
    go(gpu, record)
    with pytest.raises(ValueError, match=r"measured elsewhere \(device: a CPU -> a GPU\).*--records.*--again"):
        record.require_environment({**HERE, "device": "a GPU"})


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_file_that_is_no_record(stage, tmp_path, content):
    (tmp_path / "some.json").write_text(content)
    with pytest.raises(ValueError, match=r"some.json is no record of a stage .* --records"):
        stage(tmp_path, measure_one)


# ---- The page ----


def test_the_page_is_made_from_the_records(gpu):
    assert (ROOT / "docs" / "gpu.md").read_text(encoding="utf-8") == gpu("_gpu_page").make_page(ROOT / "docs" / "gpu")


def test_the_page_of_no_record_says_so_and_has_no_figure(gpu, tmp_path):
    page = gpu("_gpu_page").make_page(tmp_path)
    assert "**Nothing was measured on a GPU yet.**" in page
    assert not re.search(r"\d (ms|MB|GB|images)", page)


def idx(array):
    """An array of bytes in the format of Fashion-MNIST's files."""
    return b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes()


@pytest.mark.wide
def test_trainings_take_the_images_of_a_folder(gpu, tmp_path):
    data, numbers = tmp_path / "data", np.random.default_rng(0)
    data.mkdir()
    for split, count in (("train", 400), ("t10k", 50)):
        images, labels = numbers.integers(0, 256, (count, 28, 28)), numbers.integers(0, 10, count)
        (data / f"{split}-images-idx3-ubyte").write_bytes(idx(images.astype(np.uint8)))
        (data / f"{split}-labels-idx1-ubyte").write_bytes(idx(labels.astype(np.uint8)))
    call("--rehearse", "--stage", "trainings", "--records", tmp_path, "--data", data)
    results = gpu("_gpu_records").Record(tmp_path, gpu("_gpu_stages").STAGES["trainings"]).results
    assert results["epochs"]["task"] == "fashion-mnist"
    assert results["epochs"]["samples"] == 120


@pytest.mark.wide
def test_everything_is_rehearsed_and_shown(gpu, tmp_path):
    stages = gpu("_gpu_stages").STAGES
    records = tmp_path / "records"
    said = call("--rehearse", "--records", records, "--budget-seconds", 1500)
    for name, stage in stages.items():
        record = gpu("_gpu_records").Record(records, stage)
        assert set(record.results) == {piece.name for piece in stage.pieces}, record.pieces
        assert record.environment["rehearsal"] is True
        assert f"{name:<10}" in call("--list", "--records", records)
    call("--page", tmp_path / "page.md", "--records", records)
    page = (tmp_path / "page.md").read_text(encoding="utf-8")
    assert "**A rehearsal on a CPU: no figure on this page means anything.**" in page
    assert "Not measured yet" not in page
    for stage in stages.values():
        assert f"## {stage.title}\n" in page
    for row in [line for line in page.splitlines() if line.startswith("| resumed |")]:
        assert row.rstrip(" |").endswith("yes"), "the same weights after resuming"
    # Nothing is left to do.
    assert call("--rehearse", "--records", records) == ""
    assert "recompile_limit" not in said, "measured is what is compiled"
