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

import torch
from _arguments import parse_arguments
from _augmentation import AugmentationArguments, ByteCollator, FinishedBatches, soft_cross_entropy
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
from _formula_trainer import FormulaTrainer, RecipeArguments
from _presets import PRESETS
from _table import format_table
from _timm import check_timm_model, timm_config
from torchvision.transforms.v2 import Normalize
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    PreTrainedModel,
    TimmWrapperForImageClassification,
    Trainer,
)

from hf_kakurenbo import KakurenboConfig, load_fdsl
from hf_kakurenbo.config import NO_HIDING

TINY_DEFAULTS = {
    "fdsl": "fractaldb-1k",
    "categories": 20,
    "instances": 50,
    "image_size": 24,
    "draw_size": 24,
    "points": 300,
    "patches": False,
    "validation_instances": 100,
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
    validation_instances: int = field(
        default=2, metadata={"help": "So many images of each category to evaluate on, others than those trained on."}
    )
    fdsl_seed: int = field(default=0, metadata={"help": "Another seed gives other categories and images."})
    streaming: bool = field(
        default=True, metadata={"help": "Train on the stream; `false` on the map-style dataset, in another order."}
    )
    draw_device: str | None = field(
        default=None,
        metadata={
            "help": "Draw and augment whole batches at once where the training is, as with `cuda`, in the main process "
            "instead of workers. Needs `--streaming false`; other images than those drawn by workers."
        },
    )

    def __post_init__(self) -> None:
        if self.draw_device is not None and self.streaming:
            raise ValueError(f"--draw_device {self.draw_device} draws the map-style dataset: add --streaming false.")


def load_images(data: FormulaArguments, split: str, as_drawn: bool = False, as_tensor: bool = True) -> Any:
    """The images of a split, or the same as large as they are drawn, to cut crops from as the papers do."""
    training = split == "train"
    draw_size = load_fdsl(data.fdsl, image_size=data.image_size, draw_size=data.draw_size).draw_size
    streaming = data.streaming and training
    return load_fdsl(
        data.fdsl,
        split,
        image_size=draw_size if as_drawn else data.image_size,
        draw_size=draw_size,
        color=data.color,
        mode="RGB" if data.color or not as_tensor else "L",
        points=data.points,
        patches=data.patches,
        categories=data.categories,
        instances=data.instances if training else data.validation_instances,
        seed=data.fdsl_seed,
        streaming=streaming,
        as_tensor=as_tensor,
        device=data.draw_device if training else None,
    )


def make_model(
    model_args: ModelArguments, augmentation: AugmentationArguments, image_size: int, classes: list[str]
) -> PreTrainedModel:
    """The model from random weights, with a head for the classes."""
    if model_args.config_name is not None:
        config = AutoConfig.from_pretrained(model_args.config_name, image_size=image_size, **label_names(classes))
        return AutoModelForImageClassification.from_config(config)
    options = json.loads(model_args.model_options)
    if model_args.drop_path:
        options["drop_path_rate"] = model_args.drop_path
    config = timm_config(
        model_args.timm_model, image_size, classes, options, mean=augmentation.mean, std=augmentation.std
    )
    return TimmWrapperForImageClassification(config)


def trainer_maker(
    model_args: ModelArguments,
    data: FormulaArguments,
    augmentation: AugmentationArguments,
    recipe: RecipeArguments,
    args: KakurenboConfig,
) -> Callable[[KakurenboConfig], Trainer]:
    """From training arguments to a trainer with a new model."""
    _check_agreement(data, augmentation, recipe)
    if data.draw_device is not None:
        _check_device(data.draw_device, args.device)
        args.dataloader_num_workers, args.dataloader_prefetch_factor = 0, None
        args.dataloader_persistent_workers = args.dataloader_pin_memory = False
    images = load_images(data, "train", as_drawn=augmentation.augment, as_tensor=not augmentation.with_pil)
    if data.streaming:
        images = images.shuffle(seed=args.seed)
    next(iter(images))  # On a new machine this compiles the drawing, which is no part of the first training's time.
    classes = images.features["label"].names
    collator = ByteCollator(augmentation, data.image_size, training=True)
    finish = FinishedBatches(augmentation, len(classes), args.label_smoothing_factor)
    recipe.set_learning_rate(args)
    if augmentation.mixes:
        args.label_smoothing_factor = 0.0  # is done where labels are mixed

    def make_trainer(args: KakurenboConfig) -> Trainer:
        return FormulaTrainer(
            model=make_model(model_args, augmentation, data.image_size, classes),
            args=args,
            recipe=recipe,
            train_dataset=images,
            eval_dataset=load_images(data, "validation") if args.do_eval else None,
            data_collator=collator,
            eval_collator=ByteCollator(augmentation, data.image_size, training=False),
            finish=finish,
            compute_loss_func=soft_cross_entropy if augmentation.mixes else None,
        )

    return make_trainer


def _check_agreement(data: FormulaArguments, augmentation: AugmentationArguments, recipe: RecipeArguments) -> None:
    if recipe.repeated_augmentation > 1 and data.streaming:
        raise ValueError(
            f"--repeated_augmentation {recipe.repeated_augmentation} takes images by number: add --streaming false."
        )
    if data.draw_device is not None and augmentation.with_pil:
        raise ValueError(f"--draw_device {data.draw_device} draws tensors: leave --augment_with pil out.")


def _check_device(name: str, training_device: torch.device) -> None:
    # That of the training is looked up first: it makes "cuda" the GPU of this process.
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"--draw_device {name} is no device that there is here ({reason}); the training is on {training_device}."
        ) from error


def main() -> None:
    """Read the arguments, pre-train, and compare if asked."""
    classes = (
        *(ModelArguments, FormulaArguments, AugmentationArguments, RecipeArguments, FewLabelsArguments),
        KakurenboConfig,
    )
    tiny = {**TINY_DEFAULTS, "finetune": True}
    model_args, data, augmentation, recipe, few_labels, args = parse_arguments(
        classes, ("fdsl", "preset"), tiny, PRESETS
    )
    args.remove_unused_columns = False
    hide_progress_bars(args)
    with errors_as_messages():
        make_trainer = trainer_maker(model_args, data, augmentation, recipe, args)
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
        start = make_model(model_args, augmentation, data.image_size, [str(index) for index in range(10)])
        normalise = Normalize(augmentation.mean, augmentation.std)
        compare_few_labels(few_labels, outcomes, folders, start.config, normalise, args)
    leave_process_group()


if __name__ == "__main__":
    main()
