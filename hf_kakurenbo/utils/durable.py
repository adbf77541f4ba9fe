"""Files that are there after a loss of power too: what was written is brought from memory to the disk."""

from __future__ import annotations

import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)


def flush(path: str | os.PathLike[str]) -> None:
    """Wait until the disk has a file's content, or a folder's list of names.

    Where the file system cannot do that, as some network file systems cannot, it is left at what was written.

    Args:
        path: a file, or a folder, whose files are not flushed with it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        logger.debug("%s was not flushed: %s", path, error)


def flush_all(folder: str | os.PathLike[str]) -> None:
    """Flush a folder with everything in it, and its name in the folder above."""
    inside = list(Path(folder).rglob("*"))
    files, folders = [path for path in inside if path.is_file()], [path for path in inside if path.is_dir()]
    for path in [*files, *folders, Path(folder), Path(folder).parent]:
        flush(path)
