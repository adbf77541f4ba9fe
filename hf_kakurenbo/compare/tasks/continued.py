"""Models that know half of the training samples when the training begins, as fine-tuning often has it."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback, Trainer, TrainingArguments, set_seed

from .base import Samples, Splits


def model_knowing_half(
    load: Callable[[], Splits], make_model: Callable[[], PreTrainedModel], arguments: tuple[tuple[str, Any], ...]
) -> PreTrainedModel:
    """A model after a training on every second training sample; the same each time.

    Every seed of a comparison begins with the same weights: an interval over seeds leaves out the variance between
    pre-trained models.

    Args:
        load: makes the samples; its training split is a `Samples`.
        make_model: makes the model to train.
        arguments: of its training, fields of `TrainingArguments` and their values.
    """
    model = make_model()
    model.load_state_dict(_trained(load, make_model, arguments))
    return model


@functools.cache
def _trained(
    load: Callable[[], Splits], make_model: Callable[[], PreTrainedModel], arguments: tuple[tuple[str, Any], ...]
) -> Mapping[str, Tensor]:
    samples = load().train
    half = Samples(**{name: column[::2] for name, column in samples.columns.items()})
    set_seed(0)
    model = make_model()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(model=model, args=TrainingArguments(folder, **dict(arguments)), train_dataset=half)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return model.state_dict()
