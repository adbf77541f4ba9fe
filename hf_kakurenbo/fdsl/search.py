"""The search for accepted attempts: what `accepted/*.npy` holds, computed anew."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..utils.files import full_disk_explained, remove_leftovers, written_beside
from .catalog import SHIPPED_SEED, find_accepted, find_family
from .family import Family

# So many categories are searched between one writing of the file and the next.
_BETWEEN = 500

_Map = Callable[[Callable[[int], int], Iterable[int]], Iterable[int]]


def find_attempt(family: Family, seed: int, category: int) -> int:
    """The number of the first accepted attempt at a category.

    Args:
        family: whose; a process that is sent one imports the module that defines it.
        seed: in 0..2**63 − 1.
        category: at least 0.

    Raises:
        RuntimeError: none of 65,536 attempts is accepted.
    """
    return find_accepted(family, seed, category)[0]


def search(
    family: str,
    categories: int,
    path: Path,
    *,
    seed: int = SHIPPED_SEED,
    processes: int = 1,
    on_progress: Callable[[int], None] = lambda done: None,
) -> NDArray[np.uint16]:
    """Find the first accepted attempt at each category, and write them to a file as they are found.

    If the file is there, the search continues where it ended; it may be stopped at any time.

    Args:
        family: the name of the family.
        categories: of how many categories, from the first.
        path: the file, NumPy's format.
        seed: in 0..2**63 − 1; those of seed 0 are shipped.
        processes: how many search beside each other.
        on_progress: called with the number of categories found, now and then.

    Returns:
        uint16, (categories,).

    Raises:
        ValueError: an argument is out of range, or the file holds something else.
        RuntimeError: a category has no accepted attempt.
    """
    for name, value in (("categories", categories), ("processes", processes)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    searched = find_family(family)
    found = _read(path, searched, seed)
    on_progress(len(found))
    with _mapper(processes) as mapped:
        while len(found) < categories:
            numbers = range(len(found), min(len(found) + _BETWEEN, categories))
            more = list(mapped(partial(find_attempt, searched, seed), numbers))
            found = np.concatenate([found, np.array(more, dtype=np.uint16)])
            _write(path, found)
            on_progress(len(found))
    return found[:categories]


@contextmanager
def _mapper(processes: int) -> Iterator[_Map]:
    if processes == 1:
        yield map
        return
    # Not forked: a thread of the parent may hold a lock that the child would wait for.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        yield partial(pool.map, chunksize=10)


def _write(path: Path, found: NDArray[np.uint16]) -> None:
    with full_disk_explained(path, "What was found before is kept: make room, run the same again, and it continues"):
        remove_leftovers(path.parent, f"{path.name}-")
        with written_beside(path) as stream:
            np.save(stream, found)


def _read(path: Path, family: Family, seed: int) -> NDArray[np.uint16]:
    if not path.exists():
        return np.empty(0, dtype=np.uint16)
    try:
        found = np.load(path)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read as a NumPy array ({error}). Give another file.") from error
    if not isinstance(found, np.ndarray) or found.dtype != np.uint16 or found.ndim != 1:
        raise ValueError(f"{path} holds no list of attempts (uint16). Give another file.")
    # One category tells: it takes another seed, family or version to another attempt nearly always.
    if len(found) and find_attempt(family, seed, len(found) - 1) != found[-1]:
        raise ValueError(
            f"{path} was found with another family, another version of it or another seed than {seed}. Give another "
            "file, or remove this one."
        )
    return found
