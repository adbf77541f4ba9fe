"""A sample of any dataset as something that a page can show: an image, a text, a small table."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from PIL import Image

# Longer texts are cut, larger images made smaller, smaller ones larger: so many characters, pixels.
_TEXT, _LARGEST, _SMALLEST = 280, 160, 96
_FIELDS = 8
_CHANNELS = (1, 3, 4)


class Shown(NamedTuple):
    """A sample as it is shown."""

    picture: Image.Image | None
    """Its first image."""
    fields: list[tuple[str, str]]
    """What else it has, by name, as text."""

    @property
    def image(self) -> str | None:
        """A data URI of its first image."""
        return None if self.picture is None else _data_uri(self.picture)


def show(dataset: Any, index: int) -> Shown:
    """What a row of a dataset has to show; where it cannot be read, why.

    Args:
        dataset: with random access; a transform of a `datasets.Dataset` is passed by.
        index: of the row.
    """
    try:
        row = (dataset.with_format(None) if isinstance(dataset, datasets.Dataset) else dataset)[index]
    except Exception as error:  # a file that is gone, a transform that fails: the report is still worth having
        return Shown(None, [("not shown", f"{type(error).__name__}: {error}")])
    features = getattr(dataset, "features", None) or {}
    first: Image.Image | None = None
    fields: list[tuple[str, str]] = []
    for name, value in _parts(row):
        picture = _as_image(value)
        if picture is not None:
            first = first or picture
        elif len(fields) < _FIELDS:
            fields.append((name, _as_text(value, features.get(name))))
    return Shown(first, fields)


def _parts(row: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(row, Mapping):
        yield from ((str(name), value) for name, value in row.items())
    elif isinstance(row, tuple) and hasattr(row, "_fields"):
        yield from zip(row._fields, row, strict=True)
    elif isinstance(row, (tuple, list)):
        yield from ((str(place), value) for place, value in enumerate(row))
    else:
        yield "value", row


def _as_image(value: Any) -> Image.Image | None:
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        try:
            return Image.open(io.BytesIO(value["bytes"]))
        except OSError:
            return None
    array = value.detach().cpu().float().numpy() if isinstance(value, torch.Tensor) else value
    return _picture_of(array) if isinstance(array, np.ndarray) and array.dtype.kind in "fui" else None


def _picture_of(array: np.ndarray) -> Image.Image | None:
    """An array as an image if it has the shape of one; its values are stretched over the range of a pixel."""
    if array.ndim == 3 and array.shape[0] in _CHANNELS and array.shape[-1] not in _CHANNELS:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] in _CHANNELS:
        array = array[..., 0] if array.shape[-1] == 1 else array[..., :3]
    elif array.ndim != 2:
        return None
    if min(array.shape[:2]) < 4:
        return None
    array = np.nan_to_num(array.astype(np.float32))
    low, high = float(array.min()), float(array.max())
    return Image.fromarray(((array - low) / (high - low or 1) * 255).astype(np.uint8))


def _data_uri(picture: Image.Image) -> str:
    picture = picture.convert("RGB")
    longest = max(picture.size)
    if longest > _LARGEST:
        picture.thumbnail((_LARGEST, _LARGEST))
    elif longest < _SMALLEST:
        scale = -(-_SMALLEST // longest)
        picture = picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    picture.save(stream, "PNG" if longest < _SMALLEST else "JPEG")
    kind = "png" if longest < _SMALLEST else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _as_text(value: Any, feature: Any) -> str:
    if isinstance(feature, datasets.ClassLabel) and isinstance(value, int) and 0 <= value < feature.num_classes:
        return f"{feature.int2str(value)} ({value})"
    if isinstance(value, (torch.Tensor, np.ndarray)):
        value = value.tolist() if value.ndim < 2 else f"{tuple(value.shape)} {value.dtype}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping) and {"role", "content"} <= set(value):
        return _cut(f"{value['role']}: {value['content']}")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _cut(("\n" if _is_chat(value) else ", ").join(_as_text(part, None) for part in value[:_TEXT]))
    return _cut(str(value))


def _is_chat(value: Sequence[Any]) -> bool:
    return len(value) > 0 and isinstance(value[0], Mapping)


def _cut(text: str) -> str:
    return text if len(text) <= _TEXT else text[: _TEXT - 1] + "…"
