"""What a training never hides: read from a column or taken from a mask, and a floor for each class."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..config import HidingArguments, create_configured_policy, hiding_arguments
from ..data import SampleStream, is_indexed
from ..data.labels import labels_of, stored_column
from ..hiding.protection import Protection


def refuse_protection(trainer: Any) -> None:
    """Refuse, at construction, what is to stay visible and could not be honoured.

    Raises:
        ValueError: a stream would have to be read for it, or the policy weighs or repeats samples for what it hides.
    """
    options = hiding_arguments(trainer.args)
    asked = _asked_for(options, trainer.never_hide)
    if not asked:
        return
    policy = create_configured_policy(options)
    if policy is not None and (policy.weighs_samples or policy.repeats_samples):
        raise ValueError(
            f"hiding_policy={options.hiding_policy!r} gives what stays visible another weight for what it hides, which "
            f"{asked} would falsify. Leave it out, or choose another policy, such as 'kakurenbo'."
        )
    if isinstance(trainer.train_dataset, SampleStream) and trainer.never_hide is None:
        raise ValueError(
            f"{asked} cannot be read from a stream before its samples come. Set `trainer.never_hide` to a mask of bool "
            "by their ids, or load the dataset map-style (`streaming=False`)."
        )
    if isinstance(trainer.train_dataset, SampleStream) and options.min_visible_per_class:
        raise ValueError(
            f"min_visible_per_class={options.min_visible_per_class} needs the class of every sample, which a stream "
            "does not say before they come. Set `trainer.never_hide` alone, or load the dataset map-style "
            "(`streaming=False`)."
        )


def make_protection(trainer: Any, samples: int) -> Protection | None:
    """What the training under way never hides; None where nothing was asked for.

    Args:
        trainer: the trainer.
        samples: N.

    Raises:
        ValueError: a mask or a column does not fit, or there are no classes.
    """
    options, dataset = hiding_arguments(trainer.args), trainer.train_dataset
    if not _asked_for(options, trainer.never_hide):
        return None
    refuse_protection(trainer)
    if is_indexed(dataset):
        dataset = dataset.samples()
    never = _mask(trainer.never_hide, samples)
    if options.never_hide_column is not None and not isinstance(dataset, SampleStream):
        column = _column(dataset, options.never_hide_column)
        never = column if never is None else never | column
    if not options.min_visible_per_class:
        return Protection(never)
    labels = labels_of(dataset)
    if labels is None:
        raise ValueError(
            f"min_visible_per_class={options.min_visible_per_class} needs the class of every sample, and the training "
            f"dataset ({type(dataset).__name__}) has no column of classes, `label` or the like. Add one, or set "
            "`trainer.never_hide` to a mask."
        )
    return Protection(never, labels.values, options.min_visible_per_class)


def _asked_for(options: HidingArguments, never_hide: Any) -> str:
    """The first of the options that is set, for a message; empty if none is."""
    if options.never_hide_column is not None:
        return f"never_hide_column={options.never_hide_column!r}"
    if options.min_visible_per_class:
        return f"min_visible_per_class={options.min_visible_per_class}"
    return "" if never_hide is None else "trainer.never_hide"


def _mask(given: Any, samples: int) -> np.ndarray | None:
    if given is None:
        return None
    mask = np.asarray(given)
    if mask.shape != (samples,) or mask.dtype != bool:
        raise ValueError(
            f"trainer.never_hide must be a mask of bool with an entry for each of the {samples:,} samples, got "
            f"{mask.shape} {mask.dtype}."
        )
    return mask.copy()


def _column(dataset: Any, name: str) -> np.ndarray:
    values = stored_column(dataset, name)
    if values is None:
        raise ValueError(
            f"never_hide_column={name!r} is no column of the training dataset ({type(dataset).__name__}) that can be "
            "read without computing its rows. Set `trainer.never_hide` to a mask instead."
        )
    column = np.asarray(values)
    if column.dtype.kind not in "biu" or not np.isin(column, (0, 1)).all():
        raise ValueError(f"never_hide_column={name!r} must hold true or false for each row, got {column.dtype} values.")
    return column.astype(bool)
