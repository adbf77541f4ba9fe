"""A ledger beside a model: written by `save_model`, read from there or from a checkpoint."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from .checkpoint import LEDGER_NAME, load_state, save_state
from .compact_ledger import CompactLedger
from .history import LedgerHistory
from .ledger import SampleLedger

HISTORY_PREFIX = "history."
"""How the names of a history's tensors begin in the file."""

_ROWS = "ledger_rows"


def ledger_state(ledger: SampleLedger) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and scalars of a ledger with its history, not copied."""
    history = ledger.history.state_dict() if ledger.history is not None else {}
    tensors = {**ledger.state_dict(), **{HISTORY_PREFIX + name: tensor for name, tensor in history.items()}}
    return tensors, {_ROWS: ledger.rows}


def history_state(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of some tensors that are a history's, by its names; none if there was none."""
    return {
        name.removeprefix(HISTORY_PREFIX): tensor for name, tensor in tensors.items() if name.startswith(HISTORY_PREFIX)
    }


def ledger_of(tensors: dict[str, Tensor], scalars: dict[str, Any]) -> SampleLedger:
    """The ledger of a file's tensors and scalars, compact if it was saved so, with its history if there is one."""
    ledger = (SampleLedger if "correct" in tensors else CompactLedger)(tensors["loss"].numel())
    ledger.load_state_dict(tensors)
    ledger.rows = scalars.get(_ROWS, ledger.rows)
    if history := history_state(tensors):
        ledger.history = LedgerHistory(len(ledger))
        ledger.history.load_state_dict(history)
    return ledger


def save_ledger(folder: str | os.PathLike[str], ledger: SampleLedger, scalars: dict[str, Any]) -> None:
    """Write a ledger into a folder, for [`load_ledger`]; no training can be resumed from it.

    Args:
        folder: is made if need be.
        ledger: is written with its history.
        scalars: what else is to be kept of the training, as JSON holds it.
    """
    tensors, own = ledger_state(ledger)
    save_state(folder, tensors, {**scalars, **own})


def load_ledger(path: str | os.PathLike[str]) -> SampleLedger:
    """The ledger of a training.

    Args:
        path: a checkpoint folder; a folder that `save_model` wrote; or an `output_dir`, of which the newest checkpoint
            is read if no model was saved in it.

    Raises:
        FileNotFoundError: there is no ledger.
        ValueError: its file is damaged, or of a format that this release does not know.
    """
    return ledger_of(*load_saved(find_folder(path)))


def load_saved(folder: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a ledger and the scalars in its file; what only a resumption needs is left out.

    Raises:
        ValueError: the file is damaged, or of a format that this release does not know.
    """
    names = ("loss", "confidence", "correct", "hidden", "times_hidden")
    return load_state(
        folder,
        lambda name: name in names or name.startswith(HISTORY_PREFIX),
        "Give another checkpoint, or the folder of a model that was saved.",
    )


def find_folder(path: str | os.PathLike[str]) -> Path:
    """The folder with the ledger's file: the one given, or the newest checkpoint in it.

    Raises:
        FileNotFoundError: there is none.
    """
    given = Path(path)
    folder = given.parent if given.name == LEDGER_NAME else given
    if (folder / LEDGER_NAME).is_file():
        return folder
    checkpoints = checkpoints_in(folder)
    if checkpoints:
        return checkpoints[-1]
    what = "has no" if folder.is_dir() else "is not there, so neither is its"
    raise FileNotFoundError(
        f"{folder} {what} {LEDGER_NAME}. Give a checkpoint folder of a training with hiding, its output_dir, or a "
        "folder that `save_model` wrote."
    )


def checkpoints_in(folder: Path) -> list[Path]:
    """The checkpoints in a folder that have a ledger, the newest last; those written to their end, if there is one."""
    numbered = {path: re.fullmatch(r"checkpoint-(\d+)", path.name) for path in folder.glob("checkpoint-*")}
    steps = {path: int(match[1]) for path, match in numbered.items() if match and (path / LEDGER_NAME).is_file()}
    # Trainer writes its state last: a training that was killed may have left a folder without it.
    found = [path for path in steps if (path / "trainer_state.json").is_file()] or list(steps)
    return sorted(found, key=lambda path: steps[path])
