"""The tasks on which methods are compared: small, offline, a training in seconds."""

from __future__ import annotations

import difflib
import functools
import importlib
import re
import sysconfig
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from ..fdsl import load_fdsl
from .continued import model_knowing_half
from .extra import requires_extra
from .records import require_folder_name
from .samples import QUIET, Samples, Splits


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

    Raises:
        ValueError: the name cannot be that of a folder, or the arguments lack what methods multiply.
    """

    name: str
    load: Callable[[], Splits]
    make_model: Callable[[], PreTrainedModel]
    arguments: Mapping[str, Any]

    def __post_init__(self) -> None:
        require_folder_name("task", self.name)
        for argument in ("num_train_epochs", "learning_rate"):
            if argument not in self.arguments:
                raise ValueError(
                    f"The arguments of the task {self.name!r} lack {argument}: methods give a factor of it."
                )
        if "max_steps" in self.arguments:
            raise ValueError(f"The task {self.name!r} has max_steps; give num_train_epochs alone: methods multiply it.")


# ---- Images ----


class _AugmentingForImageClassification(ResNetForImageClassification):
    """A ResNet that, in training, moves and mirrors the images of a batch, all in the same way."""

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **options: Any) -> Any:
        if self.training:
            down, right = torch.randint(-3, 4, (2,)).tolist()
            pixel_values = torch.roll(pixel_values, (down, right), dims=(2, 3))
            mirrored = [dim for dim, flip in zip((2, 3), torch.randint(0, 2, (2,)), strict=True) if flip]
            pixel_values = pixel_values.flip(mirrored)
        return super().forward(pixel_values=pixel_values, labels=labels, **options)


def _small_resnet(classes: int, augments: bool = False) -> PreTrainedModel:
    architecture = _AugmentingForImageClassification if augments else ResNetForImageClassification
    return architecture(
        ResNetConfig(
            num_channels=1,
            embedding_size=16,
            hidden_sizes=[16, 32, 64],
            depths=[1, 1, 1],
            layer_type="basic",
            num_labels=classes,
        )
    )


def _tiny_vit(classes: int) -> PreTrainedModel:
    return ViTForImageClassification(
        ViTConfig(
            num_channels=1,
            image_size=24,
            patch_size=6,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            num_labels=classes,
        )
    )


@functools.cache
def _digits() -> Splits:
    with requires_extra():
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
        from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]
    images, labels = load_digits(return_X_y=True)
    halves = train_test_split(images, labels, test_size=0.5, random_state=0, stratify=labels)
    train_images, validation_images, train_labels, validation_labels = map(torch.as_tensor, halves)

    def samples(pixels: Tensor, digits: Tensor) -> Samples:
        return Samples(pixel_values=(pixels.float() / 8 - 1).reshape(-1, 1, 8, 8), labels=digits)

    return Splits(samples(train_images, train_labels), samples(validation_images, validation_labels))


@functools.cache
def _formulas(name: str, categories: int, instances: int, validation_instances: int, **options: Any) -> Splits:
    """Images from formulas, in gray, (1, size, size) each, of mean 0 and variance 1 over the training images."""

    def images(split: str, count: int) -> tuple[Tensor, Tensor]:
        dataset = load_fdsl(name, split, mode="L", as_tensor=True, categories=categories, instances=count, **options)
        drawn = dataset.__getitems__(list(range(len(dataset))))
        pixels = torch.stack([example["image"] for example in drawn]).float()
        return pixels, torch.tensor([example["label"] for example in drawn])

    pixels, labels = images("train", instances)
    mean, deviation = pixels.mean(), pixels.std()
    train = Samples(pixel_values=(pixels - mean) / deviation, labels=labels)
    pixels, labels = images("validation", validation_instances)
    return Splits(train, Samples(pixel_values=(pixels - mean) / deviation, labels=labels))


# ---- Texts ----

_PACKAGES = ("asyncio", "email", "http", "importlib", "logging", "multiprocessing", "unittest", "urllib", "xml")
_LINES, _WORDS, _VOCABULARY = 10, 32, 2048
_PADDING, _UNKNOWN = 0, 1


def _pieces_of_source(package: str) -> list[list[str]]:
    """The words of every ten lines of a package of Python's standard library."""
    pieces = []
    for file in sorted((Path(sysconfig.get_path("stdlib")) / package).rglob("*.py")):
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        pieces += ["\n".join(lines[start : start + _LINES]) for start in range(0, len(lines) - _LINES + 1, _LINES)]
    return [re.findall(r"\w+|[^\w\s]", piece)[:_WORDS] for piece in pieces]


