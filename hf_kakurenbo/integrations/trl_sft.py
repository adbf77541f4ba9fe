"""TRL's supervised fine-tuning, which computes its loss without ever building logits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..data import BatchIds
from ..hiding.statistics import SampleStatistics, scored_token_statistics
from .base import Observation, returned_by


class TokenObservation(Observation):
    """What was seen of a batch of texts: the outputs are the last with statistics of each token, or else the last."""

    @property
    def outputs(self) -> Any:
        """As [`Observation.outputs`]."""
        scored = [each for each in self._returned if is_scored(each)]
        return scored[-1] if scored else super().outputs

    def statistics(
        self, batch: Mapping[str, Any], ids: BatchIds, accuracy_threshold: float, loss: Tensor
    ) -> SampleStatistics | None:
        """As [`Observation.statistics`]; None where the model did build logits.

        Raises:
            ValueError: the samples lie end to end in one row, and nothing says where each begins.
        """
        outputs = self.outputs
        return scored_statistics(outputs, ids, accuracy_threshold) if is_scored(outputs) else None


@contextmanager
def observe_tokens(model: nn.Module) -> Iterator[Observation]:
    """The observer of `SFTTrainer`."""
    with returned_by(model) as returned:
        yield TokenObservation(returned)


def is_scored(outputs: Any) -> bool:
    """Whether a model returned TRL's statistics of each token in the place of logits."""
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
