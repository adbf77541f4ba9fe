"""Pre-train a vision model on images from formulas, and skip those that it already knows.

Without arguments it pre-trains a tiny vision transformer on a stream of fractals, with and without hiding, fine-tunes
it on ten handwritten digits of each kind, beside one that was not pre-trained, and compares. Nothing is downloaded; it
takes about five minutes on two cores.

    python examples/pretrain_fdsl.py
    python examples/pretrain_fdsl.py --fdsl rcdb-1k --timm_model vit_small_patch16_224 --output_dir out
    accelerate launch --num_processes 4 examples/pretrain_fdsl.py --preset deit-tiny-fractaldb-1k --output_dir out

`examples/image_classification.py --model_name_or_path out ...` continues from what is saved, with a new head.
`examples/slurm/pretrain.sh` runs a preset on several nodes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from _arguments import parse_arguments
from _augmentation import MEAN, STD, AugmentationArguments, AugmentingCollator, PlainCollator, soft_cross_entropy
from _common import (
    checkpoint_to_resume,
    errors_as_messages,
    facts,
    hide_progress_bars,
    label_names,
    leave_process_group,
    say,
    train,
    use_one_thread,
    without_hiding,
)
from _few_labels import FewLabelsArguments, compare_few_labels
from _table import format_table
from _timm import check_timm_model, timm_config
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    EvalPrediction,
    PreTrainedModel,
    TimmWrapperForImageClassification,
    Trainer,
)

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer, load_fdsl
from hf_kakurenbo.config import NO_HIDING

TINY_DEFAULTS = {
    "fdsl": "fractaldb-1k",
    "categories": 20,
    "instances": 50,
    "image_size": 24,
    "draw_size": 24,
    "points": 300,
    "patches": False,
    "timm_model": "vit_tiny_patch16_224",
    "model_options": '{"patch_size": 4, "embed_dim": 64, "depth": 3, "num_heads": 4, "mlp_ratio": 2, '
    '"global_pool": "avg", "class_token": false}',
    "output_dir": "outputs/pretrain",
    "num_train_epochs": 120,
    "per_device_train_batch_size": 64,
    "per_device_eval_batch_size": 200,
    "learning_rate": 3e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.05,
}

# What DeiT (Touvron et al. 2021) and the papers on images from formulas share.
_DEIT = {
    "image_size": 224,
    "augment": True,
    "mixup": 0.8,
    "cutmix": 1.0,
    "drop_path": 0.1,
    "label_smoothing_factor": 0.1,
    "lr_scheduler_type": "cosine",
    "weight_decay": 0.05,
    "bf16": True,
    "dataloader_num_workers": 12,
    "dataloader_persistent_workers": True,
    "ddp_find_unused_parameters": False,
    "save_strategy": "epoch",
    "save_total_limit": 2,
    "logging_steps": 100,
}
PRESETS: dict[str, dict[str, Any]] = {
    # Nakashima et al., AAAI 2022, arXiv 2103.13023: the schedule of their program; a batch of 1,024 on 4 GPUs.
    "deit-tiny-fractaldb-1k": {
        **_DEIT,
        "fdsl": "fractaldb-1k",
        "timm_model": "deit_tiny_patch16_224",
        "num_train_epochs": 300,
        "warmup_steps": 10 / 300,
        "learning_rate": 3e-4,
        "per_device_train_batch_size": 256,
    },
    # Kataoka et al., CVPR 2022, arXiv 2206.09132, but for their repeated augmentation; a batch of 8,192 on 128 GPUs.
    "vit-base-exfractaldb-21k": {
        **_DEIT,
        "fdsl": "exfractaldb-21k",
        "timm_model": "deit_base_patch16_224",
        "num_train_epochs": 90,
        "warmup_steps": 5 / 90,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 64,
    },
}


@dataclass
class ModelArguments:
    """Which model to train, from random weights."""

    timm_model: str | None = field(default=None, metadata={"help": "The name of a network in timm."})
    model_options: str = field(
        default="{}", metadata={"help": "Options of timm's network as JSON, such as '{\"patch_size\": 4}'."}
    )
    drop_path: float = field(default=0.0, metadata={"help": "Rate of stochastic depth of timm's network, in [0, 1)."})
    config_name: str | None = field(
        default=None, metadata={"help": "Instead, a configuration of Transformers: of the hub, or a folder."}
    )
    preset: str | None = field(
        default=None, metadata={"help": f"Hyper-parameters of a paper, as defaults: {', '.join(PRESETS)}."}
    )

    def __post_init__(self) -> None:
        if (self.timm_model is None) == (self.config_name is None):
            raise ValueError("Name one model: --timm_model or --config_name (or a --preset).")
        if self.timm_model is not None:
            check_timm_model(self.timm_model)
        try:
            json.loads(self.model_options)
        except json.JSONDecodeError as error:
            raise ValueError(f"--model_options {self.model_options!r} is no JSON object: {error}.") from error


@dataclass
class FormulaArguments:
    """Which images from formulas to train on; see `hf_kakurenbo.load_fdsl`."""

    fdsl: str | None = field(default=None, metadata={"help": "The name: `hf-kakurenbo fdsl list` shows them."})
    image_size: int = field(default=224, metadata={"help": "Height and width in pixels."})
    draw_size: int | None = field(
        default=None,
        metadata={
            "help": "Size at which images are drawn before they are made smaller, or cropped with --augment; by "
            "default that of the published images."
        },
    )
    color: bool = field(default=False, metadata={"help": "Draw in colours instead of gray."})
    points: int | None = field(default=None, metadata={"help": "Points of a fractal; by default the family's number."})
    patches: bool = field(default=True, metadata={"help": "FractalDB, 2D-OFDB: random 3×3 patches instead of pixels."})
    categories: int | None = field(default=None, metadata={"help": "Only the first so many categories."})
    instances: int | None = field(default=None, metadata={"help": "So many images of each category."})
    fdsl_seed: int = field(default=0, metadata={"help": "Another seed gives other categories and images."})
    streaming: bool = field(
        default=True, metadata={"help": "Train on the stream; `false` on the map-style dataset, in another order."}
    )


def load_images(data: FormulaArguments, split: str, streaming: bool, as_tensor: bool, as_drawn: bool = False) -> Any:
    """The images of a split, or the same as large as they are drawn, to cut crops from as the papers do."""
    draw_size = load_fdsl(data.fdsl, image_size=data.image_size, draw_size=data.draw_size).draw_size
    return load_fdsl(
        data.fdsl,
        split,
        image_size=draw_size if as_drawn else data.image_size,
        draw_size=draw_size,
        color=data.color,
        points=data.points,
        patches=data.patches,
        categories=data.categories,
        instances=data.instances if split == "train" else None,
        seed=data.fdsl_seed,
        streaming=streaming,
        as_tensor=as_tensor,
    )


def make_model(model_args: ModelArguments, image_size: int, classes: list[str]) -> PreTrainedModel:
    """The model from random weights, with a head for the classes."""
    if model_args.config_name is not None:
        config = AutoConfig.from_pretrained(model_args.config_name, image_size=image_size, **label_names(classes))
        return AutoModelForImageClassification.from_config(config)
    options = json.loads(model_args.model_options)
    if model_args.drop_path:
        options["drop_path_rate"] = model_args.drop_path
    config = timm_config(model_args.timm_model, image_size, classes, options, mean=MEAN, std=STD)
    return TimmWrapperForImageClassification(config)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """The fraction of right answers."""
    return {"accuracy": float((prediction.predictions.argmax(axis=1) == prediction.label_ids).mean())}


def trainer_maker(
    model_args: ModelArguments,
    data: FormulaArguments,
    augmentation: AugmentationArguments,
    args: KakurenboConfig,
) -> Callable[[KakurenboConfig], Trainer]:
    """From training arguments to a trainer with a new model."""
    changes_images = augmentation.augment or augmentation.mixes
    images = load_images(data, "train", data.streaming, as_tensor=not changes_images, as_drawn=augmentation.augment)
    if data.streaming:
        images = images.shuffle(seed=args.seed)
    next(iter(images))  # On a new machine this compiles the drawing, which is no part of the first training's time.
    classes = images.features["label"].names
    smoothing = args.label_smoothing_factor
    collator: Any = PlainCollator()
    if changes_images:
        collator = AugmentingCollator(augmentation, data.image_size, len(classes), smoothing)
    if augmentation.mixes:
        args.label_smoothing_factor = 0.0  # is done where labels are mixed

    def make_trainer(args: KakurenboConfig) -> Trainer:
        return FormulaTrainer(
            model=make_model(model_args, data.image_size, classes),
            args=args,
            train_dataset=images,
            eval_dataset=load_images(data, "validation", False, as_tensor=True) if args.do_eval else None,
            data_collator=collator,
            compute_loss_func=soft_cross_entropy if augmentation.mixes else None,
            compute_metrics=accuracy,
        )

    return make_trainer


class FormulaTrainer(KakurenboTrainer):
    """Evaluates on images as they are drawn, whatever is done to those that it trains on."""

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The loader of `Trainer`, with plain batches."""
        trains_with, self.data_collator = self.data_collator, PlainCollator()
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = trains_with


def main() -> None:
    """Read the arguments, pre-train, and compare if asked."""
    classes = (ModelArguments, FormulaArguments, AugmentationArguments, FewLabelsArguments, KakurenboConfig)
    tiny = {**TINY_DEFAULTS, "finetune": True}
    model_args, data, augmentation, few_labels, args = parse_arguments(classes, ("fdsl", "preset"), tiny, PRESETS)
    args.remove_unused_columns = False
    hide_progress_bars(args)
    with errors_as_messages():
        make_trainer = trainer_maker(model_args, data, augmentation, args)
    if few_labels.finetune:
        use_one_thread()

    say(args, facts(args))
    outcomes = [train(make_trainer, args, checkpoint_to_resume(args))]
    folders = [args.output_dir]
    if few_labels.finetune and args.hiding_policy != NO_HIDING:
        plain = without_hiding(args)
        outcomes.append(train(make_trainer, plain, None))
        folders.append(plain.output_dir)
    say(args, f"\n{format_table(outcomes)}")
    if few_labels.finetune and args.process_index == 0:
        start = make_model(model_args, data.image_size, [str(index) for index in range(10)])
        compare_few_labels(few_labels, outcomes, folders, start.config, args)
    leave_process_group()


if __name__ == "__main__":
    main()
