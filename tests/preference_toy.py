"""TRL's preference trainers over a few texts, each with and without the mixin, and the loss of one sample by TRL."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

import datasets
import pytest
import torch
import transformers

from trl_toy import QUIET, llama, text, tokenizer, with_hiding

trl = pytest.importorskip("trl", minversion="1.16")
peft = pytest.importorskip("peft")

NUM_SAMPLES = 14


def pairs(count=NUM_SAMPLES):
    return datasets.Dataset.from_dict(
        {
            "prompt": [text(place, 3 + place % 3) for place in range(count)],
            "chosen": [" " + text(100 + place, 2 + place % 4) for place in range(count)],
            "rejected": [" " + text(200 + place, 1 + place % 5) for place in range(count)],
        }
    )


def completions(count=NUM_SAMPLES):
    return datasets.Dataset.from_dict(
        {
            "prompt": [text(place, 3 + place % 3) for place in range(count)],
            "completion": [" " + text(100 + place, 2 + place % 4) for place in range(count)],
            "label": [place % 3 > 0 for place in range(count)],
        }
    )


def ranked(count=NUM_SAMPLES):
    return datasets.Dataset.from_dict(
        {
            "chosen": [text(100 + place, 4 + place % 4) for place in range(count)],
            "rejected": [text(200 + place, 3 + place % 5) for place in range(count)],
            "margin": [place % 4 / 4 for place in range(count)],
        }
    )


def policy(seed=0):
    return llama(seed=seed, initializer_range=0.3)


def judge():
    return llama(transformers.LlamaForSequenceClassification, num_labels=1, initializer_range=0.3)


class Family(NamedTuple):
    """A kind of preference training."""

    trainer: type
    config: type
    dataset: Any
    model: Any = policy
    has_reference: bool = False


def family(name):
    if name in ("CPO", "ORPO"):
        home = importlib.import_module(f"trl.experimental.{name.lower()}")
        return Family(getattr(home, f"{name}Trainer"), getattr(home, f"{name}Config"), pairs)
    return {
        "DPO": Family(trl.DPOTrainer, trl.DPOConfig, pairs, has_reference=True),
        "KTO": Family(trl.KTOTrainer, trl.KTOConfig, completions, has_reference=True),
        "Reward": Family(trl.RewardTrainer, trl.RewardConfig, ranked, judge),
    }[name]


def lora(kind="CAUSAL_LM"):
    """An adapter that changes what the model says from the start: else policy and reference would be the same."""
    return peft.LoraConfig(task_type=kind, r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)


def make(name, output_dir, *, plain=False, adapter=False, evaluated=False, trainer_options=None, **options):
    """A trainer of a family; the reference of full training has other weights than the policy."""
    trainer, config, dataset, model, has_reference = family(name)
    if not plain:
        trainer, config = with_hiding(trainer, config)
    given = dict(trainer_options or {})
    if adapter:
        given["peft_config"] = lora("SEQ_CLS" if name == "Reward" else "CAUSAL_LM")
    elif has_reference:
        given["ref_model"] = policy(seed=1)
    if evaluated:
        given["eval_dataset"] = dataset(8)
    built = model()
    transformers.set_seed(3)  # of the adapter, and of the order
    made = trainer(
        model=built,
        args=config(output_dir=str(output_dir), **{**QUIET, **options}),
        train_dataset=dataset(),
        processing_class=tokenizer(),
        **given,
    )
    made.remove_callback(transformers.PrinterCallback)
    return made


def loss_alone(trainer, index):
    """What TRL says of a batch of one sample: its mean is over that one alone."""
    batch = trainer._prepare_inputs(trainer.data_collator([trainer.train_dataset[index]]))
    with torch.no_grad():
        return float(trl_class(trainer).compute_loss(trainer, trainer.model.eval(), batch))


def trl_class(trainer):
    return next(base for base in type(trainer).__mro__ if base.__module__.startswith("trl."))
