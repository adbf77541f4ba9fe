"""TRL's trainers: which of them hiding can be combined with, and what watches the loss of each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import Any

from packaging.version import Version

from .base import Integration, Observer, observe_outputs
from .trl_dpo import LOSSES
from .trl_preferences import CpoObserver, DpoObserver, KtoObserver, OrpoObserver, RewardObserver
from .trl_sft import observe_tokens

_LIBRARY = "trl"

# Before it, the trainers of preferences computed their losses otherwise.
_FIRST_PREFERENCES = "1.16"

# From the name of a trainer's class to what makes, of a trainer and TRL's version, what watches its loss.
_OBSERVERS: Mapping[str, Callable[[Any, str], Observer]] = {
    "SFTTrainer": lambda trainer, release: observe_tokens,
    "DPOTrainer": DpoObserver,
    "KTOTrainer": KtoObserver,
    "RewardTrainer": RewardObserver,
    "CPOTrainer": CpoObserver,
    "ORPOTrainer": OrpoObserver,
}

# The values of `loss_type` under which each sample has a loss of its own; CPO and ORPO say it themselves.
_LOSSES: Mapping[str, frozenset[str]] = {
    "DPOTrainer": frozenset(LOSSES),
    "KTOTrainer": frozenset({"kto", "apo_zero_unpaired"}),
}
_SORTED = frozenset({"aot", "aot_unpaired"})

# A trainer with one of these, or with a method `_generate...`, does not train on the batches of a training loader.
_OWN_BATCHES = frozenset({"_prepare_inputs", "get_train_dataloader"})


def refusal(trainer: Any, has_function: bool) -> str | None:
    """Why nothing can be hidden in one of TRL's trainers; None if there is nothing against it.

    Args:
        trainer: the trainer.
        has_function: whether it was given a `statistics_fn`.
    """
    family = family_of(type(trainer))
    name = family[0].__name__
    if name in _OBSERVERS:
        return None if has_function else _refusal_of_release(name) or _refusal_of_loss(name, trainer.args)
    if _makes_own_batches(family):
        return (
            f"TRL's {name} trains on completions that it generates, or regroups, itself: between two epochs a row of "
            "the dataset has no loss that could be compared, and its batches are not those of the training loader."
        )
    if has_function:
        return None
    if "teacher_model" in inspect.signature(family[0]).parameters:
        return (
            f"TRL's {name} trains on how far two models are apart, the student and its teacher. What its samples would "
            "be ranked by is another loss, that of the student on the labels. A `statistics_fn` can say what the loss "
            "of a sample is."
        )
    return (
        f"How TRL's {name} computes the loss of a sample is not known here; known are {', '.join(_OBSERVERS)}. A "
        "`statistics_fn` can say what it is."
    )


def make_observer(trainer: Any) -> Observer:
    """What watches the loss of one of TRL's trainers.

    None of them may be asked for its outputs beside the loss: TRL would run the model once more.
    """
    make = _OBSERVERS.get(family_of(type(trainer))[0].__name__)
    return make(trainer, version(_LIBRARY)) if make else observe_outputs


def family_of(trainer: type) -> list[type]:
    """The classes of TRL's that a trainer's class descends from, the nearest first."""
    return [base for base in trainer.__mro__ if base.__module__.partition(".")[0] == _LIBRARY]


def _refusal_of_release(name: str) -> str | None:
    release = version(_LIBRARY)
    if name == "SFTTrainer" or Version(release) >= Version(_FIRST_PREFERENCES):
        return None
    return (
        f"How TRL {release} computes the losses of {name} is not known here; it is from {_FIRST_PREFERENCES} on. "
        "Update TRL, or say what the loss of a sample is in a `statistics_fn`."
    )


def _refusal_of_loss(name: str, args: Any) -> str | None:
    if name not in _LOSSES:
        return None
    given = args.loss_type
    unknown = sorted({given} if isinstance(given, str) else set(given)) if given else []
    unknown = [loss for loss in unknown if loss not in _LOSSES[name]]
    if not unknown:
        return None
    if _SORTED.issuperset(unknown):
        return (
            f"loss_type={given!r} compares the sorted log ratios of a batch, so no pair has a loss of its own by which "
            "it could be ranked. Choose another loss_type."
        )
    return (
        f"loss_type={given!r} has {', '.join(map(repr, unknown))}, of which the loss of a sample is not known here; "
        f"known are {', '.join(sorted(_LOSSES[name]))}. A `statistics_fn` can say what it is."
    )


def _makes_own_batches(family: Iterable[type]) -> bool:
    names = {name for each in family for name in vars(each)}
    return bool(names & _OWN_BATCHES) or any(name.startswith("_generate") for name in names)


INTEGRATION = Integration(refusal, make_observer, collected=("_metrics", "_stored_metrics"))
