"""Fine-tune a language model on instructions with TRL's SFTTrainer and LoRA, and skip what it already knows.

Without arguments it teaches a tiny Llama to say what the functions of Python's standard library do: the question is a
name, the answer the first line of its documentation, and only the answer counts in the loss. The Llama starts from
random weights and reads the documentation for a few seconds, as a pretrained model has; then adapters of PEFT are
trained alone, with and without hiding, and the two are compared. Nothing is downloaded; it takes about two minutes on
two cores.

    python examples/sft_lora.py
    python examples/sft_lora.py --dataset_name trl-lib/Capybara --model_name_or_path Qwen/Qwen2.5-0.5B --lora_r 32
    python examples/sft_lora.py --train_file pairs.jsonl --model_name_or_path Qwen/Qwen2.5-0.5B --packing true
    python examples/sft_lora.py options.json

The data have the columns that TRL takes: `prompt` and `completion`, or `messages`, or `text`. TRL and PEFT are not
among what this library needs: `pip install "hf-kakurenbo[examples]"`. Several processes: `accelerate launch
--config_file FILE examples/sft_lora.py ...`, where FILE is one of `accelerate_configs/`: `deepspeed_zero2.yaml` or
`deepspeed_zero3.yaml` for large models, `multi_gpu.yaml`, or `two_cpu_processes.yaml` for two on the CPU.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# TRL would tell the Hugging Face Hub that it is used. Read when the next lines are imported.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
from _arguments import ModelArguments as CommonModelArguments
from _common import cut, run_script, use_one_thread
from _table import Score
from _text import TextDataArguments, load_texts, tiny_llama, train_byte_level_tokenizer
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    set_seed,
)

from hf_kakurenbo import HidingArguments, KakurenboMixin

try:
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer
except ImportError as error:
    raise SystemExit(
        f"sft_lora.py: error: {error}. This example needs TRL and PEFT: `pip install 'trl>=1.16' peft`, or "
        '`pip install "hf-kakurenbo[examples]"`.'
    ) from error

LIBRARY_DEFAULTS = {
    "max_length": 64,
    "max_train_samples": 300,
    "max_eval_samples": 200,
    "lora_r": 64,
    "lora_alpha": 64,
    "output_dir": "outputs/sft",
    "num_train_epochs": 25,
    "per_device_train_batch_size": 8,
    "per_device_eval_batch_size": 64,
    "learning_rate": 3e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    # So small a model is never as sure as a large one is of what it has memorised.
    "accuracy_threshold": 0.8,
    "confidence_threshold": 0.5,
    # TRL's own defaults are for large models on a GPU.
    "bf16": False,
    "gradient_checkpointing": False,
}

TOKEN_ACCURACY = Score("token accuracy", "eval_mean_token_accuracy")

MODULES = (
    "argparse",
    "ast",
    "builtins",
    "calendar",
    "collections",
    "contextlib",
    "csv",
    "datetime",
    "decimal",
    "fractions",
    "functools",
    "gzip",
    "inspect",
    "io",
    "itertools",
    "json",
    "logging",
    "math",
    "os",
    "os.path",
    "pathlib",
    "pickle",
    "random",
    "re",
    "shutil",
    "statistics",
    "string",
    "tempfile",
    "textwrap",
    "threading",
    "time",
    "zipfile",
)


# Tokens of what the tiny Llama reads at once.
_BLOCK = 64


@dataclass
class KakurenboSFTConfig(HidingArguments, SFTConfig):
    """TRL's training arguments, and the options of hiding."""


class KakurenboSFTTrainer(KakurenboMixin, SFTTrainer):
    """TRL's trainer that skips what the model already knows."""


