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

import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _common import (
    CommonDataArguments,
    accuracy_metric,
    at_most,
    errors_as_messages,
    hide_progress_bars,
    parse_arguments,
    require_columns,
    run,
    use_one_thread,
    with_class_labels,
    with_validation,
)
from datasets import Dataset, DatasetDict, load_dataset
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Trainer,
)

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer

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

# In every installation of Python, and large enough.
PACKAGES = ("asyncio", "email", "http", "importlib", "logging", "multiprocessing", "unittest", "urllib", "xml")
LINES_PER_TEXT = 10
TEXTS_PER_PACKAGE = 300


@dataclass
class ModelArguments:
    """Which model to train."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "A pretrained model, of the hub or in a folder; without it a tiny BERT, random weights."},
    )


@dataclass
class DataTrainingArguments(CommonDataArguments):
    """Which texts to train on."""

    train_file: str | None = field(default=None, metadata={"help": "A .csv, .json or .jsonl file to train on."})
    validation_file: str | None = field(default=None, metadata={"help": "The same for validation."})
    text_column_name: str = field(default="text", metadata={"help": "The column with the texts."})
    text_pair_column_name: str | None = field(
        default=None, metadata={"help": "The column with the second texts, where a sample is a pair."}
    )
    max_seq_length: int = field(default=128, metadata={"help": "Longer texts are cut to so many tokens."})


def load_texts(data_args: DataTrainingArguments, seed: int) -> DatasetDict:
    """The train and the validation split: of the user's data, or of Python's sources."""
    if data_args.dataset_name is not None:
        data = load_dataset(data_args.dataset_name, data_args.dataset_config_name)
    elif data_args.train_file is not None:
        files = {"train": data_args.train_file, "validation": data_args.validation_file}
        files = {split: file for split, file in files.items() if file is not None}
        data = load_dataset("csv" if data_args.train_file.endswith(".csv") else "json", data_files=files)
    else:
        data = DatasetDict(train=python_sources())
    data = with_validation(data, data_args.train_val_split, seed)
    require_columns(
        data,
        text_column_name=data_args.text_column_name,
        text_pair_column_name=data_args.text_pair_column_name,
        label_column_name=data_args.label_column_name,
    )
    data = with_class_labels(data, data_args.label_column_name)
    data["train"] = at_most(data["train"], data_args.max_train_samples, seed)
    data["validation"] = at_most(data["validation"], data_args.max_eval_samples, seed)
    return data


def python_sources() -> Dataset:
    """Pieces of a few lines of Python's standard library, each with the package that it comes from."""
    texts, labels = [], []
    for package in PACKAGES:
        pieces = list(_pieces(Path(sysconfig.get_path("stdlib")) / package))
        # Evenly from the whole package, so that no module of it is left out.
        chosen = pieces[:: max(len(pieces) // TEXTS_PER_PACKAGE, 1)][:TEXTS_PER_PACKAGE]
        texts += chosen
        labels += [package] * len(chosen)
    if not texts:
        raise FileNotFoundError(
            f"This Python keeps no sources of its standard library in {sysconfig.get_path('stdlib')}: name data of "
            "your own with --dataset_name or --train_file."
        )
    return Dataset.from_dict({"text": texts, "label": labels})


def _pieces(package: Path) -> Iterator[str]:
    for file in sorted(package.rglob("*.py")):
        # Some distributions leave the packages' own tests out.
        if not {"test", "tests"} & set(file.relative_to(package).parts):
            lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            for start in range(0, len(lines) - LINES_PER_TEXT + 1, LINES_PER_TEXT):
                yield "\n".join(lines[start : start + LINES_PER_TEXT])


def train_tokenizer(texts: list[str], max_length: int) -> PreTrainedTokenizerFast:
    """A small BPE tokenizer, the same whenever it is trained on the same texts."""
    tokenizer = Tokenizer(BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(
        texts, BpeTrainer(vocab_size=2000, special_tokens=special, show_progress=False), length=len(texts)
    )
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def make_model(name: str | None, classes: list[str], tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model: pretrained with a new head, or a tiny BERT from random weights."""
    names = {"id2label": dict(enumerate(classes)), "label2id": {name: index for index, name in enumerate(classes)}}
    if name is not None:
        config = AutoConfig.from_pretrained(name, num_labels=len(classes), **names)
        return AutoModelForSequenceClassification.from_pretrained(name, config=config, ignore_mismatched_sizes=True)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        num_labels=len(classes),
        **names,
    )
    return BertForSequenceClassification(config)


def main() -> None:
    """Read the arguments, load the data, train."""
    model_args, data_args, args = parse_arguments(
        (ModelArguments, DataTrainingArguments, KakurenboConfig), ("dataset_name", "train_file"), SOURCE_DEFAULTS
    )
    name, label = model_args.model_name_or_path, data_args.label_column_name
    hide_progress_bars(args)
    with errors_as_messages(), args.main_process_first(desc="loading the data"):
        data = load_texts(data_args, args.seed)
        compute_metrics = accuracy_metric()
        if name is None:
            tokenizer = train_tokenizer(data["train"][data_args.text_column_name], data_args.max_seq_length)
            use_one_thread()
        else:
            tokenizer = AutoTokenizer.from_pretrained(name)

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
            model=make_model(name, classes, tokenizer),
            args=args,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=compute_metrics,
        )

    run(make_trainer, args, data_args.compare)


if __name__ == "__main__":
    main()
