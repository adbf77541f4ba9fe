"""From a batch to the statistics of its samples, in the forward pass that training makes anyway."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..config import hiding_arguments, named_task
from ..data import BatchIds, drop_ids, read_ids
from ..hiding import HidingRun, SampleStatistics
from ..hiding.statistics import Prediction
from ..hiding.statistics.base import describe
from ..hiding.statistics.checks import require_statistics
from ..hiding.weighting import require_weighable, weighed_loss
from ..integrations.base import Observation
from .state import Batch, Training
from .task_detection import make_matcher


def compute_recorded_loss(
    trainer: Any,
    training: Training,
    parent: Callable[..., Any],
    model: nn.Module,
    inputs: dict[str, Any],
    return_outputs: bool,
    *args: Any,
    **kwargs: Any,
) -> Tensor | tuple[Tensor, Any]:
    """The loss of a batch as `Trainer.compute_loss` gives it; beside it, the statistics of its samples are recorded.

    A further pass over the same batch within its step, as adversarial training makes it, is not recorded. A batch may
    come in pieces, or its rows in another order, as long as its ids come with them.

    Args:
        trainer: the trainer.
        training: the training under way, a batch of it going through the model.
        parent: `compute_loss` of the class after the mixin, bound to the trainer.
        model: the model.
        inputs: the batch, without ids.
        return_outputs: whether the outputs are asked for beside the loss.
        *args: what else `compute_loss` was called with.
        **kwargs: the same.
    """
    assert training.batch is not None
    ids = training.batch.ids
    if training.batch.recorded >= training.batch.samples:
        return parent(model, inputs, return_outputs, *args, **kwargs)
    training.batch.recorded += ids.samples.numel()
    batch = dict(inputs)  # the parent may take the labels out
    if training.observe is None:
        loss, outputs = _with_outputs(parent, parent(model, inputs, True, *args, **kwargs))
        measured = measure(trainer, training, ids, outputs, batch)
    else:
        with training.observe(model) as observation:
            computed = parent(model, inputs, return_outputs, *args, **kwargs)
        loss, outputs = computed if return_outputs else (computed, None)
        measured = measure_observed(trainer, training, ids, observation, batch, loss)
    _require_rows(trainer, ids, measured)
    if training.run.weights is None:
        training.loss_check.note(measured, outputs, batch)
    training.run.record(ids.samples, measured)
    loss = _weighed(training.run, loss, ids, measured)
    return (loss, outputs) if return_outputs else loss


def _with_outputs(parent: Callable[..., Any], computed: Any) -> tuple[Tensor, Any]:
    """The loss and the outputs that `compute_loss` was asked for.

    Raises:
        ValueError: it returned something else.
    """
    if isinstance(computed, tuple) and len(computed) == 2:
        return computed
    raise ValueError(
        f"{parent.__qualname__} returned {describe(computed)} where it was called with return_outputs=True, so it is "
        "not known what the model made of each sample. Let it return `(loss, outputs)` then, as Trainer's does, or set "
        'hiding_policy="none".'
    )


def _require_rows(trainer: Any, ids: BatchIds, measured: SampleStatistics | Prediction) -> None:
    """Check that what the model was given are the samples whose ids came with it."""
    if isinstance(measured, Prediction) and len(measured.logits) != ids.samples.numel():
        raise ValueError(
            f"{type(trainer).__name__} gives the model {len(measured.logits)} rows of a batch of "
            f"{ids.samples.numel()} samples. A `training_step` that splits a batch has to take a piece of each of its "
            'entries, the ids among them, and leave none out; or set hiding_policy="none".'
        )


def measure_observed(
    trainer: Any, training: Training, ids: BatchIds, observation: Observation, batch: dict[str, Any], loss: Tensor
) -> SampleStatistics | Prediction:
    """What is to be recorded of a batch, from what was seen of it while another library's trainer computed its loss."""
    if training.statistics_function is None:
        threshold = hiding_arguments(trainer.args).accuracy_threshold
        measured = observation.statistics(batch, ids, threshold, loss)
        if measured is not None:
            return measured
    return measure(trainer, training, ids, observation.outputs, batch)


def measure(
    trainer: Any, training: Training, ids: BatchIds, outputs: Any, batch: dict[str, Any]
) -> SampleStatistics | Prediction:
    """What is to be recorded of a batch, from what the model returned."""
    if training.statistics_function is not None:
        statistics = require_statistics(training.statistics_function(outputs, batch), ids.samples.numel())
        training.value_check(statistics)
        return statistics
    if training.matcher is None:
        # Only now: a model may set its problem type in its first forward pass.
        options = hiding_arguments(trainer.args)
        training.matcher = make_matcher(
            trainer.model,
            named_task(options),
            training.label_names,
            options.accuracy_threshold,
            fused=trainer.args.use_liger_kernel,
        )
    return training.matcher(outputs, batch, ids.samples.numel(), ids.of_tokens)


