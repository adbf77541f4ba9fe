"""What other libraries' trainers do otherwise than Trainer; nothing here imports them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import Trainer

from ..data import BatchIds
from ..hiding.statistics import SampleStatistics, scored_token_statistics


def refuse_losses_of_batches(trainer: Trainer) -> None:
    """Refuse trainers whose losses belong to a batch and not to its samples.

    Raises:
        ValueError: it is one of Sentence Transformers'. Their losses give one number for a batch, and most of them
            compare its samples with one another (in-batch negatives), so that no sample has a loss of its own.
    """
    if any(base.__module__.startswith("sentence_transformers.") for base in type(trainer).__mro__):
        raise ValueError(
            f"{type(trainer).__name__} cannot hide samples. The losses of Sentence Transformers give one number for a "
            "batch and most compare its samples with one another (in-batch negatives), so no sample has a loss of its "
            'own by which it could be ranked. Use the trainer without KakurenboMixin, or set hiding_policy="none".'
        )


def computes_fused_loss(trainer: type[Trainer]) -> bool:
    """Whether the loss is computed by TRL, which would run the model once more if it were asked for its outputs."""
    lineage = trainer.__mro__
    ours = max(index for index, base in enumerate(lineage) if base.__name__ == "KakurenboMixin")
    owner = next(base for base in lineage[ours + 1 :] if "compute_loss" in vars(base))
    return owner.__module__.startswith("trl.")


@contextmanager
def last_outputs(model: nn.Module) -> Iterator[list[Any]]:
    """What the model returned inside, at index 0: the last with figures for each token, or else the last.

    TRL's `SFTTrainer` (1.16) has its model compute the figures of each token without ever building the logits.
    """
    outputs: list[Any] = []

    def keep(module: nn.Module, args: Any, returned: Any) -> None:
        if not outputs or is_scored(returned) or not is_scored(outputs[0]):
            outputs[:] = [returned]

    handle = model.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


def is_scored(outputs: Any) -> bool:
    """Whether a model returned TRL's figures of each token in the place of logits."""
    return hasattr(outputs, "log_probs") and hasattr(outputs, "label_mask")


def scored_statistics(outputs: Any, ids: BatchIds, accuracy_threshold: float) -> SampleStatistics:
    """The statistics of what [`is_scored`].

    Raises:
        ValueError: the samples lie end to end in one row, and nothing says where each begins.
    """
    num_samples = ids.samples.numel()
    if outputs.log_probs.shape[0] != num_samples and ids.of_tokens is None:
        raise ValueError(
            f"The batch has {num_samples} samples and {outputs.log_probs.shape[0]} row(s) of tokens, and nothing says "
            "where in it each sample begins: the data collator must lay their `input_ids` end to end. Set "
            "per_device_train_batch_size=1, or padding_free=False."
        )
    return scored_token_statistics(
        outputs.log_probs,
        outputs.is_top1,
        outputs.entropy,
        outputs.label_mask,
        accuracy_threshold=accuracy_threshold,
        sample_of_token=ids.of_tokens,
        num_samples=num_samples,
    )


@contextmanager
def metrics_set_aside(trainer: Trainer) -> Iterator[None]:
    """Keep what TRL's trainers collect for their next log, in `_metrics`, from what happens inside."""
    collected = getattr(trainer, "_metrics", None)
    if not isinstance(collected, dict):
        yield
        return
    trainer._metrics = {mode: defaultdict(list) for mode in collected}
    try:
        yield
    finally:
        trainer._metrics = collected


def explain_arguments(error: TypeError, trainer: type) -> TypeError:
    """An error that says how to give a trainer with arguments of its own the options of hiding."""
    return TypeError(
        f"{trainer.__name__} turns its arguments into a kind of its own, which does not know the options of hiding "
        f"({error}). Give it that kind with the options, for TRL's SFTTrainer:\n\n"
        "    @dataclass\n"
        "    class MyConfig(hf_kakurenbo.HidingArguments, SFTConfig): ...\n"
    )
