"""The loader of a training loop of one's own: the visible samples of an epoch with their ids, and those to refresh."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from itertools import cycle, islice
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.data_loader import DataLoaderShard
from torch import Tensor
from torch.utils.data import BatchSampler, IterableDataset, RandomSampler, Sampler, SequentialSampler, default_collate

from ..distributed.collectives import require_consistency
from ..distributed.data_parallel import DataParallelWorld
from ..hiding import HidingRun
from .identity import IdentifiedDataset, IdentifiedExamples
from .loaders import make_visible_sampler
from .random_state import RandomState, untouched_random_state
from .row_order import require_order, require_rows
from .samplers import HiddenSampler


class IdentifiedBatch(NamedTuple):
    """A batch, with the ids of its samples beside it."""

    ids: Tensor
    """(B,) int64."""
    batch: Any
    """What the collator returned."""


class VisibleLoader:
    """What a `DataLoader` is in another loop: the batches of an epoch's visible samples, each with its ids.

    It needs no Trainer. On several ranks, whoever launched them, each rank gets its part of every batch, so that a
    batch is the same on any number of ranks; it is not given to `Accelerator.prepare`, and has no other sampler put
    into it. The order of an epoch is a function of the seed and the epoch, never of the global generators.

    An epoch that was interrupted continues after the batches that `run.batches_done` counts; what it draws is
    compared with what was recorded before.

    Args:
        dataset: map-style, with a row for each sample of the run.
        run: the training; it says what is hidden.
        batch_size: of all ranks together, a multiple of their number.
        seed: of the order; every epoch has another.
        shuffle: off, samples come in the order of the dataset.
        sampler: yields the ids of an epoch with nothing hidden, in the place of `shuffle`. One that draws from a
            generator of its own cannot be continued within an epoch.
        drop_last: leave out what does not fill a batch. Otherwise the last batch of several ranks is filled up from the
            first one, until each rank has as many samples.
        constant_updates: give epochs that hide as many batches as others have, smaller ones, and leave the learning
            rate as it is (`run.lr_scale` is 1, up to rounding); off, they have fewer, of the same size.
        collate_fn: from what the dataset gave for a batch to the batch; by default PyTorch's.
        device: where batches are put; None leaves them where they are made.
        options: what else a `DataLoader` takes: `num_workers`, `pin_memory`, `persistent_workers`, ...

    Raises:
        ValueError: the dataset is a stream or has another length than the run, or the sampler yields no single indices.
    """

    def __init__(
        self,
        dataset: Any,
        run: HidingRun,
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        sampler: Any = None,
        drop_last: bool = False,
        constant_updates: bool = False,
        collate_fn: Callable[[Any], Any] = default_collate,
        device: torch.device | str | None = None,
        **options: Any,
    ) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise ValueError(
                "The loader leaves samples out by their place in the dataset, and "
                f"{type(dataset).__name__} is a stream. Load it map-style (`streaming=False`), or train with "
                "KakurenboTrainer, which takes streams."
            )
        if len(dataset) != len(run.ledger):
            raise ValueError(
                f"The dataset has {len(dataset):,} samples and the run {len(run.ledger):,}: an id is the place of a "
                "sample in the dataset. Make the run with `HidingRun(len(dataset), ...)`."
            )
        self.run, self.batch_size, self.seed, self.drop_last = run, batch_size, seed, drop_last
        self.constant_updates = constant_updates
        if sampler is None:
            sampler = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
        self.sampler = make_visible_sampler(sampler, seed)
        self._epoch: int | None = None
        self._dataset = IdentifiedDataset(dataset)
        self._device = None if device is None else torch.device(device)
        self._options = {**options, "collate_fn": _Collator(collate_fn)}
        self._batches = _PartOfBatches(self.sampler, batch_size, drop_last)
        self._loader = self._load(self._batches)
        self._chosen = HiddenSampler(run.ledger.hidden, batch_size if drop_last else 1)
        self._chosen_batches = _PartOfBatches(self._chosen, batch_size, drop_last=False)
        self._chosen_loader: Any = None

    def begin_epoch(self, epoch: int, progress: float) -> bool:
        """Choose what the epoch hides, or take up the one that was interrupted; a collective call.

        Args:
            epoch: its index, from 0.
            progress: the fraction of the training already done, in [0, 1).

        Returns:
            Whether it is a new one. A scheduler is to begin it then; the state of an interrupted one has it.

        Raises:
            RuntimeError: the ranks have not the same visible samples in the same order.
            ValueError: the batch size is no multiple of the number of ranks, or what was recorded of an interrupted
                epoch is not what it draws first.
        """
        run, sampler = self.run, self.sampler
        self._share_batches()
        is_new = epoch != run.epoch or run.epoch_finished
        if is_new:
            run.begin_epoch(epoch, progress)
        sampler.repeats = run.repeats
        sampler.begin_epoch(epoch, run.ledger.hidden, _seeded_state(self.seed + epoch))
        if is_new:
            self._hide_no_more_than_is_drawn()
            run.count_draws(sampler.samples, sampler.full_samples)
            if self.constant_updates and run.ledger.num_hidden:
                run.keep_updates(self.batch_size, self._batches.world.size)
        self._batches.batch_size = self.epoch_batch_size
        if is_new:
            self._keep_what_can_be_trained_on()
        self._epoch = epoch
        run.count_draws(sampler.samples, sampler.full_samples)
        same = {"digest of the order": sampler.digest(), "batches": len(self)}
        require_consistency(same, run.recorder.device, f"before epoch {epoch}")
        if not is_new:
            self._require_what_was_recorded()
            run.start_clock()
        return is_new

    def __len__(self) -> int:
        """Batches of the epoch that was begun; before, those of an epoch with nothing hidden."""
        return len(self._batches) if self._epoch is not None else self.full_batches

    @property
    def epoch_batch_size(self) -> int:
        """The size of the epoch's batches, of all ranks together: `batch_size`, or less with `constant_updates`."""
        return self.run.epoch_batch_size(self.batch_size, self._batches.world.size)

    @property
    def full_batches(self) -> int:
        """Batches of an epoch with nothing hidden, for which a learning-rate schedule is made."""
        samples, size = self.sampler.full_samples, self.batch_size
        return samples // size if self.drop_last else -(-samples // size)

    def __iter__(self) -> Iterator[IdentifiedBatch]:
        """This rank's part of the batches that the epoch still has.

        Raises:
            RuntimeError: no epoch was begun.
        """
        if self._epoch is None or self._epoch != self.run.epoch or self.run.epoch_finished:
            raise RuntimeError(
                f"The loader is iterated, and has begun no epoch (the run is in epoch {self.run.epoch}). Call "
                "`loader.begin_epoch(epoch, progress)` before each epoch; it calls the run's."
            )
        self._batches.first = self.run.batches_done
        yield from self._from(self._loader)

    def batches_of(self, chosen: Tensor) -> Iterator[IdentifiedBatch]:
        """This rank's part of the batches of some samples, in the order of their ids, as many on every rank.

        For a forward-only pass: what the dataset and the pass draw from the random generators leaves no trace.

        Args:
            chosen: (N,) bool, which samples; `run.refreshing()` gives those to refresh.
        """
        self._share_batches()
        if self._chosen_loader is None:
            self._chosen_loader = self._load(self._chosen_batches)
        self._chosen.hidden = chosen
        with untouched_random_state(self.run.recorder.device):
            yield from self._from(self._chosen_loader)

    def state_dict(self) -> dict[str, int]:
        """The place in the epoch, which the run's own state has too; for who asks loaders for it, as Lightning does."""
        return {"batches_done": self.run.batches_done}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Nothing: `run.load_state` brings the place in the epoch."""

    def _load(self, batches: _PartOfBatches) -> Any:
        # Accelerate's, so that `Accelerator.accumulate` knows the last batch; the workers' seeds are not drawn from the
        # global generator, which a resumed epoch would find elsewhere.
        generator = torch.Generator()
        return DataLoaderShard(
            self._dataset, device=self._device, batch_sampler=batches, generator=generator, **self._options
        )

    def _from(self, loader: Any) -> Iterator[IdentifiedBatch]:
        loader.iteration = self.run.epoch  # for a dataset that wants to know it
        loader.generator.manual_seed(self.seed + self.run.epoch)
        yield from loader

    def _share_batches(self) -> None:
        """Find out which part of a batch is this rank's: the ranks may have met after the loader was made."""
        world = self.run.recorder.data_parallel or DataParallelWorld.of_all_ranks()
        if self.batch_size % world.size:
            raise ValueError(
                f"batch_size={self.batch_size} is of all ranks together, and no multiple of their number, {world.size}."
            )
        self._batches.world = self._chosen_batches.world = world

    def _hide_no_more_than_is_drawn(self) -> None:
        """Hide less where the sampler draws otherwise than each sample once."""
        draws = self.sampler.draws()
        if draws is not None:
            self.run.keep_to_draws(draws)
            self.sampler.hide_less(self.run.ledger.hidden)

    def _keep_what_can_be_trained_on(self) -> None:
        """Hide less where what is left makes no batch."""
        run, sampler, size = self.run, self.sampler, self.epoch_batch_size
        # On one sample BatchNorm raises.
        fills_up = self.drop_last or size == 1
        while not fills_up and run.ledger.num_hidden and sampler.samples % size == 1:
            run.move_back_one()
            sampler.hide_less(run.ledger.hidden)
        if len(self._batches) == 0 and run.ledger.num_hidden:
            run.hide_nothing()
            self._batches.batch_size = self.batch_size
            sampler.repeats = None
            sampler.hide_less(run.ledger.hidden)

    def _require_what_was_recorded(self) -> None:
        """Check that the samples recorded before an interruption are those of the batches done; a collective call."""
        run = self.run
        recorded = np.unique(run.recorder.gathered().ids.numpy())
        done = run.batches_done * self.epoch_batch_size
        drawn = np.unique(np.fromiter(islice(self.sampler, done), dtype=np.int64))
        if not np.array_equal(recorded, drawn):
            raise ValueError(
                f"Epoch {run.epoch} cannot continue: the {len(recorded):,} samples recorded in it are not those of its "
                f"first {run.batches_done:,} batches, of {self.epoch_batch_size}. Give the loader the seed, the batch "
                "size, the sampler and the dataset that it had, and count each batch: `run.batches_done += 1`."
            )


