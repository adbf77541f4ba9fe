"""Whether a resumed training is the one that was saved: its rows, its policy, its rule, its options.

Whether it continues in the same order is asked in `order.py`, when the order of the resumed epoch is drawn.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from enum import Enum
from importlib.metadata import version
from textwrap import shorten
from typing import Any, NamedTuple

from torch import Tensor
from transformers import TrainingArguments

from .._version import __version__
from ..config import HidingArguments, hiding_arguments, named_task
from ..data import RowDigests, SampleStream, digest_rows, source_of
from ..distributed.collectives import from_rank_0, rank
from .dataloaders import TrainingLoader
from .state import Training
from .task_detection import make_matcher

logger = logging.getLogger(__name__)

# Of Trainer's arguments, those from which the order of an epoch follows, and those that say how long it trains.
_ORDER, _LENGTH = ("seed", "data_seed", "train_sampling_strategy"), ("num_train_epochs", "max_steps")
_PACKAGES = ("torch", "numpy", "accelerate", "transformers", "datasets")
_WAY_OUT = (
    "Resume with what it was saved with, start a new training from its weights (`from_pretrained`), or set "
    'hiding_policy="none".'
)


# ---- What a checkpoint says of its training ----


def describe_training(trainer: Any, training: Training) -> dict[str, Any]:
    """What a resumed training is compared with, as JSON holds it."""
    dataset, rows = training.training_loader.dataset, training.rows
    if rows is not None:
        rows = rows.without(rows.differing(digest_rows(dataset, rows.rows)))  # such as a cache that training fills
    return {
        "rows": None if rows is None else rows._asdict(),
        "source": source_of(dataset),
        "order": 0 if training.run.epoch_finished else training.sampler.digest(),
        "options": _options(trainer.args),
        "statistics": _rule(trainer, training),
        "surroundings": _surroundings(trainer.args, training),
    }


def rows_of(loader: TrainingLoader) -> RowDigests | None:
    """Digests of some rows of the training dataset; None of a stream, whose rows cannot be had by number."""
    return None if isinstance(loader.sampler, SampleStream) else digest_rows(loader.dataset)


def _options(args: TrainingArguments) -> dict[str, Any]:
    """The options of hiding, and the arguments of Trainer's that bear on it."""
    options = hiding_arguments(args)
    names = [field.name for field in fields(HidingArguments) if field.name != "log_hidden_samples"]  # trackers' alone
    own = {name: getattr(options, name) for name in names}
    if isinstance(options.policy_options, str):
        own["policy_options"] = json.loads(options.policy_options)
    others = {name: getattr(args, name, None) for name in (*_ORDER, *_LENGTH)}
    return {name: _as_json(value) for name, value in {**own, **others}.items()}


def _surroundings(args: TrainingArguments, training: Training) -> dict[str, Any]:
    """What else an order may depend on: the sampler and releases of packages; of groups by length, what forms them."""
    found: dict[str, Any] = {"sampler": type(getattr(training.sampler, "sampler", training.sampler)).__name__}
    if args.train_sampling_strategy == "group_by_length":
        found["length_column_name"] = args.length_column_name
        found["samples of a rank in an update"] = args.train_batch_size * args.gradient_accumulation_steps
    return {**found, "hf_kakurenbo": __version__, **{package: version(package) for package in _PACKAGES}}


def _as_json(value: Any) -> Any:
    if isinstance(value, Enum):
        return _as_json(value.value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(name): _as_json(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(inner) for inner in value]
    name = getattr(value, "__qualname__", None)
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value)) if name is None else f"{value.__module__}:{name}"


def _rule(trainer: Any, training: Training) -> str | None:
    """By what statistics are measured: a function, or a task; None if it is not known yet."""
    if training.statistics_function is not None:
        return str(_as_json(training.statistics_function))
    return named_task(hiding_arguments(trainer.args)) or (training.matcher.task if training.matcher else None)


# ---- What has changed since ----


class _Finding(NamedTuple):
    refused: bool
    text: str


