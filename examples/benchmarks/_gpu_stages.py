"""What is measured on a GPU: stages of at most eight minutes, the most telling first, each in pieces of its own."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LONGEST_STAGE = 8 * 60
"""Seconds that a stage may be expected to take."""

Result = dict[str, Any]
"""What a piece measured, as JSON holds it."""


@dataclass(frozen=True)
class Setting:
    """Where and how a piece measures."""

    rehearse: bool = False
    """On the CPU and small: every line runs, and no figure means anything."""
    data: Path | None = None
    """A folder with the four files of Fashion-MNIST; None for images from formulas."""
    earlier: Mapping[str, Result] = field(default_factory=dict)
    """What earlier pieces of the stage measured."""

    @property
    def device(self) -> str:
        """Where tensors are: `"cuda"`, or `"cpu"` in a rehearsal."""
        return "cpu" if self.rehearse else "cuda"


@dataclass(frozen=True)
class Piece:
    """What is measured, and recorded, in one go.

    Args:
        name: in the record.
        function: `"module:function"`, from a [`Setting`] and the options to a [`Result`]; imported only when it runs.
        seconds: how long it is expected to take on a GPU.
        options: further arguments of the function.
    """

    name: str
    function: str
    seconds: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def measure(self, setting: Setting) -> Result:
        """Measure."""
        module, _, name = self.function.partition(":")
        function: Callable[..., Result] = getattr(importlib.import_module(module), name)
        return function(setting, **self.options)


@dataclass(frozen=True)
class Stage:
    """Pieces that belong together."""

    name: str
    title: str
    pieces: Sequence[Piece]

    @property
    def seconds(self) -> int:
        """How long it is expected to take on a GPU."""
        return sum(piece.seconds for piece in self.pieces)


_FAMILIES = ("fractaldb", "exfractaldb", "rcdb", "visualatom", "ofdb2d", "ofdb3d", "1pfrac")
SEEDS = (0, 1, 2)
METHODS = ("no hiding", "no hiding, shorter", "KAKURENBO", "spaced repetition")


def _step(name: str, network: str, seconds: int, **options: Any) -> Piece:
    return Piece(name, "_gpu_steps:measure_steps", seconds, {"network": network, **options})


STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "tests",
            "The tests that need a GPU",
            [Piece("marked gpu", "_gpu_processes:run_tests", 150)],
        ),
        Stage(
            "steps",
            "What a step, and an epoch with 30 % hidden, takes beside Trainer",
            [
                _step("ViT-S/16", "vit", 60),
                _step("ResNet-50", "resnet", 90),
                Piece("synchronizations", "_gpu_steps:count_synchronizations", 40),
                _step("ViT-S/16, compiled", "vit", 110, compiles=True),
                _step("ResNet-50, compiled", "resnet", 150, compiles=True),
            ],
        ),
        Stage(
            "tokens",
            "The statistics of tokens",
            [
                Piece(f"{name}, {batch} × 4,096 tokens", "_gpu_tokens:measure", 25, {"dtype": name, "batch": batch})
                for name in ("bfloat16", "float32")
                for batch in (1, 4)
            ],
        ),
        Stage(
            "drawing",
            "Images from formulas drawn on the device",
            [
                *(Piece(name, "_gpu_drawing:measure_family", 25, {"family": name}) for name in _FAMILIES),
                Piece("consumed", "_gpu_drawing:measure_consumption", 50),
                Piece("data path", "_gpu_drawing:measure_data_path", 60),
            ],
        ),
        Stage(
            "trainings",
            "Wall time of trainings, with their accuracy",
            [
                Piece("epochs", "_gpu_trainings:choose_epochs", 30),
                *(
                    Piece(f"{method}, seed {seed}", "_gpu_trainings:train", 37, {"method": method, "seed": seed})
                    for seed in SEEDS
                    for method in METHODS
                ),
            ],
        ),
        Stage(
            "processes",
            "Refresh under DistributedDataParallel, and resuming",
            [
                Piece("one rank", "_gpu_processes:compare_one_rank", 70),
                Piece("two ranks on one device", "_gpu_processes:compare_two_ranks", 70),
                Piece("resumed", "_gpu_processes:compare_resumed", 100),
            ],
        ),
    )
}
