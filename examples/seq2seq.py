"""Train a model that turns texts into texts with `Seq2SeqTrainer`, and skip the samples that it already knows.

Without arguments it learns to write dates as ISO 8601 does: from "Tuesday, 3rd of March 1987" to "1987-03-03". A tiny
T5 from random weights, with a tokenizer trained on the spot, with and without hiding, and compares the two. Nothing is
downloaded; it takes about a minute on two cores.

    python examples/seq2seq.py
    python examples/seq2seq.py --dataset_name xsum --text_column document --summary_column summary \
        --model_name_or_path t5-small --source_prefix "summarize: "
    python examples/seq2seq.py --train_file train.csv --validation_file validation.csv --text_column english \
        --summary_column german --model_name_or_path t5-small --source_prefix "translate English to German: "
    python examples/seq2seq.py options.json

Several processes: `accelerate launch --num_processes 4 examples/seq2seq.py ...` on as many GPUs, and
`accelerate_configs/two_cpu_processes.yaml` for two on the CPU.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from _arguments import ModelArguments
from _common import cut, run_script, use_one_thread
from _table import EXACT_MATCH
from _text import TextDataArguments, load_texts, train_byte_level_tokenizer
from datasets import Dataset
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DataCollatorForSeq2Seq,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
)

from hf_kakurenbo import KakurenboMixin
from hf_kakurenbo.config import HidingArguments

DATES_DEFAULTS = {
    "max_source_length": 32,
    "max_target_length": 16,
    "output_dir": "outputs/dates",
    "num_train_epochs": 20,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 256,
    "learning_rate": 3e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "predict_with_generate": True,
}

IGNORED = -100
"""The label of what no loss is taken of."""

DATES = 4000
FIRST_DAY, LAST_DAY = datetime.date(1950, 1, 1), datetime.date(2049, 12, 31)
WAYS_TO_WRITE = (
    "{0:%A}, {1} of {0:%B} {0:%Y}",
    "{0:%a} {0.day} {0:%b} {0:%Y}",
    "{0:%B} {0.day}, {0:%Y}",
    "{0:%b} {1}, {0:%y}",
    "{0.day}/{0.month}/{0:%Y}",
    "{0:%d}.{0:%m}.{0:%y}",
)
"""A date, and its day as an ordinal."""


class KakurenboSeq2SeqTrainer(KakurenboMixin, Seq2SeqTrainer):
    """`Seq2SeqTrainer` that hides."""


@dataclass
class KakurenboSeq2SeqConfig(HidingArguments, Seq2SeqTrainingArguments):
    """`Seq2SeqTrainingArguments` with the options of hiding."""


@dataclass
class DataTrainingArguments(TextDataArguments):
    """Which texts to train on."""

    text_column: str = field(default="text", metadata={"help": "The column with the texts to read."})
    summary_column: str = field(
        default="summary", metadata={"help": "The column with the texts to write: summaries, translations."}
    )
    source_prefix: str = field(default="", metadata={"help": "Put before each text to read, as T5 wants it."})
    max_source_length: int = field(default=1024, metadata={"help": "Texts to read are cut to so many tokens."})
    max_target_length: int = field(default=128, metadata={"help": "Texts to write are cut to so many tokens."})


def dates() -> Dataset:
    """Dates written in several ways, and as ISO 8601 has them; the same at every call."""
    generator = random.Random(0)
    days = [generator.randint(FIRST_DAY.toordinal(), LAST_DAY.toordinal()) for _ in range(DATES)]
    found = [datetime.date.fromordinal(day) for day in days]
    texts = [generator.choice(WAYS_TO_WRITE).format(date, ordinal(date.day)) for date in found]
    return Dataset.from_dict({"text": texts, "summary": [date.isoformat() for date in found]})


def ordinal(number: int) -> str:
    """The number as in 1st, 2nd, 3rd."""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def make_tokenizer(name: str | None, texts: Iterable[str], max_length: int) -> PreTrainedTokenizerBase:
    """The tokenizer of a pretrained model, or one for the tiny T5, which computes on one thread."""
    if name is not None:
        return AutoTokenizer.from_pretrained(name)
    use_one_thread()
    return train_byte_level_tokenizer(texts, max_length, vocab_size=500, add_eos=True)


def make_model(name: str | None, tokenizer: PreTrainedTokenizerBase, max_target_length: int) -> PreTrainedModel:
    """The model: pretrained, or a tiny T5 from random weights, which writes so many tokens at most."""
    if name is not None:
        return AutoModelForSeq2SeqLM.from_pretrained(name)
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        dropout_rate=0.0,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )
    model = T5ForConditionalGeneration(config)
    model.generation_config.max_length = max_target_length
    return model


def exact_match(tokenizer: PreTrainedTokenizerBase) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` that gives the fraction of texts written rightly, white space aside."""

    def read(tokens: np.ndarray) -> list[list[str]]:
        tokens = np.where(tokens == IGNORED, tokenizer.pad_token_id, tokens)
        return [text.split() for text in tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        pairs = zip(read(prediction.predictions), read(prediction.label_ids), strict=True)
        return {"exact_match": float(np.mean([written == right for written, right in pairs]))}

    return compute_metrics


def trainer_maker(
    model_args: ModelArguments, data_args: DataTrainingArguments, args: KakurenboSeq2SeqConfig
) -> Callable[[KakurenboSeq2SeqConfig], Seq2SeqTrainer]:
    """From training arguments to a trainer with a new model."""
    name, text, summary = model_args.model_name_or_path, data_args.text_column, data_args.summary_column
    data = cut(load_texts(data_args, dates, args.seed, "text_column", "summary_column"), data_args, args.seed)
    texts = [*data["train"][text], *data["train"][summary]]
    tokenizer = make_tokenizer(name, texts, data_args.max_source_length)

    def tokenize(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        sources = [data_args.source_prefix + source for source in batch[text]]
        encoded = tokenizer(sources, truncation=True, max_length=data_args.max_source_length)
        targets = tokenizer(text_target=batch[summary], truncation=True, max_length=data_args.max_target_length)
        return {**encoded, "labels": targets["input_ids"]}

    data = data.map(tokenize, batched=True, remove_columns=data["train"].column_names)

    def make_trainer(args: KakurenboSeq2SeqConfig) -> Seq2SeqTrainer:
        model = make_model(name, tokenizer, data_args.max_target_length)
        return KakurenboSeq2SeqTrainer(
            model=model,
            args=args,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            processing_class=tokenizer,
            data_collator=DataCollatorForSeq2Seq(tokenizer, model=model),
            compute_metrics=exact_match(tokenizer) if args.predict_with_generate else None,
        )

    return make_trainer


def main() -> None:
    """Read the arguments, load the data, train."""
    classes = (ModelArguments, DataTrainingArguments, KakurenboSeq2SeqConfig)
    run_script(classes, ("dataset_name", "train_file"), DATES_DEFAULTS, trainer_maker, EXACT_MATCH)


if __name__ == "__main__":
    main()
