"""Every Python block of the documentation runs, in the order of its page, after the script of the quickstart."""

import contextlib
import io
import re
import shutil
import sys
import types
from pathlib import Path

import pytest

from hf_kakurenbo.hiding.policies import base

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# With tests of their own, which look at more than that they run: here, `test_fdsl_page.py`, `test_own_policy.py`.
RUN_APART = {
    "does_it_pay.md",
    "fdsl.md",
    "howto/own_policy.md",
    "howto/own_task.md",
    "howto/resume.md",
    "howto/turn_off.md",
    "quickstart.md",
}
NEEDS = {"howto/trl.md": "trl", "howto/sentence_transformers.md": "sentence_transformers"}


def blocks_of(page):
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def pages():
    found = [page for page in sorted(DOCS.rglob("*.md")) if "_build" not in page.parts and blocks_of(page)]
    return [name for page in found if (name := page.relative_to(DOCS).as_posix()) not in RUN_APART]


def run(blocks, names):
    """What the blocks print."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(compile(block, "a block of the page", "exec"), names)
    return printed.getvalue()


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    """The folder in which its script was run, and what it defined."""
    folder, module = tmp_path_factory.mktemp("quickstart"), types.ModuleType("a_page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setitem(sys.modules, "a_page", module)  # from which functions are pickled by name
        run(blocks_of(DOCS / "quickstart.md"), vars(module))
        yield folder, vars(module)


@pytest.fixture
def after_quickstart(quickstart, tmp_path, monkeypatch):
    """Its names, in a copy of its folder."""
    folder, names = quickstart
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))
    monkeypatch.chdir(shutil.copytree(folder, tmp_path / "copy"))
    module = types.ModuleType("a_page")
    vars(module).update(names)
    monkeypatch.setitem(sys.modules, "a_page", module)
    return vars(module)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.wide if name in NEEDS else ()) for name in pages()]
)
def test_the_blocks_of_a_page_run(name, after_quickstart):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    run(blocks_of(DOCS / name), after_quickstart)


def test_the_blocks_of_the_readme_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    run(blocks_of(ROOT / "README.md"), names)
    assert len(names["train"]) == len(names["stream"]) == 1_000_000


def cells(table):
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("|")
    ]


def test_what_the_quickstart_shows_is_what_it_logs(quickstart):
    page, (_, names) = (DOCS / "quickstart.md").read_text(encoding="utf-8"), quickstart
    history = [entry for entry in names["trainer"].state.log_history if "kakurenbo/candidates" in entry]
    [line] = re.findall(r"^```text\n(.*)\n```$", page, re.MULTILINE)
    shown, logged = {name: float(value) for name, value in eval(line).items()}, history[1]
    timed = {"kakurenbo/refresh_runtime", "kakurenbo/time_saved", "kakurenbo/time_saved_fraction"}
    assert {*shown} == {*logged} - {"step"}
    assert {name: shown[name] for name in shown.keys() - timed} == pytest.approx(
        {name: logged[name] for name in shown.keys() - timed}, rel=1e-3
    )
    explained = re.findall(r"^\| `(kakurenbo/\w+)` \|", page, re.MULTILINE)
    totals = [name for name in names["result"].metrics if name.startswith("kakurenbo/")]
    assert explained == [name for name in shown if name.startswith("kakurenbo/")] + totals
    assert f"{names['result'].metrics['kakurenbo/trained_samples']:,} of 15,000" in page
    assert f"| {names['result'].metrics['kakurenbo/refreshed_samples']:,} |" in page


def test_how_much_can_be_hidden_is_what_the_schedule_says(after_quickstart):
    page = DOCS / "does_it_pay.md"
    printed = re.findall(r"(\d+) epochs: ([\d.]+)%", run(blocks_of(page), after_quickstart))
    table = page.read_text(encoding="utf-8").split("| epochs | at most hidden |")[1].split("\n\n")[0]
    assert [(epochs, fraction.removesuffix(" %")) for epochs, fraction in cells(table)[1:]] == printed


def test_a_statistics_function_of_your_own_ranks(after_quickstart):
    run(blocks_of(DOCS / "howto" / "own_task.md"), after_quickstart)
    ledger = after_quickstart["regressor"].ledger
    assert int(ledger.times_hidden.max()) > 3
    assert bool((ledger.loss[ledger.hidden] < 0.1).all())


def test_without_hiding_there_is_no_ledger(after_quickstart):
    assert "None" in run(blocks_of(DOCS / "howto" / "turn_off.md"), after_quickstart).splitlines()
    assert after_quickstart["continued"].state.global_step == 2 * 47  # the plain trainer took over after one epoch


def test_a_resumed_quickstart_ends_as_it_did(after_quickstart):
    for checkpoint in Path("out").glob("checkpoint-*"):
        if int(checkpoint.name.split("-")[1]) > 200:  # of 384 updates
            shutil.rmtree(checkpoint)
    run(blocks_of(DOCS / "howto" / "resume.md"), after_quickstart)
    again, trainer = after_quickstart["again"], after_quickstart["trainer"]
    assert again.ledger.times_hidden.equal(trainer.ledger.times_hidden)
    assert again.ledger.loss.equal(trainer.ledger.loss)
