"""Whether a resumed epoch continues in its order: else samples would be trained on twice, or never."""

from __future__ import annotations

from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data import PartialEpoch, Position, RandomState, SampleStream, VisibleSampler
from ..distributed.collectives import require_consistency
from .batch_sizes import epoch_batch_size, global_batch
from .continuity import changes_of_order
from .state import Training


def begin_saved_order(
    trainer: Any, training: Training, checkpoint: str, batches_done: int, random_state: RandomState | None
) -> None:
    """Begin a resumed epoch in the order in which it was interrupted; a collective call.

    Args:
        trainer: the trainer.
        training: the training under way, which has taken the checkpoint over.
        checkpoint: its folder.
        batches_done: how many batches of the epoch a rank has done, in today's size.
        random_state: the states of the generators from which the order was drawn.

    Raises:
        ValueError: the order is another one. Of a stream it is known, and this raised, when its samples are asked for.
    """
    run, sampler = training.run, training.sampler
    position, trained_ids = Position(*training.resumed["position"]), training.resumed.pop("trained_ids")
    begun = (run.epoch, run.ledger.hidden, random_state, batches_done)
    batch_size, _ = global_batch(trainer, epoch_batch_size(trainer, run))
    if position.left(trainer.args.dataloader_drop_last, batch_size) == 0:
        sampler.begin_epoch(*begun, training.dropped)
        return  # whatever the order, nothing of it is trained on any more
    if isinstance(sampler, SampleStream):
        sampler.begin_epoch(*begun, training.dropped)
        trained = _among_all(training, trained_ids)
        if _is_complete(trained, position):
            sampler.require_continuation(PartialEpoch(run.epoch, trained.numpy(), checkpoint))
        return
    saved = training.resumed.get("description", {}).get("order", 0)
    # Without a digest, as of an earlier release or a stream, the samples that come first must be those trained on.
    dropped = position.samples_dropped if saved else 0
    sampler.begin_epoch(*begun, dropped)
    agrees = sampler.digest() == saved if saved else _begins_with(sampler, _among_all(training, trained_ids), position)
    found = {"digest of the order": sampler.digest(), "agrees with the checkpoint": int(agrees)}
    require_consistency(found, trainer.args.device, f"before epoch {run.epoch}")
    if not agrees:
        raise ValueError(_message(trainer, training, checkpoint))
    if dropped != training.dropped:
        sampler.begin_epoch(*begun, training.dropped)


def _among_all(training: Training, ids: Tensor) -> Tensor:
    """(N,) bool: which samples some ids stand for."""
    chosen = torch.zeros_like(training.run.ledger.hidden)
    chosen[ids.long()] = True
    return chosen


def _is_complete(trained: Tensor, position: Position) -> bool:
    """Whether all that was done is known, and each sample done once: not if a plain Trainer began the epoch."""
    return int(trained.count_nonzero()) == position.samples_done


def _begins_with(sampler: VisibleSampler, trained: Tensor, position: Position) -> bool:
    if not _is_complete(trained, position):
        return True
    first = np.fromiter(islice(sampler, position.samples_done), dtype=np.int64)
    return bool(trained[torch.from_numpy(first)].all())


def _message(trainer: Any, training: Training, checkpoint: str) -> str:
    changed = changes_of_order(trainer, training, training.resumed.get("description", {}))
    sampler = type(training.sampler.sampler).__name__ if isinstance(training.sampler, VisibleSampler) else ""
    cause = (
        f"What has changed since: {changed}."
        if changed
        else f"No option has changed, so {sampler} does not draw the same order from the same states of the random "
        "generators: let it follow from the epoch that its `set_epoch` gets."
    )
    return (
        f"{checkpoint} was saved in the middle of epoch {training.run.epoch}, and this training would continue it in "
        f"another order: some of its samples would be trained on a second time, others never. {cause} Resume with what "
        "it was saved with, or from a checkpoint saved at the end of an epoch, after which any order may follow; or "
        'start a new training from its weights (`from_pretrained`), or set hiding_policy="none".'
    )
