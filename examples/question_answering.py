"""Train extractive question answering with Hugging Face's Trainer, and skip the samples that it already knows.

Without arguments it answers questions on functions of Python's standard library, such as "What is the default of
newline?", with a piece of their signature. A tiny BERT from random weights, with a tokenizer trained on the spot, with
and without hiding, and compares the two. Nothing is downloaded; it takes about two minutes on two cores.

    python examples/question_answering.py
    python examples/question_answering.py --dataset_name squad --model_name_or_path distilbert-base-uncased \
        --max_seq_length 384
    python examples/question_answering.py options.json

Data of one's own are as SQuAD's: questions, contexts, and answers `{"text": [...], "answer_start": [...]}`. A context
is cut at `--max_seq_length`; a question whose answer is cut off is trained on as one without an answer.

Several processes: `accelerate launch --num_processes 4 examples/question_answering.py ...` on as many GPUs, and
`accelerate_configs/two_cpu_processes.yaml` for two on the CPU.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from _arguments import ModelArguments
from _common import cut, run_script
from _table import EXACT_MATCH
from _text import Function, TextDataArguments, documented_functions, encoder_tokenizer, load_texts, make_encoder
from datasets import Dataset
from transformers import (
    AutoModelForQuestionAnswering,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedTokenizerBase,
    Trainer,
)

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer
from hf_kakurenbo.compare.tasks.toys import evenly

SIGNATURES_DEFAULTS = {
    "max_seq_length": 96,
    "output_dir": "outputs/python_signatures",
    "num_train_epochs": 8,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 128,
    "learning_rate": 2e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.01,
}

QUESTIONS = 8000
LONGEST_CONTEXT = 160
"""In characters."""


@dataclass
class DataTrainingArguments(TextDataArguments):
    """Which questions to train on."""

    question_column_name: str = field(default="question", metadata={"help": "The column with the questions."})
    context_column_name: str = field(default="context", metadata={"help": "The column with the texts to look in."})
    answer_column_name: str = field(
        default="answers", metadata={"help": "The column with the answers, as SQuAD has them."}
    )
    max_seq_length: int = field(
        default=384, metadata={"help": "A question and its context are cut to so many tokens together."}
    )
    max_answer_length: int = field(default=30, metadata={"help": "An answer has so many tokens at most."})
    version_2_with_negative: bool = field(
        default=False, metadata={"help": "Some questions have no answer, as in the second version of SQuAD."}
    )


# ---- The questions of the job without arguments ----


def questions_on_signatures() -> Dataset:
    """Questions on the arguments of functions of the standard library, as SQuAD's."""
    rows = [row for function in documented_functions() for row in _questions(function)]
    return Dataset.from_list(evenly(rows, QUESTIONS))


def _questions(function: Function) -> Iterator[dict[str, Any]]:
    context = f"{function.signature}: {function.docstring.splitlines()[0]}"
    # The places that Python's parser gives count bytes.
    if len(context) > LONGEST_CONTEXT or not context.isascii():
        return
    arguments = ast.parse(f"{function.signature}: ...").body[0].args
    plain = arguments.posonlyargs + arguments.args
    pairs = [*zip(plain[len(plain) - len(arguments.defaults) :], arguments.defaults, strict=True)]
    pairs += [pair for pair in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if pair[1] is not None]
    for argument, default in pairs:
        start, end = default.col_offset, default.end_col_offset
        yield _question(f"What is the default of {argument.arg}?", context, start, end)
    for argument, following in pairwise(plain):
        start, end = following.col_offset, following.end_col_offset
        yield _question(f"Which argument comes after {argument.arg}?", context, start, end)


def _question(question: str, context: str, start: int, end: int) -> dict[str, Any]:
    answers = {"text": [context[start:end]], "answer_start": [start]}
    return {"question": question, "context": context, "answers": answers}


# ---- From texts to tokens and back ----


def tokenize_and_locate(
    batch: Mapping[str, list[Any]], tokenizer: PreTrainedTokenizerBase, data_args: DataTrainingArguments
) -> dict[str, list[Any]]:
    """Tokens of questions and contexts, the places of the answers in them, and where tokens are in the contexts."""
    encoded = tokenizer(
        batch[data_args.question_column_name],
        batch[data_args.context_column_name],
        truncation="only_second",
        max_length=min(data_args.max_seq_length, tokenizer.model_max_length),
        return_offsets_mapping=True,
    )
    offsets = [
        [place if part == 1 else None for place, part in zip(places, encoded.sequence_ids(row), strict=True)]
        for row, places in enumerate(encoded.pop("offset_mapping"))
    ]
    located = [locate(*pair) for pair in zip(batch[data_args.answer_column_name], offsets, strict=True)]
    return {
        **encoded,
        "start_positions": [start for start, _ in located],
        "end_positions": [end for _, end in located],
        "offsets": offsets,
    }


