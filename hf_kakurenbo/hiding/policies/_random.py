"""What policies decide at random: a pure function of (seed, epoch), the same on every rank and after a resumption."""

from __future__ import annotations

import numpy as np

from ..ledger import SampleLedger


def generator(seed: int, epoch: int, *stream: int) -> np.random.Generator:
    """The generator of an epoch, −1 for what precedes the first, or, by further numbers, one of several that it has."""
    return np.random.default_rng([int(seed) % 2**64, epoch % 2**64, *stream])


def draw_without_replacement(
    ledger: SampleLedger, members: np.ndarray | None, count: int, random: np.random.Generator
) -> np.ndarray:
    """A uniform random choice of `count` samples, in O(N) and without a permutation of all.

    Each part of the ledger gets its fraction of the draws from the hypergeometric distribution, and chooses within.

    Args:
        ledger: for its parts.
        members: (N,) bool, the samples to choose from; None for all.
        count: how many, at most as many as there are.
        random: where the draws come from.

    Returns:
        (N,) bool.
    """
    chosen = np.zeros(len(ledger), dtype=np.bool_)
    left = len(ledger) if members is None else int(np.count_nonzero(members))
    for part in ledger.parts():
        ids = np.arange(part.start, part.stop) if members is None else part.start + np.flatnonzero(members[part])
        here = int(random.hypergeometric(len(ids), left - len(ids), count)) if count else 0
        chosen[random.choice(ids, here, replace=False)] = True
        count, left = count - here, left - len(ids)
    return chosen
