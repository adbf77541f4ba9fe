"""The data-parallel world: how many different batches the ranks have at a time, and which of them this rank has.

With tensor parallelism a model is split among a group of ranks, which all get the same batch. For the samples such a
group is one rank: it has one part of a sharded epoch, and what it measures counts once.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from .collectives import gather_rows, rank, world_size

# The dimensions of Accelerate's device mesh along which batches differ (`ParallelismConfig.dp_dim_names`).
_DATA_PARALLEL_DIMENSIONS = {"dp_replicate", "dp_shard"}


class DataParallelWorld(NamedTuple):
    """Who shares the samples; `DataParallelWorld.of_all_ranks()` where every rank has a batch of its own."""

    size: int
    """How many different batches there are at a time."""
    rank: int
    """Which of them this rank has."""
    group_size: int = 1
    """How many ranks have the same batch; they follow each other."""
    group_rank: int = 0
    """Which of these this rank is."""

    @classmethod
    def of_all_ranks(cls) -> DataParallelWorld:
        """Every rank has a batch of its own."""
        return cls(world_size(), rank())

    @property
    def leads(self) -> bool:
        """Whether this rank speaks for its group: what it measured is what counts."""
        return self.group_rank == 0


def data_parallel_world(accelerator: Any) -> DataParallelWorld:
    """The data-parallel world of an `accelerate.Accelerator`, as it shards the batches of its own loaders.

    Accelerate orders the ranks so that those with the same batch follow each other.
    """
    group_size = math.prod(model_parallel_dimensions(accelerator).values())
    ranks, index = accelerator.num_processes, accelerator.process_index
    return DataParallelWorld(ranks // group_size, index // group_size, group_size, index % group_size)


def model_parallel_dimensions(accelerator: Any) -> dict[str, int]:
    """The dimensions, with their sizes, in which the ranks of an `accelerate.Accelerator` do not have own batches."""
    mesh = accelerator.torch_device_mesh
    sizes = {} if mesh is None else dict(zip(mesh.mesh_dim_names, mesh.shape, strict=True))
    if accelerator.distributed_type == "DEEPSPEED":  # whose own mesh is made with the first loader
        config = accelerator.deepspeed_plugin.deepspeed_config
        sizes["tp"] = max(config.get("tensor_parallel", {}).get("autotp_size", 0), sizes.get("tp", 1))
    return {name: size for name, size in sizes.items() if name not in _DATA_PARALLEL_DIMENSIONS}


def require_same_batches(world: DataParallelWorld, ids: int, device: torch.device) -> None:
    """Raise on every rank if ranks that should have had the same batches had others; a collective call.

    Args:
        world: the data-parallel world.
        ids: a digest of the samples that this rank had, in their order.
        device: a device of the backend.

    Raises:
        RuntimeError: the ranks of a group differ.
    """
    by_group = torch.cat(gather_rows(torch.tensor([ids], device=device))).view(-1, world.group_size).cpu()
    apart = (by_group != by_group[:, :1]).any(dim=1).nonzero().flatten().tolist()
    if apart:
        first = apart[0] * world.group_size
        raise RuntimeError(
            f"Ranks {first} to {first + world.group_size - 1} share each batch, since a model is split among them "
            "(tensor parallelism), but they were given different samples, so what they trained on is no batch at all. "
            "Give every rank the same training dataset in the same order; a stream's `shuffle` needs a seed "
            "(`stream.shuffle(seed=0)`)."
        )
