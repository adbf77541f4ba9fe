"""Measurements of one rank that wait for the end of the epoch, and their way to all ranks."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import torch
from torch import Tensor

from ..distributed.collectives import digest, gather_counts, gather_padded
from ..distributed.data_parallel import DataParallelWorld, require_same_batches
from .measurements import Measurements

# Rows on the device before they are packed and move to the CPU, 5 MB of them: the one moment at which it is waited for.
_BLOCK_ROWS = 2**18
# Batches before that: however few rows it has, a batch takes a kilobyte on a GPU, whose memory comes in pieces of 512.
_BLOCK_BATCHES = 2**14

# Rows of all ranks together in one round of the exchange, 12 MB of them, which is as fast as any; but of very many
# ranks so many each that a message is worth its latency.
_ROUND_ROWS = 2**20
_ROUND_ROWS_OF_A_RANK = 2**14


class PendingMeasurements:
    """What this rank has measured, in order: the last of it on the device, the rest in blocks on the CPU.

    Args:
        device: where measurements come from; also the device of the collective calls.
        num_samples: N. Below 2³¹ the ids take 4 bytes each, else, or if it is not known, 8.
        data_parallel: which ranks have the same batches; of those, one sends what all of them measured.
    """

    def __init__(self, device: torch.device, num_samples: int | None, data_parallel: DataParallelWorld) -> None:
        self.device = device
        self._data_parallel = data_parallel
        self._num_samples = num_samples
        fits = num_samples is not None and num_samples < 2**31
        self._id_dtype = torch.int32 if fits else torch.int64
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._recent: list[tuple[Tensor, Tensor]] = []
        self._recent_rows = 0
        self._blocks = [Measurements(torch.empty(0, dtype=self._id_dtype), torch.empty(0, 2))]
        self._ends = [0]

    def append(self, ids: Tensor, statistics: Tensor) -> None:
        """Add the measurements of a batch.

        Args:
            ids: (B,) int64, on the device.
            statistics: (B, 3) float32, on the device: loss, confidence, and correct as 0 or 1.
        """
        self._recent.append((ids, statistics))
        self._recent_rows += len(ids)
        if self._recent_rows >= _BLOCK_ROWS or len(self._recent) >= _BLOCK_BATCHES:
            self._close_block()

    def append_packed(self, measurements: Measurements) -> None:
        """Add measurements that are packed, on the CPU."""
        self._close_block()
        self._blocks.append(Measurements(measurements.ids.to(self._id_dtype), measurements.statistics))
        self._ends.append(self._ends[-1] + len(measurements.ids))

    def _close_block(self) -> None:
        if not self._recent:
            return
        ids, statistics = (torch.cat(parts) for parts in zip(*self._recent, strict=True))
        self._recent, self._recent_rows = [], 0
        # An id that is none must stay one when it is cut to 4 bytes.
        ids = ids.clamp(-1, self._num_samples).to(self._id_dtype)
        loss, confidence, correct = statistics.unbind(dim=1)
        self.append_packed(Measurements(*(rows.cpu() for rows in Measurements.of(ids, loss, correct, confidence))))

    def rounds_backwards(self) -> Iterator[Measurements]:
        """What all ranks have measured, the same on every rank, in rounds of bounded size; a collective call.

        The order is by position within the rank, then by rank, and it is given from its end: the last round first,
        each round in order. Padding repeats the first samples of an epoch in its last batch, so a sample's own place
        comes before its repetition, whatever the number of ranks, and what is written last is what counts.
        """
        counts, starts, width = self._plan()
        for start in reversed(starts):
            yield self._round(counts, start, width)

    def gathered(self) -> Measurements:
        """What all ranks have measured, in that order, in one piece on the CPU; a collective call."""
        counts, starts, width = self._plan()
        ids = torch.empty(sum(counts), dtype=self._id_dtype)
        statistics = torch.empty(sum(counts), 2)
        end = 0
        for start in starts:
            part = self._round(counts, start, width)
            begin, end = end, end + len(part.ids)
            ids[begin:end], statistics[begin:end] = part
        return Measurements(ids, statistics)

    def _plan(self) -> tuple[list[int], range, int]:
        """Rows that each rank sends, where the rounds start within a rank, and how many rows of each rank one has."""
        self._close_block()
        self._require_same_batches()
        counts = gather_counts(self._ends[-1] if self._data_parallel.leads else 0, self.device)
        width = max(_ROUND_ROWS // len(counts), _ROUND_ROWS_OF_A_RANK)
        return counts, range(0, max(counts), width), width

    def _require_same_batches(self) -> None:
        """Check that ranks that share a batch measured the same samples, since only one of them sends what it did."""
        if self._data_parallel.group_size > 1:
            ids = torch.cat([block.ids for block in self._blocks])
            require_same_batches(self._data_parallel, digest(ids.numpy()), self.device)

    def _round(self, counts: list[int], start: int, width: int) -> Measurements:
        own = self._slice(start, start + width) if self._data_parallel.leads else self._blocks[0]
        if len(counts) == 1:
            return own
        width = min(width, max(counts) - start)
        ids, statistics = (_by_position(gather_padded(rows.to(self.device), width)) for rows in own)
        if min(counts) < start + width:
            there = _by_position(torch.arange(start, start + width) < torch.tensor(counts).unsqueeze(1))
            ids, statistics = ids[there], statistics[there]
        return Measurements(ids, statistics)

    def _slice(self, start: int, stop: int) -> Measurements:
        """Rows start..stop−1 of this rank, as many of them as there are."""
        parts = []
        block = bisect_right(self._ends, start)
        while block < len(self._blocks) and (begin := self._ends[block - 1]) < stop:
            parts.append(Measurements(*(rows[max(0, start - begin) : stop - begin] for rows in self._blocks[block])))
            block += 1
        if not parts:
            return self._blocks[0]
        return parts[0] if len(parts) == 1 else Measurements(*map(torch.cat, zip(*parts, strict=True)))


def _by_position(by_rank: Tensor) -> Tensor:
    """From (ranks, rows, ...) to (rows · ranks, ...) on the CPU: the first of each rank, then the second, and so on."""
    return by_rank.cpu().transpose(0, 1).flatten(0, 1)
