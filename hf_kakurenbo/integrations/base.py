"""What hiding has to know of another library's trainer, as data: see `Integration`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from ..data import BatchIds
from ..hiding.statistics import Prediction, SampleStatistics


class Observation:
    """What was seen of a batch while its loss was computed. This one saw what the model returned, and no more.

    Args:
        returned: what the model returned in each of its forward passes, filled while the loss is computed.
        place: which of them is the batch's own.
    """

    def __init__(self, returned: Sequence[Any], place: int = -1) -> None:
        self._returned, self._place = returned, place

    @property
    def outputs(self) -> Any:
        """What the model returned, as the rule of a task or a `statistics_fn` gets it.

        Raises:
            RuntimeError: the loss was computed without the model that `compute_loss` was given.
        """
        if not self._returned:
            raise RuntimeError(
                "`compute_loss` did not call the model that it was given, so what it returns for a batch is not known. "
                'Let it call `model(...)`, or set hiding_policy="none".'
            )
        return self._returned[self._place]

    def statistics(
        self, batch: Mapping[str, Any], ids: BatchIds, accuracy_threshold: float, loss: Tensor
    ) -> SampleStatistics | Prediction | None:
        """The statistics of the batch, or None where the rule of the model's task gives them.

        Args:
            batch: what the loss was computed of, labels included.
            ids: which samples these are.
            accuracy_threshold: the option of that name.
            loss: scalar, what the trainer computed.
        """
        return None


Observer: TypeAlias = Callable[[nn.Module], AbstractContextManager[Observation]]
"""From the model that is handed to `compute_loss` to a context around that call; it is kept for the whole training."""


@dataclass(frozen=True)
class Integration:
    """What the trainers of a library do otherwise than `transformers.Trainer`.

    Args:
        refusal: from a trainer, and whether it was given a `statistics_fn`, to why nothing can be hidden in it: a
            sentence or more; None if there is nothing against it. It is asked while the trainer is constructed, once it
            is, and before each training, so what a constructor has not set yet may be missing.
        make_observer: from a trainer to what watches its loss; None where `compute_loss` returns the model's outputs
            for the asking.
        make_training_loader: from a trainer whose training loader is not of `Trainer._get_dataloader` to one that is.
        collected: attributes in which its trainers collect metrics for their next log.
    """

    refusal: Callable[[Any, bool], str | None]
    make_observer: Callable[[Any], Observer | None]
    make_training_loader: Callable[[Any], Any] | None = None
    collected: tuple[str, ...] = ()


@contextmanager
def returned_by(model: nn.Module) -> Iterator[list[Any]]:
    """What a module returns inside, in the order of its forward passes."""
    returned: list[Any] = []
    handle = model.register_forward_hook(lambda module, args, output: returned.append(output))
    try:
        yield returned
    finally:
        handle.remove()


class Call(NamedTuple):
    """One call of a method."""

    args: tuple[Any, ...]
    returned: Any


@contextmanager
def calls_of(owner: Any, method: str) -> Iterator[list[Call]]:
    """The calls of a method that an object makes of itself inside."""
    calls: list[Call] = []
    original, own = getattr(owner, method), vars(owner).get(method)

    def keep(*args: Any, **kwargs: Any) -> Any:
        returned = original(*args, **kwargs)
        calls.append(Call(args, returned))
        return returned

    setattr(owner, method, keep)
    try:
        yield calls
    finally:
        delattr(owner, method) if own is None else setattr(owner, method, own)


@contextmanager
def observe_outputs(model: nn.Module) -> Iterator[Observation]:
    """The observer of trainers of which only the model's outputs are of interest."""
    with returned_by(model) as returned:
        yield Observation(returned)


class LibraryLossCheck:
    """Compares, on the first batches, the loss that a trainer computed with the one that its statistics say.

    What is recorded beside a loss that another library computes is only as right as what is known of that library.

    Args:
        trainer: its name, for the message.
        library: whose loss it is, with the version.
    """

    # A comparison reads both numbers, which waits for the device.
    _BATCHES = 2
    _RELATIVE, _ABSOLUTE = 1e-2, 1e-3

    def __init__(self, trainer: str, library: str) -> None:
        self._trainer, self._library = trainer, library
        self._left = self._BATCHES

    def __call__(self, loss: Tensor, expected: Tensor) -> None:
        """Compare the loss of a batch with the expected one, both scalar.

        Raises:
            ValueError: they differ, and both are finite.
        """
        if self._left == 0:
            return
        self._left -= 1
        computed, recorded = torch.stack([loss.detach().float(), expected.detach().float()]).tolist()
        if abs(computed - recorded) > self._RELATIVE * abs(recorded) + self._ABSOLUTE:
            raise ValueError(
                f"{self._trainer} computed a loss of {computed:.6g} for a batch, and the losses of its samples, as "
                f"hiding knows them of {self._library}, make {recorded:.6g}: samples would be ranked by another loss "
                "than the one that is trained. A subclass changes the loss, or this release computes it otherwise. Say "
                'what a sample\'s loss is in a `statistics_fn`, or set hiding_policy="none".'
            )
