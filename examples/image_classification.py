"""Train an image classifier with Hugging Face's Trainer, and skip the images that it already knows.

Without arguments it trains a small network of timm's, from random weights, on scikit-learn's handwritten digits, with
and without hiding, and compares the two. Nothing is downloaded; it takes about two minutes on two cores.

    python examples/image_classification.py
    python examples/image_classification.py --dataset_name beans --label_column_name labels \
        --model_name_or_path google/vit-base-patch16-224-in21k --max_hidden_fraction 0.3
    python examples/image_classification.py options.json

Images may be of any mode: `_images.py` says how gray values of 16 or 32 bits and floats are scaled to 8 bits.

Several processes: `accelerate launch --config_file FILE examples/image_classification.py ...`, where FILE is one of
`accelerate_configs/`: `single_gpu.yaml`, `multi_gpu.yaml`, `multi_node.yaml`, or `two_cpu_processes.yaml` for two on
the CPU. `slurm/train.sh` starts any example on several nodes: see `docs/scaling.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from _arguments import CommonDataArguments
from _common import (
    accuracy_metric,
    cut,
    label_names,
    require_columns,
    run_script,
    use_one_thread,
    with_class_labels,
    with_validation,
)
from _images import to_rgb
from _timm import check_timm_model, timm_config
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, load_dataset
from PIL.Image import registered_extensions
from sklearn.datasets import load_digits
from timm.data import create_transform
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    PreTrainedModel,
    TimmWrapperForImageClassification,
    TimmWrapperImageProcessor,
    Trainer,
)

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer

DIGITS_SIZE = 16
"""To which the digits are enlarged for a network of timm's; a pretrained model has a size of its own."""

DIGITS_DEFAULTS = {
    "timm_model": "test_resnet",
    "augment": False,
    "output_dir": "outputs/digits",
    "num_train_epochs": 30,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 128,
    "learning_rate": 3e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.05,
}


@dataclass
class ModelArguments:
    """Which model to train."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "A pretrained model, of the hub or in a folder; `timm/NAME` for timm's. Goes before --timm_model."
        },
    )
    timm_model: str | None = field(
        default=None, metadata={"help": "The name of a network in timm, to be trained from random weights."}
    )

    def __post_init__(self) -> None:
        if self.model_name_or_path is None and self.timm_model is None:
            raise ValueError("No model is named: give --model_name_or_path or --timm_model.")
        if self.timm_model is not None:
            check_timm_model(self.timm_model)


@dataclass
class DataTrainingArguments(CommonDataArguments):
    """Which images to train on."""

    train_dir: str | None = field(
        default=None, metadata={"help": "A folder of training images, one folder in it per class."}
    )
    validation_dir: str | None = field(default=None, metadata={"help": "The same for validation."})
    image_column_name: str = field(default="image", metadata={"help": "The column with the images."})
    label_column_name: str = field(default="label", metadata={"help": "The column with the classes."})
    image_size: int | None = field(
        default=None, metadata={"help": "Side of the images in pixels; by default what the model was made for."}
    )
    augment: bool = field(default=True, metadata={"help": "Crop and flip the training images at random."})


@dataclass
class ImageFormat:
    """What a model takes: square images of so many pixels a side, normalised by a mean and a deviation per channel."""

    size: int
    mean: list[float]
    std: list[float]

    def transform(self, augment: bool) -> Callable[[Any], torch.Tensor]:
        """The transform of an image into a tensor of shape (3, size, size)."""
        return create_transform(
            (3, self.size, self.size),
            is_training=augment,
            mean=self.mean,
            std=self.std,
            crop_pct=1.0,
            color_jitter=None,
        )


def load_images(data_args: DataTrainingArguments, seed: int) -> DatasetDict:
    """The train and the validation split: of the user's data, or of the digits."""
    if data_args.dataset_name is not None:
        data = load_dataset(data_args.dataset_name, data_args.dataset_config_name)
    elif data_args.train_dir is not None:
        folders = {"train": data_args.train_dir, "validation": data_args.validation_dir}
        files = {split: images_in(Path(folder)) for split, folder in folders.items() if folder is not None}
        data = load_dataset("imagefolder", data_files=files)
    else:
        data = DatasetDict(train=digits())
    data = with_validation(data, data_args.train_val_split, seed)
    require_columns(data, image_column_name=data_args.image_column_name, label_column_name=data_args.label_column_name)
    return cut(with_class_labels(data, data_args.label_column_name), data_args, seed)


