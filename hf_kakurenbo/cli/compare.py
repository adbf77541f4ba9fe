"""`hf-kakurenbo compare`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import errors_in_one_line
from .listing import show_entry
from .options import Imports, NumProc, names, require_processes, search_current_folder

if TYPE_CHECKING:
    from ..compare import Method, Record


def compare(
    task: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Tasks, with commas between them or repeated: names of --list-tasks, or package.module:attribute "
            "for one of your own.  [default: digits, fdsl-cnn, fdsl-cnn-augmented, fdsl-vit, text; quick: digits, "
            "fdsl-cnn]",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAMES",
            help="Methods, with commas between them or repeated: names or groups of --list-methods, or a .json file "
            "of your own; no-hiding is always added.  [default: controls, field; quick: shorter-0.7, shorter-0.4, "
            "kakurenbo, spaced_repetition, random, infobatch]",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N or A-B",
            help="How many, from 0, or from A to B.  [default: 8; quick: 3]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="A folder for the results, or one to continue in.")] = Path("comparison"),
    num_proc: NumProc = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few seeds, tasks and methods, unless given; takes minutes.")
    ] = False,
    list_tasks: Annotated[bool, typer.Option("--list-tasks", help="Show the tasks, and train nothing.")] = False,
    list_methods: Annotated[bool, typer.Option("--list-methods", help="Show the methods, and train nothing.")] = False,
    modules: Imports = None,
) -> None:
    """Compare methods of hiding: accuracy against time.

    Trains every method with every seed on every task, offline. Writes
    comparison.md, .png and .csv, and trainings.csv. Killed or interrupted,
    the same command continues; with more methods or seeds it trains only
    these.
    """
    # The imports take seconds, in which the command may be interrupted too.
    with errors_in_one_line("Interrupted. What was trained is kept; the same command continues."):
        if list_tasks or list_methods:
            _show(list_tasks, list_methods)
            return
        from .. import compare as machinery
        from ..compare.comparison import (
            DEFAULT_METHODS,
            DEFAULT_SEEDS,
            DEFAULT_TASKS,
            QUICK_METHODS,
            QUICK_SEEDS,
            QUICK_TASKS,
        )

        chosen_seeds = _parse_seeds(seeds) if seeds else range(QUICK_SEEDS if quick else DEFAULT_SEEDS)
        require_processes(num_proc)
        search_current_folder()  # for tasks of the user's own
        comparison = machinery.compare(
            machinery.find_tasks(names(task or (QUICK_TASKS if quick else DEFAULT_TASKS))),
            machinery.find_methods(names(method or (QUICK_METHODS if quick else DEFAULT_METHODS))),
            chosen_seeds,
            out,
            num_proc,
            _show_progress,
        )
        typer.echo(comparison.table())
        typer.echo(f"Written to {out}: comparison.md, .png, .csv, trainings.csv.")


def _parse_seeds(text: str) -> range:
    found = re.fullmatch(r"(?:(\d+)-)?(-?\d+)", text)
    if found is None:
        raise ValueError(f"--seeds {text!r} is neither a number, as 8, nor a range, as 8-15.")
    seeds = range(int(found[1]), int(found[2]) + 1) if found[1] else range(int(found[2]))
    if not seeds:
        raise ValueError(f"--seeds must be at least 1, got {text}." if not found[1] else f"--seeds {text} is empty.")
    return seeds


def _show_progress(record: Record, left: int) -> None:
    trained = f"{record.task} {record.method}, seed {record.seed}: {record.accuracy:.1%}, {record.seconds:.1f} s"
    typer.echo(f"{trained}; {left} left", err=True)


def _show(tasks: bool, methods: bool) -> None:
    from ..compare import TASKS
    from ..compare.methods import GROUPS

    if tasks:
        for task in TASKS.values():
            show_entry(task.name, task.summary)
    if methods:
        for group, members in GROUPS.items():
            typer.echo(f"\nThe group {group}:")
            for method in members:
                show_entry(method.name, _describe(method))


def _describe(method: Method) -> str:
    """What a method sets, as `--method FILE.json` would."""
    set_options = [f"{name}={value}" for name, value in method.options.items()]
    factors = [f"{name} × {getattr(method, name):g}" for name in ("epochs", "learning_rate", "batch_size")]
    factors = [text for text in factors if not text.endswith("× 1")]
    as_much_as = [f"hides as much as {method.share_of}"] if method.share_of else []
    return ", ".join([*set_options, *factors, *as_much_as])
