"""A dataset by its name, map-style or as a stream."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from ..catalog import find_entry, find_family
from ..parameters import read_parameters
from .dataset import FDSLDataset
from .selection import Selection
from .shards import DEFAULT_SHARDS, count_shards


def load_fdsl(
    name: str,
    split: str = "train",
    *,
    image_size: int = 224,
    draw_size: int | None = None,
    color: bool = False,
    mode: str = "RGB",
    seed: int = 0,
    points: int | None = None,
    patches: bool = True,
    categories: Selection = None,
    instances: Selection = None,
    transform: Callable[[Any], Any] | None = None,
    as_tensor: bool = False,
    device: torch.device | str | None = None,
    streaming: bool = False,
    shards: int = DEFAULT_SHARDS,
    parameters: str | os.PathLike[str] | None = None,
) -> Any:
    """Load a dataset of images from formulas, by name.

    Args:
        name: as `list_fdsl` shows them.
        split: `"train"` or `"validation"`, which has the same categories and none of the same instances.
        image_size: height and width in pixels, in 1..32,766.
        draw_size: height and width at which an image is drawn before it is made smaller; None is the published size,
            `draw_size=image_size` draws at full contrast. See `FDSLDataset`.
        color: draw in colours; False draws in gray.
        mode: `"RGB"` has three channels, also of a gray image; `"L"` has one.
        seed: another seed gives other categories and other images; in 0..2**63 − 1.
        points: how many points are drawn, in 1..2**31 − 1, for the families that draw points; None is the family's
            number, which belongs to its published size.
        patches: where the family draws each point as a random 3×3 patch, as FractalDB and 2D-OFDB do, False draws
            pixels.
        categories: all (None), the first n (int), a slice or range of them, or a list of numbers. Labels count from 0
            in what is selected.
        instances: as `categories`, of the images of each category. None is the number that the name stands for, of
            "validation" a tenth of it.
        transform: called with each image as the transforms of torchvision are. Not with `streaming`: use the stream's
            `map`.
        as_tensor: uint8 tensors (channels, height, width) instead of PIL images. Of a stream much faster than
            its `with_format("torch")`, for which `datasets` makes tensors of PIL images.
        device: where whole batches are drawn at once, `"cuda"`; see `FDSLDataset`. Not with `streaming`.
        streaming: give a `datasets.IterableDataset` instead of a map-style dataset.
        shards: into how many shards at most a stream is cut; see `hf_kakurenbo.fdsl.loading.shards.count_shards`.
        parameters: a folder of CSV files with the parameters of categories of your own, instead of those of `name`,
            which then says the family and the number of instances. See `hf_kakurenbo.fdsl.parameters`.

    Returns:
        `FDSLDataset`, or with `streaming` an `FDSLStream`, which is a `datasets.IterableDataset`.

    Raises:
        ValueError: an argument is out of range; the message says what is possible.
        TypeError: an argument is of the wrong type.
        FileNotFoundError: there is no such folder of parameters.
    """
    options: dict[str, Any] = {
        "image_size": image_size,
        "draw_size": draw_size,
        "color": color,
        "mode": mode,
        "seed": seed,
        "points": points,
        "patches": patches,
        "categories": categories,
        "instances": instances,
    }
    # Also where there are no shards: what is wrong shall not pass until someone streams.
    count_shards(1, shards)
    given = None if parameters is None else read_parameters(parameters, find_family(find_entry(name).family))
    if not streaming:
        return FDSLDataset(
            name, split, transform=transform, as_tensor=as_tensor, device=device, parameters=given, **options
        )
    if transform is not None:
        raise ValueError("A stream takes no transform; use load_fdsl(…, streaming=True).map(function) instead.")
    if device is not None:
        raise ValueError(f"A stream is drawn on the CPU, got device={str(device)!r}; leave streaming out, or device.")
    from .information import describe
    from .streaming import make_stream

    # Not by the builder, which makes a folder in the cache of `datasets` that a stream never uses.
    images = FDSLDataset(name, split, as_tensor=as_tensor, parameters=given, **options)
    return make_stream(images, describe({split: images}), shards)
