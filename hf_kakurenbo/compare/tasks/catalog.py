"""The tasks that come with the comparison, and how one of your own is named."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from ...utils.names import did_you_mean
from ..quiet import QUIET
from .base import Splits, Task
from .continued import model_knowing_half
from .fashion_mnist import fashion_mnist
from .models import full_resolution_resnet, small_group_norm_resnet, small_resnet, tiny_bert, tiny_vit
from .reviews import REVIEW_VOCABULARY_SIZE, REVIEW_WORDS, pretrained_minilm, review_tokens, review_words
from .toys import PACKAGES, SNIPPET_WORDS, VOCABULARY_SIZE, digits, images_from_formulas, source_snippets


def _task(
    name: str,
    load: Callable[[], Splits],
    make_model: Callable[[], PreTrainedModel],
    epochs: int,
    learning_rate: float,
    batch_size: int,
    summary: str,
) -> Task:
    """A task with the schedule that all have.

    The learning rates of digits, fdsl-cnn, fdsl-cnn-group-norm, fdsl-cnn-many, fdsl-vit and text are the best of a grid
    without hiding. fdsl-cnn-long and fdsl-cnn-augmented take that of fdsl-cnn, which need not be their best.
    """
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
    return Task(name, load, make_model, arguments, summary)


def _continued(task: Task, epochs: int) -> Task:
    """Another task's samples, from a model that was trained on half of them before: the same one for every seed."""
    # A last batch of one sample has no variance for BatchNorm.
    before = tuple({**task.arguments, **QUIET, "dataloader_drop_last": True}.items())
    make_model = partial(model_knowing_half, task.load, task.make_model, before)
    return replace(
        task,
        name=f"{task.name}-continued",
        make_model=make_model,
        arguments={**task.arguments, "num_train_epochs": epochs},
        summary=f"As {task.name}, from a model that was trained on half of it before.",
    )


_VIT_IMAGE_SIZE = 24
# Drawn at the size of the images: at the published one, made smaller, so few points would be a faint haze.
_FRACTAL_RENDERING: Mapping[str, Any] = {"image_size": 28, "draw_size": 28, "points": 600, "patches": False}
_FRACTALS = partial(images_from_formulas, "fractaldb-1k", 30, 120, 400, **_FRACTAL_RENDERING)
_MANY_FRACTALS = partial(images_from_formulas, "fractaldb-1k", 120, 30, 100, **_FRACTAL_RENDERING)
_ATOM_RENDERING: Mapping[str, Any] = {"image_size": _VIT_IMAGE_SIZE, "draw_size": _VIT_IMAGE_SIZE}
_VISUAL_ATOMS = partial(images_from_formulas, "visualatom-1k", 10, 200, 1000, **_ATOM_RENDERING)
_SNIPPETS = partial(source_snippets, 150, 240)

_RESNET = partial(small_resnet, 30)
_VIT = partial(tiny_vit, 10, _VIT_IMAGE_SIZE)
_BERT = partial(tiny_bert, len(PACKAGES), VOCABULARY_SIZE, SNIPPET_WORDS)

_FASHION_RESNET = partial(full_resolution_resnet, 10)

_REVIEWS_BERT = partial(tiny_bert, 2, REVIEW_VOCABULARY_SIZE, REVIEW_WORDS)

_DIGITS = _task(
    "digits", digits, partial(small_resnet, 10), 20, 1e-2, 32, "scikit-learn's handwritten digits; a small ResNet."
)
_FDSL_CNN = _task("fdsl-cnn", _FRACTALS, _RESNET, 14, 2.8e-2, 64, "30 classes of fractals; a small ResNet.")
_TEXT = _task("text", _SNIPPETS, _BERT, 12, 4e-3, 32, "From which package lines of Python come; a tiny BERT.")

TASKS: Mapping[str, Task] = {
    task.name: task
    for task in (
        _DIGITS,
        _FDSL_CNN,
        _task(
            "fdsl-cnn-group-norm",
            _FRACTALS,
            partial(small_group_norm_resnet, 30),
            14,
            1.4e-2,
            64,
            "fdsl-cnn with GroupNorm in the place of BatchNorm.",
        ),
        _task("fdsl-cnn-long", _FRACTALS, _RESNET, 28, 2.8e-2, 64, "fdsl-cnn for twice the epochs."),
        _task(
            "fdsl-cnn-augmented",
            _FRACTALS,
            partial(small_resnet, 30, augments=True),
            28,
            2.8e-2,
            64,
            "fdsl-cnn for twice the epochs, on images moved and mirrored.",
        ),
        _task(
            "fdsl-cnn-many", _MANY_FRACTALS, partial(small_resnet, 120), 14, 2.8e-2, 64, "120 classes of 30 fractals."
        ),
        _task("fdsl-vit", _VISUAL_ATOMS, _VIT, 25, 1.5e-3, 64, "10 classes of VisualAtom; a tiny ViT."),
        _TEXT,
        _task(
            "fashion-mnist-10k",
            partial(fashion_mnist, 10_000),
            _FASHION_RESNET,
            20,
            1e-2,
            128,
            "10,000 images of Fashion-MNIST; a ResNet. The files are read where you have put them.",
        ),
        _task("fashion-mnist", fashion_mnist, _FASHION_RESNET, 20, 1e-2, 128, "All of Fashion-MNIST; a ResNet."),
        _task(
            "fashion-mnist-wide",
            fashion_mnist,
            partial(full_resolution_resnet, 10, (32, 64, 128)),
            20,
            1e-2,
            128,
            "All of Fashion-MNIST; a ResNet twice as wide.",
        ),
        _task(
            "fashion-mnist-vit",
            fashion_mnist,
            partial(tiny_vit, 10, 28, 7, 96, 4),
            20,
            1e-3,
            128,
            "All of Fashion-MNIST; a small ViT.",
        ),
        _task(
            "reviews",
            review_words,
            _REVIEWS_BERT,
            12,
            2e-3,
            32,
            "Sentiment of film reviews; a tiny BERT. They are read where you have put them.",
        ),
        _task(
            "reviews-minilm",
            review_tokens,
            pretrained_minilm,
            3,
            5e-5,
            32,
            "The film reviews; a pretrained MiniLM.",
        ),
        _continued(_DIGITS, 10),
        _continued(_FDSL_CNN, 8),
        _continued(_TEXT, 6),
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
    raise ValueError(
        f"There is no task {name!r}.{did_you_mean(name, TASKS)} Tasks: {', '.join(TASKS)}; one of your own is named as "
        "'package.module:attribute'."
    )


def _import_task(name: str, module: str, attribute: str) -> Task:
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(
            f"The task {name!r} cannot be imported: {error}. It is looked for in the current folder and among the "
            "installed packages; name a `Task` object, as 'package.module:attribute'."
        ) from error
    if not isinstance(found, Task):
        raise ValueError(
            f"{name!r} is a {type(found).__name__}, not a `hf_kakurenbo.compare.Task`: name a `Task` object."
        )
    return found
