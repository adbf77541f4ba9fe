"""Tasks on which a training of a comparison takes a few milliseconds, and some that do not end well."""

import functools
import itertools
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hf_kakurenbo import cli
from hf_kakurenbo.compare import Splits, Task
from hf_kakurenbo.compare.tasks import Samples
from toy import NUM_CLASSES, NUM_FEATURES, samples

EPOCHS, NUM_TRAIN, BATCH = 3, 32, 8


class Toy(nn.Module):
    """Draws random numbers while it trains, and returns something beside the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.head = nn.Dropout(0.1), nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.head(self.dropout(x))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits, "features": x}


def _in_memory(count: int, seed: int) -> Samples:
    drawn = samples(count, seed)
    return Samples(**{name: torch.stack([sample[name] for sample in drawn]) for name in drawn[0]})


def load() -> Splits:
    return Splits(_in_memory(NUM_TRAIN, 0), _in_memory(200, 1))


def load_nothing() -> Splits:
    raise LookupError("the toys are sold out")


_loaded = itertools.count()


def get_stuck() -> Splits:
    """The third time in a process."""
    if next(_loaded) == 2:
        time.sleep(600)
    return load()


@functools.cache
def _weights_and_note(make_model: Callable[[], Toy], note: str) -> dict[str, torch.Tensor]:
    with Path(note).open("a") as file:
        file.write("made\n")
    return make_model().state_dict()


def make_and_note(make_model: Callable[[], Toy], note: str) -> Toy:
    """A model with weights that are kept in a cache, and a line in a file each time that they are not there."""
    model = make_model()
    model.load_state_dict(_weights_and_note(make_model, note))
    return model


ARGUMENTS: dict[str, Any] = {
    "num_train_epochs": EPOCHS,
    "learning_rate": 0.05,
    "per_device_train_batch_size": BATCH,
    "per_device_eval_batch_size": 200,
    "use_cpu": True,
    "confidence_threshold": 0.3,
}

TOY = Task("toy", load, Toy, ARGUMENTS)
SOLD_OUT = replace(TOY, name="sold-out", load=load_nothing)
STUCK = replace(TOY, name="stuck", load=get_stuck)

if __name__ == "__main__":
    # A shell's background jobs inherit that the interrupt is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv[0] = "hf-kakurenbo"
    cli.main()
