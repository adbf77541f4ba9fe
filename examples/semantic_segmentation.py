"""Train a semantic segmentation with Hugging Face's Trainer, and skip the images that it already knows.

Without arguments it trains a tiny SegFormer, from random weights, to find the objects in scenes drawn from formulas
(`_scenes.py`), with and without hiding, and compares the two. Nothing is downloaded; it takes about two minutes on two
cores.

    python examples/semantic_segmentation.py
    python examples/semantic_segmentation.py --dataset_name segments/sidewalk-semantic \
        --image_column_name pixel_values --model_name_or_path nvidia/mit-b0
    python examples/semantic_segmentation.py options.json

A mask is an image of one channel with the class of each pixel, in a palette image its index; 255 is asked of no one.
Images may be of any mode: `_images.py` says how gray values of 16 or 32 bits and floats are scaled to 8 bits.

Several processes: `accelerate launch --num_processes 4 examples/semantic_segmentation.py ...` on as many GPUs, and
`accelerate_configs/two_cpu_processes.yaml` for two on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from _arguments import CommonDataArguments, ModelArguments
from _common import cut, label_names, require_columns, run_script, use_one_thread, with_validation
from _images import class_numbers, to_rgb
from _scenes import CLASSES, IGNORED, scenes
from _table import Score
from datasets import DatasetDict, load_dataset
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    EvalPrediction,
    PreTrainedModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    Trainer,
)

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer

SCENES, SCENE_SIZE = 600, 64

SCENES_DEFAULTS = {
    "output_dir": "outputs/scenes",
    "num_train_epochs": 15,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 50,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.05,
}

MEAN_IOU = Score("mean IoU", "eval_mean_iou")

# ImageNet's, which image processors that do not normalise leave out.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass
class DataTrainingArguments(CommonDataArguments):
    """Which images and masks to train on."""

    image_column_name: str = field(default="image", metadata={"help": "The column with the images."})
    label_column_name: str = field(default="label", metadata={"help": "The column with the masks."})
    image_size: int | None = field(
        default=None, metadata={"help": "Side of the images in pixels; by default what the model was made for."}
    )
    do_reduce_labels: bool = field(
        default=False, metadata={"help": "Class 0 of the masks is the background, and is asked of no one."}
    )
    augment: bool = field(default=True, metadata={"help": "Mirror the training images at random."})


@dataclass
class Preparation:
    """How images and masks become tensors.

    Attributes:
        data_args: the names of the columns, and whether labels are reduced.
        size: of the square images, in pixels.
        mean: of each channel of an image in [0, 1].
        std: the deviation of each.
    """

    data_args: DataTrainingArguments
    size: int
    mean: tuple[float, ...] = _MEAN
    std: tuple[float, ...] = _STD

    def transform(self, augment: bool) -> Callable[[dict[str, list[Any]]], dict[str, list[Tensor]]]:
        """The transform of a batch of rows into images (3, size, size) float32 and masks (size, size) int64."""

        def apply(batch: dict[str, list[Any]]) -> dict[str, list[Tensor]]:
            images = [self._image(image) for image in batch[self.data_args.image_column_name]]
            masks = [self._mask(mask) for mask in batch[self.data_args.label_column_name]]
            mirrored = torch.rand(len(images)) < 0.5 if augment else torch.zeros(len(images), dtype=torch.bool)
            return {
                "pixel_values": [x.flip(-1) if m else x for x, m in zip(images, mirrored, strict=True)],
                "labels": [x.flip(-1) if m else x for x, m in zip(masks, mirrored, strict=True)],
            }

        return apply

    def _image(self, image: Image.Image) -> Tensor:
        pixels = np.asarray(to_rgb(image).resize((self.size, self.size), Image.Resampling.BILINEAR))
        values = (pixels / np.float32(255) - np.float32(self.mean)) / np.float32(self.std)
        return torch.from_numpy(values.transpose(2, 0, 1).copy())

    def _mask(self, mask: Image.Image) -> Tensor:
        classes = class_numbers(mask, self.size)
        return torch.from_numpy(reduce_labels(classes) if self.data_args.do_reduce_labels else classes)


def reduce_labels(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The classes counted from 0 without the background, which was 0 and becomes `IGNORED`."""
    return np.where((classes == 0) | (classes == IGNORED), IGNORED, classes - 1)


def load_scenes(data_args: DataTrainingArguments, seed: int) -> DatasetDict:
    """The train and the validation split: of the user's data, or of the scenes drawn from formulas."""
    if data_args.dataset_name is not None:
        data = load_dataset(data_args.dataset_name, data_args.dataset_config_name)
    else:
        data = DatasetDict(train=scenes(SCENES, SCENE_SIZE))
    data = with_validation(data, data_args.train_val_split, seed)
    require_columns(data, image_column_name=data_args.image_column_name, label_column_name=data_args.label_column_name)
    return cut(data, data_args, seed)


