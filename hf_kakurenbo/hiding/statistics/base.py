"""What is measured of a sample, and the words for what a model returned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

IGNORE_INDEX = -100
"""The label that PyTorch's and Transformers' losses leave out."""


class SampleStatistics(NamedTuple):
    """What one forward pass says about each sample of a batch. Each field is a (B,) tensor without gradient."""

    loss: Tensor
    """(B,) floating point: the plain loss of the sample. A non-finite loss keeps the sample from being hidden."""
    correct: Tensor
    """(B,) bool: whether the sample was predicted correctly."""
    confidence: Tensor
    """(B,) floating point in [0, 1]: how sure the prediction was."""


StatisticsFunction: TypeAlias = Callable[[Any, Mapping[str, Any]], SampleStatistics]
"""From (what the model returned, the batch that it was given) to the statistics of the batch."""

HOW_TO_WRITE_ONE = """
Set hiding_policy="none" to train without hiding, or write a function of your own. It is three lines, passed as
`KakurenboConfig(statistics_fn=my_statistics)`:

    def my_statistics(outputs, inputs):
        loss, correct, confidence = ...  # each of shape (B,): floating point, bool, floating point in [0, 1]
        return hf_kakurenbo.SampleStatistics(loss, correct, confidence)
"""


def describe(value: Any) -> str:
    """Names, shapes and dtypes of what a model returned or a batch holds, for error messages."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return f"{type(value).__name__}({', '.join(f'{name}: {describe(item)}' for name, item in value.items())})"
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__}({', '.join(describe(item) for item in value)})"
    return type(value).__name__


def exp(logarithms: Tensor) -> Tensor:
    """Exponentials of (B,) logarithms, the same bit for bit wherever in the batch a sample stands."""
    # On a CPU, a vectorised exponential in float32 may differ in the last bit from that of a row at the end of a batch.
    # Other devices treat each element alike, and some have no float64.
    return (logarithms.double() if logarithms.device.type == "cpu" else logarithms).exp().float()


def masked_outside(labels: Tensor, classes: int) -> Tensor:
    """Integer labels with −100 in the place of what is no class in 0..C−1: other losses ignore −1 or 255."""
    labels = labels.long()  # a byte has no −100
    return labels.masked_fill(labels.clamp(0, classes - 1) != labels, IGNORE_INDEX)


def nothing_asked(statistics: SampleStatistics, asked: Tensor) -> SampleStatistics:
    """Statistics in which the samples with every label masked were not asked anything.

    A loss of 0 would hide them for ever. Theirs is NaN, so they are never hidden, and they are not correct.

    Args:
        statistics: of a batch.
        asked: (B,) bool, false for a sample with every label masked.
    """
    loss, correct, confidence = statistics
    return SampleStatistics(loss.masked_fill(~asked, torch.nan), correct & asked, confidence.masked_fill(~asked, 0.0))
