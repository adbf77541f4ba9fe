"""A forward-only pass that leaves no trace in the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def forward_only(model: nn.Module) -> Iterator[None]:
    """No gradient, every module in evaluation mode, and afterwards each in the mode that it was in.

    In training mode the pass would move BatchNorm's statistics towards the easy samples, and dropout would blur the
    statistics (the authors' program refreshes in training mode).
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
