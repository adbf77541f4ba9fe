"""Which kinds of parallelism hiding works with: data, tensor and expert parallelism. The others are refused by name.

Where ranks do not have batches of their own, samples are sharded, counted and gathered by the data-parallel world
(`distributed.data_parallel`). Where they have parts of a sample, no rank knows its loss.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

from accelerate.utils import DistributedType
from transformers.training_args import ParallelMode

from ..data import SampleStream
from ..distributed.collectives import world_size
from ..distributed.data_parallel import data_parallel_world, model_parallel_dimensions

logger = logging.getLogger(__name__)

# Every rank trains on whole samples: on those of a batch of its own, or of the one that it shares with its group.
_SUPPORTED_SIZES = {"dp_replicate_size", "dp_shard_size", "fsdp_size", "tp_size", "ep_size"}
_SUPPORTED_DIMENSIONS = {"dp_replicate", "dp_shard", "tp"}
_NAMES = {
    "cp_size": "Context parallelism",
    "sp_size": "Sequence parallelism",
    "pp_size": "Pipeline parallelism",
}


def refuse_unsupported_parallelism(trainer: Any) -> None:
    """Refuse, at construction, a kind of parallelism in which samples cannot be hidden, or that nobody has tried.

    Raises:
        ValueError: Accelerate has other processes than torch.distributed, ranks have parts of samples, or a batch is
            sent to ranks that share it by a way that Accelerate does not support. The message names the way out.
    """
    _require_torch_distributed(trainer.accelerator)
    kind = next(_unsupported_kinds(trainer), None)
    if kind is not None:
        raise ValueError(
            f"{kind} is not supported: the loss and the predictions of a sample have to be known on the ranks that "
            "train on it, by which it is hidden or not. Use data parallelism (DDP, FSDP, DeepSpeed ZeRO), tensor or "
            'expert parallelism (`DistributedConfig(tp_size=..., ep_size=...)`), or set hiding_policy="none".'
        )
    _refuse_dispatching_to_groups(trainer)


def _require_torch_distributed(accelerator: Any) -> None:
    """Check that the processes that Accelerate knows are those of the collective calls."""
    processes, ranks = accelerator.num_processes, world_size()
    if processes != ranks:
        raise ValueError(
            f"Accelerate trains with {processes} process{'es' * (processes > 1)} "
            f"(distributed_type={DistributedType(accelerator.distributed_type).value}), and torch.distributed has "
            f"{ranks}. What each measures goes to the others through torch.distributed, so each would hide by a ledger "
            "of its own, or by one of another training. Start the script with `accelerate launch` or `torchrun` on "
            'devices that torch.distributed serves, or set hiding_policy="none".'
        )


def _unsupported_kinds(trainer: Any) -> Iterator[str]:
    """What ranks are divided by that hiding does not support, by name."""
    accelerator = trainer.accelerator
    if accelerator.distributed_type == DistributedType.MEGATRON_LM:
        yield "Megatron-LM's model parallelism"
    if trainer.args.parallel_mode == ParallelMode.SAGEMAKER_MODEL_PARALLEL:
        yield "SageMaker's model parallelism"
    for sizes in filter(None, (accelerator.parallelism_config, _sizes_of_model(trainer.model))):
        for name, size in vars(sizes).items():
            if name.endswith("_size") and name not in _SUPPORTED_SIZES and isinstance(size, int) and size > 1:
                yield f"{_NAMES.get(name, 'Parallelism')} ({name}={size})"
    for name, size in model_parallel_dimensions(accelerator).items():
        if name not in _SUPPORTED_DIMENSIONS and size > 1:
            yield f"A device mesh with the dimension {name!r} ({size} ranks)"


def _sizes_of_model(model: Any) -> Any:
    """How a model that `from_pretrained` divided among ranks was divided; None for another."""
    if not getattr(model, "is_distributed_loading_by_transformers", False):
        return None
    return getattr(model.config, "distributed_config", None)


def _refuse_dispatching_to_groups(trainer: Any) -> None:
    """Accelerate's dispatcher gives every rank the same batch when it finds tensor parallelism, groups or not."""
    accelerator, dispatches = trainer.accelerator, trainer.accelerator.dispatch_batches
    if dispatches is None:
        dispatches = isinstance(trainer.train_dataset, SampleStream)
    if dispatches and data_parallel_world(accelerator).group_size > 1:
        raise ValueError(
            "With tensor parallelism rank 0 cannot read the batches of all ranks (`dispatch_batches`, the default for "
            "streams): Accelerate would give every rank the same one, and count fewer than there are. Set "
            'accelerator_config={"dispatch_batches": False}, or hiding_policy="none".'
        )


def warn_of_missing_processes(accelerator: Any) -> None:
    """Warn if more processes seem to have been asked for than train together: each of them trains on every sample."""
    if accelerator.num_processes > 1:
        return
    asked = os.environ.get("WORLD_SIZE", "")
    if asked.isdigit() and int(asked) > 1:
        logger.warning(
            "WORLD_SIZE=%s, but this process trains alone: each of them trains on every sample and hides by a ledger "
            "of its own. Start the script with `torchrun` or `accelerate launch`, which set LOCAL_RANK too.",
            asked,
        )
    # Its simple launcher sets the one for several processes only, and the other always (accelerate 1.10 to 1.15).
    elif not asked and "MASTER_ADDR" in os.environ and "ACCELERATE_USE_CPU" in os.environ:
        logger.warning(
            "This process trains alone. If `accelerate launch` was asked for several, it has started one, as it does "
            "on a machine without a GPU: use `torchrun`, or a configuration with `distributed_type: MULTI_GPU` and "
            "`use_cpu: true`."
        )