@dataclass
class ModelArguments(CommonModelArguments):
    """Which model to train, and how large its adapters are."""

    reading_steps: int = field(default=300, metadata={"help": "So many steps the tiny Llama reads before; at least 1."})
    lora_r: int = field(default=16, metadata={"help": "The rank of the adapters; 0 trains all of the model."})
    lora_alpha: int = field(default=32, metadata={"help": "What the adapters add is scaled by this over their rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the adapters, in [0, 1)."})
    lora_target_modules: str = field(
        default="all-linear", metadata={"help": "Which layers get adapters: a regular expression, or 'all-linear'."}
    )

    def adapters(self) -> LoraConfig | None:
        """The configuration of the adapters, or None if all of the model is trained."""
        if self.lora_r == 0:
            return None
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.lora_r,
            lora_alpha=self.lora_alpha,
            lora_dropout=self.lora_dropout,
            target_modules=self.lora_target_modules,
        )


# ---- The built-in job ----


def library_questions() -> Dataset:
    """What the functions and classes of Python's standard library do: the columns `prompt` and `completion`."""
    lines = {name: text.splitlines()[0] for name, text in documented(methods=True)}
    return Dataset.from_dict(
        {
            "prompt": [f"What does {name} do?" for name in lines],
            "completion": [f" {line}" for line in lines.values()],
        }
    )


def documented(methods: bool) -> Iterator[tuple[str, str]]:
    """The public functions, classes and, if asked, methods of `MODULES`, each with its documentation."""
    for module in MODULES:
        for name, thing in _public(importlib.import_module(module)):
            yield from _documentation(f"{module}.{name}", thing)
            if methods and inspect.isclass(thing):
                for method_name, method in _public(thing):
                    yield from _documentation(f"{module}.{name}.{method_name}", method)


def _public(owner: Any) -> list[tuple[str, Any]]:
    return [item for item in sorted(vars(owner).items()) if not item[0].startswith("_")]


def _documentation(name: str, thing: Any) -> Iterator[tuple[str, str]]:
    text = inspect.getdoc(thing) if inspect.isroutine(thing) or inspect.isclass(thing) else None
    if text and text.strip():
        yield name, text.strip()


def read_texts(texts: Sequence[str], steps: int) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A tiny Llama that has read texts for so many steps, and its tokenizer."""
    tokenizer = train_byte_level_tokenizer(texts, 1024, vocab_size=1000)
    model = tiny_llama(tokenizer)
    tokens = [token for ids in tokenizer(texts)["input_ids"] for token in [*ids, tokenizer.eos_token_id]]
    blocks = torch.tensor(tokens[: len(tokens) // _BLOCK * _BLOCK]).view(-1, _BLOCK)
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for _ in range(steps):
        batch = blocks[torch.randint(len(blocks), (16,))]
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model, tokenizer


def save_tiny_llama(folder: Path, steps: int, seed: int) -> None:
    """Write the Llama that read the documentation, and its tokenizer, where a pretrained model would be."""
    set_seed(seed)
    model, tokenizer = read_texts(sorted({text for _, text in documented(methods=False)}), steps)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def trainer_maker(
    model_args: ModelArguments, data_args: TextDataArguments, args: KakurenboSFTConfig
) -> Callable[[KakurenboSFTConfig], Trainer]:
    """From training arguments to a trainer with a new model."""
    # TRL counts the right tokens itself, as it goes.
    args.prediction_loss_only = True
    data = cut(load_texts(data_args, library_questions, args.seed), data_args, args.seed)
    name = model_args.model_name_or_path
    if name is None:
        use_one_thread()
        name = str(Path(args.output_dir) / "before")
        if args.local_process_index == 0:
            save_tiny_llama(Path(name), model_args.reading_steps, args.seed)
    tokenizer = AutoTokenizer.from_pretrained(name)

    def make_trainer(args: KakurenboSFTConfig) -> Trainer:
        return KakurenboSFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(name),
            args=args,
            train_dataset=data["train"],
            eval_dataset=data["validation"],
            processing_class=tokenizer,
            peft_config=model_args.adapters(),
        )

    return make_trainer


def main() -> None:
    """Read the arguments, load the data, train."""
    classes = (ModelArguments, TextDataArguments, KakurenboSFTConfig)
    run_script(classes, ("dataset_name", "train_file"), LIBRARY_DEFAULTS, trainer_maker, TOKEN_ACCURACY)


if __name__ == "__main__":
    main()
