"""Tables and the figure of a comparison: what a reader sees, and that files appear whole."""

import csv
import sys
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hf_kakurenbo.compare.analysis import Difference, MethodSummary, TimeRatio
from hf_kakurenbo.compare.costs import TimeModel
from hf_kakurenbo.compare.figure import save_figure
from hf_kakurenbo.compare.methods import NO_HIDING, Method
from hf_kakurenbo.compare.records import Record
from hf_kakurenbo.compare.tables import (
    format_table,
    read_trainings,
    to_markdown,
    to_overview,
    write_csv,
    write_trainings,
)

SHORTER = Method("shorter", {"hiding_policy": "none"}, epochs=0.7, learning_rate=1.2)
BASELINE = MethodSummary(
    method=NO_HIDING,
    seeds=8,
    accuracy=0.8904,
    accuracy_std=0.0019,
    to_no_hiding=None,
    to_shorter=None,
    backpropagated=1.0,
    forward_only=0.0,
    cost=1.0,
    time_model=TimeModel(0.1, 0.9, 0.02, 0.3),
    time=TimeRatio(1.0, 1.0, 1.0),
    processor_time=TimeRatio(1.0, 1.0, 1.0),
    tuned=True,
)
HIDING = replace(
    BASELINE,
    method=Method("kakurenbo"),
    to_no_hiding=Difference(-0.0006, 0.0038, 8),
    to_shorter=Difference(0.0123, 0.0056, 8),
    backpropagated=0.843,
    forward_only=0.157,
    cost=1 / 3,
    time=TimeRatio(0.919, 0.905, 0.93),
    processor_time=TimeRatio(0.93, 0.92, 0.94),
    tuned=False,
)
CONTROL = replace(HIDING, method=SHORTER, to_shorter=None, time=TimeRatio(0.7, 0.69, 0.71), tuned=True)
SUMMARIES = [BASELINE, HIDING, CONTROL]


def test_a_table_for_the_terminal():
    title, heads, rule, baseline, hiding, control, *_ = format_table(SUMMARIES, "Fractals").splitlines()
    assert title == "Fractals (8 seeds)"
    assert heads.split("  ")[0] == "method"
    assert set(rule) == {"-"}
    assert baseline.split() == ["no-hiding°", "89.04±0.19", "–", "–", "100", "0", "1.00"]
    assert hiding.split() == ["kakurenbo", "89.04±0.19", "−0.06±0.38", "+1.23±0.56*", "84", "16", "0.92"]
    assert control.split()[0] == "shorter°"


SUMMARY = st.builds(
    replace,
    st.sampled_from(SUMMARIES),
    method=st.integers(1, 26).map(lambda length: Method("m" * length)),
    seeds=st.integers(1, 99),
    accuracy=st.floats(0, 1),
    accuracy_std=st.none() | st.floats(0, 0.0999),
    to_no_hiding=st.none() | st.builds(Difference, st.floats(-0.0999, 0.0999), st.floats(0, 0.0999), st.just(3)),
    to_shorter=st.none() | st.builds(Difference, st.floats(-0.0999, 0.0999), st.floats(0, 0.0999), st.just(3)),
    time=st.none() | st.just(TimeRatio(0.5, 0.4, 0.6)),
)


@given(st.lists(SUMMARY, max_size=5))
def test_it_fits_the_terminal_with_whole_names(summaries):
    table = format_table(summaries, "Fractals")
    assert max(map(len, table.splitlines())) <= 80
    assert all(summary.method.name in table for summary in summaries)


def test_what_does_not_fit_is_cut():
    wild = replace(HIDING, method=Method("m" * 60), to_no_hiding=Difference(-0.5, 0.123, 2))
    table = format_table([BASELINE, wild], "Fractals")
    assert max(map(len, table.splitlines())) == 80
    assert "mmm… " in table


@pytest.mark.parametrize(
    ("seeds", "text"),
    [((), "no seeds yet"), ((1,), "1 seed"), ((3, 3), "3 seeds"), ((8, 1, 5), "1 to 8 seeds")],
)
def test_how_many_seeds(seeds, text):
    summaries = [replace(HIDING, seeds=count) for count in seeds]
    assert format_table(summaries, "Fractals").startswith(f"Fractals ({text})\n")


def test_with_one_seed_there_is_no_spread():
    one = replace(HIDING, seeds=1, accuracy_std=None, to_no_hiding=None, to_shorter=None, time=None)
    assert format_table([one], "Fractals").splitlines()[3].split() == ["kakurenbo", "89.04", "–", "–", "84", "16", "–"]


@pytest.mark.parametrize("mean", [0.00004, -0.00004, 0.0, -0.0])
def test_what_is_rounded_to_nothing_has_no_sign(mean):
    assert "| 0.00 ± 0.38 |" in to_markdown([replace(HIDING, to_no_hiding=Difference(mean, 0.0038, 8))])


def test_markdown():
    heads, rule, baseline, hiding, control, empty, cost = to_markdown(SUMMARIES).splitlines()
    assert heads.count("|") == rule.count("|") == hiding.count("|")
    assert baseline.startswith("| no-hiding (**best rate**) | 8 | 89.04 ± 0.19 | – | – |")
    assert hiding == (
        "| kakurenbo | 8 | 89.04 ± 0.19 | −0.06 ± 0.38 | +1.23 ± 0.56\\* | 84.3 | 15.7 | 0.333 | 0.919 (0.905–0.930) "
        "| 0.930 |"
    )
    assert control.startswith("| shorter (**best rate**) |")
    assert not empty
    assert cost == "Cost = 0.100 + 0.900 × trained on (0.920 × if it hides) + 0.300 × forward-only."


