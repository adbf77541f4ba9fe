"""The trainer of `pretrain_fdsl.py`: what the papers' programs do otherwise than `Trainer`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import torch
from _augmentation import AUGMENTED, ByteCollator, FinishedBatches
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler
from transformers import EvalPrediction, TrainingArguments

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer

# What a vision transformer learns beside its layers, by the last part of its name, in timm and Transformers.
TOKENS = {"pos_embed", "cls_token", "dist_token", "reg_token", "position_embeddings", "distillation_token"}

# Of how many samples DeiT's programs leave out the rest of an epoch with repeated augmentation.
_WHOLE = 256

_CHUNK = 65_536


@dataclass
class RecipeArguments:
    """What the papers' programs do otherwise than `Trainer`."""

    base_learning_rate: float | None = field(
        default=None,
        metadata={"help": "The learning rate of a batch of 512, in proportion to the batch; --learning_rate wins."},
    )
    min_learning_rate: float | None = field(
        default=None,
        metadata={"help": "Where a cosine over the whole training ends, as timm's; by default that of Trainer."},
    )
    warmup_learning_rate: float = field(
        default=0.0, metadata={"help": "With --min_learning_rate: where the warm-up begins."}
    )
    decay_tokens: bool = field(
        default=True, metadata={"help": "Weight decay on position embeddings and tokens too; no paper does."}
    )
    repeated_augmentation: int = field(
        default=1,
        metadata={"help": "Each image comes so often in a batch, and as many fewer images in an epoch; 3 in DeiT."},
    )

    def __post_init__(self) -> None:
        for name in ("base_learning_rate", "min_learning_rate", "warmup_learning_rate"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name}={value} must be 0 or more.")
        if self.repeated_augmentation < 1:
            raise ValueError(f"repeated_augmentation={self.repeated_augmentation} must be at least 1.")

    def set_learning_rate(self, args: TrainingArguments) -> None:
        """Work `learning_rate` out of the batch, if it was not given."""
        default = next(option.default for option in fields(KakurenboConfig) if option.name == "learning_rate")
        if self.base_learning_rate is not None and args.learning_rate == default:
            batch = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
            args.learning_rate = self.base_learning_rate * batch / 512


def timm_cosine(update: int, updates: int, warmup: int, first: float, least: float) -> float:
    """The learning rate of timm's cosine schedule, as a multiple of the highest.

    It differs from that of Transformers in that the cosine covers the warm-up too, and in where it begins and ends.

    Args:
        update: its number, from 0.
        updates: of the whole training.
        warmup: how many the rate rises for.
        first: the multiple of the highest rate at which it begins.
        least: the one at which it ends.
    """
    if update < warmup:
        return first + (1 - first) * update / warmup
    return least + (1 - least) * (1 + math.cos(math.pi * min(update / updates, 1))) / 2


class RepeatedSampler(Sampler[int]):
    """Repeated augmentation (Hoffer et al. 2020, as in DeiT): each image several times in a batch of all processes.

    An epoch is as long as without it, a multiple of 256 images, so a third of the images come three times. Those of a
    batch come in the same order each time, so that several processes have the copies of an image apart.

    Args:
        images: how many there are.
        repeats: how often each comes.
        batch: of all processes.
        seed: of the orders.
    """

    def __init__(self, images: int, repeats: int, batch: int, seed: int) -> None:
        self.images, self.repeats, self.seed, self.epoch = images, repeats, seed, 0
        self.at_once = max(1, batch // repeats)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.images // _WHOLE * _WHOLE or self.images

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        chosen = torch.randperm(self.images, generator=generator)[: math.ceil(len(self) / self.repeats)]
        whole = len(chosen) // self.at_once * self.at_once
        batches = chosen[:whole].view(-1, 1, self.at_once).expand(-1, self.repeats, -1)
        order = torch.cat([batches.flatten(), chosen[whole:].repeat(self.repeats)])[: len(self)]
        for part in order.split(_CHUNK):  # a list of all numbers would take 36 bytes for each
            yield from part.tolist()


def best_guess(logits: Any, labels: Tensor) -> Tensor:
    """Of the logits (B, C) the class: all that evaluation keeps, 8 bytes an image instead of 4 C."""
    return (logits[0] if isinstance(logits, tuple) else logits).argmax(dim=-1)


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """The fraction of right answers, from classes."""
    return {"accuracy": float((prediction.predictions == prediction.label_ids).mean())}


class FormulaTrainer(KakurenboTrainer):
    """Trains as the papers' programs do, and evaluates on images as they are drawn.

    Args:
        recipe: what is done otherwise than by `Trainer`.
        finish: makes a batch of bytes what the model takes.
        eval_collator: makes batches of the images as they are drawn.
        **options: of `KakurenboTrainer`.
    """

    def __init__(
        self, *, recipe: RecipeArguments, finish: FinishedBatches, eval_collator: ByteCollator, **options: Any
    ) -> None:
        self.recipe, self.finish, self.eval_collator = recipe, finish, eval_collator
        super().__init__(compute_metrics=accuracy, preprocess_logits_for_metrics=best_guess, **options)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
        """The loader of `Trainer`, with batches that are not augmented."""
        trains_with, self.data_collator = self.data_collator, self.eval_collator
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.data_collator = trains_with

    def get_decay_parameter_names(self, model: torch.nn.Module) -> list[str]:
        """Those of `Trainer`; without `decay_tokens` only weights of two dimensions and more that are no tokens."""
        names = super().get_decay_parameter_names(model)
        if self.recipe.decay_tokens:
            return names
        flat = {name for name, weight in model.named_parameters() if weight.ndim < 2}
        return [name for name in names if name not in flat and name.rpartition(".")[2] not in TOKENS]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Timm's cosine if the recipe has where it ends, else that of `Trainer`."""
        if self.recipe.min_learning_rate is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        rate_of = partial(
            timm_cosine,
            updates=num_training_steps,
            warmup=self.args.get_warmup_steps(num_training_steps),
            first=self.recipe.warmup_learning_rate / self.args.learning_rate,
            least=self.recipe.min_learning_rate / self.args.learning_rate,
        )
        self.lr_scheduler = LambdaLR(self.optimizer if optimizer is None else optimizer, rate_of)
        return self.lr_scheduler

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        repeats = self.recipe.repeated_augmentation
        if repeats == 1:
            return super()._get_train_sampler(train_dataset)
        images = len(self.train_dataset if train_dataset is None else train_dataset)
        batch = self.args.train_batch_size * self.args.world_size
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        return RepeatedSampler(images, repeats, batch, seed)

    def _prepare_inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        inputs = super()._prepare_inputs(inputs)
        return self.finish(inputs) if AUGMENTED in inputs else inputs
