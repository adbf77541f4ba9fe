"""From a trainer to what hiding has to know of the library that it comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from importlib import import_module
from typing import Any

from .base import Integration, Observer

# Each has a module of its name beside this one, imported when such a trainer is met; none imports its library.
_LIBRARIES = frozenset({"sentence_transformers", "trl"})


def integration_of(trainer: type) -> Integration | None:
    """What is to be known of a class of trainers; None if it descends from no other library's."""
    for base in trainer.__mro__:
        library = base.__module__.partition(".")[0]
        if library in _LIBRARIES:
            found: Integration = import_module(f".{library}", __package__).INTEGRATION
            return found
    return None


def require_supported(trainer: Any, has_function: bool) -> None:
    """Refuse another library's trainer whose samples cannot be ranked by the loss that it trains.

    Args:
        trainer: the trainer.
        has_function: whether it was given a `statistics_fn`.

    Raises:
        ValueError: the message says why, and the way out.
    """
    integration = integration_of(type(trainer))
    reason = integration.refusal(trainer, has_function) if integration else None
    if reason:
        raise ValueError(
            f"{type(trainer).__name__} cannot hide samples. {reason} Or use the trainer without KakurenboMixin, or set "
            'hiding_policy="none".'
        )


def make_observer(trainer: Any) -> Observer | None:
    """What watches a trainer compute its loss; None where `compute_loss` returns the model's outputs for the asking."""
    integration = integration_of(type(trainer))
    return integration.make_observer(trainer) if integration else None


def make_training_loader(trainer: Any, parent: Callable[[], Any]) -> Any:
    """The training loader of a trainer, by way of `Trainer._get_dataloader` if its library goes another.

    Args:
        trainer: the trainer.
        parent: its `get_train_dataloader`, of the class after the mixin.
    """
    integration = integration_of(type(trainer))
    # One of the user's own is not passed over.
    of_library = parent.__func__.__module__.partition(".")[0] in _LIBRARIES  # type: ignore[attr-defined]
    if integration is None or integration.make_training_loader is None or not of_library:
        return parent()
    return integration.make_training_loader(trainer)


@contextmanager
def metrics_set_aside(trainer: Any) -> Iterator[None]:
    """Keep what a trainer collects for its next log from what happens inside."""
    integration = integration_of(type(trainer))
    names = [name for name in integration.collected if hasattr(trainer, name)] if integration else []
    collected = {name: getattr(trainer, name) for name in names}
    for name, metrics in collected.items():
        setattr(trainer, name, _emptied(metrics))
    try:
        yield
    finally:
        for name, metrics in collected.items():
            setattr(trainer, name, metrics)


def _emptied(metrics: dict[str, Any]) -> dict[str, Any]:
    """The same kinds of dict, with each mode (`"train"`, `"eval"`) that there is and nothing collected in it."""
    emptied = copy(metrics)
    for mode, collected in metrics.items():
        emptied[mode] = copy(collected)
        emptied[mode].clear()
    return emptied


def explain_arguments(error: TypeError, trainer: type) -> TypeError:
    """An error that says how to give a trainer with arguments of its own the options of hiding."""
    return TypeError(
        f"{trainer.__name__} turns its arguments into a kind of its own, which does not know the options of hiding "
        f"({error}). Give it that kind with the options, for TRL's SFTTrainer:\n\n"
        "    @dataclass\n"
        "    class MyConfig(hf_kakurenbo.HidingArguments, SFTConfig): ...\n"
    )
