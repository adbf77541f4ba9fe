"""The data of the tasks of seconds: digits, images from formulas, sources of Python. The same each time."""

from __future__ import annotations

import functools
import sysconfig
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ...fdsl import load_fdsl
from ..extra import requires_extra
from .base import Samples, Splits
from .words import Words, encoded, split, vocabulary

Item = TypeVar("Item")

# ---- Images ----


@functools.cache
def digits() -> Splits:
    """Scikit-learn's handwritten digits, (1, 8, 8) each, in [-1, 1]: one half to train on, one to validate with.

    Raises:
        RuntimeError: scikit-learn is not installed.
    """
    with requires_extra():
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
        from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]
    images, labels = load_digits(return_X_y=True)
    halves = train_test_split(images, labels, test_size=0.5, random_state=0, stratify=labels)
    train_images, validation_images, train_labels, validation_labels = map(torch.as_tensor, halves)

    def samples(pixels: Tensor, labels: Tensor) -> Samples:
        return Samples(pixel_values=(pixels.float() / 8 - 1).reshape(-1, 1, 8, 8), labels=labels)

    return Splits(samples(train_images, train_labels), samples(validation_images, validation_labels))


@functools.cache
def images_from_formulas(
    name: str, categories: int, instances: int, validation_instances: int, **rendering: Any
) -> Splits:
    """Images from formulas, in gray, (1, size, size) each, of mean 0 and variance 1 over the training images.

    Args:
        name: of the dataset, as `load_fdsl` takes it.
        categories: how many classes.
        instances: training images of each class.
        validation_instances: validation images of each class.
        rendering: how the images are drawn, further options of `load_fdsl`.
    """

    def images(split: str, count: int) -> tuple[Tensor, Tensor]:
        dataset = load_fdsl(name, split, mode="L", as_tensor=True, categories=categories, instances=count, **rendering)
        drawn = dataset.__getitems__(list(range(len(dataset))))
        pixels = torch.stack([example["image"] for example in drawn]).float()
        return pixels, torch.tensor([example["label"] for example in drawn])

    pixels, labels = images("train", instances)
    mean, deviation = pixels.mean(), pixels.std()
    train = Samples(pixel_values=(pixels - mean) / deviation, labels=labels)
    pixels, labels = images("validation", validation_instances)
    return Splits(train, Samples(pixel_values=(pixels - mean) / deviation, labels=labels))


# ---- Texts ----

PACKAGES = ("asyncio", "email", "http", "importlib", "logging", "multiprocessing", "unittest", "urllib", "xml")
"""The packages of Python's standard library that `source_snippets` classifies, by label."""

SNIPPET_WORDS = 32
"""The words of a snippet; a shorter one is padded."""

VOCABULARY_SIZE = 2048
"""The words that have a number, padding and the unknown word among them."""

_LINES = 10


@functools.cache
def source_snippets(train: int, validation: int) -> Splits:
    """From which package of Python's standard library a few lines of source come.

    Of each package, every third snippet, up to `validation` of them, is for validation, and `train` of the others for
    training. The vocabulary is of the training snippets alone.

    Args:
        train: training snippets of each package.
        validation: validation snippets of each package, or fewer if it has no more.

    Raises:
        RuntimeError: this Python has no sources of its standard library.
    """
    chosen: dict[str, list[tuple[Words, int]]] = {"train": [], "validation": []}
    for label, package in enumerate(PACKAGES):
        snippets = _snippets(package)
        others = [snippet for place, snippet in enumerate(snippets) if place % 3]
        for name, found, count in (("train", others, train), ("validation", snippets[::3], validation)):
            chosen[name] += [(words, label) for words in evenly(found, count)]
    numbers = vocabulary((words for words, _ in chosen["train"]), VOCABULARY_SIZE)
    return Splits(*(encoded(chosen[name], numbers, SNIPPET_WORDS) for name in ("train", "validation")))


def _snippets(package: str) -> list[Words]:
    """The words of every ten lines of a package of Python's standard library."""
    folder = Path(sysconfig.get_path("stdlib")) / package
    texts = source_pieces(sorted(folder.rglob("*.py")), _LINES)
    if not texts:
        raise RuntimeError(
            f"The task 'text' needs the sources of Python's standard library at {folder}; choose another task."
        )
    return [split(text, SNIPPET_WORDS) for text in texts]


def source_pieces(files: Iterable[Path], lines: int) -> list[str]:
    """Source files in pieces of so many lines that are not empty; what is left of a file is left out."""
    pieces: list[str] = []
    for file in files:
        kept = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        pieces += ["\n".join(kept[start : start + lines]) for start in range(0, len(kept) - lines + 1, lines)]
    return pieces


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """So many of the items, or all if they are fewer, at even distances, so that no part of them is left out."""
    count = min(count, len(items))
    return [items[place * len(items) // count] for place in range(count)]
