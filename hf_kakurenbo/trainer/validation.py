"""What hiding cannot be combined with, refused at construction instead of ignored."""

from __future__ import annotations

from typing import Any

from torch.utils.data import IterableDataset
from transformers import Trainer

from ..config import create_configured_policy, hiding_arguments, validate_hiding
from ..data import SampleStream
from ..distributed.data_parallel import data_parallel_world
from ..integrations.deepspeed import refuse_zenflow
from .parallelism import refuse_unsupported_parallelism


def refuse_what_cannot_be_honoured(trainer: Trainer) -> None:
    """Refuse, at construction, a training with hiding that could not be done as asked.

    Raises:
        ValueError: what cannot be honoured; the message names it and the way out.
    """
    args, dataset = trainer.args, trainer.train_dataset
    options = hiding_arguments(args)
    validate_hiding(options)
    refuse_unsupported_parallelism(trainer)
    refuse_zenflow(trainer)
    if dataset is not None and not hasattr(dataset, "__len__"):
        raise ValueError(
            f"The training dataset ({type(dataset).__name__}) has no length and is no stream "
            '(torch.utils.data.IterableDataset). Give it a `__len__`, or set hiding_policy="none".'
        )
    if dataset is not None and len(dataset) == 0:
        raise ValueError(
            "The training dataset is empty: it has 0 samples. Check the split that was loaded and what filtered it; to "
            "evaluate only, leave train_dataset out."
        )
    policy = create_configured_policy(options)
    if isinstance(dataset, SampleStream) and policy is not None and policy.repeats_samples:
        raise ValueError(
            f"hiding_policy={options.hiding_policy!r} draws samples more than once, and a stream gives "
            "each once. Load the dataset map-style (`streaming=False`), or choose another policy, such as "
            'hiding_policy="none".'
        )
    if isinstance(dataset, IterableDataset) and args.train_sampling_strategy == "group_by_length":
        raise ValueError(
            'train_sampling_strategy="group_by_length" needs random access, and a stream has an order of its own. '
            'Load the dataset map-style (`streaming=False`), leave it at "random", which means the stream\'s, or set '
            'hiding_policy="none".'
        )
    if args.n_gpu > 1:
        raise ValueError(
            f"The script runs in one process with {args.n_gpu} GPUs, which is DataParallel; hiding works with one "
            "process per GPU. Start it with `accelerate launch`, show it one GPU (CUDA_VISIBLE_DEVICES=0), or set "
            'hiding_policy="none".'
        )
    if args.train_sampling_strategy == "batch_rebalance":
        raise ValueError(
            'train_sampling_strategy="batch_rebalance" fixes the batches of each rank beforehand, so nothing could '
            'be left out of them. Use "random" or "group_by_length", or set hiding_policy="none".'
        )
    if not args.accelerator_config.use_seedable_sampler:
        raise ValueError(
            "accelerator_config.use_seedable_sampler=False draws the order of an epoch from the global generator, "
            'which a resumed training cannot repeat. Leave it at True, or set hiding_policy="none".'
        )
    ranks = data_parallel_world(trainer.accelerator).size
    if ranks > 1 and not args.accelerator_config.even_batches and not args.dataloader_drop_last:
        raise ValueError(
            "accelerator_config.even_batches=False without dataloader_drop_last gives ranks different numbers of "
            "batches, so one would wait for the other for ever. Leave it at True, or set dataloader_drop_last=True or "
            'hiding_policy="none".'
        )
    if args.ignore_data_skip:
        raise ValueError(
            "ignore_data_skip=True would train twice on samples of the resumed epoch. Leave it at False: skipped "
            'samples are not fetched, so skipping costs nothing. Or set hiding_policy="none".'
        )


def require_a_batch(trainer: Trainer, loader: Any) -> None:
    """Refuse, before the first step, a training loader without any batch, with which Trainer would count epochs of 0.

    Raises:
        ValueError: it has none.
    """
    if len(loader) > 0:
        return
    args = trainer.args
    raise ValueError(
        f"The training loader has no batch: dataloader_drop_last={args.dataloader_drop_last} and "
        f"per_device_train_batch_size={args.per_device_train_batch_size} leave nothing of its samples on "
        f"{args.world_size} process(es). Set a smaller batch size or dataloader_drop_last=False."
    )


def refuse_switching(trainer: Trainer) -> None:
    """Refuse a trial that switches hiding on or off in a training that has begun.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"The trial sets hiding_policy={hiding_arguments(trainer.args).hiding_policy!r}: a search may choose among "
        'policies, and not between one and "none". Search over max_hidden_fraction with 0 in it, which hides nothing, '
        "or make the trainer with the policy and search once more."
    )
