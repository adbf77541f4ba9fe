"""The command as a whole: help, version, what it imports, modules of the user's own."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from command import run
from fdsl_toy import NAME
from hf_kakurenbo import __version__, cli
from hf_kakurenbo.cli.options import count, names, pixels
from hf_kakurenbo.fdsl import catalog
from hf_kakurenbo.hiding.policies import base, options_of_policy
from known_policies import POLICIES

COMMANDS = [
    [],
    ["compare"],
    ["policies"],
    ["report"],
    ["fdsl"],
    *(["fdsl", name] for name in ("list", "preview", "render", "parameters", "search")),
]


def test_version():
    assert run("--version") == (0, f"hf-kakurenbo {__version__}\n", "")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_fits_80_columns_and_says_what_for(command):
    code, out, _ = run(*command, "--help")
    assert code == 0
    purpose, _, options = out.partition("Options:")
    assert "Usage:" in purpose
    assert re.search(r"\n  [A-Z][^\n]+\.", purpose), "no sentence says what it is for"
    assert "..." not in options, "a sentence is cut off"
    assert max(map(len, out.splitlines())) <= 80
    assert run(*command, "-h") == (code, out, "")


def test_every_command_is_in_the_list():
    found = [[], *([command.name or command.callback.__name__] for command in cli.app.registered_commands)]
    for group in cli.app.registered_groups:
        commands = group.typer_instance.registered_commands
        found += [[group.name], *([group.name, command.name or command.callback.__name__] for command in commands)]
    assert sorted(found) == sorted(COMMANDS)


@pytest.mark.parametrize(
    "arguments", [["--version"], ["-h"], ["fdsl", "render", "-h"], ["compare", "-h"]], ids=" ".join
)
def test_what_only_prints_imports_nothing_heavy(arguments):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "hf_kakurenbo", *arguments],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert done.stdout.startswith("hf-kakurenbo " if arguments == ["--version"] else "Usage: ")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert {"typer", "hf_kakurenbo.cli.fdsl"} <= imported
    assert not imported & {"torch", "transformers", "datasets", "numpy", "numba", "PIL"}


def test_completion_knows_the_datasets(monkeypatch):
    # Else the shell is looked for among the processes above, where a job in the background has none.
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    code, out, _ = run("--show-completion", "bash")
    assert (code, "complete -o default -F" in out) == (0, True)
    words = {"COMP_WORDS": "hf-kakurenbo fdsl preview rcdb-", "COMP_CWORD": "3"}
    _, out, _ = run(env={"_HF_KAKURENBO_COMPLETE": "complete_bash", **words})
    assert out.split() == ["rcdb-1k", "rcdb-21k", "rcdb-50k", "rcdb-test"]


def test_policies():
    code, out, _ = run("policies")
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    unfolded = " ".join(out.split())
    assert unfolded.startswith("none Hide nothing: a plain Trainer. ")
    assert "coin Hide each known sample with probability p, independently and anew in each epoch. Options: " in unfolded
    for policy in POLICIES:  # those of this package: other tests have registered some of their own
        assert f"Options: {', '.join(options_of_policy(policy))}." in unfolded


# ---- Modules of the user's own ----


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A folder in which the command is given, and registries to be thrown away."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(catalog, "_CATALOG", dict(catalog._CATALOG))
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


DATASET = """
from hf_kakurenbo.fdsl import register_dataset
register_dataset("mine-5", family="toy", categories=5, instances=2)
"""
POLICY = """
from hf_kakurenbo.hiding import CoinPolicy, register_policy

@register_policy("dime")
class Dime(CoinPolicy):
    '''Hide as a small coin does.'''

    def __init__(self, cents: int = 10) -> None:
        super().__init__()
