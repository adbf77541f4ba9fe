"""What hiding does to tasks that ask many questions of a sample: segmentation and language modelling, over seeds.

```
python examples/benchmarks/tasks.py segmentation           # three seeds, about ten minutes on one core
python examples/benchmarks/tasks.py causal masked          # two tables
python examples/benchmarks/tasks.py causal --quick         # a smoke test: two seeds, half a minute
```

Every seed runs the job of an example of this repository once for each way of hiding, in turns, and once more without
hiding for as many epochs as backpropagate as many samples as were left where most was hidden: the compute-matched
baseline, which has nothing but the shorter time. A seed draws the weights and the order of the samples. Differences are
paired by seed; behind ± is the standard deviation over the seeds. Times are of the processor, on one thread: other
programs slow them little.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
import transformers
from transformers import Trainer, set_seed

from hf_kakurenbo import KakurenboConfig

sys.path.insert(0, str(Path(__file__).parent.parent))

import language_modeling
import semantic_segmentation

PLAIN, DEFAULT, SHORTER = "without hiding", "the defaults", "without hiding, shorter"
LOSS_ALONE = "the loss alone decides (`move_back=False`)"
_CONSTANT = {"hidden_epoch_updates": "constant"}
# In 14 epochs of 15 this fraction, so of all of them what the defaults hide.
_RANDOM = {
    "hiding_policy": "random",
    "max_hidden_fraction": 0.21,
    "fraction_milestones": [0.0],
    "fraction_factors": [1.0],
}
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "segmentation": {
        PLAIN: {"hiding_policy": "none"},
        DEFAULT: {},
        "`accuracy_threshold=0.99`": {"accuracy_threshold": 0.99},
        "`accuracy_threshold=1.0`": {"accuracy_threshold": 1.0},
        "the defaults, `lr_compensation=False`": {"lr_compensation": False},
        LOSS_ALONE: {"move_back": False},
        "the defaults, constant updates": _CONSTANT,
        "random, as many hidden": _RANDOM,
        "random, constant updates": {**_RANDOM, **_CONSTANT},
        "spaced repetition": {"hiding_policy": "spaced_repetition"},
        "spaced repetition, constant updates": {"hiding_policy": "spaced_repetition", **_CONSTANT},
    },
    "causal": {
        PLAIN: {"hiding_policy": "none"},
        DEFAULT: {},
        "`accuracy_threshold=0.5, confidence_threshold=0.5`": {"accuracy_threshold": 0.5, "confidence_threshold": 0.5},
        LOSS_ALONE: {"move_back": False},
    },
}
WAYS["masked"] = WAYS["causal"]
"""The options of each way of hiding, by task and name; the first two of a task are `PLAIN` and `DEFAULT`."""

EPOCHS = {"segmentation": 15, "causal": 10, "masked": 10}
SAMPLES = {"segmentation": 450, "causal": 1000, "masked": 1000}
"""Trained on in an epoch, at most."""
QUICK_EPOCHS, QUICK_SAMPLES = 3, 48


@dataclass
class Figures:
    """What one training came to.

    Attributes:
        score: mean IoU or perplexity.
        backpropagated: fraction of the samples of the epochs that were trained on.
        forward_only: fraction of them of forward-only passes.
        seconds: of the processor.
    """

    score: float
    backpropagated: float
    forward_only: float
    seconds: float


@dataclass
class Job:
    """A task of the benchmark.

    Attributes:
        make_trainer: from training arguments to a trainer with a new model.
        defaults: the training arguments of the example.
        score: the name of the figure, and how it is had from the metrics of an evaluation.
        decimals: of the figure in the table.
    """

    make_trainer: Callable[[KakurenboConfig], Trainer]
    defaults: Mapping[str, Any]
    score: tuple[str, Callable[[Mapping[str, float]], float]]
    decimals: int


def make_job(task: str, samples: int) -> Job:
    """The job of an example.

    Args:
        task: one of `EPOCHS`.
        samples: train on so many at most.
    """
    split = KakurenboConfig(output_dir="unused", seed=0, use_cpu=True)
    if task == "segmentation":
        data = semantic_segmentation.DataTrainingArguments(train_val_split=0.25, max_train_samples=samples)
        maker = semantic_segmentation.trainer_maker(semantic_segmentation.ModelArguments(), data, split)
        defaults = {**semantic_segmentation.SCENES_DEFAULTS, "remove_unused_columns": False}
        return Job(maker, defaults, ("mean IoU", lambda metrics: metrics["eval_mean_iou"]), 3)
    defaults = dict(language_modeling.DOCUMENTATION_DEFAULTS)
    texts = language_modeling.DataTrainingArguments(
        train_val_split=0.25, block_size=defaults.pop("block_size"), max_train_samples=samples
    )
    maker = language_modeling.trainer_maker(language_modeling.ModelArguments(objective=task), texts, split)
    return Job(maker, {**defaults, "prediction_loss_only": True}, ("perplexity", language_modeling.perplexity), 1)


def train(job: Job, seed: int, epochs: int, options: Mapping[str, Any]) -> Figures:
    """Train once, and evaluate."""
    with tempfile.TemporaryDirectory() as folder:
        args = KakurenboConfig(
            **{
                **job.defaults,
                "output_dir": folder,
                "num_train_epochs": epochs,
                "seed": seed,
                "use_cpu": True,
                "report_to": "none",
                "save_strategy": "no",
                "logging_strategy": "no",
                "disable_tqdm": True,
                "dataloader_pin_memory": False,
                **options,
            }
        )
        set_seed(seed)
        trainer = job.make_trainer(args)
        with contextlib.redirect_stdout(io.StringIO()):
            started = time.process_time()
            metrics = trainer.train().metrics
            seconds = time.process_time() - started
            score = job.score[1](trainer.evaluate())
    full = epochs * len(trainer.train_dataset)
    return Figures(
        score,
        metrics.get("kakurenbo/trained_samples", full) / full,
        metrics.get("kakurenbo/refreshed_samples", 0) / full,
        seconds,
    )


def one_seed(job: Job, ways: Mapping[str, Mapping[str, Any]], seed: int, epochs: int) -> dict[str, Figures]:
    """The figures of one seed, by way of hiding."""
    found = {name: train(job, seed, epochs, options) for name, options in ways.items()}
    short = max(1, round(epochs * min(figures.backpropagated for figures in found.values())))
    shorter = train(job, seed, short, ways[PLAIN])
    found[SHORTER] = Figures(shorter.score, short / epochs, 0.0, shorter.seconds)
    return found


def mean_and_spread(values: Sequence[float], form: str) -> str:
    """The mean, and the standard deviation behind it."""
    return f"{form.format(np.mean(values))} ± {form.lstrip().format(np.std(values, ddof=1)).lstrip('+')}"


def table(job: Job, seeds: Sequence[Mapping[str, Figures]]) -> str:
    """The figures as Markdown."""
    name, decimals = job.score[0], job.decimals
    header = ["", name, "difference to without hiding", "backpropagated", "forward-only", "time"]
    rows = []
    for way in seeds[0]:
        scores = [seed[way].score for seed in seeds]
        differences = [seed[way].score - seed[PLAIN].score for seed in seeds]
        ratios = [seed[way].seconds / seed[PLAIN].seconds for seed in seeds]
        rows.append(
            [
                way,
                mean_and_spread(scores, f"{{:.{decimals}f}}"),
                "" if way == PLAIN else mean_and_spread(differences, f"{{:+.{decimals}f}}"),
                f"{np.mean([seed[way].backpropagated for seed in seeds]):.1%}",
                f"{np.mean([seed[way].forward_only for seed in seeds]):.1%}",
                "1" if way == PLAIN else mean_and_spread(ratios, "{:.2f}"),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def main() -> None:
    """Read the arguments, measure, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=tuple(EPOCHS))
    parser.add_argument("--seeds", type=int, default=3, help="At least two.")
    parser.add_argument("--quick", action="store_true", help="A smoke test.")
    options = parser.parse_args()
    seeds = 2 if options.quick else options.seeds
    if seeds < 2:
        parser.error("A standard deviation needs at least two seeds.")
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for task in options.tasks:
        job = make_job(task, QUICK_SAMPLES if options.quick else SAMPLES[task])
        epochs = QUICK_EPOCHS if options.quick else EPOCHS[task]
        found = []
        for seed in range(seeds):
            found.append(one_seed(job, WAYS[task], seed, epochs))
            print(f"{task}, seed {seed}: {found[-1]}", file=sys.stderr, flush=True)
        print(f"{task}, {epochs} epochs, {seeds} seeds\n\n{table(job, found)}\n", flush=True)


if __name__ == "__main__":
    main()
