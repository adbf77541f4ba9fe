"""Texts as rows of words' numbers, for models from random weights."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import torch

from .base import Samples

_PADDING, _UNKNOWN = 0, 1

Words = list[str]
"""The words and the other signs of a text."""


def split(text: str, length: int) -> Words:
    """The first `length` words and signs of a text."""
    return re.findall(r"\w+|[^\w\s]", text)[:length]


def vocabulary(texts: Iterable[Words], size: int) -> dict[str, int]:
    """The numbers of the most frequent words, `size` with those of padding (0) and of any other word (1)."""
    frequent = Counter(word for words in texts for word in words).most_common(size - 2)
    return {word: number for number, (word, _) in enumerate(frequent, start=2)}


def encoded(texts: Sequence[tuple[Words, int]], numbers: Mapping[str, int], length: int) -> Samples:
    """Texts with their labels as `input_ids` and `attention_mask`, (N, length) each, and `labels`, (N,)."""
    rows = [[numbers.get(word, _UNKNOWN) for word in words] for words, _ in texts]
    input_ids = torch.tensor([row + [_PADDING] * (length - len(row)) for row in rows])
    labels = torch.tensor([label for _, label in texts])
    return Samples(input_ids=input_ids, attention_mask=(input_ids != _PADDING).long(), labels=labels)
