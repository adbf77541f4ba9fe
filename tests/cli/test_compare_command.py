"""`hf-kakurenbo compare`: what it asks of the comparison, and how it ends."""

import subprocess
import sys
from pathlib import Path

import pytest

import compare_toy
from command import run


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


def test_commas_and_ranges(compared, tmp_path):
    options = ["--task", "text,digits", "--task", "fdsl-vit", "--method", "coin, kakurenbo", "--seeds", "8-10"]
    assert run("compare", "--out", tmp_path, *options)[0] == 0
    assert compared[0]["tasks"] == ["text", "digits", "fdsl-vit"]
    assert compared[0]["methods"] == ["no-hiding", "coin", "kakurenbo"]
    assert compared[0]["seeds"] == [8, 9, 10]


def test_the_help_names_the_defaults():
    from hf_kakurenbo.compare.comparison import DEFAULT_METHODS, DEFAULT_TASKS, QUICK_METHODS, QUICK_SEEDS, QUICK_TASKS

    shown = "".join(run("compare", "--help")[1].split())  # without the spaces: names are broken at their hyphens
    assert f"[default:{','.join(DEFAULT_TASKS)};quick:{','.join(QUICK_TASKS)}]" in shown
    assert f"[default:{','.join(DEFAULT_METHODS)};quick:{','.join(QUICK_METHODS)}]" in shown
    assert f"[default:8;quick:{QUICK_SEEDS}]" in shown


def test_the_tasks_are_listed(compared):
    from hf_kakurenbo.compare import TASKS

    code, out, _ = run("compare", "--list-tasks")
    assert (code, compared) == (0, [])
    assert [line.split()[0] for line in out.splitlines() if not line.startswith(" ")] == list(TASKS)
    assert max(map(len, out.splitlines())) <= 80
    unfolded = " ".join(out.split())
    for task in TASKS.values():
        assert len(task.summary) > 10
        assert f"{task.name} {task.summary}" in unfolded


def test_the_methods_are_listed_in_their_groups(compared):
    from hf_kakurenbo.compare import METHODS
    from hf_kakurenbo.compare.methods import GROUPS

    code, out, _ = run("compare", "--list-methods")
    assert (code, compared) == (0, [])
    assert [line[10:-1] for line in out.splitlines() if line.startswith("The group ")] == list(GROUPS)
    found = {line.split()[0] for line in out.splitlines() if line and not line.startswith((" ", "The group "))}
    assert found == set(METHODS)
    assert max(map(len, out.splitlines())) <= 80
    unfolded = " ".join(out.split())
    assert "shorter-0.55@1.4 hiding_policy=none, epochs × 0.55, learning_rate × 1.4" in unfolded
    assert "random hiding_policy=random, hides as much as kakurenbo" in unfolded


POLICY = """
from hf_kakurenbo.hiding import CoinPolicy, register_policy

@register_policy("dime")
class Dime(CoinPolicy):
    '''Hide as a small coin does.'''
"""


@pytest.mark.wide
def test_processes_know_an_own_policy(tmp_path):
    (tmp_path / "my_policy.py").write_text(POLICY)
    (tmp_path / "methods.json").write_text('[{"name": "dime", "options": {"hiding_policy": "dime"}}]')
    own = f"--import my_policy --task compare_toy:TOY --method {tmp_path}/methods.json"
    code = f"""
import sys
sys.path.append({str(Path(compare_toy.__file__).parent)!r})
sys.argv = "hf-kakurenbo compare {own} --seeds 2 --num-proc 2 --out out".split()
if __name__ == "__main__":
    from hf_kakurenbo.cli import main
    main()
"""
    (tmp_path / "command_of_mine.py").write_text(code)
    done = subprocess.run([sys.executable, "command_of_mine.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "toy dime, seed 1: " in done.stderr


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
        (["--seeds", "few"], 2, "--seeds 'few' is neither a number, as 8, nor a range, as 8-15."),
        (["--seeds", "9-8"], 2, "--seeds 9-8 is empty."),
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
