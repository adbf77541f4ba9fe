"""What a hiding policy is, and the names under which policies are found."""

from __future__ import annotations

import difflib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from ..ledger import SampleLedger


class Selection(NamedTuple):
    """What a policy decided for one epoch."""

    hidden: Tensor
    """(N,) bool: the samples to leave out. At least one sample stays."""
    candidates: int
    """How many samples were considered for it; those not hidden were moved back."""

    @property
    def moved_back(self) -> int:
        """How many candidates stay visible after all."""
        return self.candidates - int(self.hidden.count_nonzero())


class HidingPolicy(ABC):
    """Decides, before each epoch, which samples it leaves out.

    A policy is deterministic: with the same ledger every rank decides the same.
    """

    @abstractmethod
    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """Choose the samples to hide.

        Args:
            ledger: what is known about the samples; not to be changed.
            epoch: the index of the epoch that starts, from 0.
            progress: the share of the training already done, in [0, 1).
        """

    @abstractmethod
    def wants_refresh(self, epoch: int) -> bool:
        """Whether the samples hidden in this epoch are looked at, forward only, at its end."""


PolicyClass = TypeVar("PolicyClass", bound=type[HidingPolicy])

_REGISTRY: dict[str, type[HidingPolicy]] = {}


def register_policy(name: str) -> Callable[[PolicyClass], PolicyClass]:
    """Class decorator that makes a policy available under a name.

    Raises:
        ValueError: another policy has the name.
    """

    def register(policy: PolicyClass) -> PolicyClass:
        if _REGISTRY.get(name, policy) is not policy:
            raise ValueError(f"The policy name {name!r} is taken by {_REGISTRY[name].__qualname__}; choose another.")
        _REGISTRY[name] = policy
        return policy

    return register


def list_policies() -> list[str]:
    """The names of the registered policies."""
    return sorted(_REGISTRY)


def create_policy(name: str, options: Mapping[str, Any]) -> HidingPolicy:
    """Build the policy of a name from those of the options that its constructor takes.

    Raises:
        ValueError: no policy has the name, or an option is out of its range.
    """
    if name not in _REGISTRY:
        known = ["none", *list_policies()]
        nearest = difflib.get_close_matches(str(name), known, n=1)
        hint = f" Did you mean {nearest[0]!r}?" if nearest else ""
        raise ValueError(f"Unknown hiding_policy {name!r}.{hint} Known policies: {', '.join(map(repr, known))}.")
    policy = _REGISTRY[name]
    accepted = inspect.signature(policy).parameters
    return policy(**{option: value for option, value in options.items() if option in accepted})
