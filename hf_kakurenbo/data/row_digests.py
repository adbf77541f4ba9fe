"""Digests of a few rows of a dataset, to tell later whether another dataset has the same rows in the same places."""

from __future__ import annotations

import hashlib
import logging
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from .stored_rows import stored_rows

logger = logging.getLogger(__name__)

_ROWS = 16
# Of a value, so many bytes, characters or numbers are hashed; of a nested one, so many parts.
_LENGTH, _PARTS = 2**16, 2**10


class RowDigests(NamedTuple):
    """What is known of some rows of a dataset."""

    kind: str
    """The class of the dataset, and of those inside it: another class stores the same rows in other forms."""
    rows: list[int]
    """Their indices."""
    columns: dict[str, list[str]]
    """A digest of each of the rows, by column; empty for a value of a kind that cannot be compared."""
    telling: list[str]
    """The columns whose values tell the rows apart; integers, which may be labels or numbers of rows, never do."""

    def common(self, other: RowDigests) -> list[str]:
        """The columns in which the same rows of another dataset can be compared."""
        return [name for name in self.columns if self._pairs(other, name)]

    def differing(self, other: RowDigests) -> list[str]:
        """The columns in which a row differs."""
        return [name for name in self.columns if any(a != b for a, b in self._pairs(other, name))]

    def tells_the_same(self, other: RowDigests) -> bool:
        """Whether a column that tells rows apart is the same in at least half of them.

        Then they are the same rows though other columns differ: texts were cut at another length, a mask drawn anew.
        """
        columns = [self._pairs(other, name) for name in self.telling]
        return any(2 * sum(a == b for a, b in pairs) >= len(pairs) > 0 for pairs in columns)

    def without(self, columns: Sequence[str]) -> RowDigests:
        """The same less some columns."""
        kept = {name: digests for name, digests in self.columns.items() if name not in columns}
        return RowDigests(self.kind, self.rows, kept, [name for name in self.telling if name in kept])

    def _pairs(self, other: RowDigests, name: str) -> list[tuple[str, str]]:
        if self.kind != other.kind or name not in other.columns:
            return []
        return [(a, b) for a, b in zip(self.columns[name], other.columns[name], strict=True) if a and b]


def digest_rows(dataset: Any, rows: Sequence[int] | None = None) -> RowDigests:
    """The digests of some rows of a dataset, as they are stored; see `stored_rows`.

    Args:
        dataset: with a length.
        rows: their indices; by default up to 16, always the same of a dataset of the same length.
    """
    if rows is None:
        count = len(dataset)
        rows = sorted(random.Random(count).sample(range(count), min(count, _ROWS)))
    try:
        stored = stored_rows(dataset, rows)
    except Exception as error:  # a class of the user's may be anything, and a comparison is not worth a training
        logger.debug("The rows of %s could not be looked into: %r", type(dataset).__name__, error)
        stored = {}
    columns = {name: [_digest(value) for value in values] for name, values in stored.items()}
    columns = {name: digests for name, digests in columns.items() if any(digests)}
    telling = [name for name, digests in columns.items() if _tells_apart(stored[name], digests)]
    return RowDigests(_kind(dataset), list(rows), columns, telling)


def _kind(dataset: Any) -> str:
    inside = getattr(dataset, "dataset", None)
    return type(dataset).__name__ + ("" if inside is None else f" of {_kind(inside)}")


def _tells_apart(values: list[Any], digests: list[str]) -> bool:
    integers = all(isinstance(_scalar(value), int) for value in values)
    return not integers and len(digests) > 1 and len(set(digests)) == len(digests)


def _digest(value: Any) -> str:
    encoded = None if value is None else _encode(value)
    return "" if encoded is None else hashlib.blake2b(encoded, digest_size=8).hexdigest()


def _encode(value: Any) -> bytes | None:
    """Bytes that are the same in another process for the same value; None if it is of a kind that has none."""
    value = _scalar(value)
    if value is None or isinstance(value, (bool, int, float, complex)):
        return repr(value).encode()
    if isinstance(value, (bytes, bytearray)):
        return b"bytes %d " % len(value) + bytes(value[:_LENGTH])
    if isinstance(value, (str, PurePath)):
        text = _without_folder(str(value))
        return f"text {len(text)} {text[:_LENGTH]}".encode(errors="surrogatepass")
    if isinstance(value, torch.Tensor):
        return _encode_tensor(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"array {value.dtype} {value.shape} ".encode() + _beginning(value).tobytes()
    if isinstance(value, Image.Image):
        return _encode_image(value)
    if isinstance(value, Mapping):
        return _encode_parts([part for name in sorted(value, key=str) for part in (str(name), value[name])])
    if isinstance(value, np.ndarray) or type(value) in (list, tuple):
        return _encode_parts(value)
    return None


def _encode_parts(parts: Any) -> bytes | None:
    encoded = [_encode(part) for part in parts[:_PARTS]]
    known = [part for part in encoded if part is not None]
    if len(known) < len(encoded):
        return None
    return b"parts %d " % len(parts) + b"".join(b"%d " % len(part) + part for part in known)


def _encode_tensor(value: torch.Tensor) -> bytes | None:
    if value.layout != torch.strided or value.is_meta or value.is_quantized:
        return None
    flat = _beginning(value.detach()).cpu().contiguous()
    return f"tensor {value.dtype} {tuple(value.shape)} ".encode() + flat.view(torch.uint8).numpy().tobytes()


def _beginning(value: Any) -> Any:
    """The first numbers of an array or a tensor; the others are not copied."""
    while value.ndim > 1 and value.shape[0] > 1 and math.prod(value.shape) > _LENGTH:
        value = value[: max(_LENGTH // math.prod(value.shape[1:]), 1)]
        value = value[0] if value.shape[0] == 1 else value
    return value.reshape(-1)[:_LENGTH]


def _encode_image(value: Image.Image) -> bytes:
    # One that was opened from a file is not read for this: its pixels may wait on a disk that is far away.
    name = str(getattr(value, "filename", ""))
    content = _without_folder(name).encode(errors="surrogatepass") if name else value.tobytes()[:_LENGTH]
    return f"image {value.mode} {value.size} ".encode() + content


def _scalar(value: Any) -> Any:
    """A number in an array or a tensor of no dimension as Python's."""
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        return value.item()
    return value.item() if isinstance(value, torch.Tensor) and value.ndim == 0 and not value.is_meta else value


def _without_folder(text: str) -> str:
    """Of an absolute path, the name alone: the same files may lie in another folder when a training is resumed."""
    absolute = [path for path in (PurePosixPath(text), PureWindowsPath(text)) if path.is_absolute()]
    return absolute[0].name if absolute and "\n" not in text else text
