"""The comparison as a whole: train what is missing, then table, CSV, Markdown and figure."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..utils.files import written_beside
from .analysis import MethodSummary, summarize
from .extra import require_extra
from .figure import save_figure
from .methods import Method
from .records import Record, RecordFolder
from .runs import run
from .tables import LEGEND, MARKDOWN_LEGEND, format_table, to_markdown, to_overview, write_csv, write_trainings
from .tasks import Task

DEFAULT_TASKS = ("digits", "fdsl-cnn", "fdsl-cnn-augmented", "fdsl-vit", "text")
DEFAULT_METHODS = ("controls", "field")
DEFAULT_SEEDS = 8

QUICK_TASKS = ("digits", "fdsl-cnn")
QUICK_METHODS = ("shorter-0.7", "shorter-0.4", "kakurenbo", "spaced_repetition", "random", "infobatch")
QUICK_SEEDS = 3


@dataclass(frozen=True)
class Comparison:
    """What a comparison came to.

    Attributes:
        summaries: by the name of the task, a summary of each method.
        records: of every training.
    """

    summaries: Mapping[str, Sequence[MethodSummary]]
    records: Sequence[Record]

    def table(self) -> str:
        """For a terminal of 80 columns."""
        tables = [format_table(methods, task) for task, methods in self.summaries.items()]
        return "\n\n".join([*tables, LEGEND])

    def markdown(self) -> str:
        """The same in Markdown: a table over all tasks, then one for each under a heading."""
        tables = [f"### {task}\n\n{to_markdown(methods)}" for task, methods in self.summaries.items()]
        return "\n\n".join([to_overview(self.summaries), *tables, MARKDOWN_LEGEND])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write `comparison.csv`, `.md` and `.png`, each complete or not at all."""
        path = Path(folder)
        write_csv(path / "comparison.csv", self.summaries)
        with written_beside(path / "comparison.md") as file:
            file.write((self.markdown() + "\n").encode())
        save_figure(path / "comparison.png", self.summaries)


def compare(
    tasks: Sequence[Task],
    methods: Sequence[Method],
    seeds: Sequence[int],
    output_dir: str | os.PathLike[str],
    processes: int = 1,
    on_progress: Callable[[Record, int], None] | None = None,
) -> Comparison:
    """Train every method with every seed on every task, and write what came of it.

    What was trained before, with the same settings, is read from `output_dir/records` and not trained again: an
    interrupted comparison continues where it was, and one with more methods or seeds trains only these.

    Args:
        tasks: what to learn; see `find_tasks`.
        methods: how; see `find_methods`. Differences need `NO_HIDING` among them.
        seeds: of the weights and of the order of the samples; two or more, for a spread.
        output_dir: where the records go, the table as CSV and Markdown, the figure, and `trainings.csv`: a line for
            each training that is there, of this comparison or an earlier one.
        processes: how many seeds are worked at at once, each with one thread. With 1 all happens in this process, with
            the threads that it has; with more, a script calls this under `if __name__ == "__main__":`.
        on_progress: called with each new record, and how many trainings are left.

    Raises:
        ValueError: a task, method or seed is there twice, or none is; an option does not exist or is out of its range,
            or a record was made with other settings.
        RuntimeError: a package of the `compare` extra is not installed, a training failed, or a process was ended from
            outside.
    """
    require_extra()
    folder = RecordFolder(Path(output_dir) / "records")
    records = run(tasks, methods, seeds, folder.path, processes, on_progress)
    summaries = {task.name: summarize((r for r in records if r.task == task.name), methods) for task in tasks}
    comparison = Comparison(summaries, records)
    comparison.save(output_dir)
    write_trainings(Path(output_dir) / "trainings.csv", folder)
    return comparison
