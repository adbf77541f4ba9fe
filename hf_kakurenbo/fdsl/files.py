"""Files that appear complete or not at all: written beside, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


@contextmanager
def written_beside(target: Path, folder: Path | None = None, prefix: str = "", sync: bool = True) -> Iterator[BinaryIO]:
    """A file to write into that takes its final name when the block ends, and is removed when the block fails.

    Args:
        target: the final name; what has it already is replaced.
        folder: where it is written meanwhile, on the same disk; the target's own folder if None.
        prefix: how its name meanwhile begins.
        sync: wait until it is on the disk before it is renamed, so that it is whole even after a power cut; takes
            milliseconds. Without, a power cut may leave it empty, which `is_complete` sees.
    """
    beside = (folder or target.parent) / f".{prefix}{uuid4().hex}"
    try:
        with beside.open("xb") as stream:
            yield stream
            if sync:
                stream.flush()
                os.fsync(stream.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def is_complete(path: Path) -> bool:
    """Whether a file is there that was written by `written_beside`, and not emptied by a power cut."""
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


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
