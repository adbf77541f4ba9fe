"""What a folder of rendered images is: a note in it that a further call compares itself with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...utils.files import remove_leftovers, require_new_or_empty, written_beside
from ..family import Parameters
from ..loading.dataset import FDSLDataset
from ..loading.selection import Numbers

WORKPLACE = ".render"
"""The folder, inside the one that is rendered into, for the notes and for files that are being written."""

_FORMAT = 1

# Splits in one folder may differ in these and still be read as one dataset.
_OWN_TO_A_SPLIT = {"split", "instances", "images", "images_per_file"}


def describe_job(dataset: FDSLDataset, storage: str, images_per_file: int) -> dict[str, Any]:
    """Everything that decides what is written.

    Args:
        dataset: what `load_fdsl` returns.
        storage: how the images are stored.
        images_per_file: how many go into a file.
    """
    if dataset.transform is not None or dataset.as_tensor:
        raise ValueError(
            "Images are rendered as they are drawn: load the dataset without `transform` and `as_tensor`, and "
            "transform them when they are read."
        )
    return {
        "job_format": _FORMAT,
        "name": dataset.name,
        "family": dataset.family.name,
        "family_version": dataset.family.version,
        "split": dataset.split,
        "format": storage,
        "images": len(dataset),
        "images_per_file": images_per_file,
        "categories": _bounds(dataset.category_numbers),
        "instances": _bounds(dataset.instance_numbers),
        "parameters": _digest(dataset.parameters),
        "image_size": dataset.image_size,
        "draw_size": dataset.draw_size,
        "color": dataset.color,
        "mode": dataset.mode,
        "points": dataset.points,
        "patches": dataset.patches,
        "seed": dataset.seed,
    }


def _bounds(numbers: Numbers) -> list[int] | dict[str, list[int]]:
    return [numbers.start, numbers.stop, numbers.step] if isinstance(numbers, range) else {"numbers": list(numbers)}


def _digest(parameters: Sequence[Parameters] | None) -> str | None:
    if parameters is None:
        return None
    digest = hashlib.sha256()
    for table in parameters:
        digest.update(repr(table.shape).encode() + np.ascontiguousarray(table).tobytes())
    return digest.hexdigest()


def claim_folder(folder: Path, job: dict[str, Any]) -> None:
    """Note in a folder what is rendered into it, or compare with what was noted.

    Raises:
        ValueError: the folder holds something else or has another job, or its note is damaged.
    """
    _require_own(folder)
    workplace = folder / WORKPLACE
    workplace.mkdir(parents=True, exist_ok=True)
    note = workplace / f"{job['split']}.json"
    _compare_with_notes(folder, job, note)
    if note.exists():
        remove_leftovers(workplace, f"{note.name}-")
        return
    try:
        with written_beside(note) as stream:
            stream.write(json.dumps(job, indent=1).encode() + b"\n")
    except FileNotFoundError:
        # Another machine was there first, and took the file that was being written for a leftover.
        if not note.exists():
            raise
    # Of two that began at once the later note stands.
    _compare_with_notes(folder, job, note)


def _require_own(folder: Path) -> None:
    try:
        require_new_or_empty(folder, "images")
    except ValueError:
        # Looked for last: whoever begins on another machine in this moment makes it before all else.
        if not (folder / WORKPLACE).is_dir():
            raise


def _compare_with_notes(folder: Path, job: dict[str, Any], note: Path) -> None:
    for path in sorted((folder / WORKPLACE).glob("*.json")):
        _require_same(folder, _read_note(path), job, of_same_split=path == note)


def _read_note(path: Path) -> dict[str, Any]:
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}). Render into a new folder.") from error
    if not isinstance(noted, dict):
        raise ValueError(f"{path} is damaged (it holds no JSON object). Render into a new folder.")
    return noted


def _require_same(folder: Path, noted: dict[str, Any], job: dict[str, Any], of_same_split: bool) -> None:
    compared = [name for name in {**noted, **job} if of_same_split or name not in _OWN_TO_A_SPLIT]
    differences = [
        f"{name} {noted.get(name)!r} there, {job.get(name)!r} asked for"
        for name in compared
        if noted.get(name) != job.get(name)
    ]
    if differences:
        raise ValueError(
            f"{folder} was begun with other options: {'; '.join(differences)}. Go on with the same options, or give "
            "another folder."
        )
