"""Forward-only passes: over the hidden samples at the end of an epoch, over all of them before the first."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..data import HiddenLoader, untouched_random_state
from ..distributed.collectives import world_size
from ..hiding import forward_only
from ..integrations.registry import metrics_set_aside
from .recording import recorded_batch
from .state import Training


def refresh_hidden(trainer: Any, training: Training) -> None:
    """Measure the hidden samples, or those of them that the policy names."""
    with training.run.refreshing() as chosen:
        _measure(trainer, training, chosen, training.run.epoch)


def measure_all(trainer: Any, training: Training) -> None:
    """Measure every sample before the first epoch, so that hiding can start with it."""
    training.barrier.wait("before the pass over all samples")
    with training.run.measuring_all() as everything:
        _measure(trainer, training, everything, 0)


def _measure(trainer: Any, training: Training, chosen: Tensor, epoch: int) -> None:
    """Measure some samples, (N,) bool, forward only, through the same path as in training."""
    if training.hidden_loader is None:
        training.hidden_loader = HiddenLoader(
            training.loader,
            training.sampler,
            training.run.ledger.hidden,
            trainer.accelerator,
            trainer._train_batch_size,
            trainer.args.dataloader_drop_last,
        )
    # DistributedDataParallel would overwrite buffers in a forward pass; `evaluate` runs the module below it too.
    model = trainer.model_wrapped if trainer.is_deepspeed_enabled or world_size() == 1 else trainer.model
    with untouched_random_state(trainer.args.device), forward_only(model), metrics_set_aside(trainer):
        for batch in training.hidden_loader.batches(chosen, epoch):
            inputs = trainer._prepare_inputs(batch)
            with recorded_batch(trainer, training, inputs), trainer.compute_loss_context_manager():
                num_items = trainer._get_num_items_in_batch([inputs], trainer.args.device)
                trainer.compute_loss(model, inputs, num_items_in_batch=num_items)
