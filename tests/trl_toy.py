"""A tiny language model, its tokenizer and TRL trainers over a few texts, each with and without the mixin."""

from dataclasses import dataclass
from functools import cache

import transformers

from hf_kakurenbo import HidingArguments, KakurenboMixin

WORDS = ["[PAD]", "[UNK]", "[EOS]", *"abcdefghijklmnopqrstuvwxyz"]

QUIET = {
    "num_train_epochs": 3,
    "per_device_train_batch_size": 6,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
}


def tokenizer():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace

    words = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="[EOS]", model_max_length=64
    )


def llama(cls=transformers.LlamaForCausalLM, *, seed=0, dropout=0.0, **options):
    transformers.set_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        attention_dropout=dropout,
        pad_token_id=0,
        eos_token_id=2,
        **options,
    )
    return cls(config)


def text(seed, count):
    """Some letters, always the same of a seed."""
    letters = WORDS[3:]
    return " ".join(letters[(seed * 7 + place * (1 + seed % 5)) % len(letters)] for place in range(count))


def with_hiding(trainer, config):
    """The trainer's class with the mixin, and that of its arguments with the options of hiding."""
    return type(f"Kakurenbo{trainer.__name__}", (KakurenboMixin, trainer), {}), _config_with_hiding(config)


@cache
def _config_with_hiding(config):
    # Checkpoints pickle the arguments, so their class has to be found by its name.
    made = type(f"Kakurenbo{config.__name__}", (HidingArguments, config), {"__module__": __name__})
    globals()[made.__name__] = dataclass(made)
    return globals()[made.__name__]
