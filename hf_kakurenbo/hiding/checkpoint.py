"""The file beside a checkpoint that holds the state of the hiding."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..utils.durable import flush

LEDGER_NAME = "kakurenbo.safetensors"
"""Name of the file in a checkpoint folder."""

_FORMAT = "1"

_WAY_OUT = (
    "Resume from another checkpoint, or start a new training from this checkpoint's weights with `from_pretrained`."
)


def save_state(folder: str | os.PathLike[str], tensors: dict[str, Tensor], scalars: dict[str, Any]) -> None:
    """Write the file into a folder, which is made if need be. It appears complete or not at all, and stays so.

    The disk has it before it takes the place of an older one, so that a loss of power leaves the one or the other.

    Args:
        folder: the checkpoint folder.
        tensors: the per-sample tensors, by name.
        scalars: what else JSON can hold.
    """
    target = Path(folder) / LEDGER_NAME
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(".part")
    try:
        metadata = {"format": _FORMAT, "scalars": json.dumps(scalars)}
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, beside, metadata=metadata)
        flush(beside)
        beside.replace(target)
        flush(target.parent)
    finally:
        beside.unlink(missing_ok=True)


def load_state(
    folder: str | os.PathLike[str], wanted: Callable[[str], bool] | None = None, way_out: str = _WAY_OUT
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_state` wrote.

    Args:
        folder: the checkpoint folder.
        wanted: from the name of a tensor to whether it is read; None for all.
        way_out: what to do about a damaged file, for the message.

    Raises:
        FileNotFoundError: the folder has no such file.
        ValueError: the file is damaged, or of a format that this release does not know.
    """
    path = Path(folder) / LEDGER_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: the checkpoint was saved with hiding, and without its ledger the training cannot go "
            f"on as it was. {_WAY_OUT}"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = [name for name in file.keys() if wanted is None or wanted(name)]  # noqa: SIM118 (not a dict)
            tensors = {name: file.get_tensor(name) for name in names}
        scalars = json.loads(metadata["scalars"])
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}). {way_out}") from error
    if metadata.get("format") != _FORMAT:
        raise ValueError(
            f"{path} has format {metadata.get('format')!r}, this release of hf_kakurenbo reads {_FORMAT!r}. Resume "
            "with the release that wrote it."
        )
    return tensors, scalars
