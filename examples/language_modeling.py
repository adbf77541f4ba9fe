"""Train a language model with Hugging Face's Trainer, and skip the blocks of text that it already knows.

Without arguments it trains a tiny Llama (causal), or with `--objective masked` a tiny BERT, from random weights on the
chapters of Python's documentation, with a tokenizer trained on the spot, with and without hiding, and compares the two.
Nothing is downloaded; it takes about two minutes on two cores.

    python examples/language_modeling.py
    python examples/language_modeling.py --objective masked
    python examples/language_modeling.py --dataset_name wikitext --dataset_config_name wikitext-2-raw-v1 \
        --model_name_or_path gpt2 --block_size 512
    python examples/language_modeling.py --train_file book.txt --objective masked \
        --model_name_or_path distilbert-base-uncased
    python examples/language_modeling.py options.json

The texts are laid end to end and cut into blocks of one length; a block is a sample. A block is seldom right in
nine tokens of ten, so by default next to nothing is hidden: see `docs/tasks.md`. Several processes: `accelerate launch
--config_file FILE examples/language_modeling.py ...`, where FILE is one of `accelerate_configs/`: `fsdp2.yaml` for
models that do not fit on one GPU, `multi_gpu.yaml` for those that do, `two_cpu_processes.yaml` for two on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from _arguments import ModelArguments as CommonModelArguments
from _common import cut, run_script, use_one_thread
from _table import Score
from _text import (
    TextDataArguments,
    documentation_topics,
    load_texts,
    make_encoder,
    tiny_llama,
    train_byte_level_tokenizer,
    train_tokenizer,
)
from datasets import Dataset, DatasetDict
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    default_data_collator,
)

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer

DOCUMENTATION_DEFAULTS = {
    "block_size": 64,
    "output_dir": "outputs/language_model",
    "num_train_epochs": 12,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 64,
    "learning_rate": 3e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.05,
}

CAUSAL, MASKED = "causal", "masked"

VALIDATION_SEED = 0
"""Of the masks of the validation split: they are drawn once."""


def perplexity(metrics: Mapping[str, float]) -> float:
    """The exponential of the evaluation's loss; infinite where that is too large for a float."""
    try:
        return math.exp(metrics["eval_loss"])
    except OverflowError:
        return math.inf


PERPLEXITY = Score("perplexity", "eval_perplexity", percent=False, lower_is_better=True, compute=perplexity)


@dataclass
class ModelArguments(CommonModelArguments):
    """Which model to train, and what it learns."""

    objective: str = field(
        default=CAUSAL,
        metadata={"help": "'causal': tell the next token. 'masked': tell the tokens that are masked."},
    )

    def __post_init__(self) -> None:
        if self.objective not in (CAUSAL, MASKED):
            raise ValueError(f"--objective must be '{CAUSAL}' or '{MASKED}', got {self.objective!r}.")


@dataclass
class DataTrainingArguments(TextDataArguments):
    """Which texts to train on."""

    text_column_name: str = field(default="text", metadata={"help": "The column with the texts."})
    block_size: int = field(default=128, metadata={"help": "Tokens in a block, at least 2."})
    mlm_probability: float = field(
        default=0.15, metadata={"help": "The fraction of the tokens that are masked, if any are, in (0, 1)."}
    )

    def __post_init__(self) -> None:
        if self.block_size < 2:
            raise ValueError(f"--block_size must be at least 2, got {self.block_size}.")
        if not 0 < self.mlm_probability < 1:
            raise ValueError(f"--mlm_probability must be in (0, 1), got {self.mlm_probability}.")


def documentation() -> Dataset:
    """The chapters of Python's documentation."""
    return Dataset.from_dict({"text": list(documentation_topics().values())})


def make_tokenizer(
    model_args: ModelArguments, data_args: DataTrainingArguments, texts: list[str]
) -> PreTrainedTokenizerBase:
    """The tokenizer of the pretrained model, or one trained on the texts."""
    if model_args.model_name_or_path is not None:
        return AutoTokenizer.from_pretrained(model_args.model_name_or_path)
    use_one_thread()
    if model_args.objective == MASKED:
        return train_tokenizer(texts, data_args.block_size, mask_token="[MASK]")
    return train_byte_level_tokenizer(texts, data_args.block_size)


