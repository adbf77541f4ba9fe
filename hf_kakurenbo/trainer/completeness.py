"""Whether the files of a checkpoint are whole, seen from their headers and lists of contents alone.

A process that is killed leaves the last file of a checkpoint unwritten. A loss of power can leave any of them cut off
or empty, though the last one is there. Only what a resumption reads is looked into, and only what is there: trainers
that shard their weights, or that save in their own way, have other files.
"""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME

from ..hiding.checkpoint import LEDGER_NAME

MARK = "KakurenboTrainer"
"""Entry of `trainer_state.json` that distinguishes a checkpoint saved with hiding from a plain Trainer's."""

_INDEX = ".index.json"


def damage_of(checkpoint: Path) -> str:
    """What of a checkpoint is not whole, for a sentence in brackets; empty if nothing that can be seen.

    Args:
        checkpoint: its folder.
    """
    try:
        return _damage_of_state(checkpoint) or _damage_of_files(checkpoint)
    except OSError as error:
        return f"{error}"


def _damage_of_state(checkpoint: Path) -> str:
    file = checkpoint / TRAINER_STATE_NAME
    if not file.is_file():
        return f"it has no {TRAINER_STATE_NAME}, which is written last"
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        return f"its {TRAINER_STATE_NAME} cannot be read: {error}"
    if not isinstance(state, dict) or type(state.get("global_step")) is not int:
        return f"its {TRAINER_STATE_NAME} has no `global_step`"
    if _is_marked(state) and not (checkpoint / LEDGER_NAME).is_file():
        return f"its ledger, {LEDGER_NAME}, is missing"
    return ""


def _is_marked(state: dict[str, Any]) -> bool:
    callbacks = state.get("stateful_callbacks")
    mark = callbacks.get(MARK) if isinstance(callbacks, dict) else None
    return isinstance(mark, dict) and mark.get("global_step") == state["global_step"]


def _damage_of_files(checkpoint: Path) -> str:
    # Adapters, DeepSpeed's states and PyTorch's shards are in folders of their own.
    for file in sorted([*checkpoint.glob("*"), *checkpoint.glob("*/*")]):
        for name, damage in _BY_NAME.items():
            found = damage(file) if re.fullmatch(name, file.name) and file.is_file() else ""
            if found:
                return f"{file.relative_to(checkpoint)} {found}"
    return ""


def _damage_of_safetensors(file: Path) -> str:
    try:
        with safe_open(file, framework="numpy"):  # checks that the file is as long as its header says
            return ""
    except SafetensorError as error:
        return f"is cut off: {error}"


def _damage_of_archive(file: Path) -> str:
    """Of what `torch.save` wrote, whose list of contents stands at its end."""
    with file.open("rb") as opened:
        beginning = opened.read(4)
    if not beginning.strip(b"\0"):
        return "is empty"
    if beginning != b"PK\3\4":
        return ""  # not an archive, as of old releases
    try:
        with zipfile.ZipFile(file):
            return ""
    except zipfile.BadZipFile as error:
        return f"is cut off: {error}"


def _damage_of_index(file: Path) -> str:
    """Of the list of the files among which weights are distributed."""
    try:
        shards = set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return f"cannot be read: {error!r}"
    if file.with_name(file.name.removesuffix(_INDEX)).is_file():
        return ""  # left over: the one file is what is read
    missing = sorted(shard for shard in shards if not (file.parent / shard).is_file())
    return f"names {missing[0]}, which is missing" if missing else ""


def _damage_of_shards(file: Path) -> str:
    """Of PyTorch's distributed checkpoints, whose metadata say where in which file each tensor is."""
    from torch.distributed.checkpoint.filesystem import FileSystemReader  # not in every build of PyTorch

    try:
        places = FileSystemReader(file.parent).read_metadata().storage_data.values()
        ends = [(file.parent / place.relative_path, place.offset + place.length) for place in places]
    except (EOFError, pickle.UnpicklingError) as error:
        return f"cannot be read: {error!r}"
    except (AttributeError, TypeError):
        return ""  # another writer's, which has places of its own
    # One that is missing may be on the disk of another node.
    cut = [shard for shard, end in ends if shard.is_file() and shard.stat().st_size < end]
    return f"says that {cut[0].name} is longer than it is" if cut else ""


_BY_NAME: dict[str, Callable[[Path], str]] = {
    r".+\.safetensors": _damage_of_safetensors,
    r"(pytorch_model|adapter_model|optimizer).*\.bin": _damage_of_archive,
    r"(optimizer|scheduler|scaler|.+_states)\.pt": _damage_of_archive,
    r"rng_state.*\.pth": _damage_of_archive,
    r".+\.index\.json": _damage_of_index,
    r"\.metadata": _damage_of_shards,
}
