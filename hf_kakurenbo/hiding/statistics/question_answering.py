"""Statistics of extractive question answering: where in the text the answer starts and where it ends."""

from __future__ import annotations

import torch
from torch import Tensor

from .base import SampleStatistics, exp, nothing_asked


@torch.no_grad()
def question_answering_statistics(logits: Tensor, labels: Tensor) -> SampleStatistics:
    """Statistics of samples that ask for the start and the end of a span.

    Args:
        logits: (B, 2, T) floating point, of the start and of the end over the T tokens.
        labels: (B, 2) integers, the places of the start and the end. As in Transformers, a place of T or more is
            masked and a negative one means the first token.

    Returns:
        Cross entropy, averaged over the two (over one, where the other is masked); whether both are right; the product
        of their largest probabilities. A sample with both masked was not asked anything: its loss is NaN, so it is
        never hidden, and it is not correct.
    """
    log_probabilities = torch.log_softmax(logits.detach().float(), dim=2)
    log_confidence, predicted = log_probabilities.max(dim=2)
    asked = labels < logits.shape[2]
    places = labels.clamp(0, logits.shape[2] - 1).long()
    losses = -log_probabilities.gather(2, places.unsqueeze(2)).squeeze(2)
    loss = losses.masked_fill(~asked, 0.0).sum(dim=1) / asked.sum(dim=1).clamp(min=1)
    correct = ((predicted == places) | ~asked).all(dim=1)
    return nothing_asked(SampleStatistics(loss, correct, exp(log_confidence.sum(dim=1))), asked.any(dim=1))
