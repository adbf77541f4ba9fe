"""One training of a comparison."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from transformers import EvalPrediction, PrinterCallback, set_seed

from ..config import KakurenboConfig
from ..trainer import KakurenboTrainer
from .methods import Method
from .quiet import QUIET
from .records import Record
from .tasks import Task


def settings_of(task: Task, method: Method, hidden_share: float | None = None) -> dict[str, Any]:
    """The fields of `KakurenboConfig` that a method sets on a task.

    Args:
        task: gives the epochs, the learning rate and the rest.
        method: changes some of it.
        hidden_share: the fraction of the samples that the method of `share_of` hid in this seed.

    Raises:
        ValueError: it is to hide a fraction, and has no epoch to do so.
    """
    settings = {**task.arguments, **method.options}
    # As written: 10 × 1.1 in binary is a little more than 11, and would begin a twelfth epoch.
    epochs = round(task.arguments["num_train_epochs"] * method.epochs, 9)
    settings["num_train_epochs"] = epochs
    settings["learning_rate"] = task.arguments["learning_rate"] * method.learning_rate
    if method.batch_size != 1:
        batch_size = settings["per_device_train_batch_size"] * method.batch_size
        settings["per_device_train_batch_size"] = max(1, round(batch_size))
    if hidden_share is not None:
        warmup = settings.get("hiding_warmup_epochs", 1)
        hiding_epochs = epochs - warmup
        if hiding_epochs <= 0:
            raise ValueError(
                f"hiding_warmup_epochs={warmup} leaves none of {epochs} epochs to hide in: give more epochs."
            )
        settings["max_hidden_fraction"] = min(hidden_share * epochs / hiding_epochs, 0.99)
        settings.update(fraction_milestones=[0.0], fraction_factors=[1.0])
    return settings


def make_arguments(settings: Mapping[str, Any], seed: int, folder: str) -> KakurenboConfig:
    """The arguments of a training.

    Raises:
        TypeError: a setting is no field of them.
        ValueError: a setting is out of its range.
    """
    return KakurenboConfig(output_dir=folder, seed=seed, **{**QUIET, **settings})


def train(task: Task, method: Method, seed: int, settings: Mapping[str, Any]) -> Record:
    """Train once from weights drawn by the seed, and evaluate.

    Args:
        task: what is learned.
        method: named in the record.
        seed: of the weights, the order of the samples and everything else that is drawn.
        settings: what `settings_of` gave.
    """
    splits = task.load()
    with tempfile.TemporaryDirectory() as folder:
        arguments = make_arguments(settings, seed, folder)
        set_seed(seed)
        trainer = KakurenboTrainer(
            model=task.make_model(),
            args=arguments,
            train_dataset=splits.train,
            eval_dataset=splits.validation,
            compute_metrics=_accuracy,
        )
        trainer.remove_callback(PrinterCallback)
        started, on_processor = time.perf_counter(), time.process_time()
        metrics = trainer.train().metrics
        seconds, processor_seconds = time.perf_counter() - started, time.process_time() - on_processor
        accuracy = trainer.evaluate()["eval_accuracy"]
    num_samples = len(splits.train)
    return Record(
        task=task.name,
        method=method.name,
        seed=seed,
        accuracy=accuracy,
        backpropagated=int(metrics.get("kakurenbo/trained_samples", num_samples * arguments.num_train_epochs)),
        forward_only=int(metrics.get("kakurenbo/refreshed_samples", 0)),
        full_samples=int(num_samples * task.arguments["num_train_epochs"]),
        updates=trainer.state.global_step,
        seconds=seconds,
        processor_seconds=processor_seconds,
        settings=settings,
    )


def _accuracy(prediction: EvalPrediction) -> dict[str, float]:
    outputs = prediction.predictions
    logits = outputs[0] if isinstance(outputs, tuple) else outputs
    return {"accuracy": float(np.mean(np.argmax(logits, axis=-1) == prediction.label_ids))}
