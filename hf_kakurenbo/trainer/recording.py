"""From a batch to the statistics of its samples, in the forward pass that training makes anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..config import hiding_arguments, named_task
from ..data import BatchIds
from ..hiding import HidingRun, SampleStatistics
from ..hiding.statistics import Prediction
from ..hiding.weighting import require_weighable, weighed_loss
from ..integrations.trl import is_scored, last_outputs, scored_statistics
from .state import Training
from .task_detection import make_matcher


def compute_recorded_loss(
    trainer: Any,
    training: Training,
    ids: BatchIds,
    parent: Callable[..., Any],
    model: nn.Module,
    inputs: dict[str, Any],
    return_outputs: bool,
    *args: Any,
    **kwargs: Any,
) -> Tensor | tuple[Tensor, Any]:
    """The loss of a batch as `Trainer.compute_loss` gives it; beside it, the statistics of its samples are recorded.

    Args:
        trainer: the trainer.
        training: the training under way.
        ids: the samples of the batch.
        parent: `compute_loss` of the class after the mixin, bound to the trainer.
        model: the model.
        inputs: the batch, without ids.
        return_outputs: whether the outputs are asked for beside the loss.
        *args: what else `compute_loss` was called with.
        **kwargs: the same.
    """
    batch = dict(inputs)  # the parent may take the labels out
    if training.fused_loss:
        with last_outputs(model) as outputs:
            computed = parent(model, inputs, return_outputs, *args, **kwargs)
        measured = measure(trainer, training, ids, outputs[0], batch)
        training.run.record(ids.samples, measured)
        if training.run.policy.weighs_samples or training.run.weights is not None:
            require_weighable(measured)
        return computed
    loss, outputs = parent(model, inputs, True, *args, **kwargs)
    measured = measure(trainer, training, ids, outputs, batch)
    training.run.record(ids.samples, measured)
    loss = _weighed(training.run, loss, ids, measured)
    return (loss, outputs) if return_outputs else loss


def measure(
    trainer: Any, training: Training, ids: BatchIds, outputs: Any, batch: dict[str, Any]
) -> SampleStatistics | Prediction:
    """What is to be recorded of a batch, from what the model returned."""
    if training.statistics_function is not None:
        return SampleStatistics(*training.statistics_function(outputs, batch))
    if is_scored(outputs):
        return scored_statistics(outputs, ids, hiding_arguments(trainer.args).accuracy_threshold)
    if training.matcher is None:
        # Only now: a model may set its problem type in its first forward pass.
        options = hiding_arguments(trainer.args)
        training.matcher = make_matcher(
            trainer.model, named_task(options), training.label_names, options.accuracy_threshold
        )
    return training.matcher(outputs, batch, ids.samples.numel(), ids.of_tokens)


def require_recorded(trainer: Any, training: Training) -> None:
    """Check after a forward pass that its batch was recorded.

    Raises:
        RuntimeError: a subclass computes the loss past the mixin.
    """
    if training.batch_ids is not None:
        raise RuntimeError(
            f"{type(trainer).__name__}.compute_loss does not call `super().compute_loss(...)`, where the samples' "
            "losses are recorded. Call it, or put the override into a class that stands after KakurenboMixin: "
            "`class MyTrainer(KakurenboMixin, TrainerWithMyLoss)`."
        )


def _weighed(run: HidingRun, loss: Tensor, ids: BatchIds, measured: SampleStatistics | Prediction) -> Tensor:
    """The loss of a training batch by the weights of its samples; of a refresh, or where there are none, as it is."""
    if run.epoch_finished:
        return loss
    weights = run.weights_of(ids.samples)
    if weights is None:
        if run.policy.weighs_samples:
            require_weighable(measured)  # not first in the epoch that has weights
        return loss
    return weighed_loss(loss, measured, weights)
