"""Whether what is ranked belongs to the loss that is trained: compared on the first batches of a training."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import Trainer

from ..config import hiding_arguments
from ..distributed.collectives import rank
from ..hiding.statistics import Prediction
from ..hiding.statistics.base import describe
from ..hiding.statistics.batch_loss import BatchLoss, batch_loss, losses_of_its_criteria, smoothed
from ..hiding.statistics.outputs import predictions_of

logger = logging.getLogger(__name__)

_BATCHES = 8
# How far, as fractions, a loss may be from the one that explains it. A model that computes in half precision rounds the
# logarithms of probabilities to two digits.
_TOLERANCE, _TOLERANCE_OF_HALF = 1e-2, 3e-2
# How much of the variance of the trained loss, from batch to batch, the ranked one has to explain.
_EXPLAINED_VARIANCE = 0.98
_WAY_OUT = (
    "Give the statistics of the trained loss by `KakurenboConfig(statistics_fn=...)` (a function, or the name of a "
    'task, which says that its rule is meant), or set hiding_policy="none".'
)
# What stands beside the labels of a batch under a name with "label" in it, and is none.
_NO_LABELS = ("shift_", "weight", "mask", "length", "smoothing")


@dataclass(frozen=True)
class _Noted:
    """A batch whose statistics are known, and whose loss is not yet."""

    measured: Prediction
    outputs: Any
    batch: Mapping[str, Any]


class LossCheck:
    """Compares the losses that are recorded with the loss that is trained, on the first batches.

    The loss that is trained is what the trainer's outermost `compute_loss` returns. It may be the mean of the recorded
    losses over the tokens, pixels or samples, or the same divided as Trainer does it where gradients are accumulated
    or ranks averaged; smoothed by `label_smoothing_factor`; weighed or smoothed by a criterion, or by a tensor of one
    weight for each class, that the model holds; or it may follow the recorded one from batch to batch, by whatever
    factor and constant. What the user's own `compute_loss` or `compute_loss_func` makes of the loss is the user's word,
    and so is a `statistics_fn`.

    It reads values, so it waits for the device, but on these batches alone.

    Args:
        trainer: the trainer.
        label_names: the names under which a batch may hold labels.
    """

    def __init__(self, trainer: Any, label_names: list[str]) -> None:
        self.trainer, self.label_names = trainer, label_names
        self.left = _BATCHES if hiding_arguments(trainer.args).statistics_fn is None else 0
        self._noted: _Noted | None = None
        self._unexplained: list[tuple[float, float]] = []

    def note(self, measured: Any, outputs: Any, batch: Mapping[str, Any]) -> None:
        """Keep what is recorded of a batch until its loss is known.

        Args:
            measured: what is recorded; statistics that another library's rules gave are not compared here.
            outputs: what the model returned.
            batch: its inputs.
        """
        if self.left > 0 and isinstance(measured, Prediction):
            self._noted = _Noted(measured, outputs, batch)

    def compare(self, computed: Any, num_items_in_batch: Any = None) -> None:
        """Compare the batch that was noted last, if there is one, with its loss.

        Args:
            computed: what the outermost `compute_loss` returned, the loss or a tuple that begins with it.
            num_items_in_batch: by what Trainer divides the losses of the questions, if by anything.

        Raises:
            ValueError: only one of several heads is ranked, or similarities within the batch are taken for classes.
        """
        noted, self._noted = self._noted, None
        loss = computed[0] if isinstance(computed, tuple) else computed
        if noted is None or not isinstance(loss, Tensor) or loss.numel() != 1:
            return
        self.left -= 1
        plain = batch_loss(noted.measured)
        recorded, trained = float(plain.mean), float(loss.detach())
        if not np.isfinite([recorded, trained]).all():
            return
        numbers = f"The mean of the recorded losses is {recorded:.4g}, the loss that is trained {trained:.4g}"
        if _are_similarities(noted.measured, self.trainer.model):
            raise ValueError(_similarities(noted.measured, numbers))
        if not self._explains(noted, plain, num_items_in_batch, trained):
            self._refuse_other_losses(noted, numbers)
            self._unexplained.append((recorded, trained))
        if self.left == 0:
            self._warn()

    def _explains(self, noted: _Noted, plain: BatchLoss, num_items_in_batch: Any, trained: float) -> bool:
        half = noted.measured.logits.dtype in (torch.float16, torch.bfloat16) or self.trainer.args.bf16
        tolerance = _TOLERANCE_OF_HALF if half or self.trainer.args.fp16 else _TOLERANCE
        known = map(float, _known_losses(self.trainer, noted.measured, plain, num_items_in_batch))
        return any(abs(trained - loss) <= tolerance * max(abs(trained), abs(loss)) + 1e-6 for loss in known)

    def _refuse_other_losses(self, noted: _Noted, numbers: str) -> None:
        others, heads = self._other_labels(noted.batch), predictions_of(noted.outputs, len(noted.measured.logits))
        if others and len(heads) > 1:
            raise ValueError(
                f"The model has several heads and several labels, and samples would be ranked by the loss of one of "
                f"them alone: the batch also has {', '.join(map(repr, others))}, and the model returned "
                f"{describe(noted.outputs)}. {numbers}. {_WAY_OUT}"
            )
        if _is_square(noted.measured) and not _has_as_many_classes(self.trainer.model, len(noted.measured.logits)):
            raise ValueError(_similarities(noted.measured, numbers))

    def _other_labels(self, batch: Mapping[str, Any]) -> list[str]:
        """Names of the labels in a batch that are not ranked; the two of a span are ranked together."""
        ranked = next((name for name in self.label_names if batch.get(name) is not None), None)
        if ranked is None or "start_positions" in batch:
            return []
        return [
            name
            for name, entry in batch.items()
            if name != ranked
            and isinstance(entry, Tensor)
            and (name in self.label_names or "label" in name or "target" in name)
            and not any(word in name for word in _NO_LABELS)
        ]

    def _warn(self) -> None:
        allowed = _computes_its_own_loss(self.trainer) or _adds_terms(self.trainer.model)
        if allowed or 2 * len(self._unexplained) <= _BATCHES:
            return
        recorded, trained = np.array(self._unexplained).T
        if rank() == 0 and not _follows(recorded, trained):
            logger.warning(
                "Samples are ranked by their plain loss, on average %.4g in the first batches, but the model trains on "
                "a loss of %.4g, which neither is its mean nor follows it: it weighs classes or samples, adds terms, "
                "or is another loss. Check that what is ranked says how well a sample is known. %s",
                recorded.mean(),
                trained.mean(),
                _WAY_OUT,
            )


def _known_losses(trainer: Any, measured: Prediction, plain: BatchLoss, num_items_in_batch: Any) -> Iterator[Tensor]:
    """The losses of a batch that rank its samples as the recorded ones do, the likely ones first."""
    for loss in (plain, *_smoothed(trainer, measured, plain)):
        yield loss.mean
        if num_items_in_batch is not None:
            yield loss.total / float(num_items_in_batch)
            yield loss.total / float(num_items_in_batch) * trainer.accelerator.num_processes
    yield plain.mean_of_samples
    yield from losses_of_its_criteria(measured, trainer.model)


def _smoothed(trainer: Any, measured: Prediction, plain: BatchLoss) -> Iterator[BatchLoss]:
    if trainer.label_smoother is not None and measured.logits.ndim in (2, 3):
        yield smoothed(measured, plain, trainer.label_smoother.epsilon)


def _follows(recorded: np.ndarray, trained: np.ndarray) -> bool:
    """Whether one loss is the other by a factor above 0 and a constant, from batch to batch."""
    recorded, trained = recorded - recorded.mean(), trained - trained.mean()
    scale = np.linalg.norm(recorded) * np.linalg.norm(trained)
    return bool(recorded @ trained > np.sqrt(_EXPLAINED_VARIANCE) * scale)


def _are_similarities(measured: Prediction, model: Any) -> bool:
    """Whether logits compare the samples of the batch, which shows whatever the loss makes of it.

    They are symmetric, or their labels are the samples' places in the batch.
    """
    logits, labels = measured.logits.detach().float(), measured.labels.flatten()
    if not _is_square(measured) or len(labels) < 3:
        return False
    is_constant = (logits == logits[0, 0]).all()  # of a layer that begins with zeros
    if bool(torch.isclose(logits, logits.T, rtol=1e-2, atol=1e-4).all() & ~is_constant):
        return True
    are_places = (labels == torch.arange(len(labels), device=labels.device)).all()
    return len(labels) > 5 and not _has_as_many_classes(model, len(logits)) and bool(are_places)


def _is_square(measured: Prediction) -> bool:
    """Whether there are as many logits for each sample as samples, and one label."""
    logits, labels = measured.logits, measured.labels
    return logits.ndim == 2 and logits.shape[0] == logits.shape[1] == labels.numel() and not labels.is_floating_point()


def _has_as_many_classes(model: Any, count: int) -> bool:
    """Whether the model may tell so many classes apart: its configuration or the size of a layer says so."""
    of_configuration = getattr(getattr(model, "config", None), "num_labels", None) == count
    return of_configuration or any(parameter.shape[:1] == (count,) for parameter in model.parameters())


def _similarities(measured: Prediction, numbers: str) -> str:
    return (
        f"The logits, {describe(measured.logits)}, are similarities between the samples of the batch, not classes: no "
        f"sample has a loss of its own. {numbers}. {_WAY_OUT}"
    )


def _computes_its_own_loss(trainer: Any) -> bool:
    """Whether the user, or another library, says what the loss is."""
    owners = [base for base in type(trainer).__mro__ if "compute_loss" in vars(base) and base is not Trainer]
    own = [base for base in owners if not base.__module__.startswith(f"{__package__}.")]
    return bool(own) or trainer.compute_loss_func is not None


def _adds_terms(model: Any) -> bool:
    """Whether the configuration of a model of Transformers says that its loss has further terms."""
    config = getattr(model, "config", None)
    return any(getattr(config, name, False) is True for name in ("use_auxiliary_head", "output_router_logits"))
