"""Whether what is ranked belongs to the loss that is trained: compared on the first batches of a training."""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor
from transformers import Trainer

from ..config import hiding_arguments
from ..hiding.statistics import Prediction
from ..hiding.statistics.batch_loss import mean_loss

logger = logging.getLogger(__name__)

_BATCHES = 4
# As fractions. Auxiliary losses (of a mixture of experts) and half precision stay below the first; a batch's loss of
# another head, or of other labels, is beyond the second.
_WARNED_OF, _REFUSED = 0.05, 0.02
_WAY_OUT = (
    "Give the statistics of the trained loss by `KakurenboConfig(statistics_fn=...)` (a function, or the name of a "
    'task, which says that its rule is meant), or set hiding_policy="none".'
)


class LossCheck:
    """Compares the mean of the recorded losses with the loss of the model, on the first batches.

    Left out is where another loss is asked for: label smoothing, a `compute_loss_func`, a `compute_loss` of the user's
    own, a `statistics_fn`; and where the loss of a batch is a part of a larger one's (gradient accumulation with
    `num_items_in_batch`, several ranks). It reads values, so it waits for the device, but only on these batches.

    Args:
        trainer: the trainer.
        label_names: the names under which a batch may hold labels.
    """

    def __init__(self, trainer: Any, label_names: list[str]) -> None:
        self.label_names = label_names
        self.left = _BATCHES if _trains_the_models_loss(trainer) else 0
        self._recorded = self._trained = 0.0

    def __call__(self, measured: Any, loss: Tensor, batch: dict[str, Any]) -> None:
        """Compare one more batch.

        Args:
            measured: what is recorded of it.
            loss: what `Trainer.compute_loss` returned, a scalar.
            batch: its inputs.

        Raises:
            ValueError: only one of several heads is ranked, or similarities within the batch are taken for classes.
        """
        if self.left == 0 or not isinstance(measured, Prediction) or loss.numel() != 1:
            return
        self.left -= 1
        recorded, trained = float(mean_loss(measured)), float(loss.detach())
        if recorded != recorded or trained != trained:  # NaN: there is nothing to compare
            return
        if _differ(recorded, trained, _REFUSED):
            self._refuse_other_losses(measured, batch, recorded, trained)
        self._recorded += recorded
        self._trained += trained
        if self.left == 0 and _differ(self._recorded, self._trained, _WARNED_OF):
            logger.warning(
                "Samples are ranked by their plain loss, on average %.4g in the first batches, but the model trains on "
                "a loss of %.4g: it weighs classes, adds terms, or is another loss. Check that what is ranked says "
                "how well a sample is known. %s",
                self._recorded / _BATCHES,
                self._trained / _BATCHES,
                _WAY_OUT,
            )

    def _refuse_other_losses(
        self, measured: Prediction, batch: dict[str, Any], recorded: float, trained: float
    ) -> None:
        numbers = (
            f"The recorded losses of the first batch have a mean of {recorded:.4g}, the model's loss is {trained:.4g}"
        )
        labels = [name for name in self.label_names if isinstance(batch.get(name), Tensor)]
        if len(labels) > 1 and "start_positions" not in batch:
            raise ValueError(
                f"The model has several labels ({', '.join(labels)}), and samples would be ranked by the loss of one "
                f"of them alone. {numbers}. {_WAY_OUT}"
            )
        logits, classes = measured.logits, measured.labels
        square = logits.ndim == 2 and logits.shape[0] == logits.shape[1] > 1
        if square and not classes.is_floating_point() and classes.numel() == len(logits):
            raise ValueError(
                f"The logits, {tuple(logits.shape)}, are similarities between the samples of the batch, not classes: "
                f"no sample has a loss of its own. {numbers}. {_WAY_OUT}"
            )


def _differ(recorded: float, trained: float, tolerance: float) -> bool:
    return abs(trained - recorded) > tolerance * max(abs(trained), abs(recorded)) + 1e-6


def _trains_the_models_loss(trainer: Any) -> bool:
    """Whether the loss of a batch is what the model makes of it, and nothing else is asked for."""
    args = trainer.args
    owner = next(base for base in _behind_the_mixin(type(trainer)) if "compute_loss" in vars(base))
    return (
        hiding_arguments(args).statistics_fn is None
        and owner is Trainer
        and trainer.compute_loss_func is None
        and trainer.label_smoother is None
        and args.gradient_accumulation_steps == 1
        and args.world_size == 1
    )


def _behind_the_mixin(trainer: type) -> tuple[type, ...]:
    lineage = trainer.__mro__
    ours = max(index for index, base in enumerate(lineage) if base.__name__ == "KakurenboMixin")
    return lineage[ours + 1 :]
