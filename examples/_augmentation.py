"""The augmentation with which vision transformers are pre-trained on images from formulas, by timm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.data import Mixup, create_transform
from torch import Tensor

# Images from formulas are mostly background: with 0.5 and 0.5, the usual, a transformer learns them slowly.
MEAN, STD = (0.1, 0.1, 0.1), (0.25, 0.25, 0.25)


@dataclass
class AugmentationArguments:
    """How training images are changed; the papers' recipe is that of DeiT (Touvron et al. 2021)."""

    augment: bool = field(
        default=False, metadata={"help": "Crop at random, and apply what the next options say to each image."}
    )
    rand_augment: str | None = field(
        default="rand-m9-mstd0.5-inc1", metadata={"help": "With --augment: timm's name of a RandAugment policy."}
    )
    random_erasing: float = field(
        default=0.25, metadata={"help": "With --augment: probability of erasing a rectangle, in [0, 1]."}
    )
    horizontal_flip: float = field(
        default=0.0, metadata={"help": "With --augment: probability of mirroring; 0 in the papers, in [0, 1]."}
    )
    mixup: float = field(default=0.0, metadata={"help": "Mix images in pairs: alpha of mixup; 0 does not, 0.8 DeiT."})
    cutmix: float = field(default=0.0, metadata={"help": "Paste parts of images: alpha of CutMix; 0 does not, 1 DeiT."})

    def __post_init__(self) -> None:
        for name in ("random_erasing", "horizontal_flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is not in [0, 1]: it is a probability.")
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more.")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, so that labels become distributions over the classes."""
        return self.mixup > 0 or self.cutmix > 0


class PlainCollator:
    """Batches of normalised images and labels, from examples whose images are uint8 tensors (3, size, size)."""

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch: `pixel_values` (B, 3, size, size) float32 and `labels` (B,)."""
        images = torch.stack([example["image"] for example in examples]).float() / 255
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        return {
            "pixel_values": (images - mean) / std,
            "labels": torch.tensor([example["label"] for example in examples]),
        }


class AugmentingCollator:
    """Batches of augmented images, from examples whose images are PIL's.

    Args:
        arguments: how.
        image_size: of the batch, in pixels.
        num_classes: C.
        label_smoothing: the fraction of a label that goes to the other classes, where images are mixed.
    """

    def __init__(
        self, arguments: AugmentationArguments, image_size: int, num_classes: int, label_smoothing: float = 0.0
    ) -> None:
        self.transform = create_transform(
            (3, image_size, image_size),
            is_training=arguments.augment,
            auto_augment=arguments.rand_augment,
            re_prob=arguments.random_erasing,
            re_mode="pixel",
            hflip=arguments.horizontal_flip,
            color_jitter=None,
            interpolation="bicubic",
            mean=MEAN,
            std=STD,
            crop_pct=1.0,
        )
        self.mix: Callable[..., Any] | None = None
        if arguments.mixes:
            self.mix = Mixup(
                arguments.mixup, arguments.cutmix, label_smoothing=label_smoothing, num_classes=num_classes
            )

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch: `pixel_values` (B, 3, size, size) float32 and `labels` (B,), or (B, C) where images are mixed."""
        images = torch.stack([self.transform(example["image"]) for example in examples])
        labels = torch.tensor([example["label"] for example in examples])
        if self.mix is None:
            return {"pixel_values": images, "labels": labels}
        # timm mixes an image with the one at the other end of the batch, and so takes an even number of them.
        odd = len(images) % 2
        if odd:
            images, labels = torch.cat([images, images[:1]]), torch.cat([labels, labels[:1]])
        images, labels = self.mix(images, labels)
        count = len(images) - odd
        return {"pixel_values": images[:count], "labels": labels[:count]}


def soft_cross_entropy(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    """Cross entropy with labels (B, C) that are distributions, or (B,); for `Trainer(compute_loss_func=...)`."""
    loss = torch.nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum")
    if num_items_in_batch is None:
        return loss / len(labels)
    # Trainer counts the entries of the labels: C of them for each sample.
    return loss / (num_items_in_batch * len(labels) / labels.numel())
