"""The trainings whose time is measured: networks, images of noise, quiet trainers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import (
    PrinterCallback,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
    set_seed,
)

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer

NUM_CLASSES = 10


class Images(Dataset[dict[str, Any]]):
    """As many images of noise as one asks for, a few of them over and over: only the time of a training matters.

    Args:
        count: how many there are.
        size: of an image, in pixels.
        device: where they are; the labels are numbers.
    """

    def __init__(self, count: int, size: int, device: str = "cpu") -> None:
        generator = torch.Generator().manual_seed(0)
        self.count = count
        self.images = torch.rand(min(count, 256), 3, size, size, generator=generator).to(device)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"pixel_values": self.images[index % len(self.images)], "labels": index % NUM_CLASSES}


class ToyNetwork(nn.Module):
    """Convolutions with BatchNorm, each but the first halving the image, an average over it, a linear layer.

    Args:
        widths: the channels after each convolution.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for after in widths:
            layers += [nn.Conv2d(before, after, 3, 2 if layers else 1, 1), nn.BatchNorm2d(after), nn.ReLU()]
            before = after
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, NUM_CLASSES))

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Logits (B, C) and the mean cross entropy."""
        logits = self.layers(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


@dataclass(frozen=True)
class Task:
    """A network, its images, and how its trainings take turns."""

    name: str
    make_model: Callable[[], nn.Module]
    image_size: int
    batch_size: int
    steps_per_turn: int
    steps_per_epoch: int
    target: float | None
    """By how much `KakurenboTrainer` may be slower with nothing hidden; None where it is only shown."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of the training."""
    device: str = "cpu"
    """Where the images are before they are trained on."""

    def dataset(self) -> Images:
        """Whole batches, so that an epoch has no short last one."""
        return Images(self.steps_per_epoch * self.batch_size, self.image_size, self.device)


def make_tasks(quick: bool) -> list[Task]:
    """A ViT, a toy, and a network that takes next to no time.

    On a GPU the ViT is DeiT-Tiny at 224 pixels, on a CPU one whose step takes a tenth of a second.
    """
    if torch.cuda.is_available():
        vit = Task("DeiT-Tiny, 224 px", lambda: make_vit(224, 16, 12, 192, 3), 224, 128, 1, 20, 0.01)
    else:
        vit = Task("ViT, 4 layers of 128, 48 px", lambda: make_vit(48, 6, 4, 128, 4), 48, 16, 1, 20, 0.01)
    if quick:
        vit = Task("ViT, 2 layers of 64, 32 px", lambda: make_vit(32, 8, 2, 64, 2), 32, 8, 1, 10, 0.01)
    turn, epoch = (2, 10) if quick else (5, 50)
    toy = Task("toy: 4 convolutions, 32 px", lambda: ToyNetwork((32, 48, 64, 96)), 32, 64, turn, epoch, 0.02)
    tiny = Task("tiny: 2 convolutions, 32 px", lambda: ToyNetwork((8, 16)), 32, 32, 5 * turn, 4 * epoch, None)
    return [vit, toy, tiny]


def make_vit(
    image_size: int, patch_size: int, layers: int, width: int, heads: int, classes: int = NUM_CLASSES
) -> nn.Module:
    """A ViT with random weights."""
    config = ViTConfig(
        image_size=image_size,
        patch_size=patch_size,
        num_hidden_layers=layers,
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=heads,
        num_labels=classes,
    )
    return ViTForImageClassification(config)


def make_trainer(task: Task, epochs: int, folder: str, hidden_fraction: float | None = None) -> Trainer:
    """A quiet trainer that neither evaluates nor saves.

    Args:
        task: what it trains.
        epochs: for how many epochs.
        folder: its output directory.
        hidden_fraction: the fraction that `KakurenboTrainer` hides in every epoch but the first, whatever the model
            knows; None for a plain `Trainer`.
    """
    set_seed(0)
    options: dict[str, Any] = {
        "output_dir": folder,
        "num_train_epochs": epochs,
        "per_device_train_batch_size": task.batch_size,
        "learning_rate": 1e-4,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "dataloader_pin_memory": torch.cuda.is_available() and task.device == "cpu",
        **task.options,
    }
    kind: type[Trainer] = Trainer
    args: TrainingArguments
    if hidden_fraction is None:
        args = TrainingArguments(**options)
    else:
        kind = KakurenboTrainer
        schedule = {"fraction_milestones": [0.0], "fraction_factors": [1.0], "move_back": False}
        args = KakurenboConfig(**options, **schedule, max_hidden_fraction=hidden_fraction)
    trainer = kind(model=task.make_model(), args=args, train_dataset=task.dataset())
    trainer.remove_callback(PrinterCallback)
    return trainer
