"""The figures of the page on the comparison follow from the trainings that are kept beside it."""

import runpy
from pathlib import Path

import pytest

from hf_kakurenbo.compare import METHODS, TASKS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def tables():
    return runpy.run_path(str(DOCS / "comparison" / "tables.py"))


def test_every_table_of_the_page_is_what_its_trainings_give(tables):
    page = (DOCS / "comparison.md").read_text(encoding="utf-8")
    assert page.count(".csv: ") == page.count("<!-- end -->") > 0
    assert tables["filled"](page) == page


def test_the_trainings_are_of_methods_and_tasks_that_there_are(tables):
    records = tables["read_trainings"](tables["TRAININGS"])
    assert {record.method for record in records} <= METHODS.keys()
    assert {record.task for record in records} <= TASKS.keys()


def test_a_claim_rests_on_eight_seeds(tables):
    for task, methods in tables["summaries"](
        tables["read_trainings"](tables["TRAININGS"]), *tables["IN_THE_FIGURE"]
    ).items():
        assert {summary.seeds for summary in methods} == {8}, task
