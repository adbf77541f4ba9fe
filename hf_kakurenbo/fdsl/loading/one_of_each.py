"""Epochs of one image of each category, which another epoch draws another instance of."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from ..kernels.random_numbers import SEED_BELOW, derive_key, uniforms, whole_number
from .dataset import FDSLDataset
from .permutation import Order

_FOR_INSTANCES, _FOR_ORDER = 0, 1


class OneOfEachCategory(Sampler[int]):
    """Draws, in each epoch, one random instance of each category, in random order.

    So 3D-OFDB is trained on in its paper (Nakamura et al., ICCV 2023, arXiv 2307.14710): of the 12 views of a category
    one is seen in an epoch, which has 1,000 images then and not 12,000. An epoch is a function of the seed and its
    number.

    Args:
        dataset: a map-style dataset, as `load_fdsl` returns it.
        seed: another one gives other epochs; in 0..2**63 − 1.

    Raises:
        ValueError: the seed is out of range.
    """

    def __init__(self, dataset: FDSLDataset, seed: int = 0) -> None:
        if not 0 <= seed < SEED_BELOW:
            raise ValueError(f"seed must be in 0..{SEED_BELOW - 1}, got {seed}.")
        self._categories = dataset.categories
        self._instances = dataset.instances
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which epoch the next iteration is, from 0; a Trainer says so. Without, all are alike."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._categories

    def __iter__(self) -> Iterator[int]:
        chances = uniforms(derive_key(self._seed, self._epoch, _FOR_INSTANCES), self._categories).tolist()
        order = Order.of(self._categories).shuffled(np.uint64(derive_key(self._seed, self._epoch, _FOR_ORDER)))
        for position in range(self._categories):
            label = order[position]
            yield label * self._instances + whole_number(chances[label], 0, self._instances - 1)
