"""The few collective calls that hiding needs. With one process each of them is the identity."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

Value = TypeVar("Value")


def world_size() -> int:
    """Number of processes that train together; 1 without torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Index of this process among them."""
    return dist.get_rank() if world_size() > 1 else 0


def gather_counts(count: int, device: torch.device) -> list[int]:
    """The number that each rank has, in the order of the ranks, the same list on every rank.

    Args:
        count: this rank's.
        device: a device of the backend.
    """
    if world_size() == 1:
        return [count]
    counts: list[int] = gather_padded(torch.tensor([count], device=device), 1).flatten().tolist()
    return counts


def gather_padded(rows: Tensor, length: int) -> Tensor:
    """As many rows of every rank, filled up where a rank has fewer.

    Args:
        rows: (n, ...) on the device of the backend; n may differ between ranks, the rest may not.
        length: the same on every rank, n or more.

    Returns:
        (ranks, length, ...), the same on every rank; what rows are filled up with has no meaning.
    """
    if rows.shape[0] < length:
        rows = torch.cat([rows, rows.new_zeros((length - rows.shape[0], *rows.shape[1:]))])
    gathered = rows.new_empty((world_size(), *rows.shape))
    if world_size() == 1:
        gathered[0] = rows
    else:
        dist.all_gather(list(gathered.unbind()), rows.contiguous())
    return gathered


def gather_rows(rows: Tensor) -> list[Tensor]:
    """The rows of every rank, however many each has.

    Args:
        rows: (n, ...) on the device of the backend; n may differ between ranks, the rest may not.

    Returns:
        One tensor per rank, in the order of the ranks, the same list on every rank.
    """
    counts = gather_counts(rows.shape[0], rows.device)
    return [part[:count] for part, count in zip(gather_padded(rows, max(counts)), counts, strict=True)]


def from_rank_0(value: Value) -> Value:
    """The value that rank 0 has, on every rank; it must be one that can be pickled."""
    if world_size() == 1:
        return value
    shared = [value]
    dist.broadcast_object_list(shared, src=0)
    return shared[0]


def from_every_rank(value: Value) -> list[Value]:
    """The values of all ranks, in their order, on every rank; they must be such that can be pickled."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def digest(values: np.ndarray) -> int:
    """A 64-bit digest of an array, to compare it between ranks."""
    content = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    return int.from_bytes(hashlib.blake2b(content.data, digest_size=8).digest(), "little", signed=True)


def any_rank(flag: bool, device: torch.device) -> bool:
    """Whether a flag is set on any rank; the same answer on every rank."""
    if world_size() == 1:
        return flag  # without a device that would have to be waited for
    return bool(torch.cat(gather_rows(torch.tensor([flag], device=device))).any())


def require_consistency(values: Mapping[str, int], device: torch.device, moment: str) -> None:
    """Raise on every rank if the ranks do not have the same values, instead of training apart or hanging later.

    Args:
        values: what to compare, by name; the names are the same on every rank.
        device: a device of the backend.
        moment: when this is, for the message.

    Raises:
        RuntimeError: two ranks differ in a value. The message has every rank's.
    """
    if world_size() == 1:
        return
    own = torch.tensor([list(values.values())], dtype=torch.int64, device=device)
    table = torch.cat(gather_rows(own)).cpu()
    differing = [
        f"{name}: {', '.join(f'{value} on rank {index}' for index, value in enumerate(column.tolist()))}"
        for name, column in zip(values, table.T, strict=True)
        if bool((column != column[0]).any())
    ]
    if differing:
        raise RuntimeError(
            f"The ranks are out of sync {moment}. {'; '.join(differing)}. Give every rank the same training "
            "dataset, in the same order, the same sampler and the same arguments."
        )