@contextmanager
def every_step_recorded(trainer: Any) -> Iterator[None]:
    """Around `train`: whatever `training_step` the trainer has, each batch of the training loader is recorded once.

    Both hooks are wrapped on the instance, from outside: a subclass may have one of its own that calls no other. A
    `training_step` sees the ids in its batch; a `compute_loss`, which gives the batch to the model, does not.
    """
    step: Callable[..., Tensor] = trainer.training_step
    loss_of: Callable[..., Any] = trainer.compute_loss
    own = {name: vars(trainer)[name] for name in ("training_step", "compute_loss") if name in vars(trainer)}

    def recorded_step(model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Tensor:
        training = _training_of_step(trainer)
        if training.id_name not in inputs and training.run.epoch_finished:
            return step(model, inputs, *args, **kwargs)  # a batch of somebody else's, between epochs
        _require_its_turn(trainer, training, inputs)
        training.barrier.begin_step()
        with recorded_batch(trainer, training, inputs):
            loss = step(model, inputs, *args, **kwargs)
        drop_ids(inputs, training.id_name)  # so that the same batch is known when it comes again
        training.run.batches_done += 1
        return loss

    def loss_without_ids(model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        training = trainer._training
        if training is None or training.batch is None:
            return loss_of(model, inputs, *args, **kwargs)
        if training.id_name in inputs:
            training.batch.ids = read_ids(inputs, training.id_name)  # a step may have taken a piece, or sorted its rows
        drop_ids(inputs, training.id_name)
        computed = loss_of(model, inputs, *args, **kwargs)
        training.loss_check.compare(computed, kwargs.get("num_items_in_batch"))
        return computed

    trainer.training_step, trainer.compute_loss = recorded_step, loss_without_ids
    try:
        yield
    finally:
        del trainer.training_step, trainer.compute_loss
        vars(trainer).update(own)


def _training_of_step(trainer: Any) -> Training:
    training: Training | None = trainer._training
    if training is None:
        raise RuntimeError(
            f"{type(trainer).__name__} trains without `Trainer._init_training_state`, where hiding begins: it has a "
            "training loop of its own. Let its `_inner_training_loop` call `super()._inner_training_loop(...)`, or "
            'set hiding_policy="none".'
        )
    return training


def _require_its_turn(trainer: Any, training: Training, inputs: Any) -> None:
    """Check that a batch is one of the epoch under way, without asking the device."""
    run, name = training.run, type(trainer).__name__
    if run.epoch_finished:
        raise RuntimeError(
            f"{name} trains on a batch outside the epochs that hiding begins: it has a `_run_epoch` of its own. Let it "
            'call `super()._run_epoch(...)`, or set hiding_policy="none".'
        )
    if training.id_name not in inputs:
        raise RuntimeError(
            f"{name} trains on a batch without {training.id_name!r}, so it is not one of its training loader's, or "
            "comes twice. Each batch of `super().get_train_dataloader()` has to reach `training_step` once and whole; "
            'or set hiding_policy="none".'
        )
    if run.batches_done >= len(training.loader):
        raise RuntimeError(
            f"{name} trains on more batches in epoch {run.epoch} than the {len(training.loader)} of its training "
            "loader: batches come twice. What iterates over the loader has to pass on each of them once; or set "
            'hiding_policy="none".'
        )


@contextmanager
def recorded_batch(trainer: Any, training: Training, inputs: Mapping[str, Any]) -> Iterator[None]:
    """Around the forward pass of a batch that carries its ids.

    Raises:
        RuntimeError: the loss was computed past the mixin, so that nothing was recorded, or of other samples than the
            batch has.
    """
    ids = read_ids(inputs, training.id_name)
    training.batch = batch = Batch(ids, ids.samples.numel())
    try:
        yield
    finally:
        training.batch = None
    if not batch.recorded:
        raise RuntimeError(
            f"{type(trainer).__name__} computes the loss of a batch without `KakurenboMixin.compute_loss`, where the "
            "samples' losses are recorded. Let its `compute_loss` call `super().compute_loss(...)`, and its "
            "`training_step` call `self.compute_loss(...)`; or put the override into a class that stands after "
            "KakurenboMixin: `class MyTrainer(KakurenboMixin, TrainerWithMyLoss)`; or set "
            'hiding_policy="none".'
        )
    if batch.recorded != batch.samples:
        raise RuntimeError(
            f"{type(trainer).__name__} computes the losses of {batch.recorded} samples in the step of a batch of "
            f"{batch.samples}: its `training_step` or `_prepare_inputs` leaves samples out, or repeats them. Let each "
            'sample of a batch go through the model once before any comes again, or set hiding_policy="none".'
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
