"""The arguments that the example scripts share, and how they are read."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from transformers import HfArgumentParser

# Of every job; a command line or a JSON file goes before them.
_DEFAULTS = {"do_train": True, "do_eval": True}
# Of the job that runs when no data is named: quiet, nothing kept but the model, and compared.
_BUILTIN_DEFAULTS = {
    "compare": True,
    "disable_tqdm": True,
    "logging_strategy": "epoch",
    "save_strategy": "no",
    "report_to": "none",
    "dataloader_pin_memory": False,
    "train_val_split": 0.25,
}


@dataclass
class ModelArguments:
    """Which model to train."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "A pretrained model, of the hub or in a folder; without it a tiny one, random weights."},
    )


@dataclass
class CommonDataArguments:
    """The data arguments that do not depend on the kind of data."""

    dataset_name: str | None = field(
        default=None, metadata={"help": "A dataset of the hub, or a folder that `load_dataset` reads."}
    )
    dataset_config_name: str | None = field(default=None, metadata={"help": "The configuration of that dataset."})
    train_val_split: float = field(
        default=0.15, metadata={"help": "Share split off for validation if the data has no such split, in (0, 1)."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on so many samples at most."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Evaluate on so many samples at most."})
    compare: bool = field(
        default=False,
        metadata={
            "help": "Train a second time from the same seed, without hiding, and compare. On when no data is named; "
            "`--compare false` turns it off."
        },
    )


def parse_arguments(
    classes: Sequence[type],
    data_flags: Sequence[str],
    builtin_defaults: dict[str, Any],
    presets: Mapping[str, dict[str, Any]] | None = None,
) -> tuple[Any, ...]:
    """Read the command line, or the JSON file that is its only argument.

    Args:
        classes: the dataclasses to fill.
        data_flags: the arguments that name data of the user's own.
        builtin_defaults: defaults of the job that runs when none of them is given.
        presets: defaults by the name that `--preset` takes.

    Returns:
        One object for each class. Ends the program, with a message, if a value is wrong.
    """
    parser = HfArgumentParser(classes, usage="%(prog)s [options], or %(prog)s OPTIONS.json; --help lists the options")
    given: dict[str, Any] | None = None
    if len(sys.argv) == 2 and sys.argv[1].endswith(".json"):
        given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
        names = given
    else:
        names = vars(parser.parse_known_args()[0])
    builtin = not any(names.get(flag) for flag in data_flags)
    defaults = {**_DEFAULTS, **(_BUILTIN_DEFAULTS | builtin_defaults if builtin else {})}
    preset = names.get("preset") if presets else None
    if preset is not None and preset not in presets:
        parser.error(f"There is no preset {preset!r}; there are: {', '.join(presets)}.")
    defaults |= presets[preset] if preset else {}
    # Accelerate's launcher of several processes tells none of them of `use_cpu`: each would train alone, unnoticed.
    if int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > max(torch.accelerator.device_count(), 1):
        defaults["use_cpu"] = True
    known = {option.name for kind in classes for option in fields(kind)}
    defaults = {name: value for name, value in defaults.items() if name in known}
    try:
        if given is not None:
            return tuple(parser.parse_dict({**defaults, **given}))
        parser.set_defaults(**defaults)
        return tuple(parser.parse_args_into_dataclasses())
    except ValueError as error:
        parser.error(str(error))
