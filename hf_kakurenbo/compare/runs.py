"""Methods × seeds on tasks: what is still to be done is done, on one or several processes."""

from __future__ import annotations

import multiprocessing
import random
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from .methods import Method
from .records import Record, RecordFolder
from .tasks import Task
from .training import make_arguments, settings_of, train


@dataclass(frozen=True)
class _Seed:
    """The trainings of one seed of a task, which one process does one after the other, so that times compare."""

    task: Task
    methods: Sequence[Method]
    seed: int
    folder: Path


def run(
    tasks: Sequence[Task],
    methods: Sequence[Method],
    seeds: Sequence[int],
    folder: Path,
    processes: int = 1,
    on_progress: Callable[[Record, int], None] | None = None,
) -> list[Record]:
    """Train every method with every seed on every task, but for what the folder has already.

    Of a seed, one process trains all methods one after the other, in an order of the seed's own: whatever slows the
    machine down for a while meets every method alike.

    Args:
        tasks: what to learn.
        methods: how; `share_of` names one of them.
        seeds: what to draw weights and orders from.
        folder: where the records are, and go.
        processes: how many seeds are worked at at once, each with one thread; 1 works in this process, with the threads
            that it has.
        on_progress: called with each new record, and how many trainings are left.

    Raises:
        ValueError: a method or task is there twice, an option does not exist or is out of its range, or a record was
            made with other settings.
    """
    _check(tasks, methods)
    work = [_Seed(task, methods, seed, folder) for seed in seeds for task in tasks]
    left = len(work) * len(methods)
    records = []
    for record, is_new in _in_processes(work, processes) if processes > 1 else _in_turn(work):
        records.append(record)
        left -= 1
        if is_new and on_progress is not None:
            on_progress(record, left)
    return records


def _in_turn(work: Sequence[_Seed]) -> Iterator[tuple[Record, bool]]:
    for seed in work:
        yield from _trainings(seed)


def _in_processes(work: Sequence[_Seed], processes: int) -> Iterator[tuple[Record, bool]]:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        done = manager.Queue()
        with context.Pool(min(processes, len(work)), initializer=_begin_process) as pool:
            pending = [pool.apply_async(_report_trainings, (seed, done)) for seed in work]
            for _ in work:
                while (item := done.get()) is not None:
                    yield item
            for result in pending:
                result.get()


def _begin_process() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the process that waits for this one, which ends it
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()


def _report_trainings(seed: _Seed, done: Any) -> None:
    try:
        for item in _trainings(seed):
            done.put(item)
    finally:
        done.put(None)


def _trainings(work: _Seed) -> Iterator[tuple[Record, bool]]:
    """The records of a seed's methods, and whether each is new, in the order in which they were trained."""
    folder = RecordFolder(work.folder)
    found: dict[str, Record] = {}
    for method in _in_order(work):
        share = None
        if method.share_of is not None:
            other = found[method.share_of]
            share = 1 - other.backpropagated / other.full_samples
        settings = settings_of(work.task, method, share)
        record = folder.find(work.task.name, method.name, work.seed, settings)
        is_new = record is None
        if record is None:
            record = train(work.task, method, work.seed, settings)
            folder.add(record)
        found[method.name] = record
        yield record, is_new


def _in_order(work: _Seed) -> list[Method]:
    """Shuffled by task and seed; behind them those that wait for another."""
    shuffled = list(work.methods)
    random.Random(f"{work.task.name} {work.seed}").shuffle(shuffled)
    return sorted(shuffled, key=lambda method: method.share_of is not None)


def _check(tasks: Sequence[Task], methods: Sequence[Method]) -> None:
    for kind, named in (("task", tasks), ("method", methods)):
        names = [each.name for each in named]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"The {kind} {twice[0]!r} is there {names.count(twice[0])} times: names must differ.")
    by_name = {method.name: method for method in methods}
    for method in methods:
        if method.share_of is not None and method.share_of not in by_name:
            raise ValueError(
                f"{method.name!r} hides as much as {method.share_of!r}, which is not among the methods: add it."
            )
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks:
            for method in methods:
                try:
                    make_arguments(settings_of(task, method, None if method.share_of is None else 0.1), 0, folder)
                except (TypeError, ValueError) as error:
                    raise ValueError(f"The method {method.name!r} on the task {task.name!r}: {error}") from error
