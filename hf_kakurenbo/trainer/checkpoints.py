"""Trainer's checkpoint folders: from which of them to resume, and which of them were saved with hiding."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from transformers import TrainerState
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from ..distributed.collectives import from_every_rank, rank
from .completeness import MARK, damage_of

logger = logging.getLogger(__name__)


def mark_as_hiding(state: TrainerState) -> None:
    """Say in the state that a ledger was saved at its step."""
    # The step, because a Trainer that continues from here without hiding keeps the entry.
    state.stateful_callbacks[MARK] = {"args": {}, "attributes": {}, "global_step": state.global_step}


def unmark(state: TrainerState) -> None:
    """Say in the state that no ledger is saved with it."""
    state.stateful_callbacks.pop(MARK, None)


def is_marked_as_hiding(state: TrainerState) -> bool:
    """Whether a ledger was saved at the state's step."""
    mark = state.stateful_callbacks.get(MARK)
    return mark is not None and mark.get("global_step") == state.global_step


def last_complete_checkpoint(wanted: str | os.PathLike[str] | bool | None, output_dir: str) -> str | bool | None:
    """The checkpoint asked for, or the newest one before it that every rank finds whole; a collective call.

    Args:
        wanted: a folder, True for the newest in `output_dir`, None or False for none.
        output_dir: where checkpoints are saved.

    Returns:
        The folder; what was asked for if there is no checkpoint at all.

    Raises:
        ValueError: there are checkpoints, but none that is whole. Not on every rank, if ranks see different folders.
    """
    wanted = wanted if wanted is None or isinstance(wanted, bool) else os.fspath(wanted)
    candidates = _candidates(wanted, output_dir)
    damage: dict[str, str] = {}
    chosen = _newest_whole(candidates, damage)
    # Where each node has a disk of its own, the newest may be whole on one of them alone.
    while True:
        steps = from_every_rank(-1 if chosen is None else _step_of(chosen))
        if min(steps) < 0 or len(set(steps)) == 1:
            break
        chosen = _newest_whole([folder for folder in candidates if _step_of(folder) <= min(steps)], damage)
    by_rank = from_every_rank(damage)
    if not candidates:
        return wanted
    newest = candidates[0]
    reason = next((found[newest.name] for found in [damage, *by_rank] if newest.name in found), "")
    if chosen is None:
        raise ValueError(
            f"{newest} was not written to its end ({reason}), and no earlier checkpoint beside it was. Start the "
            "training without `resume_from_checkpoint`."
        )
    if chosen != newest and rank() == 0:
        logger.warning("%s was not written to its end (%s). Resuming from %s.", newest, reason, chosen)
    return str(chosen)


def _candidates(wanted: str | bool | None, output_dir: str) -> list[Path]:
    """The folders from which to resume, the first that is whole."""
    if not wanted:
        return []
    if wanted is True:
        return _numbered(Path(output_dir))
    folder = Path(wanted)
    if not folder.is_dir():
        return []
    return [folder, *(other for other in _numbered(folder.parent) if _step_of(other) < _step_of(folder))]


def _numbered(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the newest first."""
    pattern = re.compile(rf"{PREFIX_CHECKPOINT_DIR}-\d+")
    found = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if pattern.fullmatch(path.name)]
    return sorted((path for path in found if path.is_dir()), key=_step_of, reverse=True)


def _newest_whole(candidates: list[Path], damage: dict[str, str]) -> Path | None:
    """The first of some folders that is whole; the damage of those before it is noted by their names."""
    for folder in candidates:
        found = damage_of(folder)
        if not found:
            return folder
        damage[folder.name] = found
    return None


def _step_of(checkpoint: Path) -> int:
    step = checkpoint.name.rpartition("-")[2]
    return int(step) if step.isdigit() else -1
