"""The figures of a comparison as tables: for a terminal, in Markdown, and as CSV."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import get_type_hints

from ..utils.files import written_beside
from .analysis import Difference, MethodSummary, TimeRatio
from .methods import NO_HIDING
from .records import Record

TERMINAL_WIDTH = 80

_NONE = "–"
_TUNED = "°"
_STAR = "\\*"

_HEADS = ("method", "accuracy", "Δ no hiding", "Δ shorter", "bp%", "fw%", "time")
LEGEND = f"""\
accuracy: % ± standard deviation over the seeds. Δ: difference in percentage points, paired
by seed, ± 95 % interval (* 0 is outside), to no hiding, and to training shorter
at the same cost with the best learning rate tried ({_TUNED} the controls with it).
bp%, fw%: samples trained on, forward-only. time: wall time / no hiding's."""
"""What the figures of `format_table` mean."""

_MARKDOWN_HEADS = (
    "method",
    "seeds",
    "accuracy, %",
    "to no hiding, points",
    "to shorter training at the same cost, points",
    "trained on, %",
    "forward-only, %",
    "cost",
    "time (quartiles)",
    "processor time",
)
MARKDOWN_LEGEND = (
    "Accuracy: mean ± standard deviation over the seeds. Differences: paired by seed, mean ± half of the 95 % "
    "confidence interval (Student's t, over the seeds, on one validation set, not corrected for the number of "
    "intervals); \\* where 0 lies outside it. No hiding: with the task's own learning rate. Shorter training: on "
    "everything, with the best of the learning rates tried for its length, marked **best rate**, interpolated to the "
    "method's cost. Cost: the time that samples trained on and samples of forward-only passes come to, fitted to the "
    "processor's times, a full training being 1. Time: wall time by that of no hiding of the same seed, median. "
    "Processor time: likewise."
)
"""What the figures of `to_markdown` mean."""

_OVERVIEW_LEGEND = (
    "In a cell: accuracy of no hiding; for the others the difference to it in percentage points, paired by seed, ± "
    "half of the 95 % confidence interval (\\* where 0 lies outside); for methods that hide, the same to shorter "
    "training at the same cost; × the cost, no hiding's being 1."
)

_CSV_HEADS = (
    "task",
    "method",
    "hides",
    "epochs_factor",
    "learning_rate_factor",
    "best_learning_rate",
    "seeds",
    "accuracy",
    "accuracy_std",
    "to_no_hiding",
    "to_no_hiding_half_width",
    "to_no_hiding_seeds",
    "to_shorter",
    "to_shorter_half_width",
    "to_shorter_seeds",
    "backpropagated",
    "forward_only",
    "cost",
    "cost_fixed",
    "cost_step",
    "cost_recording",
    "cost_forward",
    "time",
    "time_lower_quartile",
    "time_upper_quartile",
    "processor_time",
    "processor_time_lower_quartile",
    "processor_time_upper_quartile",
)


_TRAINING_HEADS = tuple(field.name for field in fields(Record) if field.name != "settings")


def format_table(summaries: Sequence[MethodSummary], title: str) -> str:
    """A table for a terminal of 80 columns; the names of methods are shortened where they do not fit.

    Args:
        summaries: of one task.
        title: its first line; the number of seeds is added.
    """
    rows = [_HEADS, *(_terminal_cells(summary) for summary in summaries)]
    figure_widths = [max(len(row[column]) for row in rows) for column in range(1, len(_HEADS))]
    name_width = max(len(row[0]) for row in rows)
    # Two spaces between columns are read more easily; with a long name, one is left.
    gap = 2 if name_width + sum(figure_widths) + 2 * len(figure_widths) <= TERMINAL_WIDTH else 1
    name_width = min(name_width, TERMINAL_WIDTH - sum(figure_widths) - gap * len(figure_widths))
    lines = [
        (" " * gap).join(
            [_shortened(row[0], name_width).ljust(name_width)]
            + [cell.rjust(width) for cell, width in zip(row[1:], figure_widths, strict=True)]
        )
        for row in rows
    ]
    rule = "-" * len(lines[0])
    return "\n".join([f"{title} ({_seeds(summaries)})", lines[0], rule, *lines[1:], rule])


def to_markdown(summaries: Sequence[MethodSummary]) -> str:
    """A Markdown table with the task's costs below it.

    Args:
        summaries: of one task; at least one.
    """
    rows = [
        _MARKDOWN_HEADS,
        ("---", *["---:"] * (len(_MARKDOWN_HEADS) - 1)),
        *(_markdown_cells(summary) for summary in summaries),
    ]
    return f"{_markdown_table(rows)}\n\nCost = {summaries[0].time_model}."


def to_overview(tasks: Mapping[str, Sequence[MethodSummary]]) -> str:
    """A Markdown table of every method over all tasks: what it loses or gains, and in which time.

    A cell has the difference to no hiding in points, for methods that hide the difference to shorter training at the
    same cost, and the cost; that of no hiding its accuracy.

    Args:
        tasks: summaries by the task's name.
    """
    by_method: dict[str, dict[str, MethodSummary]] = {}
    for task, summaries in tasks.items():
        for summary in summaries:
            by_method.setdefault(summary.method.name, {})[task] = summary
    rows = [("method", *tasks), ("---", *["---:"] * len(tasks))]
    rows += [(name, *(_overview_cell(found.get(task)) for task in tasks)) for name, found in by_method.items()]
    return f"{_markdown_table(rows)}\n\n{_OVERVIEW_LEGEND}"


