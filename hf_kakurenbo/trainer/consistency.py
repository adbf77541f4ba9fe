"""Whether all ranks are about to do the same training, asked once when it begins."""

from __future__ import annotations

import hashlib
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import datasets
from transformers import TrainingArguments

from ..config import HidingArguments, hiding_arguments
from ..data import digest_rows
from ..distributed.collectives import from_every_rank, world_size

# What a step, or the number of steps, depends on. Left out is what one rank may do alone: print, report, name folders.
_ARGUMENTS = (
    "seed",
    "data_seed",
    "per_device_train_batch_size",
    "auto_find_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "max_steps",
    "train_sampling_strategy",
    "dataloader_drop_last",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "optim",
    "max_grad_norm",
    "label_smoothing_factor",
    "bf16",
    "fp16",
    "logging_strategy",
    "logging_steps",
    "eval_strategy",
    "eval_steps",
    "save_strategy",
    "save_steps",
    "enable_jit_checkpoint",
)
_BATCHES = ("split_batches", "dispatch_batches", "even_batches")


def require_same_training(args: TrainingArguments, dataset: Any, checkpoint: Any) -> None:
    """Raise on every rank if the ranks have not been given the same training; a collective call.

    Args:
        args: the training arguments.
        dataset: the training dataset.
        checkpoint: what to resume from, as `Trainer.train` takes it; or why there is nothing.

    Raises:
        ValueError: the ranks differ in something. The message has each rank's.
    """
    if world_size() == 1:
        return
    by_rank = from_every_rank(_describe(args, dataset, checkpoint))
    differing = [
        f"{name}: {_by_value([values[name] for values in by_rank])}"
        for name in by_rank[0]
        if len({values[name] for values in by_rank}) > 1
    ]
    if differing:
        raise ValueError(
            f"The ranks have not been given the same training. {'; '.join(differing)}. Give every rank the same "
            "arguments, the same training dataset in the same order, and an output_dir that all nodes see."
        )


def _describe(args: TrainingArguments, dataset: Any, checkpoint: Any) -> dict[str, str]:
    options = hiding_arguments(args)
    return {
        "training samples": str(len(dataset)) if hasattr(dataset, "__len__") else "unknown",
        "digest of some training samples": _digest_of_rows(dataset),
        "resumed from": _describe_checkpoint(checkpoint),
        **{name: str(getattr(args, name, None)) for name in _ARGUMENTS},
        **{name: str(getattr(args.accelerator_config, name)) for name in _BATCHES},
        **{field.name: _text(getattr(options, field.name)) for field in fields(HidingArguments)},
    }


def _describe_checkpoint(checkpoint: Any) -> str:
    if not isinstance(checkpoint, (str, os.PathLike)):
        return str(checkpoint)
    # By its name alone: the folder may be mounted elsewhere on another node.
    return Path(checkpoint).name if Path(checkpoint).is_dir() else f"{checkpoint}, which is not there,"


def _text(value: Any) -> str:
    return f"{value.__module__}:{value.__qualname__}" if hasattr(value, "__qualname__") else str(value)


def _digest_of_rows(dataset: Any) -> str:
    """Of a table, some rows as they are stored. What other datasets hold may be one thing on each rank, as a cache.

    The fingerprint that `datasets` gives a table will not do: with a function that knows its rank, or that cannot be
    hashed, `map` gives ranks different ones for the same rows.
    """
    if not isinstance(dataset, datasets.Dataset):
        return "none"
    return hashlib.blake2b(repr(digest_rows(dataset)).encode(), digest_size=8).hexdigest()


def _by_value(values: list[str]) -> str:
    ranks: dict[str, list[str]] = {}
    for rank, value in enumerate(values):
        ranks.setdefault(value, []).append(str(rank))
    return ", ".join(f"{value} on {_named(numbers)}" for value, numbers in ranks.items())


def _named(ranks: list[str]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    more = f" and {len(ranks) - 8} more" if len(ranks) > 8 else ""
    return f"ranks {', '.join(ranks[:8])}{more}"