class _Collator:
    """Collates by the user's collator, and puts the ids beside the batch."""

    # So many batches of each worker are compared with their examples, a Python loop over their rows.
    _COMPARED_BATCHES = 4

    def __init__(self, collator: Callable[[Any], Any]) -> None:
        self._collator = collator
        self._compared = 0

    def __call__(self, examples: IdentifiedExamples) -> IdentifiedBatch:
        batch = self._collator(examples.examples)
        if isinstance(batch, Mapping) and self._compared < self._COMPARED_BATCHES:
            self._compared += 1
            name = getattr(self._collator, "__qualname__", None) or type(self._collator).__name__
            require_rows(examples.examples, batch, name)
            require_order(examples.examples, batch, name)
        return IdentifiedBatch(torch.from_numpy(np.array(examples.ids, dtype=np.int64)), batch)


class _PartOfBatches(Sampler[list[int]]):
    """This rank's part of each batch of all ranks, as many ids on every rank."""

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool) -> None:
        self._whole = BatchSampler(sampler, batch_size, drop_last)
        self.world = DataParallelWorld(1, 0)
        self.first = 0
        """How many batches are left out at the start."""

    @property
    def batch_size(self) -> int:
        """Of all ranks together, from the next pass on."""
        return self._whole.batch_size

    @batch_size.setter
    def batch_size(self, batch_size: int) -> None:
        self._whole.batch_size = batch_size

    def __len__(self) -> int:
        return len(self._whole)

    def __iter__(self) -> Iterator[list[int]]:
        beginning: list[int] = []
        for place, batch in enumerate(self._whole):
            beginning = beginning or batch
            if place >= self.first:
                filled = [*batch, *islice(cycle(beginning), -len(batch) % self.world.size)]
                yield filled[self.world.rank :: self.world.size]


def _seeded_state(seed: int) -> RandomState:
    """The states of the global generators of the CPU when they are seeded so, which they are not."""
    with untouched_random_state():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        return RandomState.capture()
