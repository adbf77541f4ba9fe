"""Which optimizer really steps, at which learning rate, and whether that rate can be reached."""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from transformers.trainer_pt_utils import LayerWiseDummyOptimizer, LayerWiseDummyScheduler

from ..hiding.aligned_scheduler import HasParamGroups


class LayerWiseOptimizer:
    """The optimizers that step inside the backward pass, one a weight, as one with all their groups.

    Transformers holds them in a dummy, which has a rate of its own that nothing steps with.

    Args:
        dummy: what Transformers takes for the optimizer.
    """

    def __init__(self, dummy: LayerWiseDummyOptimizer) -> None:
        optimizers = dummy.optimizer_dict.values()
        self.param_groups = list(chain.from_iterable(optimizer.param_groups for optimizer in optimizers))


def stepping_optimizer(optimizer: Any) -> HasParamGroups:
    """The optimizer whose groups have the rates that are stepped with."""
    inner = optimizer
    while not isinstance(inner, LayerWiseDummyOptimizer) and hasattr(inner, "optimizer"):
        inner = inner.optimizer
    stepping: HasParamGroups = LayerWiseOptimizer(inner) if isinstance(inner, LayerWiseDummyOptimizer) else optimizer
    return stepping


def why_not_compensated(trainer: Any) -> str | None:
    """Why the learning rates of the trainer's optimizer cannot be multiplied, for a warning; None if they can."""
    if isinstance(trainer.lr_scheduler, LayerWiseDummyScheduler):
        return "each weight has a scheduler of its own, which a hook in the backward pass steps"
    groups = stepping_optimizer(trainer.optimizer).param_groups
    if any(group.get("relative_step") for group in groups):
        return "Adafactor with relative_step=True works its rate out by itself, from the number of updates"
    if not (trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled) and not _holds_weights(groups, trainer.model):
        return f"the weights are not in the groups of {type(trainer.optimizer).__name__}, so another optimizer steps"
    return None


def _holds_weights(groups: list[dict[str, Any]], model: torch.nn.Module) -> bool:
    stepped = {id(weight) for group in groups for weight in group["params"]}
    return any(id(weight) in stepped for weight in model.parameters())


def rate_in_effect(optimizer: Any) -> float:
    """The learning rate of the first group's last step."""
    group = stepping_optimizer(optimizer).param_groups[0]
    # Schedule-free optimizers warm their rate up by themselves, and keep what it was.
    rate = group.get("scheduled_lr", group["lr"])
    return float(rate)
