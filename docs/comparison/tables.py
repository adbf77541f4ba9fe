"""Fills in the tables of `docs/comparison.md`, and draws its figure, from the trainings in the CSV files here.

    python docs/comparison/tables.py

A table stands between `<!-- FILE.csv: TASK ... | METHOD OR GROUP ... -->` and `<!-- end -->`: of several tasks what
each method loses and costs, of one task every figure.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path

from hf_kakurenbo.compare import Record, find_methods
from hf_kakurenbo.compare.analysis import MethodSummary, summarize
from hf_kakurenbo.compare.costs import TimeModel
from hf_kakurenbo.compare.figure import save_figure
from hf_kakurenbo.compare.methods import GROUPS
from hf_kakurenbo.compare.tables import read_trainings, to_markdown, to_overview

HERE = Path(__file__).parent
TRAININGS = HERE / "trainings.csv"
REAL = HERE / "real_tasks.csv"
PAGE = HERE.parent / "comparison.md"
FIGURE = HERE.parent / "images" / "comparison.png"
_FIRST_STUDY = (
    "no-hiding",
    "no-hiding@1.4",
    "shorter-0.85",
    "shorter-0.85@1.4",
    "shorter-0.7",
    "shorter-0.7@1.4",
    "shorter-0.55",
    "shorter-0.55@1.4",
    "kakurenbo",
    "spaced_repetition@cap=1",
    "coin",
    "random",
    "infobatch",
    "selective_backprop",
    "forgetting",
    "importance",
)
_LATER_ON_AUGMENTED = {"selective_backprop", "forgetting", "importance"}
TRAINED_IN_TURNS = {
    **dict.fromkeys(("digits", "fdsl-cnn", "fdsl-cnn-many", "fdsl-vit", "text"), _FIRST_STUDY),
    "fdsl-cnn-augmented": tuple(name for name in _FIRST_STUDY if name not in _LATER_ON_AUGMENTED),
}
"""Of the tasks on which more was trained later, the methods that were trained in turns; of the others all were."""
IN_THE_FIGURE = (
    ("digits", "fdsl-cnn", "fdsl-cnn-augmented", "fdsl-vit", "text"),
    ("controls", "kakurenbo", "spaced_repetition", "spaced_repetition@cap=1", "coin", "random", "infobatch"),
)

_BLOCK = re.compile(r"(<!-- (\w+\.csv): ([^|>]+)\|([^>]+)-->\n).*?(<!-- end -->)", re.DOTALL)


def summaries(
    records: Sequence[Record], tasks: Sequence[str], methods: Sequence[str]
) -> dict[str, list[MethodSummary]]:
    """Of each task, the methods in the order in which they are named, beside all controls."""
    wanted = {method.name for method in find_methods(methods)}
    found = {}
    for task in tasks:
        of_task = [record for record in records if record.task == task]
        everything = summarize(of_task, find_methods([*methods, *GROUPS]), time_model(task))
        found[task] = [summary for summary in everything if summary.method.name in wanted]
    return found


@functools.cache
def time_model(task: str) -> TimeModel:
    """Of a task, fitted to the methods that were trained in turns: times of later trainings do not compare."""
    of_task = [record for file in (TRAININGS, REAL) for record in read_trainings(file) if record.task == task]
    return summarize(of_task, find_methods(TRAINED_IN_TURNS.get(task, GROUPS)))[0].time_model


def filled(page: str) -> str:
    """The page with its tables computed anew."""

    def table(block: re.Match[str]) -> str:
        head, file, tasks, methods, end = block.groups()
        found = summaries(read_trainings(HERE / file), tasks.split(), methods.split())
        shown = to_overview(found) if len(found) > 1 else to_markdown(*found.values())
        return f"{head}\n{shown}\n\n{end}"

    return _BLOCK.sub(table, page)


def main() -> None:
    """Rewrite the page and the figure."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    save_figure(FIGURE, summaries(read_trainings(TRAININGS), *IN_THE_FIGURE))


if __name__ == "__main__":
    main()
