"""A dataset written to disk: by many processes and machines, resumable, never a half file under its final name.

The images are cut into parts of consecutive sample ids. A part is the unit of work: it is one file of the formats
that pack images, and shard i of n does the parts i, i + n, i + 2n, …, so machines share a job without a word to one
another. What is done is seen from the files that are there.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from ...utils.files import full_disk_explained
from ...utils.processes import end_with_parent
from ..loading.dataset import FDSLDataset
from .formats import FORMATS, Part
from .jobs import WORKPLACE, claim_folder, describe_job

IMAGES_PER_FILE = 1000
"""How many images a part has, unless said otherwise."""

_WAY_ON = "What is written there is complete: make room, run the same again, and it continues"


@dataclass(frozen=True)
class _Work:
    """What a process needs to know to do parts."""

    dataset: FDSLDataset
    folder: Path
    storage: str
    images_per_file: int

    def part(self, number: int) -> Part:
        start = number * self.images_per_file
        stop = min(start + self.images_per_file, len(self.dataset))
        return Part(number, range(start, stop), self.folder / self.dataset.split, self.folder / WORKPLACE)


def render(
    dataset: FDSLDataset,
    folder: str | os.PathLike[str],
    format: str = "imagefolder",  # noqa: A002 (the word of the field)
    shard: tuple[int, int] = (0, 1),
    num_proc: int = 1,
    images_per_file: int = IMAGES_PER_FILE,
    progress: bool = True,
) -> int:
    """Write the images of a dataset into a folder, from which `datasets.load_dataset(folder)` reads them.

    Killed anywhere, it continues when called again with the same arguments, and what it leaves is, byte for byte, what
    it would have left otherwise. Called again when all is done it does nothing.

    Args:
        dataset: what `load_fdsl` returns, without `transform` and `as_tensor`.
        folder: a new or empty folder, or one in which this job was begun.
        format: `"imagefolder"` (`train/00000/00000_000000012.png`: the label and the sample id), `"parquet"`
            (`train/000000.parquet`, with the features of the dataset) or `"webdataset"` (`train/000000.tar`, a sample
            being `000000012.png` and `000000012.cls`).
        shard: (i, n): do the i-th of n equal parts of the work, counted from 0.
        num_proc: how many processes draw and write.
        images_per_file: how many images a file has in the formats that pack them; for `"imagefolder"` the size of a
            unit of work.
        progress: show a progress bar, where the standard error stream is a terminal.

    Returns:
        How many images were written now; those that were there already do not count.

    Raises:
        ValueError: an argument is out of range, or the folder holds something else, or another job.
        OSError: writing failed; nothing half-written is left, and a further call continues.
    """
    _check_arguments(format, shard, num_proc, images_per_file)
    target = Path(folder).absolute()
    job = describe_job(dataset, format, images_per_file)
    with full_disk_explained(target, _WAY_ON):
        claim_folder(target, job)
    work = _Work(dataset, target, format, images_per_file)
    numbers = range(shard[0], -(-len(dataset) // images_per_file), shard[1])
    parts = [part for part in map(work.part, numbers) if not FORMATS[format].is_done(part, dataset)]
    total = sum(len(work.part(number).ids) for number in numbers)
    missing = sum(len(part.ids) for part in parts)
    written = 0
    with (
        tqdm(
            total=total, initial=total - missing, unit="img", desc=dataset.split, disable=None if progress else True
        ) as bar,
        full_disk_explained(target, _WAY_ON),
        _ended_workers_explained(),
        closing(_do_parts(work, [part.number for part in parts], num_proc)) as counts,
    ):
        for visited, count in counts:
            bar.update(visited)
            written += count
    return written


def _check_arguments(storage: str, shard: tuple[int, int], num_proc: int, images_per_file: int) -> None:
    if storage not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {storage!r}.")
    index, count = shard
    if not 0 <= index < count:
        raise ValueError(f"shard must be (i, n) with 0 ≤ i < n, counted from 0, got ({index}, {count}).")
    for name, value in (("num_proc", num_proc), ("images_per_file", images_per_file)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")


@contextmanager
def _ended_workers_explained() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise OSError(
            "A worker process was ended from outside, perhaps for want of memory. What is written is complete: run the "
            "same again, with a smaller num_proc, and it continues."
        ) from error


def _do_parts(work: _Work, numbers: list[int], num_proc: int) -> Generator[tuple[int, int], None, None]:
    """Yield (images visited, images written) as the work continues."""
    if num_proc == 1 or len(numbers) < 2:
        for number in numbers:
            yield from _do_part(work, number)
        return
    context = get_context()
    stop = context.Event()
    pool = ProcessPoolExecutor(min(num_proc, len(numbers)), context, initializer=_begin_worker, initargs=(work, stop))
    try:
        waiting = iter(numbers)
        running: set[Future[tuple[int, int]]] = set()
        while True:
            # Few at a time: of 21,000 parts, as many futures would have to be cancelled one by one.
            free = 2 * num_proc - len(running)
            running |= {pool.submit(_do_part_in_worker, number) for number in islice(waiting, free)}
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _do_part(work: _Work, number: int) -> Generator[tuple[int, int], None, None]:
    part = work.part(number)
    part.remove_leftovers()
    for written in FORMATS[work.storage].write(part, work.dataset):
        yield 1, int(written)


class _StoppedError(Exception):
    """The parent has no more use for the work."""


_worker: tuple[_Work, Any]


def _begin_worker(work: _Work, stop: Any) -> None:
    global _worker
    _worker = (work, stop)
    # The interrupt of a terminal goes to all its processes; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()


def _do_part_in_worker(number: int) -> tuple[int, int]:
    work, stop = _worker
    visited = written = 0
    with closing(_do_part(work, number)) as counts:
        for one_visited, one_written in counts:
            visited += one_visited
            written += one_written
            if stop.is_set():
                raise _StoppedError
    return visited, written
