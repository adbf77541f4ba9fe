"""Networks of timm in Transformers' wrapper, from random weights."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import timm
from _common import label_names
from transformers import TimmWrapperConfig


def check_timm_model(name: str) -> None:
    """Check that timm knows the network.

    Raises:
        ValueError: it does not; the message names the nearest that it knows.
    """
    if timm.is_model(name):
        return
    nearest = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
    hint = f"the nearest: {', '.join(nearest)}" if nearest else "timm.list_models() has the names"
    raise ValueError(f"timm has no network {name!r}; {hint}.")


def timm_config(
    name: str,
    image_size: int,
    classes: Sequence[str],
    options: Mapping[str, Any] | None = None,
    **preprocessing: Any,
) -> TimmWrapperConfig:
    """The configuration of an image classifier of Transformers' around a network of timm's.

    Args:
        name: of the network.
        image_size: side of the images in pixels.
        classes: their names.
        options: of timm's network.
        preprocessing: what goes before timm's own preprocessing, such as `mean` and `std`.
    """
    pretrained = timm.get_pretrained_cfg(name)
    options = dict(options or {})
    # Vision transformers are built for one size of images; other networks do not know the option.
    if pretrained.fixed_input_size:
        options["img_size"] = image_size
    # Saved with the model, for the image processor of who loads it.
    taken = {"input_size": [3, image_size, image_size], "crop_pct": 1.0, **preprocessing}
    return TimmWrapperConfig(
        architecture=name,
        model_args=options or None,
        pretrained_cfg={**pretrained.to_dict(), **taken},
        num_labels=len(classes),
        **label_names(classes),
    )
