"""What one call of `train` holds; made anew by each call."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data import BatchIds, HiddenLoader, RowDigests, SampleStream, VisibleSampler
from ..distributed.barrier import MonitoredBarrier
from ..hiding import HidingRun, StatisticsFunction
from ..hiding.aligned_scheduler import SchedulerStart
from ..hiding.statistics import StatisticsMatcher
from ..hiding.statistics.checks import ValueCheck
from ..integrations.base import Observer
from .dataloaders import TrainingLoader
from .loss_check import LossCheck


@dataclass
class Batch:
    """The batch that is going through the model, whole or in pieces.

    Args:
        ids: of the samples that go through it next.
        samples: how many samples the batch has.
        recorded: of how many a loss was recorded.
    """

    ids: BatchIds
    samples: int
    recorded: int = 0


@dataclass
class Training:
    """The state of one training with hiding, beside what `Trainer` keeps of it."""

    run: HidingRun
    training_loader: TrainingLoader
    label_names: list[str]
    statistics_function: StatisticsFunction | None
    observe: Observer | None
    barrier: MonitoredBarrier
    loss_check: LossCheck
    rows: RowDigests | None
    value_check: ValueCheck = field(default_factory=ValueCheck)
    matcher: StatisticsMatcher | None = None
    resumed: dict[str, Any] = field(default_factory=dict)
    dropped: int = 0
    scheduler_start: SchedulerStart | None = None
    batches_changed: bool = False
    batch: Batch | None = None
    hidden_loader: HiddenLoader | None = None
    generators_at_end: str | None = None
    epochs_hidden: int = 0
    cost_is_told: bool = False
    failed_trackers: set[str] = field(default_factory=set)
    checkpoint: Path | None = None

    @property
    def loader(self) -> Any:
        """The loader of the visible samples, as Accelerate prepared it."""
        return self.training_loader.loader

    @property
    def sampler(self) -> VisibleSampler | SampleStream:
        """What it is over."""
        return self.training_loader.sampler

    @property
    def id_name(self) -> str:
        """The entry of a batch with the ids of its samples."""
        return self.training_loader.collator.id_name
