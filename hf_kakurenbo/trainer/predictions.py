"""What the model at hand predicts of some training samples, for the report; on one rank, without the others."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType
from torch.utils.data import DataLoader

from ..data import SampleStream, drop_ids, read_ids, untouched_random_state
from ..distributed.data_parallel import data_parallel_world
from ..hiding import forward_only, single_label_statistics
from ..hiding.statistics import Prediction
from ..reporting.confusion import Predictions
from .recording import measure
from .state import Training

logger = logging.getLogger(__name__)

# Whose model one rank alone has whole.
_WHOLE_MODEL = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def predict(trainer: Any, training: Training, ids: np.ndarray) -> Predictions | None:
    """The classes that the model at hand predicts of some samples, in a forward-only pass in evaluation mode.

    The samples come as they do in training: by the same collator and with the same transforms.

    Args:
        trainer: the trainer.
        training: the training under way, or the last one.
        ids: (n,) int64.

    Returns:
        None where no single class is predicted of a sample, where the rows of a stream would have to be sought, or
        where the model is split among ranks.
    """
    loader = training.training_loader
    accelerator = trainer.accelerator
    is_whole = accelerator.distributed_type in _WHOLE_MODEL and data_parallel_world(accelerator).group_size == 1
    if isinstance(loader.sampler, SampleStream) or not is_whole or training.observe is not None:
        return None
    try:
        found = _forward_only(trainer, training, ids)
    except Exception as error:  # a model that was moved or freed since: the report is still worth having
        logger.warning(
            "The model could not be asked what it predicts of the samples never learnt (%s: %s). The report is "
            "written without.",
            type(error).__name__,
            error,
        )
        return None
    return None if found is None else Predictions(*found, _names_of_classes(trainer.model))


def _forward_only(
    trainer: Any, training: Training, ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Ids, labels and predicted classes; None if the batches are of another task."""
    collator: Any = training.training_loader.collator
    name = training.id_name
    loader: DataLoader[Any] = DataLoader(
        training.loader.dataset,
        batch_size=trainer.args.per_device_train_batch_size,
        sampler=ids.tolist(),
        collate_fn=collator,
    )
    parts = []
    with untouched_random_state(trainer.args.device), forward_only(trainer.model):
        for batch in loader:
            found = read_ids(batch, name)
            drop_ids(batch, name)
            inputs = trainer._prepare_inputs(batch)
            kept = dict(inputs)  # a loss may take the labels out
            with trainer.compute_loss_context_manager():
                _, outputs = trainer.compute_loss(trainer.model, inputs, return_outputs=True)
            measured = measure(trainer, training, found, outputs, kept)
            if not isinstance(measured, Prediction) or measured.rule is not single_label_statistics:
                return None
            labels = measured.labels.reshape(-1)
            parts.append([rows.cpu().numpy() for rows in (found.samples, labels, measured.logits.argmax(dim=1))])
    of_all = [np.concatenate(rows).astype(np.int64) for rows in zip(*parts, strict=True)]
    return of_all[0], of_all[1], of_all[2]


def _names_of_classes(model: torch.nn.Module) -> dict[int, str]:
    names = getattr(getattr(model, "config", None), "id2label", None) or {}
    return {int(number): str(name) for number, name in names.items()}