def require_saved_training(
    trainer: Any, training: Training, checkpoint: str, saved: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Compare a training with the one that a checkpoint was saved by; a collective call, in which rank 0 decides.

    What may change with sense is reported. Of what the checkpoint of an earlier release does not say, nothing is.

    Args:
        trainer: the trainer.
        training: the training that is to continue, before it has taken the checkpoint over.
        checkpoint: its folder.
        saved: what `describe_training` gave when it was saved.
        tensors: those of its ledger.

    Raises:
        ValueError: samples would be hidden by what was measured of others, by another rule, or by nothing.
    """
    found = list(_findings(trainer, training, checkpoint, saved, tensors)) if rank() == 0 else []
    found = from_rank_0(found)
    if refusals := [finding.text for finding in found if finding.refused]:
        raise ValueError(f"{checkpoint} does not belong to this training. {' '.join(refusals)} {_WAY_OUT}")
    if rank() == 0:
        for finding in found:
            logger.warning("%s", finding.text)


def findings_of_samples(trainer: Any, training: Training, ledger: str, saved: Mapping[str, Any]) -> Iterator[_Finding]:
    """What is to be said of the ledger of another training over as many samples: of its rule, and of its rows.

    Args:
        trainer: the trainer.
        training: the training that is to take the ledger over.
        ledger: where it is.
        saved: what `describe_training` gave when it was saved.
    """
    yield from _findings_of_rule(trainer, training, saved.get("statistics"))
    if "rows" in saved:
        yield from _findings_of_rows(training, ledger, saved)


def changes_of_order(trainer: Any, training: Training, saved: Mapping[str, Any]) -> str:
    """What has changed, of all that the order of an epoch may depend on, since a training was saved."""
    options = {name: value for name, value in _options(trainer.args).items() if name in _ORDER}
    changed = [
        _changes(saved.get("options", {}), options),
        _changes(saved.get("surroundings", {}), _surroundings(trainer.args, training)),
    ]
    return "; ".join(filter(None, changed))


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs, as `name: before -> now`; what only one of them has is left out."""
    both = [name for name in now if name in before and before[name] != now[name]]
    return "; ".join(f"{name}: {shorten(str(before[name]), 80)} -> {shorten(str(now[name]), 80)}" for name in both)


def _findings(
    trainer: Any, training: Training, checkpoint: str, saved: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Iterator[_Finding]:
    before, now = saved.get("options", {}), _options(trainer.args)
    if bool(tensors["loss"].isfinite().any()):
        yield from _findings_of_policy(training, before, now)
        yield from _findings_of_rule(trainer, training, saved.get("statistics"))
    if isinstance(training.sampler, SampleStream) and _changes(before, {"sample_id_column": now["sample_id_column"]}):
        yield _Finding(True, f"Its samples are numbered by {before['sample_id_column']!r}, as `sample_id_column` said.")
    if "rows" in saved and len(tensors["loss"]) == len(training.run.ledger):
        yield from _findings_of_rows(training, checkpoint, saved)
    if changed := _changes(before, now):
        yield _Finding(False, f"Resuming {checkpoint} with other options than it was saved with: {changed}.")


def _findings_of_policy(training: Training, before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[_Finding]:
    old, new = before.get("hiding_policy"), now["hiding_policy"]
    if old not in (None, new) and training.run.policy.observes:
        yield _Finding(
            True,
            f"It was saved with hiding_policy={old!r}; {new!r} decides by what it has noted of each sample since the "
            "first epoch, and it has noted nothing.",
        )


def _findings_of_rule(trainer: Any, training: Training, old: str | None) -> Iterator[_Finding]:
    new = _rule(trainer, training)
    # Not by its module, which is another one in another start of the script: `__main__`.
    possible = make_matcher(trainer.model, None, (), 1.0).tasks if new is None else (new.rpartition(":")[2],)
    if old is not None and old.rpartition(":")[2] not in possible:
        yield _Finding(
            True,
            f"Its losses were measured by {old!r} and cannot be compared with those by {new or 'a built-in rule'!r} "
            "(`statistics_fn`).",
        )


def _findings_of_rows(training: Training, checkpoint: str, saved: Mapping[str, Any]) -> Iterator[_Finding]:
    dataset, digests = training.training_loader.dataset, saved["rows"]
    unknown = f"It was not checked that the training dataset has the rows that {checkpoint} was saved with:"
    if digests is None or training.rows is None:
        old, new = saved["source"], source_of(dataset)
        if old is None or new != old:
            yield _Finding(False, f"{unknown} those of a stream cannot be had by number ({old} -> {new}).")
        return
    before = RowDigests(**digests)
    after = digest_rows(dataset, before.rows)
    differing = before.differing(after)
    names = ", ".join(map(repr, differing))
    if not before.common(after):
        yield _Finding(
            False,
            f"{unknown} those of {type(dataset).__name__} are made when they are asked for. Give it a string attribute "
            "`rows_fingerprint` that says which they are.",
        )
    elif differing and before.tells_the_same(after):
        yield _Finding(False, f"The rows are those that {checkpoint} was saved with, but with other values of {names}.")
    elif differing:
        yield _Finding(
            True,
            "Its ledger is of other rows than the training dataset has, or of the same in another order: the values of "
            f"{names} are others. (A `shuffle`, or a `train_test_split`, gives the same rows again if it has a seed.)",
        )
