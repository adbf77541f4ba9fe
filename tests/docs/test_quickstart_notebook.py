"""The notebook for a first look: it runs, and what it prints adds up."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "quickstart.ipynb"
TRAIN = 1797 - 450
"""Scikit-learn has 1,797 digits, of which a quarter is kept for testing."""


def test_its_links_lead_somewhere():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    prose = "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\((?!https?://)([^)#]+)", prose)
    assert len(links) >= 5
    assert [link for link in links if not (NOTEBOOK.parent / link).is_file()] == []


@pytest.mark.wide
def test_it_runs_and_what_it_prints_adds_up(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=None, resources={"metadata": {"path": tmp_path}}).execute()
    printed = {
        cell["id"]: "".join(output["text"] for output in cell.get("outputs", ()) if output.get("name") == "stdout")
        for cell in notebook.cells
        if cell["cell_type"] == "code"
    }
    rows = [line.split() for line in printed["log"].splitlines()[1:]]
    hidden = [int(candidates) - int(moved) for _, candidates, moved, _, _ in rows]
    assert hidden[0] == 0 < hidden[1] <= 0.3 * TRAIN
    for count, (_, _, _, fraction, scale) in zip(hidden, rows, strict=True):
        assert fraction == f"{count / TRAIN:.1%}"
        assert scale == f"{1 / (1 - count / TRAIN):.2f}"
    assert printed["ledger"].startswith(f"{TRAIN} samples, {hidden[-1]} hidden in the last epoch\n")
    [hiding, plain] = [line.split()[-3:] for line in printed["compare"].splitlines()[1:]]
    # Those that the last epoch hid are not refreshed: nobody would read what is measured.
    assert hiding[:2] == [f"{len(rows) * TRAIN - sum(hidden):,}", f"{sum(hidden[:-1]):,}"]
    assert plain[:2] == [f"{len(rows) * TRAIN:,}", "0"]
    assert all(float(accuracy.rstrip("%")) > 90 for *_, accuracy in (hiding, plain))
    pictures = next(cell for cell in notebook.cells if cell["id"] == "pictures")
    assert any("image/png" in output.get("data", {}) for output in pictures["outputs"])
