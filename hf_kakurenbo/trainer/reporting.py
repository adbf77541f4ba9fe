"""The report of a training at hand; `hf_kakurenbo.reporting` writes it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data import SampleStream, is_indexed
from ..reporting import TrainedRun, write_report
from .continuity import describe_training
from .state import Training


def write_report_of(
    trainer: Any, training: Training | None, path: str | os.PathLike[str], dataset: Any, label_column: str | None
) -> Path | None:
    """Write the report of a trainer's training, on the rank that writes; see `KakurenboMixin.hiding_report`."""
    if training is None:
        raise ValueError("There is nothing to report: the trainer has not trained with hiding yet. Call `train` first.")
    if not trainer.is_world_process_zero():
        return None
    shown = _dataset_of(trainer, len(training.run.ledger)) if dataset is None else dataset
    return write_report(_run_of(trainer, training, check_rows=dataset is not None), path, shown, label_column)


def _run_of(trainer: Any, training: Training, check_rows: bool) -> TrainedRun:
    description, state = describe_training(trainer, training), trainer.state
    return TrainedRun(
        ledger=training.run.ledger,
        numbers=training.run.scalars(),
        log=state.log_history,
        options=description["options"],
        rule=description["statistics"],
        rows=description["rows"],
        steps=(state.global_step, state.max_steps),
        source=str(trainer.args.output_dir),
        rows_are_known=not check_rows,
    )


def _dataset_of(trainer: Any, samples: int) -> Any:
    """The training dataset as it was given, if it has a row for each sample: before texts were turned into numbers."""
    for dataset in (trainer._given_dataset, trainer.train_dataset):
        if isinstance(dataset, SampleStream | Mapping) or not hasattr(dataset, "__len__"):
            continue
        if is_indexed(dataset):
            dataset = dataset.samples()
        if hasattr(dataset, "__getitem__") and len(dataset) == samples:
            return dataset
    return None
