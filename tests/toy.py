"""Tiny models and data for the trainer tests, and one way to train them."""

import inspect
import os
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer, SampleLedger
from hf_kakurenbo.data import SampleStream
from hf_kakurenbo.hiding import HidingPolicy, Selection, register_policy

NUM_SAMPLES, NUM_FEATURES, NUM_CLASSES = 203, 16, 4

TIMINGS = {
    "train_runtime",
    "train_samples_per_second",
    "train_steps_per_second",
    "eval_runtime",
    "eval_samples_per_second",
    "eval_steps_per_second",
    "kakurenbo/refresh_runtime",
    "kakurenbo/time_saved",
    "kakurenbo/time_saved_fraction",
}


class Classifier(nn.Module):
    """Has what a refresh could disturb: BatchNorm, dropout; and a `config`, which label smoothing asks for."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(problem_type=None)
        self.layers = nn.Sequential(
            nn.Linear(NUM_FEATURES, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, NUM_CLASSES)
        )

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.layers(x)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class TextClassifier(nn.Module):
    """Takes sequences of different lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(50, 16, padding_idx=0)
        self.dropout, self.head = nn.Dropout(0.1), nn.Linear(16, NUM_CLASSES)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(self.dropout(self.embedding(input_ids)))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def samples(count: int = NUM_SAMPLES, seed: int = 0) -> list[dict[str, torch.Tensor]]:
    """Learnable samples: the label is a linear function of the features."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randn(NUM_FEATURES, NUM_CLASSES, generator=torch.Generator().manual_seed(99))
    features = torch.randn(count, NUM_FEATURES, generator=generator)
    return [{"x": x, "labels": y} for x, y in zip(features, (features @ truth).argmax(1), strict=True)]


def texts(count: int = 101) -> list[dict[str, torch.Tensor]]:
    """Sequences of 3 to 20 tokens; the label is that of the first one."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(3, 21, (count,), generator=generator).tolist()
    tokens = [torch.randint(1, 50, (length,), generator=generator) for length in lengths]
    return [{"input_ids": ids, "labels": ids[0] % NUM_CLASSES} for ids in tokens]


def pad(examples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Collate sequences of different lengths."""
    ids = nn.utils.rnn.pad_sequence([example["input_ids"] for example in examples], batch_first=True)
    return {"input_ids": ids, "labels": torch.stack([example["labels"] for example in examples])}


def mean_loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
    """A `compute_loss_func` with class weights."""
    weight = torch.tensor([1.0, 2.0, 1.0, 0.5])
    return nn.functional.cross_entropy(outputs["logits"], labels, weight=weight)


def arguments(output_dir: Any, config: type[TrainingArguments] = KakurenboConfig, **options: Any) -> TrainingArguments:
    """Arguments of a quick and quiet training on the CPU that logs every loss."""
    defaults: dict[str, Any] = {
        "num_train_epochs": 4,
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    return config(output_dir=str(output_dir), **{**defaults, **options})


def make_trainer(
    output_dir: Any,
    trainer: type[Trainer] = KakurenboTrainer,
    *,
    model: type[nn.Module] = Classifier,
    dataset: Any = None,
    seed: int = 1,
    trainer_options: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """A trainer on the toy samples, watched by a `Watch` as its attribute `watch`."""
    set_seed(seed)
    config = KakurenboConfig if trainer is not Trainer else TrainingArguments
    made: Any = trainer(
        model=model(),
        args=arguments(output_dir, config, **options),
        train_dataset=samples() if dataset is None else dataset,
        **(trainer_options or {}),
    )
    made.watch = Watch(made)
    made.add_callback(made.watch)
    return made


def trained(*args: Any, **kwargs: Any) -> Any:
    """As `make_trainer`, and trained: the generators are seeded before each training."""
    trainer = make_trainer(*args, **kwargs)
    trainer.train()
    return trainer


def losses(trainer: Trainer) -> list[dict[str, Any]]:
    """The training losses that were logged."""
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def epochs(trainer: Trainer) -> list[dict[str, Any]]:
    """The figures of hiding that were logged, one entry per epoch."""
    return [entry for entry in trainer.state.log_history if "kakurenbo/hidden_fraction" in entry]


def without_timings(log_history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What must be the same in two runs of the same training."""
    return [{name: value for name, value in entry.items() if name not in TIMINGS} for entry in log_history]


def same_tensors(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Whether two state dicts are bit for bit the same; NaN equals NaN."""
    return a.keys() == b.keys() and all(torch.equal(a[name].nan_to_num(), b[name].nan_to_num()) for name in a)


def same_weights(a: Trainer, b: Trainer) -> bool:
    """Whether two trainers' models are bit for bit the same."""
    return same_tensors(a.model.state_dict(), b.model.state_dict())


class LinearClassifier(nn.Module):
    """Nothing in it depends on how a batch is split: no BatchNorm, no dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(x)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class TokenDropout(nn.Module):
    """Draws as many random numbers as its batch has tokens, padding included."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.dropout, self.head = nn.Embedding(50, 16), nn.Dropout(0.1), nn.Linear(16, NUM_CLASSES)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(self.dropout(self.embedding(input_ids)).mean(1))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Watch(TrainerCallback):
    """Notes what was hidden in each epoch and in what order it trained, of each update its place and rate."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.hidden: list[torch.Tensor] = []
        self.orders: list[list[int]] = []
        self.rates: list[float] = []
        self.places: list[float] = []

    def on_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any = None, **kwargs: Any) -> None:
        self.rates.append(float(optimizer.param_groups[0]["lr"]))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.places.append(state.epoch)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if getattr(self.trainer, "ledger", None) is not None:
            self.hidden.append(self.trainer.ledger.hidden.clone())
            # A stream's order is not known before its samples are made, which is not done for this.
            sampler = self.trainer._training.sampler
            self.orders.append([] if isinstance(sampler, SampleStream) else list(sampler))


@register_policy("first_ids")
class FirstIds(HidingPolicy):
    """Hides the first ⌊F·N⌋ samples from the second epoch on, whatever is known about them."""

    def __init__(self, max_hidden_fraction: float) -> None:
        self.max_hidden_fraction = max_hidden_fraction

    def count(self, ledger: SampleLedger) -> int:
        return int(self.max_hidden_fraction * len(ledger))

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        count = self.count(ledger) if epoch else 0
        return Selection(torch.arange(len(ledger)) < count, count)

    def wants_refresh(self, epoch: int) -> bool:
        return True


@register_policy("rank_dependent")
class RankDependent(FirstIds):
    """Hides one sample more on the second rank, as a policy must not."""

    def count(self, ledger: SampleLedger) -> int:
        return super().count(ledger) + int(os.environ.get("RANK", "0"))


def skip_where_ranks_cannot_resume() -> None:
    """Skip a test where several processes of the release of Transformers cannot load an optimizer on the CPU."""
    if "args.device if self.args.world_size > 1 else" in inspect.getsource(Trainer._load_optimizer_and_scheduler):
        pytest.skip("several processes of this release of Transformers cannot load an optimizer on the CPU")