def count_classes(data: DatasetDict, data_args: DataTrainingArguments) -> int:
    """How many classes the masks of the train split have, from the largest in them."""
    largest = 0
    for mask in data["train"].select_columns(data_args.label_column_name):
        classes = class_numbers(mask[data_args.label_column_name])
        largest = max(largest, int(classes[classes != IGNORED].max(initial=0)))
    return largest + (0 if data_args.do_reduce_labels else 1)


def make_preparation(model_args: ModelArguments, data_args: DataTrainingArguments) -> Preparation:
    """What the model takes: as its image processor says, or the size of the scenes."""
    if model_args.model_name_or_path is None:
        return Preparation(data_args, data_args.image_size or SCENE_SIZE)
    processor = AutoImageProcessor.from_pretrained(model_args.model_name_or_path)
    own = processor.size.get("height") or processor.size.get("shortest_edge")
    return Preparation(data_args, data_args.image_size or own, tuple(processor.image_mean), tuple(processor.image_std))


def make_model(model_args: ModelArguments, classes: list[str]) -> PreTrainedModel:
    """The model: pretrained with a new head, or a tiny SegFormer from random weights."""
    options = {"num_labels": len(classes), "semantic_loss_ignore_index": IGNORED, **label_names(classes)}
    if model_args.model_name_or_path is not None:
        config = AutoConfig.from_pretrained(model_args.model_name_or_path, **options)
        return AutoModelForSemanticSegmentation.from_pretrained(
            model_args.model_name_or_path, config=config, ignore_mismatched_sizes=True
        )
    config = SegformerConfig(
        num_encoder_blocks=3,
        depths=[1, 1, 1],
        sr_ratios=[4, 2, 1],
        hidden_sizes=[32, 32, 64],
        patch_sizes=[7, 3, 3],
        strides=[4, 2, 2],
        num_attention_heads=[1, 2, 4],
        mlp_ratios=[2, 2, 2],
        decoder_hidden_size=64,
        **options,
    )
    return SegformerForSemanticSegmentation(config)


def predicted_classes(logits: Tensor, labels: Tensor) -> Tensor:
    """The class of each pixel, (B, H, W), from logits (B, C, h, w): all that is kept of them for the metric."""
    resized = functional.interpolate(logits, size=labels.shape[-2:], mode="bilinear", align_corners=False)
    return resized.argmax(dim=1)


def mean_iou(prediction: EvalPrediction) -> dict[str, float]:
    """The mean, over the classes, of intersection over union, and the fraction of right pixels; `IGNORED` left out.

    Classes that are neither there nor predicted do not count.
    """
    asked = prediction.label_ids != IGNORED
    predicted, labels = prediction.predictions[asked], prediction.label_ids[asked]
    classes = int(max(predicted.max(), labels.max())) + 1
    confusion = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
    both, union = np.diag(confusion), confusion.sum(axis=0) + confusion.sum(axis=1) - np.diag(confusion)
    return {
        "mean_iou": float((both[union > 0] / union[union > 0]).mean()),
        "pixel_accuracy": float(both.sum() / confusion.sum()),
    }


def collate(examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The batch that the model takes."""
    return {name: torch.stack([example[name] for example in examples]) for name in ("pixel_values", "labels")}


def trainer_maker(
    model_args: ModelArguments, data_args: DataTrainingArguments, args: KakurenboConfig
) -> Callable[[KakurenboConfig], Trainer]:
    """From training arguments to a trainer with a new model."""
    # The transforms read the columns of images and masks, which no model takes.
    args.remove_unused_columns = False
    builtin = data_args.dataset_name is None
    if builtin:
        use_one_thread()
    data = load_scenes(data_args, args.seed)
    preparation = make_preparation(model_args, data_args)
    classes = list(CLASSES) if builtin else [str(number) for number in range(count_classes(data, data_args))]

    def make_trainer(args: KakurenboConfig) -> Trainer:
        return KakurenboTrainer(
            model=make_model(model_args, classes),
            args=args,
            train_dataset=data["train"].with_transform(preparation.transform(data_args.augment)),
            eval_dataset=data["validation"].with_transform(preparation.transform(augment=False)),
            data_collator=collate,
            preprocess_logits_for_metrics=predicted_classes,
            compute_metrics=mean_iou,
        )

    return make_trainer


def main() -> None:
    """Read the arguments, load the data, train."""
    classes = (ModelArguments, DataTrainingArguments, KakurenboConfig)
    run_script(classes, ("dataset_name",), SCENES_DEFAULTS, trainer_maker, MEAN_IOU)


if __name__ == "__main__":
    main()
