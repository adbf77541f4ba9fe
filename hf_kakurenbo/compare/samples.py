"""Samples in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

QUIET: Mapping[str, Any] = {
    "report_to": "none",
    "save_strategy": "no",
    "eval_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}
"""Fields of `TrainingArguments` with which a training says and writes nothing."""


class Samples(Dataset[dict[str, Tensor]]):
    """Samples in memory.

    Args:
        columns: tensors by the name of a model's input, each with a row for each sample; `labels` among them.
    """

    def __init__(self, **columns: Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns["labels"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {name: column[index] for name, column in self.columns.items()}


@dataclass(frozen=True)
class Splits:
    """The data of a task: `train`, and `validation` with nothing of it. Datasets that Trainer takes, with labels."""

    train: Any
    validation: Any