def make_model(model_args: ModelArguments, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """The model: pretrained, or a tiny one from random weights."""
    name = model_args.model_name_or_path
    if model_args.objective == MASKED:
        return make_encoder(AutoModelForMaskedLM, name, tokenizer)
    if name is not None:
        return AutoModelForCausalLM.from_pretrained(name)
    return tiny_llama(tokenizer, tie_word_embeddings=True)


def make_blocks(
    data: DatasetDict, tokenizer: PreTrainedTokenizerBase, column: str, block_size: int, causal: bool
) -> DatasetDict:
    """The tokens of all texts, end to end, in blocks of one length; the rest of a thousand texts is left out.

    Args:
        data: texts.
        tokenizer: makes tokens of them.
        column: with the texts.
        block_size: tokens in a block.
        causal: whether blocks get labels, which are their tokens.
    """

    def blocks(batch: dict[str, list[Any]]) -> dict[str, list[list[int]]]:
        # Longer than the model takes, before it is cut: no cause for a warning.
        encoded = tokenizer(batch[column], verbose=False)
        tokens = [token for text in encoded["input_ids"] for token in text]
        cut_tokens = [tokens[i : i + block_size] for i in range(0, len(tokens) - block_size + 1, block_size)]
        return {"input_ids": cut_tokens, **({"labels": cut_tokens} if causal else {})}

    return data.map(blocks, batched=True, remove_columns=data["train"].column_names)


class MaskingCollator:
    """Masks the blocks that have no labels yet, each time anew.

    Args:
        tokenizer: has the token for what is masked.
        probability: the fraction of the tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, probability: float) -> None:
        self.mask = DataCollatorForLanguageModeling(tokenizer, mlm_probability=probability)

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Tensor]:
        """The batch that the model takes."""
        return default_data_collator(examples) if "labels" in examples[0] else self.mask(examples)

    def mask_once(self, blocks: Dataset) -> Dataset:
        """The blocks with masks that stay, so that all evaluations ask for the same tokens."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(VALIDATION_SEED)
            masked = [self.mask([block]) for block in blocks]
        return Dataset.from_dict(
            {name: [block[name][0].tolist() for block in masked] for name in ("input_ids", "labels")}
        )


def trainer_maker(
    model_args: ModelArguments, data_args: DataTrainingArguments, args: KakurenboConfig
) -> Callable[[KakurenboConfig], Trainer]:
    """From training arguments to a trainer with a new model."""
    # Logits of every token of the validation split would fill the memory; the loss is all that is asked.
    args.prediction_loss_only = True
    data = load_texts(data_args, documentation, args.seed, "text_column_name")
    tokenizer = make_tokenizer(model_args, data_args, data["train"][data_args.text_column_name])
    causal = model_args.objective == CAUSAL
    if not causal and tokenizer.mask_token is None:
        raise ValueError(
            f"The tokenizer of {model_args.model_name_or_path!r} has no token for what is masked; train it with "
            f"--objective {CAUSAL}, or name a model that was made for masks, as BERT was."
        )
    data = make_blocks(data, tokenizer, data_args.text_column_name, data_args.block_size, causal)
    data = cut(data, data_args, args.seed)
    if len(data["train"]) == 0:
        raise ValueError(f"The texts do not fill one block of {data_args.block_size} tokens; see --block_size.")
    collator = default_data_collator if causal else MaskingCollator(tokenizer, data_args.mlm_probability)
    validation = data["validation"] if causal else collator.mask_once(data["validation"])

    def make_trainer(args: KakurenboConfig) -> Trainer:
        return KakurenboTrainer(
            model=make_model(model_args, tokenizer),
            args=args,
            train_dataset=data["train"],
            eval_dataset=validation,
            processing_class=tokenizer,
            data_collator=collator,
        )

    return make_trainer


def main() -> None:
    """Read the arguments, load the data, train."""
    classes = (ModelArguments, DataTrainingArguments, KakurenboConfig)
    run_script(classes, ("dataset_name", "train_file"), DOCUMENTATION_DEFAULTS, trainer_maker, PERPLEXITY)


if __name__ == "__main__":
    main()
