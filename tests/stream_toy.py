"""Streams for the trainer tests: the toy samples and the toy images, and the same map-style in the same order."""

import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch import nn
from torch.utils.data import Sampler
from transformers import TrainerCallback

import killing
from fdsl_toy import CATEGORIES, NAME, enter_into_catalog
from hf_kakurenbo import KakurenboTrainer
from hf_kakurenbo.fdsl import FDSLDataset, load_fdsl
from toy import NUM_SAMPLES, epochs, losses, make_trainer, samples, without_timings

INSTANCES = 35
NUM_IMAGES = CATEGORIES * INSTANCES


def rows(count: int = NUM_SAMPLES) -> datasets.Dataset:
    """The toy samples with ids, as a table of `datasets`."""
    toys = samples(count)
    table = {
        "x": [sample["x"].tolist() for sample in toys],
        "labels": [int(sample["labels"]) for sample in toys],
        "sample_id": list(range(count)),
    }
    return datasets.Dataset.from_dict(table)


class Mapped:
    """A function to map by that notes the ids of its examples in a file, if there is one to note them in."""

    def __init__(self, file: Path | None = None) -> None:
        self.file = file

    def __call__(self, example: dict[str, Any]) -> dict[str, Any]:
        if self.file is not None:
            with open(self.file, "a") as file:
                file.write(f"{example['sample_id']}\n")
        return {"x": torch.tensor(example["x"])}


def streamed(file: Path | None = None, seed: int | None = 3, **options: Any) -> datasets.IterableDataset:
    """The toy samples as a stream of uneven shards through a shuffle buffer, mapped."""
    shards = [(0, 20), (20, 21), (21, 150), (150, NUM_SAMPLES)]
    stream = datasets.IterableDataset.from_generator(_rows_of, gen_kwargs={"shards": shards})
    return stream.shuffle(seed=seed, buffer_size=30).map(Mapped(file), **options)


def _rows_of(shards: list[tuple[int, int]]) -> Any:
    toys = samples()
    for first, end in shards:
        for sample_id in range(first, end):
            x, labels = toys[sample_id]["x"].tolist(), int(toys[sample_id]["labels"])
            yield {"x": x, "labels": labels, "sample_id": sample_id}


def order_of(stream: Any, epoch: int) -> list[int]:
    """The ids of an epoch in the order in which a stream gives them by itself."""
    stream.set_epoch(epoch)
    return [int(example["sample_id"]) for example in stream]


class InOrders(Sampler[int]):
    """Gives the indices of each epoch in an order of the user's."""

    def __init__(self, orders: Any) -> None:
        self.orders, self.epoch = orders, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.orders[0])

    def __iter__(self) -> Any:
        return iter(self.orders[self.epoch])


