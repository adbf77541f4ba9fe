"""Whether a `statistics_fn` of the user's own answers with what it has to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .base import HOW_TO_WRITE_ONE, SampleStatistics, describe


def require_statistics(answer: Any, num_samples: int) -> SampleStatistics:
    """Check types, dtypes and shapes, without waiting for the device.

    Args:
        answer: what the function returned.
        num_samples: B, the samples of the batch.

    Returns:
        The same as [`SampleStatistics`].

    Raises:
        ValueError: it is no triple of tensors of shape (B,): a floating-point loss, a bool correctness, a
            floating-point confidence. The message names the field, what it is and what is expected.
    """
    if not isinstance(answer, (tuple, list)) or len(answer) != 3:
        raise _wrong(f"the function returned {describe(answer)}; expected SampleStatistics(loss, correct, confidence)")
    statistics = SampleStatistics(*answer)
    for name, field in statistics._asdict().items():
        if not isinstance(field, Tensor):
            raise _wrong(f"{name} is {describe(field)}; expected a tensor")
        if field.shape != (num_samples,):
            raise _wrong(f"{name} is {describe(field)}; expected shape ({num_samples},), one value for each sample")
        if name == "correct" and field.dtype is not torch.bool:
            raise _wrong(f"correct is {describe(field)}; expected bool (`predicted == labels`)")
        if name != "correct" and not field.is_floating_point():
            raise _wrong(f"{name} is {describe(field)}; expected floating point")
    return statistics


class ValueCheck:
    """Reads the values of the statistics of the first batches, which waits for the device, and of no later ones."""

    _BATCHES = 4

    def __init__(self) -> None:
        self._left = self._BATCHES
        self._common_losses: set[float] = set()

    def __call__(self, statistics: SampleStatistics) -> None:
        """Check one more batch.

        Raises:
            ValueError: a confidence is outside [0, 1], or is not a number though the sample's loss is one; or in each
                of the first batches all samples have one loss, another one in another batch.
        """
        if self._left == 0:
            return
        self._left -= 1
        loss, _, confidence = statistics
        outside = loss.isfinite() & ~((confidence >= 0) & (confidence <= 1))
        if bool(outside.any()):
            example = float(confidence[outside][0])
            raise _wrong(f"confidence has the value {example:.4g}; expected a probability in [0, 1]")
        if len(loss) < 2 or not bool((loss == loss[0]).all()):
            self._common_losses.clear()
            return
        self._common_losses.add(float(loss[0]))
        if len(self._common_losses) == self._BATCHES:
            raise _wrong(
                f"loss has one value for all samples of a batch, {float(loss[0]):.4g} in this one; expected the loss "
                "of each sample, before the mean over the batch"
            )


def _wrong(what: str) -> ValueError:
    return ValueError(f"The sample statistics cannot be used: {what}.{HOW_TO_WRITE_ONE}")
