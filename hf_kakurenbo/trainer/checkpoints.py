"""Trainer's checkpoint folders: which of them were written to their end, and which of them with hiding."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

logger = logging.getLogger(__name__)

# Entry of `trainer_state.json` that tells a checkpoint saved with hiding from a plain Trainer's.
_MARK = "KakurenboTrainer"


def mark_as_hiding(state: TrainerState) -> None:
    """Say in the state that a ledger was saved at its step."""
    # The step, because a Trainer that goes on from here without hiding keeps the entry.
    state.stateful_callbacks[_MARK] = {"args": {}, "attributes": {}, "global_step": state.global_step}


def unmark(state: TrainerState) -> None:
    """Say in the state that no ledger is saved with it."""
    state.stateful_callbacks.pop(_MARK, None)


def is_marked_as_hiding(state: TrainerState) -> bool:
    """Whether a ledger was saved at the state's step."""
    mark = state.stateful_callbacks.get(_MARK)
    return mark is not None and mark.get("global_step") == state.global_step


def last_complete_checkpoint(wanted: str | os.PathLike[str] | bool, output_dir: str) -> str | bool:
    """The checkpoint asked for, or the newest one before it that was written to its end.

    Args:
        wanted: a folder, or True for the newest in `output_dir`.
        output_dir: where checkpoints are saved.

    Returns:
        The folder; what was asked for if there is no checkpoint at all.

    Raises:
        ValueError: there are checkpoints, but none was written to its end.
    """
    wanted = wanted if isinstance(wanted, bool) else os.fspath(wanted)
    if isinstance(wanted, str) and (not Path(wanted).is_dir() or _is_complete(Path(wanted))):
        return wanted
    folders = sorted(Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=_step_of)
    if isinstance(wanted, str):
        siblings = Path(wanted).parent.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        folders = sorted((folder for folder in siblings if _step_of(folder) <= _step_of(Path(wanted))), key=_step_of)
    complete = [folder for folder in folders if _is_complete(folder)]
    if not folders:
        return wanted
    if not complete:
        raise ValueError(
            f"{folders[-1]} was not written to its end, and no earlier checkpoint beside it was. Start the training "
            "without `resume_from_checkpoint`."
        )
    if complete[-1] != folders[-1]:
        logger.warning("%s was not written to its end. Resuming from %s.", folders[-1], complete[-1])
    return str(complete[-1])


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return False
    return True


def _step_of(checkpoint: Path) -> int:
    step = checkpoint.name.rpartition("-")[2]
    return int(step) if step.isdigit() else -1
