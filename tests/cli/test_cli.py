"""The command: what it prints, what it writes, and how it ends."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fdsl_toy import CATEGORIES, INSTANCES, NAME, Toy, enter_into_catalog
from hf_kakurenbo import __version__, cli
from hf_kakurenbo.cli import app
from hf_kakurenbo.fdsl import list_fdsl, load_fdsl
from hf_kakurenbo.fdsl.catalog import category_parameters
from hf_kakurenbo.fdsl.export import formats
from hf_kakurenbo.fdsl.parameters import read_parameters

COUNT = CATEGORIES * INSTANCES


@pytest.fixture(autouse=True)
def own_import_path(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.fixture(autouse=True)
def toy_in_catalog(monkeypatch):
    enter_into_catalog(monkeypatch.setitem)


def run(*args):
    """Exit code, standard output and standard error."""
    result = CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "80"})
    assert result.exception is None or isinstance(result.exception, SystemExit), "a traceback is shown"
    return result.exit_code, result.stdout, result.stderr


def test_version():
    assert run("--version") == (0, f"hf-kakurenbo {__version__}\n", "")


@pytest.mark.parametrize(
    "command",
    [[], ["compare"], ["fdsl"], *(["fdsl", name] for name in ("list", "preview", "render", "parameters", "search"))],
    ids=" ".join,
)
def test_help_fits_80_columns(command):
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert "Usage:" in out
    assert "..." not in out.split("Options:")[1], "a sentence is cut off"
    assert max(map(len, out.splitlines())) <= 80


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
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import fdsl_toy
from hf_kakurenbo import cli
from hf_kakurenbo.fdsl import formats
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
    assert done.stderr == "Interrupted. What is written is complete; the same command goes on.\n"
    assert run("fdsl", "render", NAME, "--out", tmp_path / "out", "--image-size", 8)[0] == 0
    assert len(list(tmp_path.glob("out/train/*/*.png"))) == COUNT


@pytest.fixture
def compared(monkeypatch):
    """What `compare` was called with, in the place of what it does."""
    from hf_kakurenbo import compare

    calls = []

    def note(tasks, methods, seeds, out, processes, on_progress):
        given = {"tasks": [task.name for task in tasks], "methods": [method.name for method in methods]}
        calls.append({**given, "seeds": list(seeds), "out": out, "processes": processes})
        on_progress(compare.Record("digits", "kakurenbo", 2, 0.98765, 5, 2, 7, 3, 1.26, 1.5), 4)
        return compare.Comparison({}, [])

    monkeypatch.setattr(compare, "compare", note)
    return calls


def test_compare(compared, tmp_path):
    out = tmp_path / "out"
    code, printed, err = run("compare", "--out", out)
    assert (code, err) == (0, "digits kakurenbo, seed 2: 98.8%, 1.3 s; 4 left\n")
    assert printed.endswith(f"Written to {out}: comparison.md, .png, .csv, trainings.csv.\n")
    [given] = compared
    assert given["tasks"] == ["digits", "fdsl-cnn", "fdsl-cnn-augmented", "fdsl-vit", "text"]
    assert given["methods"][:2] == ["no-hiding", "no-hiding@1.4"]
    assert {"shorter-0.55@1.4", "kakurenbo", "importance"} < set(given["methods"])
    assert (given["seeds"], given["out"], given["processes"]) == (list(range(8)), out, 1)


def test_compare_quickly(compared):
    from hf_kakurenbo.compare.comparison import QUICK_METHODS

    assert run("compare", "--quick", "--num-proc", 2)[0] == 0
    assert compared == [
        {
            "tasks": ["digits", "fdsl-cnn"],
            "methods": ["no-hiding", *QUICK_METHODS],
            "seeds": [0, 1, 2],
            "out": Path("comparison"),
            "processes": 2,
        }
    ]


def test_what_is_given_goes_before_what_is_quick(compared, tmp_path):
    options = ["--task", "text", "--method", "coin", "--method", "kakurenbo", "--seeds", 1]
    assert run("compare", "--out", tmp_path, *options)[0] == 0
    assert run("compare", "--out", tmp_path, "--quick", *options)[0] == 0
    assert compared[0] == compared[1]
    assert (compared[0]["tasks"], compared[0]["seeds"]) == (["text"], [0])
    assert compared[0]["methods"] == ["no-hiding", "coin", "kakurenbo"]


def test_compare_on_a_task_of_the_folder_in_which_it_is_called(compared, tmp_path, monkeypatch):
    (tmp_path / "my_tasks.py").write_text("from hf_kakurenbo.compare import TASKS\nMINE = TASKS['digits']\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert run("compare", "--out", tmp_path, "--task", "my_tasks:MINE")[0] == 0
    assert compared[0]["tasks"] == ["digits"]
    assert sys.path == [*before, str(tmp_path)], "a file there takes no package's place"


def test_the_help_of_compare_lists_what_there_is():
    from hf_kakurenbo.compare import TASKS
    from hf_kakurenbo.compare.comparison import DEFAULT_METHODS, DEFAULT_TASKS, QUICK_METHODS, QUICK_SEEDS, QUICK_TASKS
    from hf_kakurenbo.compare.methods import GROUPS

    said = "".join(run("compare", "--help")[1].split())  # without the spaces: names are broken at their hyphens
    assert f"Oneof{','.join(TASKS)},orpackage" in said
    assert f"[default:{','.join(DEFAULT_TASKS)};quick:{','.join(QUICK_TASKS)}]" in said
    assert f"groups{','.join(GROUPS)};" in said
    assert f"[default:{','.join(DEFAULT_METHODS)};quick:{','.join(QUICK_METHODS)}]" in said
    assert f"[default:8;quick:{QUICK_SEEDS}]" in said


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--task", "digit"], 2, "There is no task 'digit'. Did you mean 'digits'?"),
        (["--task", "my.tasks:MINE"], 2, "The task 'my.tasks:MINE' cannot be imported: No module named 'my'."),
        (["--task", "text", "--task", "text"], 2, "The task 'text' is there 2 times: give it once."),
        (["--method", "kakurembo"], 2, "There is no method 'kakurembo'. Did you mean 'kakurenbo'?"),
        (["--method", "random"], 2, "'random' hides as much as 'kakurenbo', which is not among the methods: add it."),
        (["--method", "missing.json"], 1, "No such file or directory: 'missing.json'"),
        (["--method", "BROKEN"], 2, "broken.json is no list of methods (Expecting value"),
        (["--seeds", 0], 2, "--seeds must be at least 1, got 0"),
        (["--seeds", -2, "--quick"], 2, "--seeds must be at least 1, got -2"),
        (["--num-proc", 0], 2, "--num-proc must be at least 1, got 0"),
    ],
    ids=str,
)
def test_a_bad_value_of_compare_is_one_line(tmp_path, options, code, message):
    (tmp_path / "broken.json").write_text("[")
    out = tmp_path / "out"
    given = [tmp_path / "broken.json" if option == "BROKEN" else option for option in options]
    ended, printed, err = run("compare", "--out", out, *given)
    assert (ended, printed, err.count("\n")) == (code, "", 1)
    assert err.startswith("Error: ")
    assert message in err
    assert not out.exists()


def test_compare_without_a_package_is_one_line_and_code_1(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    code, printed, err = run("compare", "--out", tmp_path / "out")
    assert (code, printed) == (1, "")
    assert err == 'Error: A comparison needs sklearn: pip install "hf-kakurenbo[compare]" brings what it needs.\n'


@pytest.mark.parametrize("raw", [io.BytesIO(), None], ids=["a pipe", "something else"])
def test_what_a_pipe_cannot_print_is_replaced(monkeypatch, raw):
    pipe = io.StringIO() if raw is None else io.TextIOWrapper(raw, encoding="cp1252", newline="\n")
    monkeypatch.setattr(sys, "stdout", pipe)
    monkeypatch.setattr(cli, "app", lambda: print("Δ accuracy ± 1"))
    with pytest.raises(SystemExit) as raised:
        cli.main()
    pipe.flush()
    assert raised.value.code is None
    printed = pipe.getvalue() if raw is None else raw.getvalue().decode("cp1252")
    assert printed == ("Δ" if raw is None else "?") + " accuracy ± 1\n"


def test_the_command_is_installed():
    done = subprocess.run([sys.executable, "-m", "hf_kakurenbo.cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"hf-kakurenbo {__version__}\n")
