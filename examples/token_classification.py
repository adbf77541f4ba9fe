"""Train a token classifier with Hugging Face's Trainer, and skip the samples that it already knows.

Without arguments it learns to highlight Python: whether a token of a line is a keyword, a function that is defined or
called, an attribute, a string ..., on lines of the standard library. A tiny BERT from random weights, with a tokenizer
trained on the spot, with and without hiding, and compares the two. Nothing is downloaded; it takes about a minute on
two cores.

    python examples/token_classification.py
    python examples/token_classification.py --dataset_name conll2003 --label_column_name ner_tags \
        --model_name_or_path distilbert-base-cased
    python examples/token_classification.py --train_file train.json --validation_file validation.json \
        --model_name_or_path distilbert-base-cased
    python examples/token_classification.py options.json

Several processes: `accelerate launch --num_processes 4 examples/token_classification.py ...` on as many GPUs, and
`accelerate_configs/two_cpu_processes.yaml` for two on the CPU.
"""

from __future__ import annotations

import builtins
import keyword
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from _arguments import ModelArguments
from _common import cut, label_names, run_script
from _table import Score
from _text import TextDataArguments, encoder_tokenizer, library_files, load_texts, make_encoder
from datasets import Dataset
from sklearn.metrics import f1_score
from transformers import (
    AutoModelForTokenClassification,
    DataCollatorForTokenClassification,
    EvalPrediction,
    PreTrainedTokenizerBase,
    Trainer,
)

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer
from hf_kakurenbo.compare.tasks.toys import evenly

HIGHLIGHTING_DEFAULTS = {
    "max_seq_length": 64,
    "output_dir": "outputs/python_highlighting",
    "num_train_epochs": 12,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 128,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.05,
}

MACRO_F1 = Score("macro F1", "eval_f1")

IGNORED = -100
"""The label of what no loss is taken of."""

BUILTINS = frozenset(dir(builtins))
LINES = 3000
WORDS_PER_LINE = range(6, 31)
EVERY_FILE = 6
"""One file of the standard library in so many is read."""


@dataclass
class DataTrainingArguments(TextDataArguments):
    """Which texts to train on."""

    text_column_name: str = field(default="tokens", metadata={"help": "The column with the words of each text."})
    label_column_name: str = field(default="tags", metadata={"help": "The column with the tags of these words."})
    max_seq_length: int = field(default=128, metadata={"help": "Longer texts are cut to so many tokens."})
    label_all_tokens: bool = field(
        default=False, metadata={"help": "Every piece of a word has its tag, not the first piece alone."}
    )


def highlighted_lines() -> Dataset:
    """Lines of Python's standard library: the words of each, and what each word is."""
    lines = [line for file in library_files()[::EVERY_FILE] for line in _lines(file) if len(line) in WORDS_PER_LINE]
    lines = evenly(lines, LINES)
    words = [[token.string for token in line] for line in lines]
    return Dataset.from_dict({"tokens": words, "tags": [_kinds(line) for line in lines]})


def _lines(file: Path) -> Iterator[list[tokenize.TokenInfo]]:
    """The logical lines of a file, without those that hold a text of several lines."""
    white = (tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)
    line: list[tokenize.TokenInfo] = []
    with file.open("rb") as source:
        for token in tokenize.tokenize(source.readline):
            if token.type == tokenize.NEWLINE:
                if not any("\n" in each.string for each in line):
                    yield line
                line = []
            elif token.type not in white:
                line.append(token)


def _kinds(line: list[tokenize.TokenInfo]) -> list[str]:
    words = ["", *(token.string for token in line), ""]
    return [_kind(token, words[place], words[place + 2]) for place, token in enumerate(line)]


def _kind(token: tokenize.TokenInfo, before: str, after: str) -> str:
    if token.type != tokenize.NAME:
        name = tokenize.tok_name[token.type].lower()
        # Since Python 3.12 an f-string comes in pieces.
        return "string" if name.startswith("fstring") else name
    if keyword.iskeyword(token.string):
        return "keyword"
    if before in ("def", "class"):
        return {"def": "function", "class": "class"}[before]
    if before == ".":
        return "method" if after == "(" else "attribute"
    if token.string in BUILTINS:
        return "builtin"
    return "call" if after == "(" else "name"


