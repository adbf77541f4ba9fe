"""Which row of the user's dataset a sample's id means, in words: some trainers filter or pack the rows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..data import SampleStream, digest_rows, is_indexed


def given_dataset(constructor: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The training dataset among the arguments of a trainer's constructor; None if it is not among them."""
    try:
        return inspect.signature(constructor).bind_partial(*args, **kwargs).arguments.get("train_dataset")
    except TypeError:
        return kwargs.get("train_dataset")


def rows_in_words(trainer: Any, given: Any) -> str:
    """What the id of a sample means.

    Args:
        trainer: whose `train_dataset` is about to be trained on.
        given: the dataset that it was given, if that is known.
    """
    dataset, name = trainer.train_dataset, type(trainer).__name__
    if isinstance(dataset, SampleStream):
        return f"the value of the column {dataset.id_column!r} of the training stream"
    if is_indexed(dataset):
        return "the number of a sample of the training stream"
    if given is None or given is dataset:
        return "the index of a row of the training dataset"
    if getattr(trainer.args, "packing", False):
        return (
            f"the index of a row of `trainer.train_dataset`, into which {name} packed several rows of the dataset that "
            "it was given; which ones is not known"
        )
    if _has_length(given) and len(given) != len(dataset):
        return (
            f"the index of a row of `trainer.train_dataset`, in which {name} kept {len(dataset):,} of the "
            f"{len(given):,} rows that it was given; `to_pandas(trainer.train_dataset, columns=[...])` with a column "
            "of your own says which"
        )
    if _has_length(given) and _rows_are_the_same(given, dataset):
        return f"the index of a row of the dataset that was given to {name}, which prepared it row by row"
    return (
        f"the index of a row of `trainer.train_dataset`, which {name} made of the dataset that it was given; which row "
        "of that it was could not be told"
    )


def _has_length(dataset: Any) -> bool:
    return hasattr(dataset, "__len__") and not isinstance(dataset, Mapping)


def _rows_are_the_same(given: Any, dataset: Any) -> bool:
    """Whether some rows, compared in the columns that both have, are the same in the same places."""
    before, after = digest_rows(given), digest_rows(dataset)
    return bool(before.common(after)) and (not before.differing(after) or before.tells_the_same(after))
