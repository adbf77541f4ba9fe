"""What a task is: data, a model, and the arguments of a training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedModel

from ..records import require_folder_name


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


@dataclass(frozen=True)
class Task:
    """What is learned, and how.

    Attributes:
        name: in tables and folders; letters, digits and `._=@+-`.
        load: makes the data; the same each time. It and `make_model` must be importable, not lambdas: they run in
            processes of their own.
        make_model: from random weights, drawn from PyTorch's generator: a classifier whose first output but for the
            loss are logits, (B, classes).
        arguments: fields of `KakurenboConfig`: epochs, batch size, learning rate, schedule.
        summary: a line for people.

    Raises:
        ValueError: the name cannot be that of a folder, or the arguments lack what methods multiply.
    """

    name: str
    load: Callable[[], Splits]
    make_model: Callable[[], PreTrainedModel]
    arguments: Mapping[str, Any]
    summary: str = ""

    def __post_init__(self) -> None:
        require_folder_name("task", self.name)
        for argument in ("num_train_epochs", "learning_rate"):
            if argument not in self.arguments:
                raise ValueError(
                    f"The arguments of the task {self.name!r} lack {argument}: methods give a factor of it."
                )
        if "max_steps" in self.arguments:
            raise ValueError(f"The task {self.name!r} has max_steps; give num_train_epochs alone: methods multiply it.")
