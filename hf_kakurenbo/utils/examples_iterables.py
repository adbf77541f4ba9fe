"""What rests on the insides of a stream of `datasets`: the chain of iterables that an `IterableDataset` iterates over.

There is no public way to leave an example out before it is decoded and mapped, or to ask a stream for one of its
examples; so this is one small, guarded place. A chain that is not understood is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any

from datasets.iterable_dataset import (
    FormattedExamplesIterable,
    MappedExamplesIterable,
    SelectColumnsIterable,
    _BaseExamplesIterable,
)


def one_to_one_chain(iterable: Any) -> list[Any]:
    """The outermost iterables that each make one example of one example, by nothing but that example; then the next.

    Those are `map` of single examples without indices, formatting and decoding, and the choice of columns. What comes
    last is where the examples come from: a file reader, a shuffle buffer, `take`, or anything else.
    """
    chain = [iterable]
    while _is_one_to_one(chain[-1]):
        chain.append(chain[-1].ex_iterable)
    return chain


def _is_one_to_one(iterable: Any) -> bool:
    formatting = getattr(iterable, "formatting", None)
    if formatting is not None and formatting.is_table:
        return False
    if type(iterable) is MappedExamplesIterable:
        return not (iterable.batched or iterable.with_indices)
    return type(iterable) in (FormattedExamplesIterable, SelectColumnsIterable)


def varied(dataset: Any, **attributes: Any) -> Any:
    """A stream of `datasets` with some of its attributes changed.

    `copy.copy` would not do: its `__setstate__` makes the copy share all attributes with the original.
    """
    changed = object.__new__(type(dataset))
    changed.__dict__.update({**dataset.__dict__, **attributes})
    return changed


def over_another_source(outer: Sequence[Any], source: Any) -> Any:
    """The same iterables, outermost first, with another source under the innermost."""
    for iterable in reversed(outer):
        rebuilt = copy(iterable)
        rebuilt.ex_iterable = source
        rebuilt._state_dict = None
        source = rebuilt
    return source


class ChosenExamples(_BaseExamplesIterable):
    """Those examples of another iterable that a function chooses.

    Args:
        ex_iterable: the other iterable.
        chooses: from an example to whether it is passed on; asked in the order of the examples.
    """

    def __init__(self, ex_iterable: Any, chooses: Callable[[dict[str, Any]], bool]) -> None:
        super().__init__()
        self.ex_iterable = ex_iterable
        self.chooses = chooses

    @property
    def is_typed(self) -> bool:
        """Whether the examples are as the features say."""
        return bool(self.ex_iterable.is_typed)

    @property
    def features(self) -> Any:
        """Those of the other iterable."""
        return self.ex_iterable.features

    @property
    def num_shards(self) -> int:
        """As many as the other iterable has."""
        return int(self.ex_iterable.num_shards)

    def __iter__(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        for key, example in self.ex_iterable:
            if self.chooses(example):
                yield key, example

    def shuffle_data_sources(self, *args: Any, **kwargs: Any) -> ChosenExamples:
        """The same choice from the other iterable, shuffled."""
        return ChosenExamples(self.ex_iterable.shuffle_data_sources(*args, **kwargs), self.chooses)

    def _init_state_dict(self) -> dict[str, Any]:
        self._state_dict = self.ex_iterable._init_state_dict()
        return self._state_dict


class ExamplesInHand(_BaseExamplesIterable):
    """Examples that are there already.

    Args:
        examples: what is iterated over.
        features: the `datasets.Features` that they have.
    """

    is_typed = True
    sleep_on_threads_shutdown = False

    def __init__(self, examples: Sequence[dict[str, Any]], features: Any) -> None:
        super().__init__()
        self.examples = examples
        self._features = features

    @property
    def features(self) -> Any:
        """As given."""
        return self._features

    @property
    def num_shards(self) -> int:
        """One."""
        return 1

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(self.examples)

    def _init_state_dict(self) -> dict[str, Any]:
        self._state_dict = {"type": type(self).__name__}
        return self._state_dict
