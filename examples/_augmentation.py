"""The augmentation with which vision transformers are pre-trained on images from formulas: DeiT's, by timm.

It is done in two steps. A collator, in the workers, makes a batch of crops of bytes. `FinishedBatches`, where the model
is, makes numbers of them, erases and mixes: what costs a worker most is done where it costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from _batch_augmentation import BatchAugmentation
from timm.data import Mixup, create_transform
from timm.data.auto_augment import RandAugment
from timm.data.mixup import cutmix_bbox_and_lam
from timm.data.random_erasing import RandomErasing
from torch import Tensor

# Images from formulas are mostly background: with 0.5 and 0.5, the usual, a small transformer learns them slowly.
MEAN, STD = (0.1,), (0.25,)

TENSORS, PIL = "tensors", "pil"

# The entry of a batch that says whether it is to be erased from and mixed.
AUGMENTED = "augmented"


@dataclass
class AugmentationArguments:
    """How training images are changed; the papers' recipe is that of DeiT (Touvron et al. 2021)."""

    augment: bool = field(
        default=False, metadata={"help": "Crop at random, and apply what the next options say to each image."}
    )
    augment_with: str = field(
        default=TENSORS,
        metadata={
            "help": "tensors: of bytes, gray ones with one channel; pil: by timm's own transforms, several times "
            "slower, for policies that tensors do not have and for uncovered corners in three grays.",
            "choices": [TENSORS, PIL],
        },
    )
    rand_augment: str | None = field(
        default="rand-m9-mstd0.5-inc1", metadata={"help": "With --augment: timm's name of a RandAugment policy."}
    )
    random_erasing: float = field(
        default=0.25, metadata={"help": "With --augment: probability of erasing a rectangle, in [0, 1]."}
    )
    horizontal_flip: float = field(
        default=0.0, metadata={"help": "With --augment: probability of mirroring; 0 in most papers, in [0, 1]."}
    )
    vertical_flip: float = field(
        default=0.0, metadata={"help": "With --augment: probability of turning upside down, in [0, 1]."}
    )
    mixup: float = field(default=0.0, metadata={"help": "Mix images in pairs: alpha of mixup; 0 does not, 0.8 DeiT."})
    cutmix: float = field(default=0.0, metadata={"help": "Paste parts of images: alpha of CutMix; 0 does not, 1 DeiT."})
    pixel_mean: list[float] = field(
        default_factory=lambda: list(MEAN),
        metadata={"help": "Subtracted from pixels in [0, 1]: one number, or one for each of three channels."},
    )
    pixel_std: list[float] = field(
        default_factory=lambda: list(STD), metadata={"help": "By which what remains is divided; as --pixel_mean."}
    )

    def __post_init__(self) -> None:
        for name in ("random_erasing", "horizontal_flip", "vertical_flip"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)} is not in [0, 1]: it is a probability.")
        for name in ("mixup", "cutmix"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must be 0 or more.")
        for name in ("pixel_mean", "pixel_std"):
            if len(getattr(self, name)) not in (1, 3):
                raise ValueError(f"{name}={getattr(self, name)} must be one number, or one for each of 3 channels.")
        if min(self.pixel_std) <= 0:
            raise ValueError(f"pixel_std={self.pixel_std} must be above 0.")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, so that labels become distributions over the classes."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def with_pil(self) -> bool:
        """Whether training images are to be PIL's."""
        return self.augment and self.augment_with == PIL

    @property
    def mean(self) -> tuple[float, ...]:
        """The mean of each of three channels."""
        return tuple(self.pixel_mean * (3 // len(self.pixel_mean)))

    @property
    def std(self) -> tuple[float, ...]:
        """The standard deviation of each of three channels."""
        return tuple(self.pixel_std * (3 // len(self.pixel_std)))


class ByteCollator:
    """Batches of images as bytes, cropped and changed at random in training, and labels.

    Args:
        arguments: how they are changed.
        image_size: of the batch, in pixels.
        training: whether they are changed.

    Raises:
        ValueError: the RandAugment policy is not known, or needs PIL.
    """

    def __init__(self, arguments: AugmentationArguments, image_size: int, training: bool) -> None:
        self.training = training
        self.make: Callable[[Sequence[Any]], Tensor] = torch.stack
        if training and arguments.with_pil:
            self.make = partial(_each, _timm_transform(arguments, image_size))
        elif training and arguments.augment:
            gray = round(255 * sum(arguments.mean) / 3)
            flips = arguments.horizontal_flip, arguments.vertical_flip
            self.make = BatchAugmentation(image_size, arguments.rand_augment, *flips, fill=min(255, gray))

    def __call__(self, examples: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        """A batch: `pixel_values` (B, 1 or 3, size, size) uint8, `labels` (B,), `augmented` (B,) bool."""
        images = self.make([example["image"] for example in examples])
        labels = torch.tensor([example["label"] for example in examples], device=images.device)
        return {"pixel_values": images, "labels": labels, AUGMENTED: torch.full_like(labels, self.training).bool()}


class FinishedBatches:
    """Makes of a batch of bytes what a model takes, on the device on which it is.

    Args:
        arguments: the mean, the standard deviation, the erasing and the mixing.
        num_classes: C.
        label_smoothing: the fraction of a label that goes to the other classes, where images are mixed.
    """

    def __init__(self, arguments: AugmentationArguments, num_classes: int, label_smoothing: float = 0.0) -> None:
        self.mean, self.std = arguments.mean, arguments.std
        self.erasing = arguments.random_erasing if arguments.augment else 0.0
        self.mix: Callable[..., Any] | None = None
        if arguments.mixes:
            self.mix = _QuickMixup(
                arguments.mixup, arguments.cutmix, label_smoothing=label_smoothing, num_classes=num_classes
            )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with `pixel_values` (B, 3, size, size) float32, and `labels` (B, C) where images were mixed."""
        batch = dict(batch)
        augmented = bool(batch.pop(AUGMENTED)[0])
        images, labels = self._to_numbers(batch["pixel_values"]), batch["labels"]
        if augmented and self.erasing:
            images = RandomErasing(self.erasing, mode="pixel", device=images.device)(images)
        if augmented and self.mix is not None:
            images, labels = self._mixed(images, labels)
        return {**batch, "pixel_values": images, "labels": labels}

    def _to_numbers(self, images: Tensor) -> Tensor:
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (self.mean, self.std))
        return (images.float() * (1 / (255 * std))).sub_(mean / std)

    def _mixed(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        # timm mixes an image with the one at the other end of the batch, and so takes an even number of them.
        odd = len(images) % 2
        if odd:
            images, labels = torch.cat([images, images[:1]]), torch.cat([labels, labels[:1]])
        images, labels = self.mix(images, labels)
        count = len(images) - odd
        return images[:count], labels[:count]


class _QuickMixup(Mixup):
    """Mixup and CutMix of timm, without its copies of the whole batch, back to front, which take most of its time."""

    def _mix_batch(self, images: Tensor) -> float:
        fraction, pastes = self._params_per_batch()
        if fraction == 1:
            return fraction
        if not pastes:
            others = images[torch.arange(len(images) - 1, -1, -1, device=images.device)]
            images.lerp_(others, 1 - fraction)
            return fraction
        (top, bottom, left, right), fraction = cutmix_bbox_and_lam(
            images.shape, fraction, ratio_minmax=self.cutmix_minmax, correct_lam=self.correct_lam
        )
        part = images[:, :, top:bottom, left:right]
        part.copy_(part.flip(0))
        return fraction


def _timm_transform(arguments: AugmentationArguments, image_size: int) -> Any:
    transform = create_transform(
        (3, image_size, image_size),
        is_training=True,
        use_prefetcher=True,  # ends with bytes
        auto_augment=arguments.rand_augment,
        hflip=arguments.horizontal_flip,
        vflip=arguments.vertical_flip,
        color_jitter=None,
        interpolation="bicubic",
        mean=arguments.mean,
        std=arguments.std,
    )
    for policy in transform.transforms:
        if isinstance(policy, RandAugment):
            _allow_no_bits(policy)
    return transform


def _allow_no_bits(policy: RandAugment) -> None:
    """Let an image turn black where timm draws a posterization to no bits: Pillow 13 refuses that."""
    for operation in policy.ops:
        if operation.aug_fn.__name__ == "posterize":
            operation.aug_fn = partial(_posterize, operation.aug_fn)


def _posterize(posterize: Callable[..., Any], image: Any, bits: int, **options: Any) -> Any:
    return posterize(image, bits, **options) if bits else image.point([0] * 256 * len(image.getbands()))


def _each(transform: Callable[[Any], Tensor], images: Sequence[Any]) -> Tensor:
    return torch.stack([transform(image) for image in images])


def soft_cross_entropy(outputs: Any, labels: Tensor, num_items_in_batch: Tensor | None = None) -> Tensor:
    """Cross entropy with labels (B, C) that are distributions, or (B,); for `Trainer(compute_loss_func=...)`."""
    loss = torch.nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum")
    # Trainer counts the labels before they are mixed, when each sample has one.
    return loss / (len(labels) if num_items_in_batch is None else num_items_in_batch)
