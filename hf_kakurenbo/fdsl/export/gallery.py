"""Many images at a glance: a grid with one category per row and one instance per column."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from ...utils.files import full_disk_explained, remove_leftovers, written_beside
from ..loading.dataset import FDSLDataset

_GAP = 2
# Between black images a dark gray separates without glaring, between white ones a light gray.
_GAP_ON_DARK, _GAP_ON_LIGHT = 64, 208


def make_gallery(images: Sequence[Sequence[PILImage.Image]]) -> PILImage.Image:
    """Lay out images, all of one size and mode, in rows and columns with thin gaps between them.

    Args:
        images: the rows, each with as many images.

    Raises:
        ValueError: there is no image, or they differ in number per row, in size or in mode.
    """
    kinds = {(len(row), image.size, image.mode) for row in images for image in row}
    if len(kinds) != 1:
        raise ValueError(
            f"A gallery needs images of one size and mode, as many in each row; got {sorted(kinds) or 'none'}."
        )
    columns, (width, height), mode = kinds.pop()
    shade = _gap_shade(images[0][0])
    grid = PILImage.new(
        mode,
        (columns * (width + _GAP) - _GAP, len(images) * (height + _GAP) - _GAP),
        shade if mode == "L" else (shade,) * 3,
    )
    for y, row in enumerate(images):
        for x, image in enumerate(row):
            grid.paste(image, (x * (width + _GAP), y * (height + _GAP)))
    return grid


def _gap_shade(image: PILImage.Image) -> int:
    pixels = np.asarray(image.convert("L"))
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return _GAP_ON_DARK if np.median(border) < 128 else _GAP_ON_LIGHT


def save_gallery(dataset: FDSLDataset, path: str | os.PathLike[str], rows: int, columns: int) -> None:
    """Draw the first instances of the first categories of a dataset into an image file.

    A row is a category and a column an instance; of a dataset with one instance of each, every image is a category.

    Args:
        dataset: what `load_fdsl` returns, without `transform` and `as_tensor`.
        path: the file; it appears complete or not at all. Its ending says in which format: .png, .webp, .jpg.
        rows: how many rows.
        columns: how many columns.

    Raises:
        ValueError: rows or columns are less than 1, or more than the dataset has images for; or the ending is that of
            no format that can be written.
    """
    target = Path(path).absolute()
    most_rows, most_columns = fitting_grid(dataset, dataset.categories, max(1, columns))
    if not (1 <= rows <= most_rows and 1 <= columns <= most_columns):
        raise ValueError(
            f"{dataset.categories} categories with {dataset.instances} instances do not fill {rows} rows and {columns} "
            f"columns; rows must be in 1..{most_rows} and columns in 1..{most_columns}."
        )
    storage = _storage_of(target)
    stride = columns if dataset.instances == 1 else dataset.instances
    images = [[dataset[row * stride + column]["image"] for column in range(columns)] for row in range(rows)]
    encoded = io.BytesIO()
    make_gallery(images).save(encoded, storage, optimize=True, quality=95)
    with full_disk_explained(target, "Nothing is written: make room, or give a file on another disk"):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent, f"{target.name}-")
        with written_beside(target) as stream:
            stream.write(encoded.getbuffer())


def _storage_of(path: Path) -> str:
    storage = PILImage.registered_extensions().get(path.suffix.lower())
    if storage not in PILImage.SAVE:
        raise ValueError(f"{path.name!r} names no format that an image can be written in: end it with .png or .jpg.")
    return storage


def fitting_grid(dataset: FDSLDataset, rows: int, columns: int) -> tuple[int, int]:
    """The rows and columns of a gallery, made as few as the dataset has images for.

    Args:
        dataset: what `load_fdsl` returns.
        rows: how many rows are wanted.
        columns: how many columns are wanted.
    """
    if dataset.instances > 1:
        return min(rows, dataset.categories), min(columns, dataset.instances)
    columns = min(columns, dataset.categories)
    return min(rows, dataset.categories // max(1, columns)), columns