class NotingTrainer(KakurenboTrainer):
    """Notes the ids of each batch that it trains on, as `batches`: a list per epoch."""

    orders: Any = None

    def training_step(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        noted = self.__dict__.setdefault("batches", {})
        noted.setdefault(self._training.run.epoch, []).append(inputs["sample_id"].tolist())
        return super().training_step(model, inputs, *args, **kwargs)


def in_orders(orders: Any) -> type[NotingTrainer]:
    """A trainer that goes through a map-style dataset in these orders, one per epoch."""

    class InOrdersTrainer(NotingTrainer):
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return InOrders(orders)

    return InOrdersTrainer


class ImageClassifier(nn.Module):
    """Takes the toy images as tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.dropout, self.head = nn.BatchNorm1d(192), nn.Dropout(0.1), nn.Linear(192, CATEGORIES)

    def forward(self, image: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(self.dropout(self.norm(image.flatten(1).float() / 255)))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def images(streaming: bool = False, **options: Any) -> Any:
    """The toy images, drawn when asked for; a stream of them is shuffled."""
    enter_into_catalog(dict.__setitem__)
    made = load_fdsl(NAME, streaming=streaming, image_size=8, instances=INSTANCES, as_tensor=True, **options)
    return made.shuffle(5) if streaming else made


class Draws:
    """While open, the sample ids of all images that this process draws."""

    def __enter__(self) -> list[int]:
        self.draw, drawn = FDSLDataset._draw, []
        FDSLDataset._draw = lambda dataset, sample_id: drawn.append(sample_id) or self.draw(dataset, sample_id)
        return drawn

    def __exit__(self, *error: Any) -> None:
        FDSLDataset._draw = self.draw


class Tally(TrainerCallback):
    """Notes of each epoch which samples were hidden and how much was made by the end of its batches and of it all.

    It stands after the callback that refreshes, so it counts what was made between two moments: the last step of an
    epoch and the first one of the next.
    """

    def __init__(self, trainer: Any, made: Any) -> None:
        self.trainer, self.made = trainer, made
        self.hidden: list[int] = []
        self.trained: list[list[int]] = []
        self.refreshed: list[list[int]] = []
        self.before = 0

    def since(self) -> list[int]:
        made = self.made()
        new, self.before = made[self.before :], len(made)
        return new

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.epoch == int(state.epoch):
            self.hidden.append(self.trainer.ledger.num_hidden)
            self.trained.append(self.since())

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.refreshed.append(self.since())


STREAMS = {
    "with ids": {"dataset": streamed},
    "of images": {"dataset": lambda: images(streaming=True), "model": ImageClassifier},
}


WAYS = {
    "default": {},
    "dispatched": {"dispatch_batches": True},
    "not dispatched": {"dispatch_batches": False},
    "dispatched, split": {"dispatch_batches": True, "split_batches": True},
    "not dispatched, split": {"dispatch_batches": False, "split_batches": True},
}
"""How Accelerate may be asked to share a stream among ranks."""

KINDS = {"with ids": ({"num_samples": NUM_SAMPLES}, NUM_SAMPLES), "of images": ({}, NUM_IMAGES)}
"""Of the streams: the options of a training, and how many samples there are."""


def stream_options(kind: str) -> dict[str, Any]:
    """The options of `make_trainer` for one of the two kinds of streams."""
    options = dict(STREAMS[kind])
    return {**options, "dataset": options["dataset"]()}


def train_stream(output_dir: Path, kind: str, options: dict[str, Any], kill_at: int | None, resume: bool) -> Any:
    """As `killing.train`, on a stream that is made in the process."""
    return killing.train(output_dir, {**options, **stream_options(kind)}, kill_at, resume)


def outcome(
    output_dir: Path, kind: str, options: dict[str, Any], checkpoint: str | None = None, map_style: bool = False
) -> Any:
    """Train on a stream, or map-style in its order, and bring home what the tests look at."""
    made = Path(output_dir) / f"mapped-{os.environ.get('RANK', 0)}"
    made.parent.mkdir(parents=True, exist_ok=True)
    made.touch()
    chosen = stream_options(kind)
    trainer_class: type[NotingTrainer] = NotingTrainer
    if map_style:
        trainer_class = in_orders([order_of(chosen["dataset"], epoch) for epoch in range(10)])
        chosen["dataset"] = samples() if kind == "with ids" else images()
    elif kind == "with ids":
        chosen["dataset"] = streamed(made)
    with Draws() as drawn:
        trainer = make_trainer(output_dir, trainer_class, **{**chosen, **options})
        trainer.train(checkpoint)
    return {
        "losses": losses(trainer),
        "weights": trainer.model.state_dict(),
        "hidden": trainer.watch.hidden,
        "batches": trainer.batches,
        "ledger": trainer.ledger.state_dict(),
        "made": drawn if kind == "of images" else list(map(int, made.read_text().split())),
        "epochs": without_timings(epochs(trainer)),
        "totals": trainer._training.run.totals(),
    }


def visible_ids(hidden: torch.Tensor) -> list[int]:
    """The samples that are not hidden, ascending."""
    return np.flatnonzero(~hidden.numpy()).tolist()
