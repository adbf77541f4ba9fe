"""The models of the tasks: classifiers of a training in seconds, from weights that PyTorch's generator draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)


# Transformers chooses the loss by the end of the name, `ForImageClassification`.
class AugmentingResNetForImageClassification(ResNetForImageClassification):
    """A ResNet that moves and mirrors the images that it is trained on.

    All images of a batch are moved and mirrored in the same way. In evaluation mode images stay as they are: a refresh
    of hidden samples measures unaugmented images, while what is recorded in training is of augmented ones.
    """

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None, **options: Any) -> Any:
        """Classify images, (B, channels, height, width), augmented in training mode."""
        if self.training:
            down, right = torch.randint(-3, 4, (2,)).tolist()
            pixel_values = torch.roll(pixel_values, (down, right), dims=(2, 3))
            mirrored = [dim for dim, flip in zip((2, 3), torch.randint(0, 2, (2,)), strict=True) if flip]
            pixel_values = pixel_values.flip(mirrored)
        return super().forward(pixel_values=pixel_values, labels=labels, **options)


def small_resnet(classes: int, augments: bool = False) -> PreTrainedModel:
    """A ResNet of three blocks for gray images of any size.

    Args:
        classes: how many.
        augments: whether it moves and mirrors the images in training.
    """
    architecture = AugmentingResNetForImageClassification if augments else ResNetForImageClassification
    return architecture(
        ResNetConfig(
            num_channels=1,
            embedding_size=16,
            hidden_sizes=[16, 32, 64],
            depths=[1, 1, 1],
            layer_type="basic",
            num_labels=classes,
        )
    )


def full_resolution_resnet(classes: int, widths: Sequence[int] = (16, 32, 64)) -> PreTrainedModel:
    """A ResNet of three blocks whose first layer is a 3 × 3 convolution of stride 2, without pooling.

    The first layers of `ResNetForImageClassification` are made for large images, and leave 7 × 7 places of 28 × 28.

    Args:
        classes: how many.
        widths: channels of the blocks.
    """
    model = ResNetForImageClassification(
        ResNetConfig(
            num_channels=1,
            embedding_size=widths[0],
            hidden_sizes=list(widths),
            depths=[1, 1, 1],
            layer_type="basic",
            num_labels=classes,
        )
    )
    embedder = model.resnet.embedder
    embedder.embedder.convolution = nn.Conv2d(1, widths[0], kernel_size=3, stride=2, padding=1, bias=False)
    embedder.pooler = nn.Identity()
    return model


def small_group_norm_resnet(classes: int) -> PreTrainedModel:
    """The same ResNet with GroupNorm, eight channels a group, in the places of BatchNorm.

    What it makes of a sample does not depend on the others of a batch, and it keeps no statistics of training batches.

    Args:
        classes: how many.
    """
    model = small_resnet(classes)
    for parent in list(model.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.BatchNorm2d):
                setattr(parent, name, nn.GroupNorm(layer.num_features // 8, layer.num_features))
    return model


def tiny_vit(
    classes: int, image_size: int, patch_size: int = 6, hidden_size: int = 64, layers: int = 2
) -> PreTrainedModel:
    """A Vision Transformer for gray images.

    Args:
        classes: how many.
        image_size: height and width in pixels.
        patch_size: height and width of a patch.
        hidden_size: width of the network.
        layers: its depth.
    """
    return ViTForImageClassification(
        ViTConfig(
            num_channels=1,
            image_size=image_size,
            patch_size=patch_size,
            hidden_size=hidden_size,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=2 * hidden_size,
            num_labels=classes,
        )
    )


def tiny_bert(classes: int, vocabulary_size: int, words: int) -> PreTrainedModel:
    """A BERT of one layer.

    Args:
        classes: how many.
        vocabulary_size: how many words have a number.
        words: of the longest text.
    """
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=vocabulary_size,
            hidden_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=words,
            num_labels=classes,
        )
    )
