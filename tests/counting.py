"""An independent count of what is trained: the model itself notes the rows that it is given with gradients."""

from collections import Counter
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback

from toy import LinearClassifier, samples


def rows(count: int = 203) -> list[dict[str, torch.Tensor]]:
    """The toy samples, each with its index as an input of the model."""
    return [{**sample, "row": torch.tensor(index)} for index, sample in enumerate(samples(count))]


class Counting(LinearClassifier):
    """Counts in `trained`, epoch by epoch, the rows that go through it with gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.trained: list[Counter[int]] = []

    def forward(self, x: torch.Tensor, row: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, Any]:
        if self.training and torch.is_grad_enabled():
            self.trained[-1].update(row.tolist())
        logits = self.head(x)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Epochs(TrainerCallback):
    """Begins a count for each epoch, and notes what it hides."""

    def __init__(self) -> None:
        self.trainer: Any = None
        self.hidden: list[set[int]] = []

    def on_epoch_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.trainer.model.trained.append(Counter())

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if getattr(self.trainer, "ledger", None) is not None:
            self.hidden.append(set(self.trainer.ledger.hidden_ids.tolist()))


def assert_hides_right(trainer: Any, passes: int = 1, samples: int = 203) -> None:
    """Every visible sample was trained on `passes` times in each epoch, every hidden one never; and some were hidden.

    What is recorded of each sample is checked by `assert_recorded`.
    """
    counted, hidden = trainer.model.trained, trainer.epochs.hidden
    assert len(counted) == len(hidden)
    for trained, gone in zip(counted, hidden, strict=True):
        assert trained == Counter({row: passes for row in range(samples) if row not in gone})
    assert any(hidden)
    reported = [entry for entry in trainer.state.log_history if "kakurenbo/hidden_fraction" in entry]
    assert [entry["kakurenbo/hidden_fraction"] for entry in reported] == [len(gone) / samples for gone in hidden]