def test_csv_has_every_figure_in_full(tmp_path):
    path = tmp_path / "summary.csv"
    path.write_text("of an earlier comparison")
    write_csv(path, {"fractals": SUMMARIES, "digits": [HIDING]})
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["task"], row["method"]) for row in rows] == [
        ("fractals", "no-hiding"),
        ("fractals", "kakurenbo"),
        ("fractals", "shorter"),
        ("digits", "kakurenbo"),
    ]
    assert float(rows[1]["cost"]) == 1 / 3
    assert float(rows[1]["to_no_hiding"]) == -0.0006
    assert float(rows[1]["time_upper_quartile"]) == 0.93
    assert rows[0]["to_no_hiding"] == ""
    assert (rows[2]["hides"], rows[2]["best_learning_rate"], rows[2]["epochs_factor"]) == ("False", "True", "0.7")
    # A figure added to the summary is to be added here too.
    assert {field.name for field in fields(MethodSummary)} - {"method", "tuned", "time_model"} <= rows[0].keys()
    assert [file.name for file in tmp_path.iterdir()] == ["summary.csv"]


# ---- The figure ----


@pytest.mark.parametrize("tasks", [1, 2, 5])
def test_a_panel_for_each_task(tmp_path, tasks):
    save_figure(tmp_path / "figure.png", {f"task {task}": SUMMARIES for task in range(tasks)})
    with Image.open(tmp_path / "figure.png") as image:
        assert image.width > 1000
    assert [file.name for file in tmp_path.iterdir()] == ["figure.png"]


def test_what_the_figure_says(tmp_path):
    save_figure(tmp_path / "figure.svg", {"fractals": SUMMARIES, "digits": [HIDING, replace(BASELINE, tuned=False)]})
    drawn = (tmp_path / "figure.svg").read_text(encoding="utf-8")
    # Text is drawn as outlines; what it says stands in comments.
    for text in (
        "fractals",
        "digits",
        "no hiding",
        "fewer epochs, best of several learning rates",
        "kakurenbo",
        "cost in time",
    ):
        assert drawn.count(f"<!-- {text}") >= 1, text
    assert drawn.count("<!-- kakurenbo -->") == 1, "one legend for all panels"


@pytest.mark.parametrize(
    "summaries",
    [
        [],
        [HIDING],
        [BASELINE, replace(HIDING, time=None, processor_time=None, to_no_hiding=None)],
        [BASELINE, replace(CONTROL, time=None, processor_time=None)],
        [BASELINE, replace(HIDING, seeds=1, to_no_hiding=None)],
    ],
    ids=["nothing", "no hiding missing", "no time", "no time of a control", "one seed"],
)
def test_an_unfinished_comparison_is_drawn(tmp_path, summaries):
    save_figure(tmp_path / "figure.png", {"fractals": summaries, "digits": SUMMARIES})
    assert (tmp_path / "figure.png").exists()
    save_figure(tmp_path / "alone.png", {"fractals": summaries})


def test_no_task_to_draw(tmp_path):
    with pytest.raises(ValueError, match=r"no task to draw in .*figure\.png; run a training"):
        save_figure(tmp_path / "figure.png", {})


@pytest.mark.parametrize("name", ["figure", "figure.txt"])
def test_an_ending_of_no_format(tmp_path, name):
    with pytest.raises(
        ValueError, match=r"ending of a format that matplotlib writes; name it, for example, figure\.png"
    ):
        save_figure(tmp_path / name, {"fractals": SUMMARIES})
    assert not list(tmp_path.iterdir())


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(RuntimeError, match=r'matplotlib.*: pip install "hf-kakurenbo\[compare\]"'):
        save_figure(tmp_path / "figure.png", {"fractals": SUMMARIES})


def test_the_trainings_are_written_and_read_line_by_line(tmp_path):
    file = tmp_path / "trainings.csv"
    records = [Record("digits", "kakurenbo", seed, 0.5 + seed / 7, 90, 10, 100, 9, 1.5, 1.25) for seed in (0, 1)]
    write_trainings(file, [replace(record, settings={"seed": 1}) for record in records])
    assert file.read_text().count("\n") == 3
    assert read_trainings(file) == records


def test_the_overview_has_a_row_for_each_method_and_a_column_for_each_task():
    known = replace(
        BASELINE,
        method=Method("known"),
        to_no_hiding=Difference(-0.004, 0.003, 8),
        cost=0.8,
    )
    against = replace(known, to_shorter=Difference(0.01, 0.02, 8))
    lines = to_overview(
        {"one": [BASELINE, known], "two": [BASELINE, against, replace(known, method=SHORTER)]}
    ).splitlines()
    assert lines[:5] == [
        "| method | one | two |",
        "| --- | ---: | ---: |",
        "| no-hiding | 89.04 ± 0.19 % | 89.04 ± 0.19 % |",
        r"| known | −0.40 ± 0.30\*; –; × 0.80 | −0.40 ± 0.30\*; +1.00 ± 2.00; × 0.80 |",
        r"| shorter | – | −0.40 ± 0.30\*; × 0.80 |",
    ]
