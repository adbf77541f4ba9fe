"""Memory and time of the statistics of tokens on a GPU, in pieces of several sizes."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
from _gpu_stages import Result, Setting
from tokens import make_batch, memory_of, seconds_of
from torch.nn import functional

from hf_kakurenbo.hiding import token_statistics
from hf_kakurenbo.hiding.statistics import tokens as rules

_PIECES = tuple(2**power for power in range(21, 28))


def measure(setting: Setting, dtype: str, batch: int) -> Result:
    """Of logits of 4,096 tokens and 128k words: the statistics, beside cross entropy alone.

    Returns:
        `logits_bytes`; `cross_entropy_seconds`, forward only; and for each size of a piece its `seconds` and the
        `bytes` at the peak beside the logits.
    """
    device = torch.device(setting.device)
    length, vocabulary, rounds = (64, 512, 2) if setting.rehearse else (4096, 128 * 1024, 5)
    logits, labels = make_batch(batch, length, vocabulary, device)
    logits = logits.to(getattr(torch, dtype))

    def loss() -> object:
        return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")

    found: Result = {"logits_bytes": logits.nbytes, "cross_entropy_seconds": _typical(loss, rounds, device)}
    run = partial(token_statistics, logits, labels, shift=True)
    name = "_PIECE" if device.type == "cuda" else "_PIECE_ON_CPU"
    in_use, most = getattr(rules, name), rules._MOST_PIECES
    rules._MOST_PIECES = logits.numel()
    try:
        for size in _PIECES:
            setattr(rules, name, size)
            found[f"{size}"] = {"seconds": _typical(run, rounds, device), "bytes": memory_of(run, device)}
    finally:
        setattr(rules, name, in_use)
        rules._MOST_PIECES = most
    return {**found, "in_use": max(in_use, logits.numel() // most)}


def _typical(function: Callable[[], object], rounds: int, device: torch.device) -> float:
    """The median of some calls after one that is not counted."""
    return statistics.median([seconds_of(function, device) for _ in range(rounds + 1)][1:])