@functools.cache
def _sources(train: int, validation: int) -> Splits:
    """From which package of Python's standard library a few lines of source come.

    Of each package, every third piece, up to `validation` of them, is for validation, and `train` of the others for
    training.
    """
    chosen: dict[str, list[tuple[list[str], int]]] = {"train": [], "validation": []}
    for label, package in enumerate(_PACKAGES):
        pieces = _pieces_of_source(package)
        others = [piece for place, piece in enumerate(pieces) if place % 3]
        for split, found, count in (("train", others, train), ("validation", pieces[::3], validation)):
            chosen[split] += [(words, label) for words in _evenly(found, count)]
    frequent = Counter(word for words, _ in chosen["train"] for word in words).most_common(_VOCABULARY - 2)
    numbers = {word: number for number, (word, _) in enumerate(frequent, start=2)}
    return Splits(_encoded(chosen["train"], numbers), _encoded(chosen["validation"], numbers))


def _evenly(items: list[list[str]], count: int) -> list[list[str]]:
    """So many of the items, or all if they are fewer, at even distances."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]


def _encoded(pieces: list[tuple[list[str], int]], numbers: Mapping[str, int]) -> Samples:
    rows = [[numbers.get(word, _UNKNOWN) for word in words] for words, _ in pieces]
    input_ids = torch.tensor([row + [_PADDING] * (_WORDS - len(row)) for row in rows])
    labels = torch.tensor([label for _, label in pieces])
    return Samples(input_ids=input_ids, attention_mask=(input_ids != _PADDING).long(), labels=labels)


def _tiny_bert(classes: int) -> PreTrainedModel:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=_VOCABULARY,
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=_WORDS,
            num_labels=classes,
        )
    )


# ---- The tasks by name ----


def _task(
    name: str,
    load: Callable[[], Splits],
    make_model: Callable[[], PreTrainedModel],
    epochs: int,
    learning_rate: float,
    batch_size: int,
) -> Task:
    """A task with the schedule that all have; the learning rate is the best of a grid without hiding."""
    arguments = {
        "num_train_epochs": epochs,
        "learning_rate": learning_rate,
        "per_device_train_batch_size": batch_size,
        "per_device_eval_batch_size": 256,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.1,
        "weight_decay": 0.05,
        "use_cpu": True,
    }
    return Task(name, load, make_model, arguments)


def _continued(task: Task, name: str, epochs: int) -> Task:
    """Another task's samples, from a model that was trained on half of them before."""
    before = tuple({**task.arguments, **QUIET}.items())
    make_model = partial(model_knowing_half, task.load, task.make_model, before)
    return replace(task, name=name, make_model=make_model, arguments={**task.arguments, "num_train_epochs": epochs})


_DRAWN: Mapping[str, Any] = {"image_size": 28, "points": 600, "patches": False}
_FRACTALS = partial(_formulas, "fractaldb-1k", 30, 120, 400, **_DRAWN)
_MANY_FRACTALS = partial(_formulas, "fractaldb-1k", 120, 30, 100, **_DRAWN)
_VISUAL_ATOMS = partial(_formulas, "visualatom-1k", 10, 200, 1000, image_size=24)
_SOURCES = partial(_sources, 150, 240)

_FDSL_CNN = _task("fdsl-cnn", _FRACTALS, partial(_small_resnet, 30), 14, 2.8e-2, 64)

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        _task("digits", _digits, partial(_small_resnet, 10), 20, 1e-2, 32),
        _FDSL_CNN,
        _task("fdsl-cnn-long", _FRACTALS, partial(_small_resnet, 30), 28, 2.8e-2, 64),
        _task("fdsl-cnn-augmented", _FRACTALS, partial(_small_resnet, 30, augments=True), 28, 2.8e-2, 64),
        _task("fdsl-cnn-many", _MANY_FRACTALS, partial(_small_resnet, 120), 14, 2.8e-2, 64),
        _continued(_FDSL_CNN, "fdsl-cnn-continued", 8),
        _task("fdsl-vit", _VISUAL_ATOMS, partial(_tiny_vit, 10), 25, 1.5e-3, 64),
        _task("text", _SOURCES, partial(_tiny_bert, len(_PACKAGES)), 12, 4e-3, 32),
    )
}
"""The tasks that come with the package, by name."""


def find_tasks(names: Sequence[str]) -> list[Task]:
    """The tasks of some names.

    Args:
        names: of `TASKS`, or `"package.module:attribute"` for a `Task` of your own.

    Raises:
        ValueError: there is no such task.
    """
    return [_find_task(name) for name in names]


def _find_task(name: str) -> Task:
    if name in TASKS:
        return TASKS[name]
    module, colon, attribute = name.partition(":")
    if colon:
        return _import_task(name, module, attribute)
    nearest = difflib.get_close_matches(name, TASKS, n=1)
    hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(
        f"There is no task {name!r}.{hint} Tasks: {', '.join(TASKS)}; one of your own is named as "
        "'package.module:attribute'."
    )


def _import_task(name: str, module: str, attribute: str) -> Task:
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"The task {name!r} cannot be imported: {error}.") from error
    if not isinstance(found, Task):
        raise ValueError(f"{name!r} is a {type(found).__name__}, not a `hf_kakurenbo.compare.Task`.")
    return found
