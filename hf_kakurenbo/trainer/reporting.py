"""The report of a training at hand; `hf_kakurenbo.reporting` writes it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm  # type: ignore[import-untyped]

from ..data import SampleStream, is_indexed
from ..reporting import TrainedRun, write_report
from ..reporting.model_card import section_of, with_section
from ..reporting.summary import summary_of
from .continuity import describe_training
from .predictions import predict
from .state import Training

logger = logging.getLogger(__name__)


def write_report_of(
    trainer: Any, training: Training | None, path: str | os.PathLike[str], dataset: Any, label_column: str | None
) -> Path | None:
    """Write the report of a trainer's training, on the rank that writes; see `KakurenboMixin.hiding_report`."""
    if training is None:
        raise ValueError("There is nothing to report: the trainer has not trained with hiding yet. Call `train` first.")
    if not trainer.is_world_process_zero():
        return None
    shown = training_rows(trainer, len(training.run.ledger)) if dataset is None else dataset
    run = _run_of(trainer, training, check_rows=dataset is not None)
    return write_report(run, path, shown, label_column, partial(predict, trainer, training))


def add_to_model_card(trainer: Any, training: Training) -> None:
    """Put what was hidden into the model card that Trainer has just written."""
    path = Path(trainer.args.output_dir) / "README.md"
    if trainer.is_world_process_zero() and path.is_file():
        section = section_of(_run_of(trainer, training, check_rows=False))
        path.write_text(with_section(path.read_text(encoding="utf-8"), section), encoding="utf-8")


def show_in_progress_bars(trainer: Any, training: Training) -> None:
    """Say beside the bars of a terminal what the epoch that begins hides, and what was saved so far."""
    run = training.run
    text = f"hidden {run.hidden_fraction:.0%}, saved {run.time_saved_fraction:.0%}"
    for callback in trainer.callback_handler.callbacks:
        bar: Any = getattr(callback, "training_bar", None)
        if hasattr(bar, "set_postfix_str"):
            bar.set_postfix_str(text, refresh=False)


def show_summary(trainer: Any, training: Training) -> None:
    """Say in four lines what the training hid: where its progress is shown, beside that, else in the log."""
    if not trainer.is_world_process_zero():
        return
    summary = summary_of(_run_of(trainer, training, check_rows=False))
    if trainer.args.disable_tqdm:
        logger.info("%s", summary)
    else:
        tqdm.write(summary, file=sys.stderr)


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


def training_rows(trainer: Any, samples: int) -> Any:
    """The training dataset as it was given, if it has a row for each sample: before texts were turned into numbers."""
    for dataset in (trainer._given_dataset, trainer.train_dataset):
        if isinstance(dataset, SampleStream | Mapping) or not hasattr(dataset, "__len__"):
            continue
        if is_indexed(dataset):
            dataset = dataset.samples()
        if hasattr(dataset, "__getitem__") and len(dataset) == samples:
            return dataset
    return None
