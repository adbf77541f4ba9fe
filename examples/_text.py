"""What the examples on text share: files of texts, Python's own documentation and sources, tokenizers made of them."""

from __future__ import annotations

import ast
import pydoc_data.topics
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from _arguments import CommonDataArguments
from _common import require_columns, use_one_thread, with_validation
from datasets import Dataset, DatasetDict, load_dataset
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.processors import TemplateProcessing
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

_FORMATS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".txt": "text"}

# Some distributions leave them out, or they hold tables instead of a program.
_LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages", "pydoc_data", "encodings"}


@dataclass
class TextDataArguments(CommonDataArguments):
    """Which texts to train on, whatever the task."""

    train_file: str | None = field(default=None, metadata={"help": "A .csv, .json, .jsonl or .txt file to train on."})
    validation_file: str | None = field(default=None, metadata={"help": "The same for validation."})


def load_texts(data_args: TextDataArguments, builtin: Callable[[], Dataset], seed: int, *columns: str) -> DatasetDict:
    """The train and the validation split: of a dataset, of files, or of the data that a script brings along.

    Args:
        data_args: what the user named.
        builtin: makes the script's own data.
        seed: of the split, where the data has none.
        columns: the arguments that name columns, which must be there.

    Raises:
        ValueError: a file is of another kind than those that are read, or a column or the train split is missing.
    """
    if data_args.dataset_name is not None:
        data = load_dataset(data_args.dataset_name, data_args.dataset_config_name)
    elif data_args.train_file is not None:
        files = {"train": data_args.train_file, "validation": data_args.validation_file}
        files = {split: file for split, file in files.items() if file is not None}
        data = load_dataset(_format_of(data_args.train_file), data_files=files)
    else:
        data = DatasetDict(train=builtin())
    data = with_validation(data, data_args.train_val_split, seed)
    require_columns(data, **{column: getattr(data_args, column) for column in columns})
    return data


def _format_of(file: str) -> str:
    suffix = Path(file).suffix
    if suffix not in _FORMATS:
        raise ValueError(f"{file!r} is of none of the kinds that are read: {', '.join(_FORMATS)}.")
    return _FORMATS[suffix]


# ---- Python's documentation and sources ----


class Function(NamedTuple):
    """A documented function of Python's standard library.

    Attributes:
        name: as in `logging.config.fileConfig`; a method's with its class.
        signature: the line that defines it, as in `def fileConfig(fname, defaults=None)`.
        docstring: its documentation, without indentation.
    """

    name: str
    signature: str
    docstring: str


def library_files(package: str = "") -> list[Path]:
    """The sources of Python's standard library, or of one package of it, in the order of their names.

    Raises:
        FileNotFoundError: this Python keeps none.
    """
    root = Path(sysconfig.get_path("stdlib"))
    files = [file for file in sorted((root / package).rglob("*.py")) if not _LEFT_OUT & {*file.relative_to(root).parts}]
    if not files:
        raise FileNotFoundError(
            f"This Python keeps no sources of its standard library in {root / package}: name data of your own with "
            "--dataset_name or --train_file."
        )
    return files


def documented_functions() -> list[Function]:
    """The functions and methods of the standard library that have a docstring."""
    root = Path(sysconfig.get_path("stdlib"))
    functions: list[Function] = []
    for file in library_files():
        module = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        functions += _functions_in(ast.parse(file.read_text(encoding="utf-8")), module)
    return functions


def _functions_in(node: ast.AST, path: str) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield from _functions_in(child, f"{path}.{child.name}")
        elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) and ast.get_docstring(child):
            signature = f"def {child.name}({ast.unparse(child.args)})"
            yield Function(f"{path}.{child.name}", signature, ast.get_docstring(child))


def documentation_topics() -> dict[str, str]:
    """The chapters that Python's `help("NAME")` shows, by name."""
    return dict(pydoc_data.topics.topics)


# ---- Models and tokenizers ----


def make_encoder(
    auto_class: type, name: str | None, tokenizer: PreTrainedTokenizerBase, **options: Any
) -> PreTrainedModel:
    """A model with a new head: pretrained, or a tiny BERT from random weights.

    Args:
        auto_class: `AutoModelFor...` of the task.
        name: of a pretrained model, or None.
        tokenizer: of the model.
        options: of its configuration, such as `num_labels`.
    """
    if name is not None:
        config = AutoConfig.from_pretrained(name, **options)
        return auto_class.from_pretrained(name, config=config, ignore_mismatched_sizes=True)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=tokenizer.model_max_length,
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )
    return auto_class.from_config(config)


def tiny_llama(tokenizer: PreTrainedTokenizerBase, **options: Any) -> PreTrainedModel:
    """A Llama of two layers from random weights, for texts as long as its tokenizer makes them.

    Args:
        tokenizer: of the model.
        options: of its configuration.
    """
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=160,
            max_position_embeddings=tokenizer.model_max_length,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **options,
        )
    )


def encoder_tokenizer(name: str | None, texts: Iterable[str], max_length: int) -> PreTrainedTokenizerBase:
    """The tokenizer of a pretrained model, or one for the tiny BERT, which computes on one thread.

    Args:
        name: of a pretrained model, or None.
        texts: to train a tokenizer on.
        max_length: in tokens, of what the trained one makes.
    """
    if name is not None:
        return AutoTokenizer.from_pretrained(name)
    use_one_thread()
    return train_tokenizer(texts, max_length)


def train_tokenizer(
    texts: Iterable[str], max_length: int, vocab_size: int = 2000, mask_token: str | None = None
) -> PreTrainedTokenizerFast:
    """A small BPE tokenizer for models like BERT, the same whenever it is trained on the same texts.

    It puts a text between [CLS] and [SEP]; what is read back has lost the white space.

    Args:
        texts: to train on.
        max_length: of what it makes, in tokens.
        vocab_size: tokens at most.
        mask_token: a token more, for masked language models.
    """
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *([mask_token] if mask_token else [])]
    tokenizer = Tokenizer(BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = BpeTrainer(vocab_size=vocab_size, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
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
        mask_token=mask_token,
    )


def train_byte_level_tokenizer(
    texts: Iterable[str], max_length: int, vocab_size: int = 2000, add_eos: bool = False
) -> PreTrainedTokenizerFast:
    """A small BPE tokenizer for models that write: what it makes of any text is read back as it was.

    Its special tokens are `<pad>` and `</s>`, the end of a text.

    Args:
        texts: to train on.
        max_length: of what it makes, in tokens.
        vocab_size: tokens at most, 258 or more.
        add_eos: whether it ends each text with `</s>`, as T5's does; GPT-2's does not.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if add_eos:
        tokenizer.post_processor = TemplateProcessing(
            single="$A </s>", pair="$A $B </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, pad_token="<pad>", eos_token="</s>"
    )
