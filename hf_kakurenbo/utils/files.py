"""Files that appear complete or not at all: written beside, then renamed."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


@contextmanager
def written_beside(
    target: Path, folder: Path | None = None, prefix: str | None = None, sync: bool = True
) -> Iterator[BinaryIO]:
    """A file to write into that takes its final name when the block ends, and is removed when the block fails.

    What a killed process leaves of it is found by `remove_leftovers`.

    Args:
        target: the final name; what has it already is replaced.
        folder: where it is written meanwhile, on the same disk; the target's own folder if None.
        prefix: how its name meanwhile begins; with the target's name and a hyphen if None.
        sync: wait until it is on the disk before it is renamed, so that it is whole even after a power cut; takes
            milliseconds. Without, a power cut may leave it empty or cut off.
    """
    beside = (folder or target.parent) / name_beside(f"{target.name}-" if prefix is None else prefix)
    try:
        with beside.open("xb") as stream:
            yield stream
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def name_beside(prefix: str) -> str:
    """A name, of which there is no second, for what is being written: `remove_leftovers` finds it by its prefix."""
    return f".{prefix}{uuid4().hex}"


def remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove the files and folders with names by `name_beside` that a killed process left in a folder."""
    name = re.compile(rf"\.{re.escape(prefix)}[0-9a-f]{{32}}")
    for leftover in [path for path in folder.iterdir() if name.fullmatch(path.name)]:
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def ends_with(path: Path, ending: bytes) -> bool:
    """Whether a file is there, and ends with some bytes as a whole one does."""
    try:
        with path.open("rb", buffering=0) as stream:
            stream.seek(max(stream.seek(0, os.SEEK_END) - len(ending), 0))
            return stream.read() == ending
    except FileNotFoundError:
        return False


@contextmanager
def full_disk_explained(target: Path, way_out: str) -> Iterator[None]:
    """Say, where writing fails for want of room, which disk is full and what to do.

    Args:
        target: what is being written.
        way_out: a sentence without a full stop, for the message.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise OSError(error.errno, f"The disk of {target} is full. {way_out}") from error


def require_new_or_empty(folder: Path, purpose: str) -> None:
    """Raise a ValueError unless a folder does not exist yet, or is empty.

    Args:
        folder: the folder.
        purpose: what is to be written into it, for the message.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; {purpose} need a folder. Give the name of a new or empty one.")
    if folder.exists() and (others := sorted(entry.name for entry in folder.iterdir())):
        shown = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
        raise ValueError(f"{folder} already holds something else ({shown}). Give the name of a new or empty folder.")
