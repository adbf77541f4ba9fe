"""Methods × seeds on tasks: what is still to be done is done, on one or several processes."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import random
import signal
import sys
import tempfile
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from pathlib import Path
from typing import Any, cast

import torch
import transformers

from ..config import NO_HIDING
from ..hiding.policies import HidingPolicy, find_policy
from ..utils.processes import end_with_parent
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
    policies: Sequence[type[HidingPolicy]] = ()
    """Of the methods: a process that is sent a class imports its module, which registers it there."""

    @property
    def title(self) -> str:
        """What messages call it."""
        return f"{self.task.name}, seed {self.seed}"


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
    machine down for a while slows every method alike.

    Args:
        tasks: what to learn.
        methods: how; `share_of` names one of them.
        seeds: what to draw weights and orders from.
        folder: where the records are, and go.
        processes: how many seeds are worked at at once, each with one thread; 1 works in this process, with the threads
            that it has.
        on_progress: called with each new record, and how many trainings are left.

    Raises:
        ValueError: a method, task or seed is there twice, or none is; an option does not exist or is out of its range;
            a record was made with other settings; or a task cannot be sent to a process.
        RuntimeError: a training failed, or the process that did it was ended from outside.
    """
    _check(tasks, methods, seeds, processes)
    policies = _policies_of(methods)
    work = [_Seed(task, methods, seed, folder, policies) for seed in seeds for task in tasks]
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


def _policies_of(methods: Sequence[Method]) -> list[type[HidingPolicy]]:
    names = {method.options["hiding_policy"] for method in methods if "hiding_policy" in method.options}
    return [find_policy(name) for name in sorted(names - {NO_HIDING})]


def _count_missing(work: _Seed) -> int:
    """How many trainings of a seed are still to be done; raises for a record made with other settings."""
    folder = RecordFolder(work.folder)
    found: dict[str, Record] = {}
    missing = 0
    for method in _in_order(work):
        where = (work.task.name, method.name, work.seed)
        if method.share_of is not None and method.share_of not in found:
            missing += not folder.has(*where)  # its settings are known only when the other one is trained
            continue
        record = folder.find(*where, _settings(work, method, found))
        if record is None:
            missing += 1
        else:
            found[method.name] = record
    return missing


def _in_turn(work: Sequence[_Seed]) -> Generator[_Trained, None, None]:
    for seed in work:
        try:
            yield from _trainings(seed)
        except _TrainingError as error:
            raise RuntimeError(f"{seed.title}: {error}") from error.__cause__


# ---- Processes ----

_TERMINATED = 128 + signal.SIGTERM
"""The exit code of a worker that was asked to end."""

_PATIENCE = 10.0
"""Seconds that a worker is given to end."""


@dataclass(frozen=True)
class _Failure:
    """What a process sends of an error: its text, since not every exception travels."""

    message: str
    trace: str


def _in_processes(work: Sequence[_Seed], processes: int) -> Generator[_Trained, None, None]:
    waiting = deque(work)
    with _workers(min(processes, len(work))) as workers:
        for worker in workers:
            worker.begin(waiting.popleft())
        busy = {worker.pipe: worker for worker in workers}
        while busy:
            for pipe in cast(list[Connection], wait(list(busy))):
                answer = busy[pipe].receive()
                if answer is not None:
                    yield answer
                elif waiting:
                    busy[pipe].begin(waiting.popleft())
                else:
                    del busy[pipe]


class _Worker:
    """A process that trains the seeds that it is given, one at a time."""

    def __init__(self, context: SpawnContext) -> None:
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        with theirs:
            self.process.start()

    def begin(self, seed: _Seed) -> None:
        """Give it a seed."""
        self._seed = seed
        try:
            self.pipe.send(seed)
        except ConnectionError as error:
            raise self._ended() from error

    def receive(self) -> _Trained | None:
        """A training that it did, or None at the end of the seed."""
        try:
            answer = self.pipe.recv()
        except (EOFError, ConnectionError) as error:
            raise self._ended() from error
        if isinstance(answer, _Failure):
            raise RuntimeError(f"{self._seed.title}: {answer.message}") from RuntimeError(f"\n{answer.trace}")
        return cast(_Trained | None, answer)

    def _ended(self) -> RuntimeError:
        self.process.join(_PATIENCE)
        return RuntimeError(f"The process of {self._seed.title}, {_explain_exit(self.process.exitcode)}")


