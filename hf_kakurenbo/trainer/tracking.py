"""The ledger in the user's tracker: TensorBoard, W&B, MLflow, Trackio, through the callbacks that Trainer has for them.

Numbers of an epoch reach every tracker through `Trainer.log`; here go histograms and samples, which that cannot take.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from transformers.integrations import MLflowCallback, TensorBoardCallback, TrackioCallback, WandbCallback

from ..config import hiding_arguments
from ..data import untouched_random_state
from ..reporting.tracked import COLUMNS, Histogram, TrackedSamples, as_markdown, tracked_samples
from .reporting import training_rows
from .state import Training

logger = logging.getLogger(__name__)

# Under which name the trackers' x-axis is a step of the training: Trainer's callbacks call it so.
_STEP = "train/global_step"
_PREFIX = "kakurenbo"


class Moment(NamedTuple):
    """What to tell the trackers, and when it is."""

    samples: TrackedSamples
    step: int
    """Updates done."""


def log_hidden_samples(trainer: Any, training: Training, moment: str) -> None:
    """Tell the trackers, on the first rank, what the ledger says.

    A tracker that fails is reported once, and does not stop the training.

    Args:
        trainer: the trainer.
        training: the training under way.
        moment: `"epoch"` after an epoch, `"end"` at the end of the training; only one of them is asked for.
    """
    if hiding_arguments(trainer.args).log_hidden_samples != moment or not trainer.is_world_process_zero():
        return
    trackers = list(_trackers_of(trainer))
    if not trackers:
        return
    ledger = training.run.ledger
    with untouched_random_state():  # a dataset may draw from it to make a row
        found = Moment(tracked_samples(ledger, training_rows(trainer, len(ledger))), trainer.state.global_step)
        for name, log in trackers:
            try:
                log(found)
            except Exception as error:  # whatever a tracker raises: a network that is down, a release that differs
                _warn_once(training, name, error)


def _warn_once(training: Training, name: str, error: Exception) -> None:
    if name in training.failed_trackers:
        return
    training.failed_trackers.add(name)
    logger.warning(
        "%s could not log histograms and samples of the ledger (%s: %s). The training continues without; set "
        "log_hidden_samples='no' to leave them out.",
        name,
        type(error).__name__,
        error,
    )


def _trackers_of(trainer: Any) -> Iterator[tuple[str, Callable[[Moment], None]]]:
    """The trackers that are set up, each with what logs to it."""
    for callback in trainer.callback_handler.callbacks:
        for kind, name, logs_to in _KNOWN:
            if isinstance(callback, kind) and (log := logs_to(callback)) is not None:
                yield name, log


def _tensorboard(callback: Any) -> Callable[[Moment], None] | None:
    writer = callback.tb_writer

    def log(moment: Moment) -> None:
        samples, step = moment
        for name, histogram in samples.histograms.items():
            writer.add_histogram_raw(
                f"{_PREFIX}/{name}",
                min=histogram.low,
                max=histogram.high,
                num=int(histogram.counts.sum()),
                sum=histogram.total,
                sum_squares=histogram.squares,
                bucket_limits=histogram.edges[1:].tolist(),
                bucket_counts=histogram.counts.tolist(),
                global_step=step,
            )
        if samples.rows:
            writer.add_text(f"{_PREFIX}/samples", as_markdown(samples.rows), step)
        for kind, picture in samples.pictures.items():
            writer.add_image(_name_of(kind), np.asarray(picture), step, dataformats="HWC")
        writer.flush()

    return log if writer is not None else None


def _wandb(callback: Any) -> Callable[[Moment], None] | None:
    wandb = callback._wandb

    def log(moment: Moment) -> None:
        samples, step = moment
        logged: dict[str, Any] = {_STEP: step}
        if samples.rows:
            logged[f"{_PREFIX}/samples"] = wandb.Table(columns=COLUMNS, data=samples.rows)
        for name, histogram in samples.histograms.items():
            logged[f"{_PREFIX}/{name}"] = wandb.Histogram(np_histogram=(histogram.counts, histogram.edges))
        for kind, picture in samples.pictures.items():
            logged[_name_of(kind)] = wandb.Image(picture)
        wandb.log(logged)

    return log if wandb is not None and wandb.run is not None else None


def _trackio(callback: Any) -> Callable[[Moment], None] | None:
    trackio = callback._trackio

    def log(moment: Moment) -> None:
        import pandas  # type: ignore[import-untyped]

        samples, step = moment
        logged: dict[str, Any] = {_STEP: step}
        if samples.rows:
            logged[f"{_PREFIX}/samples"] = trackio.Table(dataframe=pandas.DataFrame(samples.rows, columns=COLUMNS))
        for name, histogram in samples.histograms.items():
            logged[f"{_PREFIX}/{name}"] = trackio.Histogram(np_histogram=(histogram.counts, histogram.edges))
        for kind, picture in samples.pictures.items():
            logged[_name_of(kind)] = trackio.Image(picture)
        trackio.log(logged)

    return log if callback._initialized else None


def _mlflow(callback: Any) -> Callable[[Moment], None] | None:
    mlflow = callback._ml_flow

    def log(moment: Moment) -> None:
        samples, step = moment
        if samples.rows:
            columns = {name: [row[place] for row in samples.rows] for place, name in enumerate(COLUMNS)}
            mlflow.log_table(columns, f"{_PREFIX}/samples-{step}.json")
        for name, histogram in samples.histograms.items():
            mlflow.log_dict(_as_dict(histogram), f"{_PREFIX}/{name}-{step}.json")
        for kind, picture in samples.pictures.items():
            mlflow.log_image(picture, f"{_name_of(kind)}-{step}.png")

    return log if callback._initialized and mlflow is not None and mlflow.active_run() is not None else None


# MLflow has no histograms of its own: they are files of the run.
def _as_dict(histogram: Histogram) -> dict[str, list[float]]:
    return {"counts": histogram.counts.tolist(), "edges": histogram.edges.tolist()}


def _name_of(kind: str) -> str:
    return f"{_PREFIX}/{kind.replace(',', '').replace(' ', '_')}"


_KNOWN: list[tuple[type, str, Callable[[Any], Callable[[Moment], None] | None]]] = [
    (TensorBoardCallback, "TensorBoard", _tensorboard),
    (WandbCallback, "W&B", _wandb),
    (MLflowCallback, "MLflow", _mlflow),
    (TrackioCallback, "Trackio", _trackio),
]
