"""Beginning a training with what an earlier one measured of the same samples."""

from __future__ import annotations

import logging
from typing import Any

from ..config import hiding_arguments
from ..distributed.collectives import from_every_rank, from_rank_0, rank
from ..hiding import SampleLedger
from ..hiding.saved_ledger import find_folder, ledger_of, load_saved
from .continuity import findings_of_samples
from .state import Training

logger = logging.getLogger(__name__)


def take_initial_ledger(trainer: Any, training: Training) -> None:
    """Take the ledger that `initial_ledger` names over into a training that begins; a collective call.

    Raises:
        ValueError: there is none, it is damaged, or it is of other samples or was measured by another rule.
    """
    path = hiding_arguments(trainer.args).initial_ledger
    if path is None:
        return
    ledger, description = _load_on_every_rank(path)
    problems = from_rank_0(_problems(trainer, training, path, ledger, description) if rank() == 0 else [])
    if problems:
        raise ValueError(
            f"initial_ledger={path!r} does not fit this training. {' '.join(problems)} Give the ledger of a training "
            "on these samples, or leave it out; initial_pass=True measures every sample before the first epoch."
        )
    training.run.begin_with(ledger)


def _load_on_every_rank(path: str) -> tuple[SampleLedger, dict[str, Any]]:
    """The ledger and the description of its training; raises on every rank if one of them cannot read it."""
    loaded, problem = None, ""
    try:
        tensors, scalars = load_saved(find_folder(path))
        loaded = ledger_of(tensors, scalars), scalars.get("trainer", {}).get("description", {})
    except (OSError, ValueError) as error:
        problem = str(error)
    if found := list(filter(None, from_every_rank(problem))):
        raise ValueError(f"initial_ledger={path!r} cannot be read. {found[0]}")
    assert loaded is not None
    return loaded


def _problems(
    trainer: Any, training: Training, path: str, ledger: SampleLedger, description: dict[str, Any]
) -> list[str]:
    """Why it does not fit; what speaks neither for nor against it is logged."""
    count, expected = len(ledger), len(training.run.ledger)
    if count != expected:
        return [f"It is of {count:,} samples, the training dataset has {expected:,}."]
    found = list(findings_of_samples(trainer, training, path, description))
    for finding in found:
        if not finding.refused:
            logger.warning("%s", finding.text)
    return [finding.text for finding in found if finding.refused]