def tag_names(dataset: Dataset, column: str) -> list[str]:
    """The names of the tags: those of its `ClassLabel`, or those that occur, in order.

    Raises:
        ValueError: the column holds no lists.
    """
    tag = getattr(dataset.features[column], "feature", None)
    if tag is None:
        raise ValueError(
            f"--label_column_name: the column {column!r} holds {dataset.features[column]}; a list of tags was expected "
            "in each row, one for each word."
        )
    return getattr(tag, "names", None) or sorted({str(tag) for tags in dataset[column] for tag in tags})


def align(tags: list[int], words: list[int | None], all_pieces: bool) -> list[int]:
    """The labels of the pieces into which a tokenizer cut some words.

    Args:
        tags: of the words.
        words: for each piece the place of its word, None for what the tokenizer has added.
        all_pieces: whether a piece that is not the first of its word has a label too.

    Returns:
        A label for each piece, `IGNORED` where there is none.
    """
    before = [None, *words]
    return [
        IGNORED if word is None or (word == previous and not all_pieces) else tags[word]
        for word, previous in zip(words, before, strict=False)
    ]


def tokenize_and_align(
    batch: dict[str, list[Any]], tokenizer: PreTrainedTokenizerBase, names: list[str], data_args: DataTrainingArguments
) -> dict[str, list[Any]]:
    """Tokens and their labels."""
    encoded = tokenizer(
        batch[data_args.text_column_name],
        is_split_into_words=True,
        truncation=True,
        max_length=min(data_args.max_seq_length, tokenizer.model_max_length),
    )
    numbers = {name: number for number, name in enumerate(names)}
    labels = []
    for row, tags in enumerate(batch[data_args.label_column_name]):
        tags = [tag if isinstance(tag, int) else numbers[tag] for tag in tags]
        labels.append(align(tags, encoded.word_ids(row), data_args.label_all_tokens))
    return {**encoded, "labels": labels}


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy, and the mean over the tags of their F1, of the tokens that have a label."""
    labelled = prediction.label_ids != IGNORED
    predicted = np.argmax(prediction.predictions, axis=2)[labelled]
    labels = prediction.label_ids[labelled]
    return {
        "accuracy": float((predicted == labels).mean()),
        "f1": float(f1_score(labels, predicted, average="macro", zero_division=0)),
    }


def trainer_maker(
    model_args: ModelArguments, data_args: DataTrainingArguments, args: KakurenboConfig
) -> Callable[[KakurenboConfig], Trainer]:
    """From training arguments to a trainer with a new model."""
    name, text, label = model_args.model_name_or_path, data_args.text_column_name, data_args.label_column_name
    data = load_texts(data_args, highlighted_lines, args.seed, "text_column_name", "label_column_name")
    names = tag_names(data["train"], label)
    data = cut(data, data_args, args.seed)
    texts = (" ".join(words) for words in data["train"][text])
    tokenizer = encoder_tokenizer(name, texts, data_args.max_seq_length)
    data = data.map(
        tokenize_and_align,
        batched=True,
        remove_columns=data["train"].column_names,
        fn_kwargs={"tokenizer": tokenizer, "names": names, "data_args": data_args},
    )

    def make_trainer(args: KakurenboConfig) -> Trainer:
        return KakurenboTrainer(
            model=make_encoder(
                AutoModelForTokenClassification, name, tokenizer, num_labels=len(names), **label_names(names)
            ),
            args=args,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            processing_class=tokenizer,
            data_collator=DataCollatorForTokenClassification(tokenizer),
            compute_metrics=compute_metrics,
        )

    return make_trainer


def main() -> None:
    """Read the arguments, load the data, train."""
    classes = (ModelArguments, DataTrainingArguments, KakurenboConfig)
    run_script(classes, ("dataset_name", "train_file"), HIGHLIGHTING_DEFAULTS, trainer_maker, MACRO_F1)


if __name__ == "__main__":
    main()
