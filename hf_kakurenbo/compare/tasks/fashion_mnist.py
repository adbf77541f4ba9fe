"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 60,000 + 10,000 images of clothes, each augmented on its own."""

from __future__ import annotations

import functools
import gzip
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .base import Samples, Splits

FOLDER_VARIABLE = "FASHION_MNIST_DIR"
"""The environment variable that names a folder with the four files, gzipped or not."""

_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_HUB = "zalando-datasets/fashion_mnist"
_SPLITS = {"train": "train", "validation": "t10k"}
_PADDING = 2
_HOW = (
    "Install Debian's package (`apt-get install dataset-fashion-mnist`), or name a folder with the files of "
    f"https://github.com/zalandoresearch/fashion-mnist in the environment variable {FOLDER_VARIABLE}."
)


class AugmentedImages(Samples):
    """Images that are shifted by up to two pixels and mirrored, each by numbers of its own, whenever they are read.

    The numbers come from PyTorch's generator, for a whole batch at once.

    Args:
        pixel_values: (N, 1, height, width).
        labels: (N,).
    """

    def __init__(self, pixel_values: Tensor, labels: Tensor) -> None:
        super().__init__(pixel_values=pixel_values, labels=labels)
        border = float(pixel_values.min())
        self._padded = functional.pad(pixel_values.squeeze(1), (_PADDING,) * 4, value=border)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Tensor]]:
        chosen = torch.as_tensor(indices)
        count, (height, width) = len(chosen), self.columns["pixel_values"].shape[2:]
        down, right = torch.randint(0, 2 * _PADDING + 1, (2, count, 1))
        mirrored = torch.randint(0, 2, (count, 1), dtype=torch.bool)
        rows, columns = torch.arange(height) + down, torch.arange(width).expand(count, width)
        columns = torch.where(mirrored, columns.flip(1), columns) + right
        images = self._padded[chosen[:, None, None], rows[:, :, None], columns[:, None, :]].unsqueeze(1)
        labels = self.columns["labels"][chosen]
        return [{"pixel_values": image, "labels": label} for image, label in zip(images, labels, strict=True)]


@functools.cache
def fashion_mnist(count: int | None = None) -> Splits:
    """The images, (1, 28, 28) each, of mean 0 and variance 1 over the training images; those to train on augmented.

    They are read from the folder that `FASHION_MNIST_DIR` names, else from where Debian's package puts them, else from
    the hub.

    Args:
        count: so many of the training images, drawn at random and always the same ones; None for all.

    Raises:
        RuntimeError: they are in none of these places.
        ValueError: a file is damaged.
    """
    images = {split: _read(split) for split in _SPLITS}
    pixels, labels = images["train"]
    if count is not None:
        chosen = np.random.default_rng(0).permutation(len(pixels))[:count]
        pixels, labels = pixels[chosen], labels[chosen]
    mean, deviation = float(pixels.mean()), float(pixels.std())

    def normalised(pixels: NDArray[np.uint8]) -> Tensor:
        return ((torch.from_numpy(pixels.astype(np.float32)) - mean) / deviation).unsqueeze(1)

    validation, validation_labels = images["validation"]
    return Splits(
        AugmentedImages(normalised(pixels), torch.from_numpy(labels.astype(np.int64))),
        Samples(pixel_values=normalised(validation), labels=torch.from_numpy(validation_labels.astype(np.int64))),
    )


def _read(split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    named = os.environ.get(FOLDER_VARIABLE)
    folder = Path(named) if named else _FOLDER
    if not named and not folder.is_dir():
        return _read_from_hub(split)
    prefix = _SPLITS[split]
    images, labels = _read_idx(folder, f"{prefix}-images-idx3-ubyte"), _read_idx(folder, f"{prefix}-labels-idx1-ubyte")
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise ValueError(f"{folder} has {images.shape} images and {labels.shape} labels to {split} on. {_HOW}")
    return images, labels


def _read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """An array in the idx format: two zeros, the type 8 (bytes), the dimensions, their sizes, the values."""
    file = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if file is None:
        raise RuntimeError(f"{folder} has neither {name} nor {name}.gz. {_HOW}")
    content = file.read_bytes()
    try:
        if file.suffix == ".gz":
            content = gzip.decompress(content)
        dimensions = content[3]
        shape = tuple(int(size) for size in np.frombuffer(content, ">i4", dimensions, 4))
        if content[:3] != b"\0\0\x08":
            raise ValueError(f"it begins with {content[:4]!r}")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (EOFError, IndexError, gzip.BadGzipFile, ValueError, zlib.error) as error:
        raise ValueError(f"{file} is damaged, or no idx file of bytes ({error}). {_HOW}") from error


def _read_from_hub(split: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    import datasets

    try:
        dataset: Any = datasets.load_dataset(_HUB, split="train" if split == "train" else "test")
    except Exception as error:
        raise RuntimeError(
            f"Fashion-MNIST is not at {_FOLDER}, nor can the hub be reached ({error}). {_HOW}"
        ) from error
    images = np.stack([np.asarray(image) for image in dataset["image"]])
    return images, np.asarray(dataset["label"], dtype=np.uint8)
