"""What the example scripts share: data splits, the trainings with and without hiding."""

from __future__ import annotations

import atexit
import copy
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
import transformers
from _arguments import CommonDataArguments, parse_arguments
from _table import ACCURACY, Outcome, Pace, Score, format_table
from datasets import ClassLabel, Dataset, DatasetDict
from transformers import (
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from hf_kakurenbo import KakurenboConfig
from hf_kakurenbo.config import NO_HIDING

LAST = "last"
"""The value of `--resume_from_checkpoint` that means the newest checkpoint in `--output_dir`."""

HIDDEN_SHARE = "kakurenbo/hidden_fraction"


@contextmanager
def errors_as_messages() -> Iterator[None]:
    """End the program with the message alone if the data or the model that the user named cannot be read."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SystemExit(f"{Path(sys.argv[0]).name}: error: {error}") from error


def hide_progress_bars(args: TrainingArguments) -> None:
    """Show none of any library's progress bars where Trainer's own are off."""
    if args.disable_tqdm:
        datasets.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()


def use_one_thread() -> None:
    """Compute on one thread, unless the environment says otherwise.

    Networks as small as those of the built-in jobs gain next to nothing from a second thread, and wait long for it
    when other programs keep the cores busy.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


# ---- Data ----


def with_validation(data: DatasetDict, fraction: float, seed: int) -> DatasetDict:
    """The data as a train and a validation split, the latter split off if there is none.

    Raises:
        ValueError: there is no train split.
    """
    if "train" not in data:
        raise ValueError(f'The data has no "train" split; it has: {", ".join(data)}.')
    for name in ("validation", "test"):
        if name in data:
            return DatasetDict(train=data["train"], validation=data[name])
    split = data["train"].train_test_split(fraction, seed=seed)
    return DatasetDict(train=split["train"], validation=split["test"])


def require_columns(data: DatasetDict, **columns: str | None) -> None:
    """Check that the columns which some arguments name are there.

    Raises:
        ValueError: one is not; the message names the argument and the columns there are.
    """
    for argument, column in columns.items():
        if column is not None and column not in data["train"].column_names:
            raise ValueError(
                f"The data has no column {column!r}; it has: {', '.join(data['train'].column_names)}. Name the right "
                f"one with --{argument}."
            )


def with_class_labels(data: DatasetDict, column: str) -> DatasetDict:
    """The data with a label column of the type `ClassLabel`, its classes those of the train split."""
    if isinstance(data["train"].features[column], ClassLabel):
        return data
    classes = ClassLabel(names=[str(value) for value in sorted(data["train"].unique(column))])
    return data.map(lambda row: {column: classes.str2int(str(row[column]))}).cast_column(column, classes)


def label_names(classes: Sequence[str]) -> dict[str, dict[Any, Any]]:
    """The names of the classes as a configuration takes them."""
    return {"id2label": dict(enumerate(classes)), "label2id": {name: index for index, name in enumerate(classes)}}


def cut(data: DatasetDict, data_args: CommonDataArguments, seed: int) -> DatasetDict:
    """At most `--max_train_samples` and `--max_eval_samples` of the data."""
    return DatasetDict(
        train=_at_most(data["train"], data_args.max_train_samples, seed),
        validation=_at_most(data["validation"], data_args.max_eval_samples, seed),
    )


def _at_most(dataset: Dataset, count: int | None, seed: int) -> Dataset:
    """The dataset, or so many samples of it, drawn with the seed."""
    if count is None or count >= len(dataset):
        return dataset
    return dataset.shuffle(seed=seed).select(range(count))


def accuracy_metric() -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` that gives the accuracy, from the metric beside this file."""
    # In memory: the ranks of one machine would share, and lock, the file that it writes otherwise.
    metric = evaluate.load(str(Path(__file__).parent / "metrics" / "accuracy"), keep_in_memory=True)

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return metric.compute(predictions=np.argmax(prediction.predictions, axis=1), references=prediction.label_ids)

    return compute_metrics


# ---- Training ----


def run_script(
    classes: Sequence[type],
    data_flags: Sequence[str],
    builtin_defaults: dict[str, Any],
    trainer_maker: Callable[[Any, Any, Any], Callable[[Any], Trainer]],
    score: Score = ACCURACY,
) -> None:
    """All of a script but for its task: read the arguments, load the data, train.

    Args:
        classes: the dataclasses of the arguments: of the model, the data, the training.
        data_flags: the arguments that name data of the user's own.
        builtin_defaults: defaults of the job that runs when none of them is given.
        trainer_maker: loads the data that such arguments name, and returns what makes a trainer with a new model.
        score: by what trainings are compared.
    """
    model_args, data_args, args = parse_arguments(classes, data_flags, builtin_defaults)
    hide_progress_bars(args)
    with errors_as_messages(), args.main_process_first(desc="loading the data"):
        make_trainer = trainer_maker(model_args, data_args, args)
    run(make_trainer, args, data_args.compare, score)


def run(
    make_trainer: Callable[[KakurenboConfig], Trainer], args: KakurenboConfig, compare: bool, score: Score = ACCURACY
) -> None:
    """Train and evaluate, a second time without hiding if asked, and print the table.

    Args:
        make_trainer: makes a trainer with a new model; called once for each training, after the seed was set.
        args: the training arguments. The second training saves into a folder of its own in their output folder.
        compare: whether to train a second time.
        score: by what they are compared.
    """
    say(args, facts(args))
    if args.do_train:
        _train_and_compare(make_trainer, args, compare, score)
    else:
        _evaluate(_seeded(make_trainer, args), score)
    leave_process_group()


def leave_process_group() -> None:
    """End the job, if it is one of several processes; the last thing that a script calls."""
    if not torch.distributed.is_initialized():
        return
    if torch.distributed.get_backend() != "gloo":
        torch.distributed.destroy_process_group()
        return
    # With gloo a process that has done everything now and then aborts while it exits (PyTorch 2.14: "terminate called
    # without an active exception"), so it does without that.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def without_hiding(args: KakurenboConfig) -> KakurenboConfig:
    """The same training with nothing hidden, which saves into a folder of its own in the output folder."""
    plain = copy.copy(args)
    plain.hiding_policy = NO_HIDING
    plain.output_dir = str(Path(args.output_dir) / "without_hiding")
    return plain


def _train_and_compare(
    make_trainer: Callable[[KakurenboConfig], Trainer], args: KakurenboConfig, compare: bool, score: Score
) -> None:
    checkpoint = checkpoint_to_resume(args)
    outcomes = [train(make_trainer, args, checkpoint, score)]
    if compare and args.hiding_policy != NO_HIDING:
        outcomes.append(train(make_trainer, without_hiding(args), None, score))
    say(args, f"\n{format_table(outcomes, score)}")
    if checkpoint is not None:
        say(args, "The training with hiding was resumed: its wall time is of this session alone.")


def train(
    make_trainer: Callable[[KakurenboConfig], Trainer],
    args: KakurenboConfig,
    resume: str | None,
    score: Score = ACCURACY,
) -> Outcome:
    """Train, save the model and the metrics into the output folder, evaluate if asked.

    Args:
        make_trainer: makes a trainer with a new model; called after the seed was set.
        args: the training arguments.
        resume: a checkpoint to continue from.
        score: of the evaluation.
    """
    title = "without hiding" if args.hiding_policy == NO_HIDING else "with hiding"
    say(args, f"\nTraining {title}" + (f", from {resume}" if resume else ""))
    trainer, pace = _seeded(make_trainer, args), Pace()
    trainer.add_callback(pace)
    metrics = trainer.train(resume_from_checkpoint=resume).metrics
    trainer.save_model()
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()
    full = round(trainer.state.epoch * len(trainer.train_dataset))
    return Outcome(
        title=title,
        score=_evaluate(trainer, score).get(score.metric) if args.do_eval else None,
        backpropagated=metrics.get("kakurenbo/trained_samples", full),
        without_hiding=full,
        forward_only=metrics.get("kakurenbo/refreshed_samples", 0),
        seconds=metrics["train_runtime"],
        spread=pace.spread,
    )


def _evaluate(trainer: Trainer, score: Score) -> dict[str, float]:
    metrics = trainer.evaluate()
    if score.compute is not None:
        metrics[score.metric] = score.compute(metrics)
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)
    return metrics


def _seeded(make_trainer: Callable[[KakurenboConfig], Trainer], args: KakurenboConfig) -> Trainer:
    set_seed(args.seed)
    trainer = make_trainer(args)
    if args.disable_tqdm:
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(_EpochLines())
    return trainer


def checkpoint_to_resume(args: KakurenboConfig) -> str | None:
    """The folder that `--resume_from_checkpoint` means; a word about what is there and was not asked for."""
    newest = _newest_checkpoint(Path(args.output_dir))
    wanted = args.resume_from_checkpoint
    if wanted == LAST:
        if newest is None:
            say(args, f"{args.output_dir} holds no checkpoint yet: the training starts at its beginning.")
        return newest
    if wanted is None and newest is not None:
        say(args, f"The training starts anew. To continue from {newest}: --resume_from_checkpoint {LAST}")
    return wanted


def _newest_checkpoint(output_dir: Path) -> str | None:
    # Trainer writes its state last: a folder without it is of a job that was interrupted while it saved.
    complete = [state.parent for state in output_dir.glob("checkpoint-*/trainer_state.json")]
    return str(max(complete, key=lambda folder: int(folder.name.rpartition("-")[2]))) if complete else None


def facts(args: KakurenboConfig) -> str:
    """A line about the job: world size, F, batch size, seed, device."""
    batch = args.train_batch_size * args.world_size * args.gradient_accumulation_steps
    hiding = "nothing is hidden" if args.hiding_policy == NO_HIDING else f"F = {args.max_hidden_fraction:g}"
    return f"World size {args.world_size} | {hiding} | global batch {batch} | seed {args.seed} | {args.device}"


def say(args: TrainingArguments, text: str) -> None:
    """Print, in the main process alone."""
    if args.process_index == 0:
        print(text, flush=True)


class _EpochLines(TrainerCallback):
    """Prints a short line where `PrinterCallback` prints a dictionary longer than a terminal is wide."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        if "loss" not in logs or not state.is_world_process_zero:
            return
        line = f"epoch {state.epoch:6.2f} of {state.num_train_epochs}   loss {float(logs['loss']):7.4f}"
        shares = [entry[HIDDEN_SHARE] for entry in state.log_history if HIDDEN_SHARE in entry]
        print(f"{line}   hidden {shares[-1]:6.1%}" if shares else line, flush=True)