"""


@pytest.mark.parametrize("first", [False, True], ids=["behind the command", "before the command"])
def test_an_own_dataset(own_folder, first):
    (own_folder / "my_dataset.py").write_text(DATASET)
    option = ["--import", "my_dataset"]
    before = list(sys.path)
    code, out, _ = run(*option, "fdsl", "list") if first else run("fdsl", "list", *option)
    assert (code, out.splitlines()[-1].split()) == (0, ["mine-5", "5", "2", "10"])
    assert sys.path == [*before, str(own_folder)], "a file there takes no package's place"


def test_an_own_policy_and_a_dataset_with_a_comma(own_folder):
    (own_folder / "my_policy.py").write_text(POLICY)
    (own_folder / "my_dataset.py").write_text(DATASET)
    code, out, _ = run("policies", "--import", "my_dataset, my_policy")
    assert (code, "mine-5" in catalog.list_fdsl()) == (0, True)
    assert "dime Hide as a small coin does. Options: cents." in " ".join(out.split())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_modul", "there is no such module, neither in the current folder nor among the installed packages."),
        ("fine.py", "packages. Name it as Python imports it: fine.\n"),
        ("fine.inner", "there is no such module"),
        ("my_package.my_module", "there is no such module"),
        ("broken", "ZeroDivisionError: division by zero (FOLDER/broken.py, line 2)"),
        ("needs_more", "ModuleNotFoundError: No module named 'what_is_not_there' (FOLDER/needs_more.py, line 1)"),
        ("unfinished", "SyntaxError: "),
        ("twice", "ValueError: The dataset name 'toy-test' is taken by "),
    ],
)
def test_a_module_that_cannot_be_imported(own_folder, name, message):
    (own_folder / "fine.py").touch()
    (own_folder / "broken.py").write_text("one = 1\none / 0\n")
    (own_folder / "needs_more.py").write_text("import what_is_not_there\n")
    (own_folder / "unfinished.py").write_text("def (\n")
    (own_folder / "twice.py").write_text(DATASET.replace("mine-5", NAME))
    code, out, err = run("fdsl", "list", "--import", name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"Error: --import {name}: ")
    assert message.replace("FOLDER", str(own_folder)) in err


@pytest.mark.wide
def test_processes_know_an_own_family(own_folder):
    (own_folder / "my_family.py").write_text(
        "from hf_kakurenbo.fdsl import register_family\n"
        "from fdsl_toy import Toy\n"
        "@register_family\n"
        "class Mine(Toy):\n"
        "    name = 'mine'\n"
    )
    code = f"""
import sys
sys.path.append({str(Path(__file__).parents[1])!r})
sys.argv = "hf-kakurenbo fdsl search mine --import my_family --categories 30 --num-proc 2 --out f.npy".split()
if __name__ == "__main__":
    from hf_kakurenbo.cli import main
    main()
"""
    (own_folder / "command_of_mine.py").write_text(code)
    done = subprocess.run([sys.executable, "command_of_mine.py"], capture_output=True, text=True)
    assert done.stdout.startswith("30 categories in f.npy, after "), done.stderr
    assert np.load("f.npy").shape == (30,)


# ---- Values as people write them ----


@pytest.mark.parametrize(
    ("text", "number"),
    [("1000", 1000), ("1,000", 1000), ("1_000", 1000), ("10k", 10_000), ("1.5M", 1_500_000), ("-4", -4), (7, 7)],
)
def test_counts(text, number):
    assert count(text) == number


@pytest.mark.parametrize("text", ["", "k", "ten", "1.5", "0.0001k", "1e3", "1 000", "10g"])
def test_what_is_no_count(text):
    with pytest.raises(typer.BadParameter, match="is no count: write it as 1000, 1,000, 10k"):
        count(text)


def test_sizes():
    assert [pixels(text) for text in ("224", "224px", "32x32", "8×8", "-4", 112)] == [224, 224, 32, 8, -4, 112]
    for text in ("224x112", "big", "", "32 x 32"):
        with pytest.raises(typer.BadParameter, match="is no size of a square image"):
            pixels(text)


def test_names():
    assert names(["digits, text", "fdsl-vit", "a,,b,"]) == ["digits", "text", "fdsl-vit", "a", "b"]


# ---- How it is started ----


@pytest.mark.wide
@pytest.mark.parametrize("command", [["policies"], ["fdsl", "list"]], ids=" ".join)
def test_whoever_has_read_enough_is_told_nothing(command):
    reading, writing = os.pipe()
    os.close(reading)
    program = [sys.executable, "-m", "hf_kakurenbo", *command]
    done = subprocess.run(program, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


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
