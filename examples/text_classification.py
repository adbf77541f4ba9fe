"""Train a text classifier with Hugging Face's Trainer, and skip the texts that it already knows.

Without arguments it learns to tell from which package of Python's standard library a few lines of source come: a tiny
BERT from random weights, with a tokenizer trained on the spot, with and without hiding, and compares the two. Nothing
is downloaded; it takes about two minutes on two cores.

    python examples/text_classification.py
    python examples/text_classification.py --dataset_name imdb --model_name_or_path distilbert-base-uncased
    python examples/text_classification.py --train_file train.csv --validation_file validation.csv \
        --text_column_name review --label_column_name stars --model_name_or_path distilbert-base-uncased
    python examples/text_classification.py options.json

Several processes: `accelerate launch --num_processes 4 examples/text_classification.py ...` on as many GPUs, and
`accelerate_configs/two_cpu_processes.yaml` for two on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from _arguments import ModelArguments
from _common import accuracy_metric, cut, label_names, run_script, with_class_labels
from _text import TextDataArguments, encoder_tokenizer, library_files, load_texts, make_encoder
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, DataCollatorWithPadding, Trainer

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer
from hf_kakurenbo.compare.tasks.toys import PACKAGES, evenly, source_pieces

SOURCE_DEFAULTS = {
    "max_seq_length": 96,
    "output_dir": "outputs/python_source",
    "num_train_epochs": 15,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 128,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.05,
}

LINES_PER_TEXT = 10
TEXTS_PER_PACKAGE = 300


@dataclass
class DataTrainingArguments(TextDataArguments):
    """Which texts to train on."""

    text_column_name: str = field(default="text", metadata={"help": "The column with the texts."})
    text_pair_column_name: str | None = field(
        default=None, metadata={"help": "The column with the second texts, where a sample is a pair."}
    )
    label_column_name: str = field(default="label", metadata={"help": "The column with the classes."})
    max_seq_length: int = field(default=128, metadata={"help": "Longer texts are cut to so many tokens."})


def python_sources() -> Dataset:
    """Pieces of a few lines of Python's standard library, each with the package that it comes from."""
    texts, labels = [], []
    for package in PACKAGES:
        chosen = evenly(source_pieces(library_files(package), LINES_PER_TEXT), TEXTS_PER_PACKAGE)
        texts += chosen
        labels += [package] * len(chosen)
    return Dataset.from_dict({"text": texts, "label": labels})


def trainer_maker(
    model_args: ModelArguments, data_args: DataTrainingArguments, args: KakurenboConfig
) -> Callable[[KakurenboConfig], Trainer]:
    """From training arguments to a trainer with a new model."""
    name, label = model_args.model_name_or_path, data_args.label_column_name
    columns = ("text_column_name", "text_pair_column_name", "label_column_name")
    data = load_texts(data_args, python_sources, args.seed, *columns)
    data = cut(with_class_labels(data, label), data_args, args.seed)
    compute_metrics = accuracy_metric()
    tokenizer = encoder_tokenizer(name, data["train"][data_args.text_column_name], data_args.max_seq_length)

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        pair = batch[data_args.text_pair_column_name] if data_args.text_pair_column_name else None
        encoded = tokenizer(
            batch[data_args.text_column_name], pair, truncation=True, max_length=data_args.max_seq_length
        )
        return {**encoded, "labels": batch[label]}

    classes = data["train"].features[label].names
    data = data.map(tokenize, batched=True, remove_columns=data["train"].column_names)

    def make_trainer(args: KakurenboConfig) -> Trainer:
        return KakurenboTrainer(
            model=make_encoder(
                AutoModelForSequenceClassification,
                name,
                tokenizer,
                num_labels=len(classes),
                **label_names(classes),
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
    run_script(classes, ("dataset_name", "train_file"), SOURCE_DEFAULTS, trainer_maker)


if __name__ == "__main__":
    main()
