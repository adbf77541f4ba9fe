"""What a training is given and has no effect: said once, when the trainer is made."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Iterator
from typing import Any

from transformers import TrainingArguments

from ..config import create_configured_policy, default_options, hiding_arguments
from ..data import SampleStream
from ..distributed.collectives import rank
from ..distributed.data_parallel import data_parallel_world
from ..hiding import KakurenboPolicy
from ..hiding.policies import options_of_policy

logger = logging.getLogger(__name__)

# The options of policies that are fields of the training arguments. KAKURENBO takes all of them, others some.
_SHARED = [name for name in inspect.signature(KakurenboPolicy).parameters if name in default_options()]


def warn_of_what_has_no_effect(trainer: Any) -> None:
    """Warn, on one rank, of options that change nothing, and of a training in which nothing could ever be hidden.

    Args:
        trainer: a trainer that hides, with a training dataset.
    """
    found = [_ignored_options(trainer), _ignored_length(trainer), _nothing_to_hide(trainer)]
    if rank() == 0:
        for warning in filter(None, found):
            logger.warning(warning)


def _ignored_options(trainer: Any) -> str | None:
    """Options of another policy that were changed from their defaults."""
    options, defaults = hiding_arguments(trainer.args), default_options()
    takes = options_of_policy(options.hiding_policy)
    # What initial_pass and initial_ledger ask for, whatever the policy, is no sign of a mistake.
    asked_for = ["hiding_warmup_epochs"] if options.initial_pass or options.initial_ledger else []
    ignored = [
        f"{name}={getattr(options, name)!r}"
        for name in _SHARED
        if name not in [*takes, *asked_for] and getattr(options, name) != defaults[name]
    ]
    if not ignored:
        return None
    fields = [name for name in takes if name in _SHARED]
    own = [name for name in takes if name not in [*_SHARED, "seed"]]
    return (
        f"Options without effect on hiding_policy={options.hiding_policy!r}: {', '.join(ignored)}. It takes "
        f"{', '.join(fields) or 'no option of this kind'}, and in policy_options {', '.join(own) or 'nothing'}."
    )


def _ignored_length(trainer: Any) -> str | None:
    """`num_samples` beside a dataset that has a length of its own."""
    count, dataset = hiding_arguments(trainer.args).num_samples, trainer.train_dataset
    if count is None or isinstance(dataset, SampleStream) or count == len(dataset):
        return None
    return (
        f"num_samples={count} has no effect: it is the length of a stream that does not know its own, and this "
        f"training dataset has {len(dataset)} samples. Leave it out; to train on fewer, select them in the dataset."
    )


def _nothing_to_hide(trainer: Any) -> str | None:
    """A training that ends before the policy may hide anything."""
    args, options = trainer.args, hiding_arguments(trainer.args)
    policy = create_configured_policy(options)
    assert policy is not None
    measured_before = options.initial_pass or options.initial_ledger
    measured_from = 1 if policy.needs_measurements and not measured_before else 0
    updates = _updates_of_an_epoch(trainer, len(trainer.train_dataset))
    if any(epoch >= measured_from and policy.may_hide(epoch, progress) for epoch, progress in _epochs(args, updates)):
        return None
    length = f"num_train_epochs={args.num_train_epochs:g}"
    if args.max_steps > 0:
        length = f"max_steps={args.max_steps}, {updates} in an epoch"
    nothing = f"Nothing will be hidden in this training ({length}): hiding_policy={options.hiding_policy!r}"
    if "hiding_warmup_epochs" not in options_of_policy(options.hiding_policy):
        return f"{nothing} needs more epochs."
    return (
        f"{nothing} with hiding_warmup_epochs={policy.warmup_epochs} needs more epochs. For a model that already knows "
        "much of the data, set hiding_warmup_epochs=0 and initial_pass=True, which measures every sample before the "
        "first epoch."
    )


def _updates_of_an_epoch(trainer: Any, samples: int) -> int:
    """How many updates an epoch of so many samples has with nothing hidden, as Trainer works it out."""
    args = trainer.args
    ranks = 1 if args.accelerator_config.split_batches else data_parallel_world(trainer.accelerator).size
    batches = samples / (args.train_batch_size * ranks)
    whole = math.floor(batches) if args.dataloader_drop_last else math.ceil(batches)
    return max(math.ceil(whole / args.gradient_accumulation_steps), 1)


def _epochs(args: TrainingArguments, updates: int) -> Iterator[tuple[int, float]]:
    """The index and the progress at the start of each epoch, if all are full."""
    if args.max_steps > 0:
        return ((step // updates, step / args.max_steps) for step in range(0, args.max_steps, updates))
    return ((epoch, epoch / args.num_train_epochs) for epoch in range(math.ceil(args.num_train_epochs)))
