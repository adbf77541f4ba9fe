"""Methods × seeds on tasks: what is still to be done is done, on one or several processes."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import sys
import tempfile
import traceback
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import cast

import torch
import transformers

from .methods import Method
from .records import Record, RecordFolder
from .tasks import Task
from .training import make_arguments, settings_of, train

_Trained = tuple[Record, bool]
"""A record, and whether it is new."""


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
        ValueError: a method, task or seed is there twice, or none is; an option does not exist or is out of its range,
            or a record was made with other settings.
        RuntimeError: in a process of its own, a training failed, or the process was ended from outside.
    """
    _check(tasks, methods, seeds, processes)
    work = [_Seed(task, methods, seed, folder) for seed in seeds for task in tasks]
    left = sum(map(_count_missing, work))
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    with closing(_in_processes(work, processes) if processes > 1 else _in_turn(work)) as trained:
        for record, is_new in trained:
            records.append(record)
            left -= is_new
            if is_new and on_progress is not None:
                on_progress(record, left)
    return records


def _count_missing(work: _Seed) -> int:
    """How many trainings of a seed are still to be done; raises for a record made with other settings."""
    folder = RecordFolder(work.folder)
    missing = 0
    for method in work.methods:
        where = (work.task.name, method.name, work.seed)
        if method.share_of is not None:
            missing += not folder.has(*where)  # its settings are known only when the other one is trained
        else:
            missing += folder.find(*where, settings_of(work.task, method)) is None
    return missing


def _in_turn(work: Sequence[_Seed]) -> Generator[_Trained, None, None]:
    for seed in work:
        yield from _trainings(seed)


# ---- Processes ----


@dataclass(frozen=True)
class _Failure:
    """What a process sends of an error: its text, since not every exception travels."""

    message: str
    trace: str


def _in_processes(work: Sequence[_Seed], processes: int) -> Generator[_Trained, None, None]:
    waiting = deque(work)
    with _workers(min(processes, len(work))) as pipes:
        busy: dict[Connection, _Seed] = {}
        for pipe in pipes:
            busy[pipe] = waiting.popleft()
            pipe.send(busy[pipe])
        while busy:
            for pipe in cast(list[Connection], wait(list(busy))):
                answer = _receive(pipe, busy[pipe])
                if answer is not None:
                    yield answer
                elif waiting:
                    busy[pipe] = waiting.popleft()
                    pipe.send(busy[pipe])
                else:
                    del busy[pipe]


def _receive(pipe: Connection, seed: _Seed) -> _Trained | None:
    """A training that a process did, or None at the end of the seed."""
    doing = f"{seed.task.name}, seed {seed.seed}"
    try:
        answer = pipe.recv()
    except (EOFError, ConnectionError) as error:
        raise RuntimeError(
            f"The process of {doing}, was ended from outside, perhaps for want of memory. What was trained is kept: "
            "run the same again, with fewer processes, and it goes on."
        ) from error
    if isinstance(answer, _Failure):
        raise RuntimeError(f"{doing}: {answer.message}") from RuntimeError(f"\n{answer.trace}")
    return answer


@contextmanager
def _workers(count: int) -> Iterator[list[Connection]]:
    """Pipes to processes that train the seeds that are sent to them; the processes are ended with the block."""
    context = multiprocessing.get_context("spawn")
    started = []
    pipes = []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), daemon=True)
            with theirs, _interrupts_kept_from_children():
                process.start()
                started.append(process)
            pipes.append(ours)
        yield pipes
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.join()
        for pipe in pipes:
            pipe.close()


@contextmanager
def _interrupts_kept_from_children() -> Iterator[None]:
    """Of Ctrl-C, which a terminal sends to all its processes, those started here see nothing: the parent ends them."""
    resource_tracker.ensure_running()  # else it is started meanwhile, which lets the interrupt through again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _work(pipe: Connection) -> None:
    # As an exception, so that what is half written is removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    with suppress(ConnectionError):  # nobody waits any more
        while True:
            for answer in _answers(pipe):
                pipe.send(answer)


def _answers(pipe: Connection) -> Iterator[_Trained | _Failure | None]:
    """What is sent back for a seed: each training, and None at the end, or what went wrong."""
    try:
        yield from _trainings(pipe.recv())
        yield None
    except Exception as error:
        yield _Failure(f"{type(error).__name__}: {error}", traceback.format_exc())


# ---- One seed ----


def _trainings(work: _Seed) -> Iterator[_Trained]:
    """The records of a seed's methods, and whether each is new, in the order in which they were trained."""
    folder = RecordFolder(work.folder)
    by_name = {method.name: method for method in work.methods}
    found: dict[str, Record] = {}
    for method in _in_order(work):
        share = None
        if method.share_of is not None:
            other = found[method.share_of]
            share = 1 - other.backpropagated / (other.full_samples * by_name[method.share_of].epochs)
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


# ---- What can be found out before the first training ----


def _check(tasks: Sequence[Task], methods: Sequence[Method], seeds: Sequence[int], processes: int) -> None:
    if processes < 1:
        raise ValueError(f"processes must be at least 1, got {processes}.")
    _require_distinct("task", [task.name for task in tasks])
    _require_distinct("method", [method.name for method in methods])
    _require_distinct("seed", seeds)
    if min(seeds) < 0:
        raise ValueError(f"A seed must be 0 or more, got {min(seeds)}.")
    _check_shares(methods)
    with tempfile.TemporaryDirectory() as folder:
        for task in tasks:
            for method in methods:
                _check_settings(task, method, folder)


def _require_distinct(kind: str, given: Sequence[Hashable]) -> None:
    if not given:
        raise ValueError(f"There is no {kind} to compare with: give at least one.")
    for each in given:
        count = given.count(each)
        if count > 1:
            raise ValueError(f"The {kind} {each!r} is there {count} times: give it once.")


def _check_shares(methods: Sequence[Method]) -> None:
    by_name = {method.name: method for method in methods}
    for method in methods:
        if method.share_of is None:
            continue
        if method.share_of not in by_name:
            raise ValueError(
                f"{method.name!r} hides as much as {method.share_of!r}, which is not among the methods: add it."
            )
        if by_name[method.share_of].share_of is not None:
            raise ValueError(
                f"{method.name!r} hides as much as {method.share_of!r}, which itself hides as much as another: name "
                "that one."
            )


def _check_settings(task: Task, method: Method, folder: str) -> None:
    try:
        settings = settings_of(task, method, None if method.share_of is None else 0.1)
        make_arguments(settings, 0, folder)
        json.dumps(settings)  # as the record will hold them
    except (TypeError, ValueError) as error:
        raise ValueError(f"The method {method.name!r} on the task {task.name!r}: {error}") from error
