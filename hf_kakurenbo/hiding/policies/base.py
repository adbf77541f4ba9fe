"""What a hiding policy is, and the names under which policies are found."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from ...utils.names import did_you_mean
from ..ledger import SampleLedger
from ..options import require_type


class Selection(NamedTuple):
    """What a policy decided for one epoch."""

    hidden: Tensor
    """(N,) bool: the samples to leave out. At least one sample stays."""
    candidates: int
    """How many samples were considered for it; those not hidden were moved back."""
    weights: Tensor | None = None
    """(N,) float32: by how much the gradient of a visible sample counts. None: each by 1."""
    repeats: Tensor | None = None
    """(N,) int32: how often a sample is drawn, 0 for the hidden ones. None: each visible one once."""

    @property
    def moved_back(self) -> int:
        """How many candidates stay visible after all."""
        return self.candidates - int(self.hidden.count_nonzero())


class HidingPolicy(ABC):
    """Decides, before each epoch, which samples it leaves out.

    A policy is deterministic: with the same ledger, and the same state of its own, every rank decides the same. What
    it decides at random it draws from a generator made of (seed, epoch) alone.

    Attributes:
        warmup_epochs: epochs at the start in which it hides nothing.
        needs_measurements: whether it hides only samples that a pass has measured before, so nothing in the first
            epoch unless a pass precedes it.
        weighs_samples: whether it gives weights, so that a loss without any is refused before the first epoch ends.
        repeats_samples: whether it draws samples more than once, which a stream cannot.
    """

    warmup_epochs: int = 0
    needs_measurements: bool = False
    weighs_samples: bool = False
    repeats_samples: bool = False

    @abstractmethod
    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        """Choose the samples to hide.

        Args:
            ledger: what is known about the samples; not to be changed.
            epoch: the index of the epoch that starts, from 0.
            progress: the fraction of the training already done, in [0, 1).
        """

    @abstractmethod
    def wants_refresh(self, epoch: int) -> bool:
        """Whether the samples hidden in this epoch are refreshed, forward-only, at its end."""

    def most_hidden(self, draws: int, epoch: int, progress: float) -> int:
        """The most of an epoch's draws that may be hidden, where a sampler does not draw each sample once.

        Args:
            draws: how many samples the sampler draws in the epoch, one that comes twice counted twice.
            epoch: its index, from 0.
            progress: the fraction of the training already done, in [0, 1).

        Returns:
            0..`draws`; all of them, unless the policy has a limit.
        """
        return draws

    def to_refresh(self, ledger: SampleLedger, epoch: int) -> Tensor | None:
        """Which of the hidden samples a refresh at the end of this epoch measures; the others keep their statistics.

        Args:
            ledger: with what the epoch hid; not to be changed.
            epoch: its index, from 0.

        Returns:
            (N,) bool, or None for all that are hidden.
        """
        return None

    def may_hide(self, epoch: int, progress: float) -> bool:
        """Whether it may hide anything in an epoch, whatever is known about the samples.

        Asked when a training begins, to warn of one in which nothing could ever be hidden.

        Args:
            epoch: its index, from 0.
            progress: the fraction of the training already done when it starts, in [0, 1).
        """
        return epoch >= self.warmup_epochs

    # ---- What a policy knows beside the ledger: for most, nothing ----

    def observe(self, ledger: SampleLedger, trained: np.ndarray, epoch: int) -> None:  # noqa: B027 (optional)
        """Learn what an epoch has trained, before its hidden samples are refreshed.

        Args:
            ledger: with the statistics of the epoch; not to be changed.
            trained: (N,) bool, the samples that went through a training step in the epoch; not to be changed.
            epoch: its index, from 0; −1 for a pass over all samples before the first epoch, in which each counts as
                trained.
        """

    @property
    def observes(self) -> bool:
        """Whether `observe` does anything: for those where it does not, nobody notes which samples were trained."""
        return type(self).observe is not HidingPolicy.observe

    def state_dict(self) -> dict[str, Tensor]:
        """What `load_state_dict` needs to continue, per-sample tensors by name. Every checkpoint saves it."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:  # noqa: B027 (optional)
        """Take over `state_dict`.

        Raises:
            KeyError: it is the state of another policy.
        """


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


def find_policy(name: str) -> type[HidingPolicy]:
    """The policy of a name.

    Raises:
        ValueError: no policy has the name.
    """
    require_type("hiding_policy", name, str)
    if name not in _REGISTRY:
        known = ["none", *list_policies()]
        hint = did_you_mean(name, known)
        raise ValueError(f"Unknown hiding_policy {name!r}.{hint} Known policies: {', '.join(map(repr, known))}.")
    return _REGISTRY[name]


def options_of_policy(name: str) -> list[str]:
    """The names of the options that a policy takes: the arguments of its constructor.

    Raises:
        ValueError: no policy has the name.
    """
    return list(inspect.signature(find_policy(name)).parameters)


def create_policy(
    name: str, options: Mapping[str, Any], policy_options: Mapping[str, Any] | None = None
) -> HidingPolicy:
    """Build the policy of a name.

    Args:
        name: as registered.
        options: those of them that its constructor takes are handed in; one that is None is left at its default.
        policy_options: options for this policy alone, each of which its constructor must take; they come first.

    Raises:
        ValueError: no policy has the name or the option, or an option is out of its range.
    """
    accepted, policy_options = options_of_policy(name), policy_options or {}
    unknown = [option for option in policy_options if option not in accepted]
    if unknown:
        raise ValueError(
            f"policy_options has {unknown[0]!r}, which hiding_policy={name!r} does not take."
            f"{did_you_mean(unknown[0], accepted)} It takes {', '.join(map(repr, accepted)) or 'none'}."
        )
    given = {option: value for option, value in options.items() if option in accepted and value is not None}
    return _REGISTRY[name](**{**given, **policy_options})
