"""How the examples of a stream are come by: those that are wanted are made, the others are passed over by their ids."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import datasets
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import _utils, get_worker_info

from ..utils.examples_iterables import ChosenExamples, one_to_one_chain, over_another_source, varied


class PartialEpoch(NamedTuple):
    """What an epoch had done when it was interrupted."""

    epoch: int
    trained: NDArray[np.bool_]
    """(N,) bool, by id: the samples that it had trained on; they come first in its order."""
    checkpoint: str
    """From which it is resumed, for messages."""


class Choice:
    """Decides about the examples of a stream, one after the other, which of them are made.

    Args:
        id_column: the column with the id.
        wanted: (N,) bool, by id: the samples that have a position in the order, counted from 0.
        takes: from a position to whether the sample there is made.
        keeps_id: whether the id stays in the example.
        partial_epoch: what the epoch had trained on before it was interrupted; None if it was not.

    Attributes:
        chosen: (position, id) of the examples that were chosen and not yet made.
    """

    def __init__(
        self,
        id_column: str,
        wanted: NDArray[np.bool_],
        takes: Callable[[int], bool],
        keeps_id: bool = False,
        partial_epoch: PartialEpoch | None = None,
    ) -> None:
        self.id_column = id_column
        self.keeps_id = keeps_id
        self.chosen: deque[tuple[int, int]] = deque()
        # Asked once for every sample of the stream, in every worker: these give Python's own values, in half the time.
        self._wanted = wanted.data
        self._takes = takes
        self._partial_epoch = partial_epoch
        self._num_trained = 0 if partial_epoch is None else int(np.count_nonzero(partial_epoch.trained))
        self._seen = bytearray(len(wanted))
        self._position = -1

    def __call__(self, example: Mapping[str, Any]) -> bool:
        """Whether to make the next example of the stream, which need not be decoded or mapped yet.

        Raises:
            KeyError: it has no id column.
            ValueError: its id is no integer in 0..N−1, or came before; or it stands where another one stood before
                the epoch was interrupted.
        """
        sample_id = self._checked(example[self.id_column])
        if not self._wanted[sample_id]:
            return False
        self._position += 1
        if self._position < self._num_trained:
            self._require_trained(sample_id)
        if not self._takes(self._position):
            return False
        self.chosen.append((self._position, sample_id))
        return True

    def _checked(self, given: Any) -> int:
        try:
            sample_id = operator.index(given)
        except TypeError:
            raise ValueError(
                f"The id of a sample must be an integer, got {given!r} of type {type(given).__name__} in the column "
                f"{self.id_column!r}. Name another column with `sample_id_column`, or number the samples from 0."
            ) from None
        count = len(self._seen)
        if not 0 <= sample_id < count:
            raise ValueError(
                f"The stream has a sample with the id {sample_id}, but its ids must be in 0..{count - 1}: it was taken "
                f"to have {count:,} samples. If it has more, say so with `num_samples`; its ids count from 0."
            )
        if self._seen[sample_id]:
            raise ValueError(
                f"The id {sample_id} comes a second time in one epoch of the stream. Each sample needs an id of its "
                "own, and an epoch must end: leave `repeat` and the like out."
            )
        self._seen[sample_id] = 1
        return sample_id

    def _require_trained(self, sample_id: int) -> None:
        if self._partial_epoch is None or self._partial_epoch.trained[sample_id]:
            return
        raise ValueError(
            f"{self._partial_epoch.checkpoint} was saved in the middle of an epoch, and the stream has another order "
            f"now: sample {sample_id} is among the first {self._num_trained:,} and was not trained on. Some samples "
            "would be trained on a second time, others never. Give the stream the order that it had (the same files, "
            "`shuffle` with the same seed and buffer), resume from a checkpoint saved at the end of an epoch, after "
            'which any order may follow, or set hiding_policy="none".'
        )

    @property
    def has_begun(self) -> bool:
        """Whether an example with an id was seen."""
        return 1 in self._seen

    def require_all(self) -> None:
        """Raise a ValueError unless every sample came."""
        missing = np.flatnonzero(np.frombuffer(self._seen, dtype=np.bool_) == 0)
        if len(missing):
            count = len(self._seen)
            raise ValueError(
                f"The stream ended after {count - len(missing):,} of its {count:,} samples; the lowest id that did not "
                f"come is {missing[0]}. Say with `num_samples` how many there are, their ids being 0..num_samples − 1; "
                "the last checkpoint is as good as it was. (A PyTorch stream must give all its samples to each worker.)"
            )


def examples_of(dataset: Any, epoch: int, choice: Choice) -> Iterator[tuple[int, int, Any]]:
    """The chosen examples of an epoch of a stream as (position, id, example).

    Of a `datasets.IterableDataset` an example that is not chosen is neither decoded nor mapped, unless something in
    between (a batched `map`, a filter, a shuffle buffer, …) needs it.

    Args:
        dataset: the stream.
        epoch: given to its `set_epoch`, if it has one.
        choice: asked about every example.

    Raises:
        ValueError: an example has no id, or not one that fits; or the stream ended before all samples came.
        TypeError: an example is not a mapping.
    """
    chosen = _chosen_of_datasets if isinstance(dataset, datasets.IterableDataset) else _chosen_of_any
    for example in _as_if_alone(lambda: chosen(dataset, epoch, choice)):
        position, sample_id = choice.chosen.popleft()
        yield position, sample_id, _checked_example(example, choice, sample_id)
    choice.require_all()


def _chosen_of_any(dataset: Any, epoch: int, choice: Choice) -> Iterator[Any]:
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)
    for example in dataset:
        if not isinstance(example, Mapping) or choice.id_column not in example:
            raise _no_id(example, choice.id_column)
        if choice(example):
            yield example


def _chosen_of_datasets(dataset: Any, epoch: int, choice: Choice) -> Iterator[Any]:
    """Chosen as far down as the examples have their id: below decoding and `map`."""
    # Not by `set_epoch`, which adds to a number in memory that all workers share, each of them at the same time.
    dataset = varied(dataset, _epoch=epoch)
    chain = one_to_one_chain(dataset._ex_iterable)
    for depth in reversed(range(len(chain))):
        chosen = over_another_source(chain[:depth], ChosenExamples(chain[depth], choice))
        examples = iter(varied(dataset, _ex_iterable=chosen))
        try:
            first = next(examples)
        except StopIteration:
            return
        except KeyError as error:
            if error.args != (choice.id_column,) or choice.has_begun:
                raise
            continue
        yield first
        yield from examples
        return
    raise _no_id(next(iter(dataset)), choice.id_column)


def _no_id(example: Any, id_column: str) -> Exception:
    if not isinstance(example, Mapping):
        return TypeError(
            f"The examples of a stream must be dicts with an entry {id_column!r}, their id; got "
            f"{type(example).__name__}."
        )
    return ValueError(
        f"The examples of the stream have no column {id_column!r}, by which samples are told apart from epoch to "
        f"epoch; they have {', '.join(map(repr, example))}. Name the integer column that counts them from 0 with "
        "`sample_id_column`, or load the dataset map-style (`streaming=False`), where the index is the id."
    )


def _checked_example(example: Any, choice: Choice, sample_id: int) -> Any:
    """An example as the collator gets it."""
    id_column = choice.id_column
    if not isinstance(example, Mapping):
        raise _no_id(example, id_column)
    if example.get(id_column, sample_id) != sample_id:
        raise ValueError(
            f"A function that the stream is mapped by changes {id_column!r} from {sample_id} to "
            f"{example[id_column]}. Give the new ids a column of their own, and name it with `sample_id_column`."
        )
    return example if choice.keeps_id else {name: value for name, value in example.items() if name != id_column}


def _as_if_alone(iterate: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """Iterate as one would in the main process.

    In a worker of a DataLoader, a stream gives only the worker's part of its shards; here the samples are assigned by
    their place in the whole order instead.
    """
    with _no_worker():
        examples = iterate()
    while True:
        with _no_worker():
            try:
                example = next(examples)
            except StopIteration:
                return
        yield example


@contextmanager
def _no_worker() -> Iterator[None]:
    worker = get_worker_info()
    _utils.worker._worker_info = None
    try:
        yield
    finally:
        _utils.worker._worker_info = worker
