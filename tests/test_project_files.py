"""What stands beside the code says the same as the code, and as each other."""

import re
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from hf_kakurenbo import __version__

tomllib = pytest.importorskip("tomllib", reason="in Python since 3.11")

ROOT = Path(__file__).parents[1]
WORKFLOWS = ROOT / ".github" / "workflows"


def read_yaml(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_citation_is_of_this_release_and_of_both_papers():
    citation = read_yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == __version__
    assert [paper["url"].rpartition("/")[2] for paper in citation["references"]] == ["2310.10102", "2206.09132"]
    for described in (citation, *citation["references"]):
        assert {"title", "authors", "type"} <= set(described)


def test_the_pythons_that_are_promised_are_tested(project):
    named = [c.rpartition(" ")[2] for c in project["classifiers"] if re.search(r"Python :: 3\.\d+$", c)]
    assert all(SpecifierSet(project["requires-python"]).contains(python) for python in named)
    assert not SpecifierSet(project["requires-python"]).contains("3.9")
    for workflow, job in (("ci", "test"), ("release", "use")):
        matrix = read_yaml(f".github/workflows/{workflow}.yml")["jobs"][job]["strategy"]["matrix"]["python"]
        assert matrix == [named[0], named[-1]]


def test_the_workflow_runs_what_a_contributor_runs():
    steps = read_yaml(".github/workflows/ci.yml")["jobs"]["test"]["steps"]
    [command] = [step["run"] for step in steps if "run" in step]
    assert command == "bash .ci/run"
    assert "bash .ci/run" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_file_names_one_address(project):
    """So that the day the project moves, one name is replaced everywhere."""
    home = project["urls"]["Homepage"]
    files = [*ROOT.glob("*.md"), ROOT / "CITATION.cff", *(ROOT / ".github").rglob("*.*ml")]
    own = re.compile(r"https://github\.com/[\w-]*kakurenbo[\w-]*/[\w-]+")
    found = {address for file in files for address in own.findall(file.read_text(encoding="utf-8"))}
    assert found == {home}
    assert all(address.startswith(home) for address in project["urls"].values())


@pytest.mark.parametrize("form", ["bug", "idea"])
def test_a_form_asks(form):
    asked = read_yaml(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert {"name", "description", "body"} <= set(asked)
    ids = [part["id"] for part in asked["body"]]
    assert len(set(ids)) == len(ids)
    assert all(part["attributes"]["label"] for part in asked["body"])