def _markdown_table(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _overview_cell(summary: MethodSummary | None) -> str:
    if summary is None:
        return _NONE
    if summary.method.name == NO_HIDING.name:
        return f"{_accuracy(summary, ' ± ')} %"
    cell = _points(summary.to_no_hiding, " ± ", _STAR)
    if summary.method.hides:
        cell += f"; {_points(summary.to_shorter, ' ± ', _STAR)}"
    return f"{cell}; × {summary.cost:.2f}"


def write_csv(path: str | os.PathLike[str], tasks: Mapping[str, Iterable[MethodSummary]]) -> None:
    """Every figure at full precision, a line for each method of each task; what there is none of is empty.

    Args:
        path: the file; it appears whole, in place of what is there.
        tasks: summaries by the task's name.
    """
    rows = [(task, *_csv_cells(summary)) for task, summaries in tasks.items() for summary in summaries]
    _write_rows(path, [_CSV_HEADS, *rows])


def write_trainings(path: str | os.PathLike[str], records: Iterable[Record]) -> None:
    """What each training came to, a line for each, without its settings.

    Args:
        path: the file; it appears whole, in place of what is there.
        records: of any tasks.
    """
    _write_rows(path, [_TRAINING_HEADS, *([getattr(record, name) for name in _TRAINING_HEADS] for record in records)])


def read_trainings(path: str | os.PathLike[str]) -> list[Record]:
    """The records that `write_trainings` wrote, without their settings."""
    types = get_type_hints(Record)
    with Path(path).open(newline="", encoding="utf-8") as file:
        return [Record(**{name: types[name](text) for name, text in row.items()}) for row in csv.DictReader(file)]


def _write_rows(path: str | os.PathLike[str], rows: Iterable[Iterable[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    with written_beside(Path(path)) as stream:
        stream.write(text.getvalue().encode())


def _terminal_cells(summary: MethodSummary) -> tuple[str, ...]:
    return (
        summary.method.name + (_TUNED if summary.tuned else ""),
        _accuracy(summary, "±"),
        _points(summary.to_no_hiding, "±", "*"),
        _points(summary.to_shorter, "±", "*"),
        f"{100 * summary.backpropagated:.0f}",
        f"{100 * summary.forward_only:.0f}",
        _NONE if summary.time is None else f"{summary.time.median:.2f}",
    )


def _markdown_cells(summary: MethodSummary) -> tuple[str, ...]:
    return (
        summary.method.name + (" (**best rate**)" if summary.tuned else ""),
        str(summary.seeds),
        _accuracy(summary, " ± "),
        _points(summary.to_no_hiding, " ± ", _STAR),
        _points(summary.to_shorter, " ± ", _STAR),
        f"{100 * summary.backpropagated:.1f}",
        f"{100 * summary.forward_only:.1f}",
        f"{summary.cost:.3f}",
        _quartiles(summary.time),
        _NONE if summary.processor_time is None else f"{summary.processor_time.median:.3f}",
    )


def _csv_cells(summary: MethodSummary) -> tuple[object, ...]:
    return (
        summary.method.name,
        summary.method.hides,
        summary.method.epochs,
        summary.method.learning_rate,
        summary.tuned,
        summary.seeds,
        summary.accuracy,
        summary.accuracy_std,
        *_difference_figures(summary.to_no_hiding),
        *_difference_figures(summary.to_shorter),
        summary.backpropagated,
        summary.forward_only,
        summary.cost,
        *astuple(summary.time_model),
        *_time_figures(summary.time),
        *_time_figures(summary.processor_time),
    )


def _difference_figures(difference: Difference | None) -> tuple[float | None, float | None, int]:
    return (difference.mean, difference.half_width, difference.seeds) if difference else (None, None, 0)


def _time_figures(time: TimeRatio | None) -> tuple[float | None, float | None, float | None]:
    return (time.median, time.lower_quartile, time.upper_quartile) if time else (None, None, None)


def _accuracy(summary: MethodSummary, plus_minus: str) -> str:
    std = "" if summary.accuracy_std is None else f"{plus_minus}{100 * summary.accuracy_std:.2f}"
    return f"{100 * summary.accuracy:.2f}{std}"


def _points(difference: Difference | None, plus_minus: str, mark: str) -> str:
    if difference is None:
        return _NONE
    mean = round(100 * difference.mean, 2)  # what is rounded to 0 gets no sign
    figure = "0.00" if mean == 0 else f"{mean:+.2f}".replace("-", "−")
    return f"{figure}{plus_minus}{100 * difference.half_width:.2f}{mark if difference.excludes_zero else ''}"


def _quartiles(time: TimeRatio | None) -> str:
    return _NONE if time is None else f"{time.median:.3f} ({time.lower_quartile:.3f}–{time.upper_quartile:.3f})"


def _shortened(name: str, width: int) -> str:
    return name if len(name) <= width else f"{name[: width - 1]}…"


def _seeds(summaries: Sequence[MethodSummary]) -> str:
    counts = sorted({summary.seeds for summary in summaries})
    if not counts:
        return "no seeds yet"
    if counts == [1]:
        return "1 seed"
    return f"{counts[0]} seeds" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"
