"""Every rule with logits and labels to measure."""

from functools import partial

import torch

from hf_kakurenbo.hiding.statistics import (
    flattened_token_statistics,
    multi_label_statistics,
    question_answering_statistics,
    regression_statistics,
    scored_token_statistics,
    segmentation_statistics,
    single_label_statistics,
    soft_label_statistics,
    token_statistics,
)

GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> torch.Tensor:
    """Logits."""
    return 3 * torch.randn(*shape, generator=GENERATOR)


def classes(count: int, *shape: int) -> torch.Tensor:
    """Labels, a few of them masked."""
    labels = torch.randint(0, count, shape, generator=GENERATOR)
    return labels.masked_fill(torch.rand(*shape, generator=GENERATOR) < 0.2, -100)


SAMPLE_OF_TOKEN = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2, -1, -1])
RULES = {
    "one label": (single_label_statistics, normal(6, 5), classes(5, 6)),
    "soft labels": (soft_label_statistics, normal(6, 5), normal(6, 5).softmax(1)),
    "several labels": (multi_label_statistics, normal(6, 5), (normal(6, 5) > 0).float()),
    "regression": (regression_statistics, normal(6, 1), normal(6)),
    "spans": (question_answering_statistics, normal(6, 2, 9), torch.randint(0, 12, (6, 2), generator=GENERATOR)),
    "tokens": (token_statistics, normal(6, 9, 5), classes(5, 6, 9)),
    "next tokens": (partial(token_statistics, shift=True), normal(6, 9, 5), classes(5, 6, 9)),
    "tokens in a view": (token_statistics, normal(6, 5, 9).transpose(1, 2), classes(5, 6, 9)),
    "tokens end to end": (
        lambda logits, labels: flattened_token_statistics(
            logits, labels, SAMPLE_OF_TOKEN.to(logits.device), 3, shift=True
        ),
        normal(1, 10, 5),
        classes(5, 1, 10),
    ),
    "scored tokens": (
        lambda log_probabilities, right: scored_token_statistics(
            log_probabilities, right > 0, -log_probabilities, right > -1
        ),
        -normal(6, 8).abs(),
        normal(6, 8),
    ),
    "pixels": (segmentation_statistics, normal(3, 4, 5, 5), classes(4, 3, 10, 10)),
    "pixels of one class": (segmentation_statistics, normal(3, 1, 6, 6), classes(2, 3, 6, 6)),
}