def images_in(folder: Path) -> str:
    """The pattern of the files in a folder and its folders.

    Raises:
        FileNotFoundError: there is no such folder, or no image in it.
    """
    suffixes = registered_extensions()
    if not any(file.suffix.lower() in suffixes for file in folder.rglob("*")):
        raise FileNotFoundError(f"{str(folder)!r} is no folder with images: one folder in it per class is expected.")
    return str(folder / "**")


def digits() -> Dataset:
    """Scikit-learn's 1,797 handwritten digits of 8 × 8 pixels."""
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    features = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})
    return Dataset.from_dict({"image": list(images), "label": labels}, features=features)


def image_format(model_args: ModelArguments, size: int | None) -> ImageFormat:
    """What the model takes, from its image processor; `size` goes before the model's own."""
    if model_args.model_name_or_path is None:
        processor = TimmWrapperImageProcessor(timm.get_pretrained_cfg(model_args.timm_model).to_dict())
    else:
        processor = AutoImageProcessor.from_pretrained(model_args.model_name_or_path)
    if isinstance(processor, TimmWrapperImageProcessor):
        timms = processor.data_config
        return ImageFormat(size or timms["input_size"][-1], timms["mean"], timms["std"])
    own = processor.size.get("height") or processor.size.get("shortest_edge")
    return ImageFormat(size or own, processor.image_mean, processor.image_std)


def make_model(model_args: ModelArguments, classes: list[str], image_size: int) -> PreTrainedModel:
    """The model: pretrained with a new head, or timm's from random weights."""
    if model_args.model_name_or_path is None:
        return TimmWrapperForImageClassification(timm_config(model_args.timm_model, image_size, classes))
    config = AutoConfig.from_pretrained(model_args.model_name_or_path, num_labels=len(classes), **label_names(classes))
    return AutoModelForImageClassification.from_pretrained(
        model_args.model_name_or_path, config=config, ignore_mismatched_sizes=True
    )


def tensors(
    data_args: DataTrainingArguments, transform: Callable[[Any], torch.Tensor]
) -> Callable[[dict[str, list[Any]]], dict[str, list[Any]]]:
    """From a batch of rows to what the model takes of each, by the transform of an image."""

    def apply(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        images = [transform(to_rgb(image)) for image in batch[data_args.image_column_name]]
        return {"pixel_values": images, "labels": batch[data_args.label_column_name]}

    return apply


def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """The batch that the model takes."""
    return {
        "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
        "labels": torch.tensor([example["labels"] for example in examples]),
    }


def trainer_maker(
    model_args: ModelArguments, data_args: DataTrainingArguments, args: KakurenboConfig
) -> Callable[[KakurenboConfig], Trainer]:
    """From training arguments to a trainer with a new model."""
    # The transforms read the image column, which no model takes.
    args.remove_unused_columns = False
    if data_args.dataset_name is None and data_args.train_dir is None:
        use_one_thread()
        if model_args.model_name_or_path is None:
            data_args.image_size = data_args.image_size or DIGITS_SIZE
    data = load_images(data_args, args.seed)
    wanted = image_format(model_args, data_args.image_size)
    compute_metrics = accuracy_metric()
    classes = data["train"].features[data_args.label_column_name].names

    def make_trainer(args: KakurenboConfig) -> Trainer:
        return KakurenboTrainer(
            model=make_model(model_args, classes, wanted.size),
            args=args,
            train_dataset=data["train"].with_transform(tensors(data_args, wanted.transform(data_args.augment))),
            eval_dataset=data["validation"].with_transform(tensors(data_args, wanted.transform(augment=False))),
            data_collator=collate,
            compute_metrics=compute_metrics,
        )

    return make_trainer


def main() -> None:
    """Read the arguments, load the data, train."""
    classes = (ModelArguments, DataTrainingArguments, KakurenboConfig)
    run_script(classes, ("dataset_name", "train_dir"), DIGITS_DEFAULTS, trainer_maker)


if __name__ == "__main__":
    main()
