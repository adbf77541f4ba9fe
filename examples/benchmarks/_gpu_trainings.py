"""Wall time of trainings on a GPU, and the accuracy that they reach: no hiding, shorter, and two policies."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from _gpu_stages import Result, Setting
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from hf_kakurenbo import load_fdsl
from hf_kakurenbo.compare.methods import Method
from hf_kakurenbo.compare.tasks.base import Samples, Splits, Task
from hf_kakurenbo.compare.tasks.fashion_mnist import FOLDER_VARIABLE, fashion_mnist
from hf_kakurenbo.compare.tasks.models import full_resolution_resnet
from hf_kakurenbo.compare.training import settings_of
from hf_kakurenbo.compare.training import train as train_once

_SHORTER = 0.8
_METHODS = {
    "no hiding": Method("no-hiding", {"hiding_policy": "none"}),
    "no hiding, shorter": Method("shorter", {"hiding_policy": "none"}, epochs=_SHORTER),
    "KAKURENBO": Method("kakurenbo"),
    "spaced repetition": Method("spaced-repetition", {"hiding_policy": "spaced_repetition"}),
}
# Seconds that a training without hiding is to take.
_SECONDS = 30
_CATEGORIES, _PADDING = 60, 2


class DeviceImages(Samples):
    """Images on a device, shifted by up to two pixels and mirrored there, a batch at a time.

    Args:
        pixel_values: (N, 1, height, width), on the device.
        labels: (N,), on the device.
    """

    def __init__(self, pixel_values: Tensor, labels: Tensor) -> None:
        super().__init__(pixel_values=pixel_values, labels=labels)
        self._padded = functional.pad(pixel_values.squeeze(1), (_PADDING,) * 4, value=float(pixel_values.min()))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        device, count = self._padded.device, len(indices)
        height, width = self.columns["pixel_values"].shape[2:]
        chosen = torch.tensor(indices).to(device, non_blocking=True)
        down, right = torch.randint(0, 2 * _PADDING + 1, (2, count, 1), device=device)
        mirrored = torch.randint(0, 2, (count, 1), device=device, dtype=torch.bool)
        rows = torch.arange(height, device=device) + down
        columns = torch.arange(width, device=device).expand(count, width)
        columns = torch.where(mirrored, columns.flip(1), columns) + right
        images = self._padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]].unsqueeze(1)
        labels = self.columns["labels"][chosen]
        return [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)]


def _on(device: str, splits: Splits) -> Splits:
    train = DeviceImages(*(splits.train.columns[name].to(device) for name in ("pixel_values", "labels")))
    return Splits(train, splits.validation)


@functools.cache
def _fashion(folder: str, device: str, count: int | None) -> Splits:
    os.environ[FOLDER_VARIABLE] = folder
    return _on(device, fashion_mnist(count))


@functools.cache
def _formulas(device: str, categories: int, instances: int, size: int) -> Splits:
    """Fractals of mean 0 and variance 1, drawn on the device; those to validate on are other instances."""
    drawn = {
        split: _draw(split, device, categories, count, size)
        for split, count in (("train", instances), ("validation", instances // 10))
    }
    pixels, _ = drawn["train"]
    mean, deviation = pixels.mean(), pixels.std()
    train, validation = (
        Samples(pixel_values=(pixels - mean) / deviation, labels=labels) for pixels, labels in drawn.values()
    )
    return _on(device, Splits(train, Samples(**{name: column.cpu() for name, column in validation.columns.items()})))


def _draw(split: str, device: str, categories: int, instances: int, size: int) -> tuple[Tensor, Tensor]:
    images = load_fdsl(
        "fractaldb-1k",
        split,
        image_size=size,
        mode="L",
        as_tensor=True,
        device=device,
        categories=categories,
        instances=instances,
        points=10_000,
        patches=False,
    )
    pixels = []
    for start in range(0, len(images), 1000):
        some = images.__getitems__(range(start, min(start + 1000, len(images))))
        pixels.append(torch.stack([example["image"] for example in some]).float())
    return torch.cat(pixels), torch.arange(len(images), device=device) // instances


def make_task(setting: Setting, epochs: int) -> Task:
    """Fashion-MNIST from a folder, or fractals; a ResNet that is wide enough to keep a GPU busy."""
    widths, batch = ((8, 8, 8), 32) if setting.rehearse else ((256, 512, 1024), 512)
    if setting.data is not None:
        load, classes = (
            functools.partial(_fashion, str(setting.data), setting.device, 120 if setting.rehearse else None),
            10,
        )
    else:
        categories, instances, size = (3, 40, 16) if setting.rehearse else (_CATEGORIES, 600, 32)
        load, classes = functools.partial(_formulas, setting.device, categories, instances, size), categories
    arguments: dict[str, Any] = {
        "num_train_epochs": epochs,
        "learning_rate": 3e-3,
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": 1000,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "weight_decay": 0.05,
        "bf16": True,
        "use_cpu": setting.rehearse,
    }
    name = "fashion-mnist" if classes == 10 else "fractaldb"
    return Task(name, load, functools.partial(_network, classes, widths), arguments)


def _network(classes: int, widths: Sequence[int]) -> PreTrainedModel:
    return full_resolution_resnet(classes, widths)


def choose_epochs(setting: Setting) -> Result:
    """How many epochs a training has, so that it takes half a minute without hiding.

    Returns:
        `epochs`; `epoch_seconds`; `task`; `samples`.
    """
    task = make_task(setting, 2)
    task.load()
    method = _METHODS["no hiding"]
    train_once(task, method, 0, settings_of(task, method))  # finds what is found once
    seconds = train_once(task, method, 0, settings_of(task, method)).seconds / 2
    epochs = 3 if setting.rehearse else int(min(max(_SECONDS / seconds, 5), 60))
    return {"epochs": epochs, "epoch_seconds": seconds, "task": task.name, "samples": len(task.load().train)}


def train(setting: Setting, method: str, seed: int) -> Result:
    """A training by a method.

    Returns:
        What `hf_kakurenbo.compare.records.Record` has: accuracy, samples trained on, seconds and the rest.

    Raises:
        RuntimeError: it is not known for how many epochs.
    """
    if "epochs" not in setting.earlier:
        raise RuntimeError('The piece "epochs" of this stage has to be measured first.')
    task = make_task(setting, setting.earlier["epochs"]["epochs"])
    record = asdict(train_once(task, _METHODS[method], seed, settings_of(task, _METHODS[method])))
    return {name: value for name, value in record.items() if name != "settings"}
