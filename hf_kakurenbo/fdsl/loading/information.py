"""What `datasets` wants to know about images from formulas: features, numbers of images, bytes on disk."""

from __future__ import annotations

from collections.abc import Mapping

import datasets

from ..family import Family
from .dataset import FDSLDataset
from .png import encode_png
from .rows import NamedRows

NAME = "fdsl"
"""The name of the dataset in `datasets`, as in `load_dataset("fdsl", …)`."""

_BUILDER_NAME = "builder"  # by `datasets`, after the module of `FDSL`

# To be raised when the builder stores the same images in another way.
_REVISION = 0

_TRIED = 8


def version_of(family: Family) -> datasets.Version:
    """The version of a family's images: that of the family, and of how they are stored."""
    return datasets.Version(f"{family.version}.{_REVISION}.0")


def describe(images: Mapping[str, NamedRows]) -> datasets.DatasetInfo:
    """The information about the splits of a dataset. The bytes on disk are not in it: they are not known before.

    Args:
        images: the dataset of each split, one at least.
    """
    first = next(iter(images.values()))
    splits = datasets.SplitDict(dataset_name=NAME)
    for name, dataset in images.items():
        splits.add(datasets.SplitInfo(name=name, num_examples=len(dataset)))
    return datasets.DatasetInfo(
        description="Images computed from formulas, drawn when they are asked for.",
        homepage="https://arxiv.org/abs/2206.09132",
        features=first.features,
        splits=splits,
        download_size=0,
        builder_name=_BUILDER_NAME,
        dataset_name=NAME,
        config_name=first.name,
        version=version_of(first.family),
    )


def estimate_bytes(dataset: FDSLDataset) -> int:
    """How many bytes the images of a dataset take as PNG files, from a few of them that are drawn and stored."""
    tried = range(0, len(dataset), max(len(dataset) // _TRIED, 1))
    return sum(len(encode_png(dataset[index]["image"])) for index in tried) * len(dataset) // len(tried)
