"""Whether a dataset gives the examples of a batch as they were asked for: all of them, and in that order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from .random_state import untouched_random_state

# Packages whose datasets return examples in the order of the indices; asking for one more may draw an image.
_IN_ORDER = ("datasets", __package__.partition(".")[0])
_WAY_OUT = (
    "Let it return one example for each index, in the order of the indices (it may read them in another), or leave it "
    'out, so that `__getitem__` is called, or set hiding_policy="none".'
)


def require_all_examples(dataset: Any, indices: Sequence[int], examples: Any) -> None:
    """Check that a dataset returned as many examples as it was asked for.

    Args:
        dataset: it.
        indices: of the examples that it was asked for.
        examples: what its `__getitems__` returned: a sequence of examples, or a mapping of columns, some of which may
            be of the batch and not of its examples.

    Raises:
        ValueError: they are fewer, or more.
    """
    columns = examples.values() if isinstance(examples, Mapping) else [examples]
    counts = [len(column) for column in columns if hasattr(column, "__len__")]
    if counts and len(indices) not in counts:
        raise ValueError(
            f"{type(dataset).__name__}.__getitems__ returned {counts[0]} examples for {len(indices)} indices, so it "
            f"cannot be said which sample is which, and hiding would record losses for other samples. {_WAY_OUT}"
        )


def may_reorder(fetch: Callable[..., Any]) -> bool:
    """Whether it is not known in what order a `__getitems__` returns examples: it is someone else's."""
    return getattr(fetch, "__module__", "").partition(".")[0] not in _IN_ORDER


def shows_its_order(indices: Sequence[int]) -> bool:
    """Whether it would show in a batch of these indices that its examples come in the order of the dataset."""
    return list(indices) != sorted(indices)


def require_order_of_indices(
    dataset: Any, fetch: Callable[[Sequence[int]], Any], indices: Sequence[int], examples: Any
) -> None:
    """Compare an example of a batch with the same one asked for alone, which leaves no trace in the random generators.

    A dataset that reads in the order of its file may return the examples in that order. Where examples are drawn at
    random, as augmented ones are, nothing can be compared, and nothing is held against the dataset.

    Args:
        dataset: it.
        fetch: its `__getitems__`.
        indices: of the examples, in an order that [`shows_its_order`].
        examples: what it returned for them.

    Raises:
        ValueError: the example has another place in the batch than it was asked for.
    """
    if not isinstance(examples, (Mapping, Sequence)):
        return
    place = next(place for place, index in enumerate(np.argsort(indices, kind="stable")) if place != index)
    with untouched_random_state(_device_of(examples)):
        (alone,) = _one_by_one(fetch([indices[place]]), 1)
    found = [other for other, one in enumerate(_one_by_one(examples, len(indices))) if _is_same(alone, one)]
    if found and place not in found:
        raise ValueError(
            f"{type(dataset).__name__}.__getitems__ returned the examples in another order than that of the indices "
            f"(number {indices[place]} stands at place {found[0]} and was asked for at place {place}), so hiding would "
            f"record losses for other samples. {_WAY_OUT}"
        )


def _device_of(examples: Any) -> torch.device:
    """On which device a dataset makes its examples, where it may draw random numbers too."""
    first = examples if isinstance(examples, Mapping) else next(iter(examples), None)
    entries = first.values() if isinstance(first, Mapping) else first if isinstance(first, (tuple, list)) else [first]
    devices = [entry.device for entry in entries if isinstance(entry, torch.Tensor)]
    return next((device for device in devices if device.type != "cpu"), torch.device("cpu"))


def _one_by_one(examples: Any, count: int) -> list[Any]:
    if not isinstance(examples, Mapping):
        return list(examples)
    columns = {name: column for name, column in examples.items() if hasattr(column, "__len__") and len(column) == count}
    return [{name: column[place] for name, column in columns.items()} for place in range(count)]


def _is_same(first: Any, second: Any) -> bool:
    """Whether two examples are equal in all their entries."""
    if isinstance(first, Mapping):
        same_names = isinstance(second, Mapping) and first.keys() == second.keys()
        return same_names and all(_is_same(first[name], second[name]) for name in first)
    if isinstance(first, (tuple, list)):
        same_length = isinstance(second, (tuple, list)) and len(first) == len(second)
        return same_length and all(map(_is_same, first, second))
    if isinstance(first, torch.Tensor):
        return isinstance(second, torch.Tensor) and torch.equal(first.cpu(), second.cpu())
    try:
        return bool(np.all(first == second))
    except (TypeError, ValueError):  # of what cannot be compared
        return False
