"""`hf-kakurenbo fdsl`: what it prints, what it writes, and how it ends."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fdsl_toy
from command import run
from fdsl_toy import CATEGORIES, INSTANCES, NAME, Toy
from hf_kakurenbo.fdsl import list_fdsl, load_fdsl
from hf_kakurenbo.fdsl.catalog import category_parameters
from hf_kakurenbo.fdsl.export import formats
from hf_kakurenbo.fdsl.parameters import read_parameters

COUNT = CATEGORIES * INSTANCES


def test_list():
    code, out, _ = run("fdsl", "list")
    heading, *rows = out.splitlines()
    assert code == 0
    assert heading.split() == ["name", "categories", "instances", "training", "images"]
    assert [row.split()[0] for row in rows] == list_fdsl()
    assert rows[-1].split() == [NAME, "3", "7", "21"]
    assert ["fractaldb-3k", "3,000", "1,000", "3,000,000"] in [row.split() for row in rows]
    assert {len(row) for row in rows} == {len(heading)}
    assert len(heading) <= 80


def test_preview(tmp_path):
    assert run("fdsl", "preview", NAME, "--out", tmp_path / "grid.png", "--image-size", 8, "--columns", 3)[0] == 0
    gray = Image.open(tmp_path / "grid.png")
    assert (gray.size, gray.mode) == ((3 * 8 + 4, CATEGORIES * 8 + 4), "L")
    for option in (["--color"], ["--split", "validation"], ["--seed", 5]):
        assert run("fdsl", "preview", NAME, "--out", tmp_path / "b.png", "--image-size", 8, *option)[0] == 0
        other = Image.open(tmp_path / "b.png")
        assert other.mode == ("RGB" if option == ["--color"] else "L")
        assert not np.array_equal(np.asarray(other)[:8, :8], np.asarray(gray)[:8, :8])


@pytest.mark.parametrize(("ending", "kind"), [(".jpg", "JPEG"), (".webp", "WEBP"), (".PNG", "PNG")])
def test_a_preview_is_of_the_format_that_its_name_says(tmp_path, ending, kind):
    out = tmp_path / f"grid{ending}"
    assert run("fdsl", "preview", NAME, "--out", out, "--image-size", "8x8", "--rows", 1, "--columns", 2)[0] == 0
    with Image.open(out) as found:
        assert (found.format, found.size) == (kind, (2 * 8 + 2, 8))


def test_render(tmp_path):
    command = ["fdsl", "render", NAME, "--out", tmp_path / "out", "--image-size", 8, "--format", "webdataset"]
    command += ["--images-per-file", 8]
    assert run(*command, "--shard", "1/2")[:2] == (0, f"8 images written to {tmp_path / 'out'}.\n")
    assert run(*command, "--num-proc", 2)[:2] == (0, f"13 images written to {tmp_path / 'out'}.\n")
    assert run(*command)[:2] == (0, f"Nothing to do: {tmp_path / 'out'} is complete.\n")


def test_render_a_slice(tmp_path):
    command = ["fdsl", "render", NAME, "--out", tmp_path, "--image-size", 8, "--categories", 2, "--instances", 3]
    assert run(*command, "--color", "--split", "validation")[0] == 0
    assert len(list(tmp_path.glob("validation/*/*.png"))) == 6
    assert Image.open(next(tmp_path.glob("validation/*/*.png"))).mode == "RGB"


def test_parameters(tmp_path):
    assert run("fdsl", "parameters", NAME, "--out", tmp_path / "all")[:2] == (
        0,
        f"3 files written to {tmp_path / 'all'}.\n",
    )
    found = read_parameters(tmp_path / "all", Toy())
    for category, parameters in enumerate(found):
        np.testing.assert_array_equal(parameters, category_parameters(Toy(), 0, category))
    assert run("fdsl", "parameters", NAME, "--out", tmp_path / "some", "--categories", 2, "--seed", 1)[0] == 0
    assert len(list((tmp_path / "some").iterdir())) == 2


def test_pixels_instead_of_patches(tmp_path):
    ink = {}
    for option in ("--patches", "--no-patches"):
        options = ["--out", tmp_path / "grid.png", "--image-size", 128, "--points", 300, option]
        assert run("fdsl", "preview", "fractaldb-test", *options)[0] == 0
        ink[option] = int((np.asarray(Image.open(tmp_path / "grid.png")) > 64).sum())
    assert ink["--patches"] > 1.5 * ink["--no-patches"] > 0


def test_parameters_of_your_own(tmp_path):
    run("fdsl", "parameters", NAME, "--out", tmp_path / "all", "--seed", 1)
    options = ["--image-size", 8, "--mode", "L", "--parameters", tmp_path / "all"]
    assert run("fdsl", "render", NAME, "--out", tmp_path / "out", "--seed", 0, *options)[0] == 0
    dataset = load_fdsl(NAME, image_size=8, mode="L", parameters=tmp_path / "all")
    found = Image.open(tmp_path / "out" / "train" / "00001" / "00001_000000009.png")
    assert (found.mode, found.tobytes()) == ("L", dataset[9]["image"].tobytes())
    assert found.tobytes() != load_fdsl(NAME, image_size=8, mode="L")[9]["image"].tobytes()


def test_search(tmp_path):
    path = tmp_path / "new" / "toy.npy"
    assert run("fdsl", "search", "toy", "--categories", 5, "--out", path)[:2] == (
        0,
        f"5 categories in {path}, after 10 attempts.\n",
    )
    assert np.load(path).tolist() == [1, 3, 0, 0, 1]
    assert run("fdsl", "search", "toy", "--categories", 7, "--out", path, "--seed", 0)[0] == 0
    assert np.load(path).shape == (7,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["preview", "toytest", "--out", "OUT"], "There is no FDSL dataset 'toytest'. Did you mean 'toy-test'"),
        (["preview", NAME, "--out", "OUT", "--rows", 0], "do not fill 0 rows and 7 columns; rows must be in 1..3"),
        (["preview", NAME, "--out", "OUT", "--columns", -3], "do not fill 3 rows and -3 columns; rows must be in 1..3"),
        (["preview", "ofdb2d-test", "--out", "OUT", "--columns", 0], "do not fill 4 rows and 0 columns"),
        (["preview", NAME, "--out", "OUT", "--image-size", -4], "image_size must be in 1..32766, got -4"),
        (["preview", NAME, "--out", "OUT", "--image-size", 40_000], "image_size must be in 1..32766, got 40000"),
        (["preview", NAME, "--out", "OUT", "--seed", -1], "seed"),
        (["preview", NAME, "--out", "OUT"], "'out' names no format that an image can be written in: end it with .png"),
        (["render", "fractal", "--out", "OUT"], "There is no FDSL dataset 'fractal'. Did you mean"),
        (["render", NAME, "--out", "OUT", "--shard", "2/2"], "--shard '2/2' is not i/n with 0 ≤ i < n, as 0/4"),
        (["render", NAME, "--out", "OUT", "--shard", "half"], "--shard 'half' is not i/n"),
        (["render", NAME, "--out", "OUT", "--num-proc", 0], "--num-proc must be at least 1, got 0"),
        (["render", NAME, "--out", "OUT", "--categories", 4], "categories"),
        (["render", NAME, "--out", "OUT", "--instances", 0], "instances"),
        (["render", NAME, "--out", "FULL"], "already holds something else (thesis.txt)"),
        (["render", NAME, "--out", "OUT", "--no-patches"], "toy-test is not drawn with points, got patches=False"),
        (["render", NAME, "--out", "OUT", "--color", "--mode", "L"], "color=True needs three channels"),
        (["parameters", NAME, "--out", "OUT", "--categories", 4], "categories must be in 1..3, got 4"),
        (["search", "tou", "--categories", 5, "--out", "OUT"], "There is no FDSL family 'tou'. There are: fractaldb"),
        (["search", "toy", "--categories", 0, "--out", "OUT"], "categories must be at least 1, got 0"),
        (["search", "toy", "--categories", 5, "--out", "OUT", "--num-proc", 0], "--num-proc must be at least 1, got 0"),
        (["parameters", NAME, "--out", "FULL"], "already holds something else (thesis.txt)"),
    ],
)
def test_a_bad_value_is_one_line_and_code_2(tmp_path, arguments, message):
    folders = {"OUT": tmp_path / "out", "FULL": tmp_path / "full"}
    folders["FULL"].mkdir()
    (folders["FULL"] / "thesis.txt").write_text("years of work")
    code, out, err = run("fdsl", *(folders.get(argument, argument) for argument in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("Error: ")
    assert message in err
    assert not folders["OUT"].exists()


@pytest.mark.parametrize(
    "arguments",
    [["fly"], ["fdsl", "fly"], ["fdsl", "preview"], ["fdsl", "render", NAME], ["fdsl", "list", "--fast"]],
    ids=" ".join,
)
def test_wrong_usage_is_code_2(arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Error: " in err


def test_a_failure_is_one_line_and_code_1(tmp_path, monkeypatch):
    def full_disk(image):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(formats, "encode_png", full_disk)
    code, out, err = run("fdsl", "render", NAME, "--out", tmp_path, "--image-size", 8)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert f"The disk of {tmp_path} is full." in err


def test_too_little_memory_is_one_line_and_code_1(tmp_path, monkeypatch):
    def too_large(self, instance, drawing, key):
        return np.empty(2**60, dtype=np.uint8)

    monkeypatch.setattr(Toy, "render", too_large)
    code, out, err = run("fdsl", "preview", NAME, "--out", tmp_path / "grid.png")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("Error: There is not enough memory (Unable to allocate ")
    assert err.endswith(" Ask for smaller images, or fewer points.\n")


def test_ctrl_c(tmp_path):
    code = f"""
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
sys.path.insert(0, {str(Path(fdsl_toy.__file__).parent)!r})
import fdsl_toy
from hf_kakurenbo import cli
from hf_kakurenbo.fdsl.export import formats
fdsl_toy.enter_into_catalog(dict.__setitem__)
encode = formats.encode_png
def encode_and_interrupt(image):
    os.kill(os.getpid(), signal.SIGINT)
    return encode(image)
formats.encode_png = encode_and_interrupt
sys.argv = ["hf-kakurenbo", "fdsl", "render", {NAME!r}, "--out", {str(tmp_path / "out")!r}, "--image-size", "8"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "Interrupted. What is written is complete; the same command continues.\n"
    assert run("fdsl", "render", NAME, "--out", tmp_path / "out", "--image-size", 8)[0] == 0
    assert len(list(tmp_path.glob("out/train/*/*.png"))) == COUNT
