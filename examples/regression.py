"""Train a regression with Hugging Face's Trainer, and skip the samples that it already knows.

Without arguments it learns McCabe's complexity of a function, the number of ways through it, from its source: functions
of Python's standard library. A tiny BERT from random weights, with a tokenizer trained on the spot, with and without
hiding, and compares the two. Nothing is downloaded; it takes about a minute on two cores.

    python examples/regression.py
    python examples/regression.py --train_file train.csv --validation_file validation.csv \
        --text_column_name review --label_column_name stars --model_name_or_path distilbert-base-uncased
    python examples/regression.py options.json

The prediction of a number is not right or wrong: every candidate counts as known, and the loss alone says what is
hidden.

Several processes: `accelerate launch --num_processes 4 examples/regression.py ...` on as many GPUs, and
`accelerate_configs/two_cpu_processes.yaml` for two on the CPU.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _arguments import ModelArguments
from _common import cut, run_script
from _table import Score
from _text import TextDataArguments, encoder_tokenizer, library_files, load_texts, make_encoder
from datasets import Dataset, DatasetDict
from sklearn.metrics import mean_squared_error, r2_score
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, EvalPrediction, Trainer

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer
from hf_kakurenbo.compare.tasks.toys import evenly

COMPLEXITY_DEFAULTS = {
    "max_seq_length": 128,
    "output_dir": "outputs/python_complexity",
    "num_train_epochs": 10,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 128,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.05,
}

SQUARED_ERROR = Score("mean squared error", "eval_mse", percent=False, lower_is_better=True)

EVERY_FILE = 2
"""One file of the standard library in so many is read."""
FUNCTIONS = 3000
CHARACTERS = range(80, 400)
"""Of a function without its documentation and comments."""
WAYS = (
    *(ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While),
    *(ast.comprehension, ast.ExceptHandler, ast.Assert, ast.match_case),
)


@dataclass
class DataTrainingArguments(TextDataArguments):
    """Which texts to train on."""

    text_column_name: str = field(default="text", metadata={"help": "The column with the texts."})
    label_column_name: str = field(default="label", metadata={"help": "The column with the numbers."})
    max_seq_length: int = field(default=128, metadata={"help": "Longer texts are cut to so many tokens."})


def functions() -> Dataset:
    """Functions of Python's standard library, without documentation and comments, and their complexity."""
    found = [function for file in library_files()[::EVERY_FILE] for function in _functions_of(file)]
    found = evenly(found, FUNCTIONS)
    return Dataset.from_dict({"text": [text for text, _ in found], "label": [float(ways) for _, ways in found]})


def _functions_of(file: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            if ast.get_docstring(node):
                node.body = node.body[1:] or [ast.Pass()]
            text = ast.unparse(node)
            if len(text) in CHARACTERS:
                yield text, complexity(node)


def complexity(function: ast.AST) -> int:
    """McCabe's measure: one, and one more for each place where the way through the function forks."""
    forks = 1
    for node in ast.walk(function):
        forks += isinstance(node, WAYS)
        if isinstance(node, ast.BoolOp):
            forks += len(node.values) - 1
    return forks


def require_numbers(data: DatasetDict, column: str) -> None:
    """Check that a column holds numbers.

    Raises:
        ValueError: it does not.
    """
    kind = getattr(data["train"].features[column], "dtype", "")
    if not kind.startswith(("float", "int", "uint", "decimal")):
        raise ValueError(
            f"--label_column_name: the column {column!r} holds {data['train'].features[column]}; a number was expected "
            "in each row. For classes there is text_classification.py."
        )


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """The mean squared error, and R2: the fraction of the labels' variance that the model explains."""
    found, labels = prediction.predictions.squeeze(-1), prediction.label_ids
    return {"mse": float(mean_squared_error(labels, found)), "r2": float(r2_score(labels, found))}


def trainer_maker(
    model_args: ModelArguments, data_args: DataTrainingArguments, args: KakurenboConfig
) -> Callable[[KakurenboConfig], Trainer]:
    """From training arguments to a trainer with a new model."""
    name, text, label = model_args.model_name_or_path, data_args.text_column_name, data_args.label_column_name
    data = load_texts(data_args, functions, args.seed, "text_column_name", "label_column_name")
    require_numbers(data, label)
    data = cut(data, data_args, args.seed)
    tokenizer = encoder_tokenizer(name, data["train"][text], data_args.max_seq_length)

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        encoded = tokenizer(batch[text], truncation=True, max_length=data_args.max_seq_length)
        return {**encoded, "labels": [float(number) for number in batch[label]]}

    data = data.map(tokenize, batched=True, remove_columns=data["train"].column_names)

    def make_trainer(args: KakurenboConfig) -> Trainer:
        return KakurenboTrainer(
            model=make_encoder(
                AutoModelForSequenceClassification, name, tokenizer, num_labels=1, problem_type="regression"
            ),
            args=args,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=compute_metrics,
        )

    return make_trainer


def main() -> None:
    """Read the arguments, load the data, train."""
    classes = (ModelArguments, DataTrainingArguments, KakurenboConfig)
    run_script(classes, ("dataset_name", "train_file"), COMPLEXITY_DEFAULTS, trainer_maker, SQUARED_ERROR)


if __name__ == "__main__":
    main()
