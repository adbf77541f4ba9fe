"""Batches of another size from a loader that exists, for an epoch that keeps its number of updates."""

from __future__ import annotations

from typing import Any

from .loaders import without_wrapper
from .samplers import VisibleSampler
from .streaming import SampleStream


class BatchSizes:
    """The sizes that a training loader's batches have from epoch to epoch.

    Args:
        loader: the loader, prepared by Accelerate, before anybody has iterated over it.
        sampler: the visible sampler, or the stream, that it is over.
        batch_size: the one that it was made with: of a rank, or of all together with `split_batches`.
    """

    def __init__(self, loader: Any, sampler: VisibleSampler | SampleStream, batch_size: int) -> None:
        self.batch_size = batch_size
        self._loader = without_wrapper(loader)
        self._stream = sampler if isinstance(sampler, SampleStream) else None
        self._made = _sizes_of(self._loader)

    def set(self, batch_size: int) -> None:
        """Change the size from the loader's next iteration on; in the unit in which it was made."""
        for holder, made in self._made:
            # A loader refuses to be assigned another size, since it reads it only for its length: that of a stream.
            holder.__dict__["batch_size"] = made * batch_size // self.batch_size
        if self._stream is not None:
            self._stream.set_batch_size(self._stream.assignment.batch_size * batch_size // self.batch_size)


def _sizes_of(loader: Any) -> list[tuple[Any, int]]:
    """What holds the batch size of a loader, and the size: its batch samplers, each in the next, and a stream's loader.

    PyTorch's `BatchSampler` reads it when it is iterated, Accelerate's shard of one copies it when it is made.
    """
    found = []
    sampler = loader.batch_sampler
    while sampler is not None:
        if hasattr(sampler, "batch_size"):
            found.append((sampler, sampler.batch_size))
        sampler = getattr(sampler, "batch_sampler", None)
    inner = getattr(loader, "base_dataloader", loader)
    return [*found, (inner, inner.batch_size)] if inner.batch_size is not None else found
