"""The figures of the page on the comparison follow from the trainings that are kept beside it."""

import re
import runpy
from pathlib import Path
from statistics import mean

import pytest

from hf_kakurenbo.compare import METHODS, TASKS

DOCS = Path(__file__).parents[2] / "docs"
README = DOCS.parent / "README.md"
FIVE = ("digits", "fdsl-cnn", "fdsl-cnn-augmented", "fdsl-vit", "text")


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


def percentage_points(fraction):
    return f"{100 * fraction:+.2f}".replace("-", "−")


def worst_to_best(tables, file, method):
    """Of the five tasks: the differences to no hiding, the lowest end of an interval, the costs."""
    records = tables["read_trainings"](DOCS / "comparison" / file)
    found = [tables["summaries"](records, [task], [method])[task] for task in FIVE]
    [*summaries] = (summary for of_task in found for summary in of_task if summary.method.name == method)
    assert len(summaries) == len(FIVE)
    differences = [summary.to_no_hiding for summary in summaries]
    means, lows = [d.mean for d in differences], [d.mean - d.half_width for d in differences]
    costs = [summary.cost for summary in summaries]
    reach = f"{percentage_points(min(means))} to {percentage_points(max(means))}"
    return reach, percentage_points(min(lows)), f"{min(costs):.2f} to {max(costs):.2f}"


@pytest.mark.parametrize(
    ("method", "in_readme", "in_tune"),
    [
        ("kakurenbo", "`kakurenbo`, the default", "the default"),
        ("kakurenbo@limit=2", "the same with a limit", "`without_refresh`"),
        ("spaced_repetition", "`spaced_repetition`", "`resting`"),
        ("kakurenbo@F=0.5+limit=2", None, "`more`"),
    ],
)
def test_what_the_readme_and_the_page_on_tuning_say_of_a_policy(tables, method, in_readme, in_tune):
    reach, low, costs = worst_to_best(tables, "trainings.csv", method)
    rows = (DOCS / "howto" / "tune.md").read_text(encoding="utf-8").splitlines()
    [row] = (line for line in rows if line.startswith(f"| {in_tune} "))
    assert [cell.strip() for cell in row.split("|")[2:5]] == [costs, reach, low]
    if in_readme is None:
        return
    fresh_reach, fresh_low, _ = worst_to_best(tables, "fresh_seeds.csv", method)
    rows = README.read_text(encoding="utf-8").splitlines()
    [row] = (line for line in rows if line.startswith(f"| {in_readme}"))
    expected = [f"{reach}; fresh {fresh_reach}", f"{low}; fresh {fresh_low}", costs]
    assert [cell.strip() for cell in row.split("|")[3:6]] == expected


def test_what_the_readme_says_of_real_images(tables):
    records = [record for record in tables["read_trainings"](tables["REAL"]) if record.task == "fashion-mnist-10k"]

    def average(method, value):
        return mean(value(record) for record in records if record.method == method)

    accuracies = {
        method: 100 * average(method, lambda record: record.accuracy) for method in {r.method for r in records}
    }
    trained = average("spaced_repetition", lambda record: 100 * record.backpropagated / record.full_samples)
    [row] = re.findall(r"^\| Fashion-MNIST.*$", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert f"trains on {trained:.0f} %" in row
    assert f"{accuracies['spaced_repetition']:.1f} %, without hiding {accuracies['no-hiding']:.1f} %" in row
    shorter = max(accuracies["shorter-0.7"], accuracies["shorter-0.7@1.4"])
    assert f"of about that cost {shorter:.1f} %" in row
    seeds = {record.seed for record in records if record.method == "no-hiding"}
    assert f"**{len(seeds)} seeds**" in row
    uncapped = "spaced_repetition@cap=1"
    [summary] = [
        each
        for each in tables["summaries"](records, ["fashion-mnist-10k"], [uncapped])["fashion-mnist-10k"]
        if each.method.name == uncapped
    ]
    trained = average(uncapped, lambda record: 100 * record.backpropagated / record.full_samples)
    assert f"trains on {trained:.0f} %, in {100 * summary.processor_time.median:.0f} % of the processor time" in row
    difference = summary.to_no_hiding
    interval = f"{100 * difference.mean:+.2f} ± {100 * difference.half_width:.2f}"
    assert f"{accuracies[uncapped]:.1f} %, a difference of {interval}" in row
