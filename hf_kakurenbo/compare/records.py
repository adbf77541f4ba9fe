"""What one training of a comparison came to, and the folder in which the records are kept."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..utils.files import remove_leftovers, written_beside

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=@+-]*")


def require_folder_name(kind: str, name: str) -> None:
    """Check a name that becomes that of a folder of records.

    Args:
        kind: what it names, for the message.
        name: letters, digits and `._=@+-`, the first a letter or a digit.

    Raises:
        ValueError: it has something else.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a {kind}: use letters, digits and ._=@+-, as in 'tau=0.9'.")


@dataclass(frozen=True)
class Record:
    """What one training came to.

    Attributes:
        task: name of the task.
        method: name of the method.
        seed: of the weights and of the order of the samples.
        accuracy: fraction of the validation samples predicted correctly, in [0, 1].
        backpropagated: samples trained on.
        forward_only: samples of forward-only passes.
        full_samples: samples that the task trains on when nothing is hidden: N × its epochs.
        updates: of the optimizer.
        seconds: wall time of the training, evaluation left out.
        processor_seconds: the same on the processor, over all threads.
        settings: what decided the training: the fields of its arguments that the task and the method set.
    """

    task: str
    method: str
    seed: int
    accuracy: float
    backpropagated: int
    forward_only: int
    full_samples: int
    updates: int
    seconds: float
    processor_seconds: float
    settings: Mapping[str, Any] = field(default_factory=dict)


class RecordFolder:
    """Records as JSON files, `TASK/METHOD/SEED.json`: each is complete, or not there.

    Args:
        path: the folder; made when the first record is written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def has(self, task: str, method: str, seed: int) -> bool:
        """Whether a training was done, with whatever settings."""
        return self._file(task, method, seed).exists()

    def find(self, task: str, method: str, seed: int, settings: Mapping[str, Any]) -> Record | None:
        """The record of a training, or None if it is still to be done.

        Raises:
            ValueError: it was made with other settings.
        """
        if not self.has(task, method, seed):
            return None
        file = self._file(task, method, seed)
        record = _read(file)
        # As JSON: a tuple comes back as a list.
        wanted = json.loads(json.dumps(settings))
        if record.settings != wanted:
            raise ValueError(
                f"{file} was made with other settings: {_differences(record.settings, wanted)}. Give another output "
                "folder, or remove the file so that the training is done anew."
            )
        return record

    def add(self, record: Record) -> None:
        """Write a record; an interrupted writing leaves nothing that could be taken for one."""
        file = self._file(record.task, record.method, record.seed)
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(file.parent, f"{file.name}-")
        with written_beside(file, sync=False) as stream:
            stream.write((json.dumps(asdict(record), indent=1) + "\n").encode())

    def __iter__(self) -> Iterator[Record]:
        """All records, by task, method and seed."""
        records = [_read(file) for file in self.path.glob("*/*/*.json")]
        return iter(sorted(records, key=lambda record: (record.task, record.method, record.seed)))

    def _file(self, task: str, method: str, seed: int) -> Path:
        return self.path / task / method / f"{seed}.json"


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    absent = object()
    names = sorted(name for name in {*before, *now} if before.get(name, absent) != now.get(name, absent))
    old = {name: f"{name}={before[name]!r}" if name in before else f"{name} not set" for name in names}
    new = {name: repr(now[name]) if name in now else "not set" for name in names}
    return "; ".join(f"{old[name]}, now {new[name]}" for name in names)


def _read(file: Path) -> Record:
    try:
        record = Record(**json.loads(file.read_text(encoding="utf-8")))
        if not isinstance(record.settings, dict):
            raise TypeError(f"its settings are {record.settings!r}")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} is no record of a comparison ({error}); remove it.") from error
    return record
