"""What one call of `train` holds; made anew by each call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..data import BatchIds, HiddenLoader, SampleStream, VisibleSampler
from ..distributed.barrier import RollCall
from ..hiding import HidingRun, StatisticsFunction
from ..hiding.schedule import SchedulerStart
from ..hiding.statistics import StatisticsMatcher


@dataclass
class Training:
    """The state of one training with hiding, beside what `Trainer` keeps of it."""

    run: HidingRun
    sampler: VisibleSampler | SampleStream
    id_name: str
    label_names: list[str]
    statistics_function: StatisticsFunction | None
    fused_loss: bool
    roll_call: RollCall
    matcher: StatisticsMatcher | None = None
    resumed: dict[str, Any] = field(default_factory=dict)
    dropped: int = 0
    scheduler_start: SchedulerStart | None = None
    batches_changed: bool = False
    batch_ids: BatchIds | None = None
    loader: Any = None
    hidden_loader: HiddenLoader | None = None
    generators_at_end: str | None = None
    epochs_hidden: int = 0
    cost_is_told: bool = False