def locate(answers: Mapping[str, Sequence[Any]], offsets: Sequence[tuple[int, int] | None]) -> tuple[int, int]:
    """The first and the last token of the first answer.

    Args:
        answers: as SQuAD has them.
        offsets: for each token its first character in the context and the one after its last, None outside of it.

    Returns:
        Both 0, the place of [CLS], if there is no answer or it was cut off.
    """
    if not answers["answer_start"]:
        return 0, 0
    start = answers["answer_start"][0]
    end = start + len(answers["text"][0])
    inside = [token for token, place in enumerate(offsets) if place and place[0] < end and place[1] > start]
    if not inside or offsets[inside[-1]][1] < end:
        return 0, 0
    return inside[0], inside[-1]


def best_span(
    start_logits: np.ndarray,
    end_logits: np.ndarray,
    offsets: Sequence[Sequence[int] | None],
    longest: int,
    may_be_none: bool = False,
) -> tuple[int, int]:
    """The characters of the likeliest answer in the context: the first, and the one after the last.

    Args:
        start_logits: (T,), T at least the number of tokens.
        end_logits: (T,).
        offsets: as for `locate`.
        longest: tokens of an answer at most.
        may_be_none: whether there can be no answer, which [CLS] stands for.

    Returns:
        Both 0 if there is no answer.
    """
    inside = np.array([token for token, place in enumerate(offsets) if place is not None], dtype=int)
    if len(inside) == 0:
        return 0, 0
    scores = start_logits[inside][:, None] + end_logits[inside][None, :]
    length = inside[None, :] - inside[:, None]
    scores = np.where((length >= 0) & (length < longest), scores, -np.inf)
    if may_be_none and start_logits[0] + end_logits[0] > scores.max():
        return 0, 0
    start, end = np.unravel_index(np.argmax(scores), scores.shape)
    return offsets[inside[start]][0], offsets[inside[end]][1]


# ---- Figures ----


def exact_match(found: str, answer: str) -> float:
    """1 if the texts are the same but for white space, else 0."""
    return float(found.split() == answer.split())


def overlap(found: str, answer: str) -> float:
    """F1 of the words and signs of a text against those of the right one, in [0, 1]."""
    ours, theirs = (Counter(re.findall(r"\w+|[^\w\s]", text)) for text in (found, answer))
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total()) if common else float(ours == theirs)


def metrics_on(dataset: Dataset, data_args: DataTrainingArguments) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` for the answers to the questions of a dataset: the best over the answers that are right."""

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        figures = []
        for start, end, row in zip(*prediction.predictions, dataset, strict=True):
            first, last = best_span(
                start, end, row["offsets"], data_args.max_answer_length, data_args.version_2_with_negative
            )
            found = row[data_args.context_column_name][first:last]
            answers = row[data_args.answer_column_name]["text"] or [""]
            figures.append([max(figure(found, each) for each in answers) for figure in (exact_match, overlap)])
        match, f1 = np.mean(figures, axis=0)
        return {"exact_match": float(match), "f1": float(f1)}

    return compute_metrics


def trainer_maker(
    model_args: ModelArguments, data_args: DataTrainingArguments, args: KakurenboConfig
) -> Callable[[KakurenboConfig], Trainer]:
    """From training arguments to a trainer with a new model."""
    columns = ("question_column_name", "context_column_name", "answer_column_name")
    data = cut(load_texts(data_args, questions_on_signatures, args.seed, *columns), data_args, args.seed)
    texts = [text for column in columns[:2] for text in data["train"][getattr(data_args, column)]]
    name = model_args.model_name_or_path
    tokenizer = encoder_tokenizer(name, texts, data_args.max_seq_length)
    data = data.map(tokenize_and_locate, batched=True, fn_kwargs={"tokenizer": tokenizer, "data_args": data_args})

    def make_trainer(args: KakurenboConfig) -> Trainer:
        return KakurenboTrainer(
            model=make_encoder(AutoModelForQuestionAnswering, name, tokenizer),
            args=args,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=metrics_on(data["validation"], data_args),
        )

    return make_trainer


def main() -> None:
    """Read the arguments, load the data, train."""
    classes = (ModelArguments, DataTrainingArguments, KakurenboConfig)
    run_script(classes, ("dataset_name", "train_file"), SIGNATURES_DEFAULTS, trainer_maker, EXACT_MATCH)


if __name__ == "__main__":
    main()
