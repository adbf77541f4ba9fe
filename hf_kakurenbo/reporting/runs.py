"""What is known of a training: its ledger, its log, its numbers; of a trainer at hand, or of the files that it left."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data import RowDigests, digest_rows
from ..hiding import SampleLedger
from ..hiding.saved_ledger import checkpoints_in, find_folder, ledger_of, load_saved

_STATE_NAME = "trainer_state.json"


@dataclass(frozen=True)
class TrainedRun:
    """A training with hiding, finished or not."""

    ledger: SampleLedger
    numbers: Mapping[str, Any]
    """Those of `HidingRun.scalars`: epochs, samples and seconds so far."""
    log: list[dict[str, Any]]
    """What Trainer logged; empty where it is not known."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options of hiding, by name."""
    rule: str | None = None
    """By which task's rule, or which function, its samples were measured."""
    rows: Mapping[str, Any] | None = None
    """Digests of some rows of its dataset, as they are saved."""
    steps: tuple[int, int] | None = None
    """Updates done, and those of the whole training; None where it is not known."""
    source: str = "the trainer"
    """Where it was read from, for the reader."""
    rows_are_known: bool = False
    """Whether the dataset that it is shown with is the trainer's own, so that no row need be compared."""

    @property
    def epochs_done(self) -> int:
        """How many epochs are finished."""
        epoch = int(self.numbers.get("epoch", -1))
        return epoch + 1 if self.numbers.get("epoch_finished", True) else epoch

    @property
    def finished(self) -> bool | None:
        """Whether it came to its end; None where that is not known."""
        return None if self.steps is None else self.steps[0] >= self.steps[1]


def read_run(path: str | os.PathLike[str]) -> TrainedRun:
    """What a training left in its folder: of its checkpoints and a model that was saved there, the latest.

    Args:
        path: the `output_dir`, a checkpoint folder, or the folder of a saved model.

    Raises:
        FileNotFoundError: there is no ledger in it.
        ValueError: the latest one is damaged.
    """
    folder = _latest(find_folder(path), Path(path))
    tensors, scalars = load_saved(folder)
    trainer = scalars.get("trainer", {})
    state = _state_of(folder, trainer.get("step"))
    description = trainer.get("description", {})
    return TrainedRun(
        ledger=ledger_of(tensors, scalars),
        numbers=scalars,
        log=state.get("log_history") or trainer.get("epochs", []),
        options=description.get("options", {}),
        rule=description.get("statistics"),
        rows=description.get("rows"),
        steps=(state["global_step"], state["max_steps"]) if "max_steps" in state else None,
        source=str(folder),
    )


def _latest(found: Path, given: Path) -> Path:
    """The folder with the ledger of the most updates: a model may have been saved before its training went on."""
    checkpoints = checkpoints_in(given)
    if not checkpoints or found == checkpoints[-1]:
        return found
    _, scalars = load_saved(found)
    step = scalars.get("trainer", {}).get("step", 0)
    return checkpoints[-1] if step < int(checkpoints[-1].name.rpartition("-")[2]) else found


def _state_of(folder: Path, step: int | None) -> dict[str, Any]:
    """Trainer's state at the ledger's step: beside it, or in the checkpoint of the same update."""
    candidates = [folder / _STATE_NAME, *sorted(folder.glob(f"checkpoint-*/{_STATE_NAME}"))]
    for path in candidates:
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(state, dict) and (step is None or state.get("global_step") == step):
            return state
    return {}


def require_dataset(run: TrainedRun, dataset: Any) -> bool:
    """Check that a dataset is the one that a training was over, as far as that can be seen.

    Returns:
        Whether some of its rows could be compared.

    Raises:
        ValueError: it has another number of rows, or other rows.
    """
    if len(dataset) != len(run.ledger):
        raise ValueError(
            f"The dataset has {len(dataset):,} rows and the ledger is of {len(run.ledger):,} samples. A sample's id "
            f"is {run.ledger.rows}. Give that dataset, or leave it out."
        )
    if run.rows_are_known:
        return True
    if run.rows is None:
        return False
    saved = RowDigests(**run.rows)
    now = digest_rows(dataset, saved.rows)
    differing = saved.differing(now)
    if differing and not saved.tells_the_same(now):
        raise ValueError(
            f"The dataset has other rows than the training had, or the same in another order: the values of "
            f"{', '.join(map(repr, differing))} are others. Give the dataset that was trained on, or leave it out."
        )
    return bool(saved.common(now))