def _explain_exit(code: int | None) -> str:
    if code is not None and (code < 0 or code == _TERMINATED):
        return (
            f"was ended from outside (exit code {code}), perhaps for want of memory. What was trained is kept: run the "
            "same again, with fewer processes, and it continues."
        )
    return (
        f"ended by itself (exit code {code}): its error stands above. What was trained is kept. A script calls this "
        'under `if __name__ == "__main__":`, since each process imports it.'
    )


@contextmanager
def _workers(count: int) -> Iterator[list[_Worker]]:
    """So many workers, which are ended with the block."""
    context = multiprocessing.get_context("spawn")
    workers: list[_Worker] = []
    try:
        for _ in range(count):
            with _interrupts_kept_from_children():
                workers.append(_Worker(context))
        yield workers
    finally:
        for worker in workers:
            worker.process.terminate()
        for worker in workers:
            worker.process.join(_PATIENCE)
            worker.process.kill()
            worker.process.join()
            worker.pipe.close()


@contextmanager
def _interrupts_kept_from_children() -> Iterator[None]:
    """Of Ctrl-C, which a terminal sends to all its processes, those started here see nothing: the parent ends them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows, where a worker ignores it from its first line on
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    resource_tracker.ensure_running()  # else it is started meanwhile, which lets the interrupt through again
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # As an exception, so that what is half written is removed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(_TERMINATED))
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    transformers.utils.logging.set_verbosity_error()
    known: dict[str, Task] = {}
    with suppress(ConnectionError):  # nobody waits any more
        while True:
            for answer in _answers(pipe, known):
                pipe.send(answer)


def _answers(pipe: Connection, known: dict[str, Task]) -> Iterator[_Trained | _Failure | None]:
    """What is sent back for a seed: each training, and None at the end, or what went wrong.

    Args:
        pipe: brings the seed.
        known: the tasks by name, as they came first: what a task keeps in a cache by its functions, it would not find
            by the equal ones that come with every seed.
    """
    try:
        seed: _Seed = pipe.recv()
        yield from _trainings(replace(seed, task=known.setdefault(seed.task.name, seed.task)))
        yield None
    except _TrainingError as error:
        yield _Failure(str(error), traceback.format_exc())
    except Exception as error:
        yield _Failure(_describe(error), traceback.format_exc())


# ---- One seed ----


class _TrainingError(Exception):
    """A training failed, of which the cause says why: names the method."""


def _trainings(work: _Seed) -> Iterator[_Trained]:
    """The records of a seed's methods, and whether each is new, in the order in which they were trained."""
    folder = RecordFolder(work.folder)
    found: dict[str, Record] = {}
    for method in _in_order(work):
        settings = _settings(work, method, found)
        record = folder.find(work.task.name, method.name, work.seed, settings)
        is_new = record is None
        if record is None:
            record = _train(work, method, settings)
            folder.add(record)
        found[method.name] = record
        yield record, is_new


def _train(work: _Seed, method: Method, settings: Mapping[str, Any]) -> Record:
    try:
        return train(work.task, method, work.seed, settings)
    except Exception as error:  # whatever a task of one's own may raise
        raise _TrainingError(f"{method.name}: {_describe(error)}") from error


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _settings(work: _Seed, method: Method, found: Mapping[str, Record]) -> dict[str, Any]:
    """Those of a method, given the record of the one of which it has its fraction, if it has it of one."""
    if method.share_of is None:
        return settings_of(work.task, method)
    other = found[method.share_of]
    [epochs] = [each.epochs for each in work.methods if each.name == method.share_of]
    return settings_of(work.task, method, 1 - other.backpropagated / (other.full_samples * epochs))


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
    if processes > 1:
        for task in tasks:
            _require_sendable(f"load and make_model of the task {task.name!r}", task)
        for policy in _policies_of(methods):
            _require_sendable(f"the policy {policy.__qualname__}", policy)


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


def _require_sendable(what: str, sent: object) -> None:
    try:
        pickle.dumps(sent)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"With several processes, {what} must be at the top level of a module, or a functools.partial of what is, "
            f"so that each process can import it ({error})."
        ) from error
