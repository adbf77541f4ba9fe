"""Scripts as Hugging Face's examples are written, with nothing changed but the class.

Each is run twice, with Trainer and with the class swapped. The first epoch, in which nothing is hidden, has the same
losses to the last digit; after that something is hidden.
"""

import json
import runpy
import sys

import pytest

import processes

PREAMBLE = """
import random
from dataclasses import dataclass, field
import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    GPT2Config,
    GPT2LMHeadModel,
    HfArgumentParser,
    PreTrainedTokenizerFast,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

chance = random.Random(0)

@dataclass
class DataTrainingArguments:
    max_seq_length: int = field(default=24)

def word_tokenizer(words):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: index for index, word in enumerate([*special, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = dict(pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=64, eos_token="[SEP]", **names)

SIZES = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
"""

TEXT_CLASSIFICATION = """
def main():
    parser = HfArgumentParser((DataTrainingArguments, TrainingArguments))
    data_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)
    good, bad, rest = ["fine", "great"], ["poor", "awful"], ["the", "film", "was", "really", "quite"]
    labels = [chance.randrange(2) for _ in range(48)]
    texts = [" ".join(chance.sample(rest, 4) + [chance.choice((bad, good)[label])]) for label in labels]
    raw_datasets = Dataset.from_dict({"sentence": texts, "label": labels, "idx": list(range(48))})
    tokenizer = word_tokenizer({word for text in texts for word in text.split()})

    def preprocess_function(examples):
        return tokenizer(examples["sentence"], max_length=data_args.max_seq_length, truncation=True)

    train_dataset = raw_datasets.map(preprocess_function, batched=True)
    model = BertForSequenceClassification(BertConfig(vocab_size=len(tokenizer), num_labels=2, **SIZES))
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset,
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    train_result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", train_result.metrics)
    trainer.save_state()
"""

TOKEN_CLASSIFICATION = """
def main():
    parser = HfArgumentParser((DataTrainingArguments, TrainingArguments))
    data_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)
    names, rest = ["ada", "bob", "eve"], ["met", "saw", "and", "in", "town"]
    sentences = [[chance.choice(names + rest) for _ in range(chance.randint(4, 9))] for _ in range(48)]
    tags = [[int(word in names) for word in sentence] for sentence in sentences]
    raw_datasets = Dataset.from_dict({"tokens": sentences, "ner_tags": tags})
    tokenizer = word_tokenizer([*names, *rest])

    def tokenize_and_align_labels(examples):
        tokenized_inputs = tokenizer(examples["tokens"], truncation=True, is_split_into_words=True)
        tokenized_inputs["labels"] = [
            [-100 if word is None else tags[word] for word in tokenized_inputs.word_ids(index)]
            for index, tags in enumerate(examples["ner_tags"])
        ]
        return tokenized_inputs

    train_dataset = raw_datasets.map(tokenize_and_align_labels, batched=True)
    model = BertForTokenClassification(BertConfig(vocab_size=len(tokenizer), num_labels=2, **SIZES))
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset,
        processing_class=tokenizer,
        data_collator=DataCollatorForTokenClassification(tokenizer),
    )
    train_result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", train_result.metrics)
    trainer.save_state()
"""

LANGUAGE_MODELING = """
def main():
    parser = HfArgumentParser((DataTrainingArguments, TrainingArguments))
    data_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)
    verse = "one two three four five six seven eight nine".split()
    raw_datasets = Dataset.from_dict({"text": [" ".join(verse)] * 48})
    tokenizer = word_tokenizer(set(verse))
    tokenized_datasets = raw_datasets.map(
        lambda examples: tokenizer(examples["text"]), batched=True, remove_columns=["text"]
    )

    def group_texts(examples):
        concatenated = {name: sum(entries, []) for name, entries in examples.items()}
        length = len(concatenated["input_ids"]) // 8 * 8
        result = {name: [entry[i : i + 8] for i in range(0, length, 8)] for name, entry in concatenated.items()}
        result["labels"] = result["input_ids"].copy()
        return result

    train_dataset = tokenized_datasets.map(group_texts, batched=True)
    config = dict(n_embd=32, n_layer=1, n_head=2, n_positions=64, resid_pdrop=0.0, attn_pdrop=0.0, embd_pdrop=0.0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **config))
    trainer = Trainer(
        model=model,
        args=training_args,
        train_dataset=train_dataset,
        processing_class=tokenizer,
        data_collator=default_data_collator,
    )
    train_result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", train_result.metrics)
    trainer.save_state()
"""

SEGMENTATION = """
def main():
    parser = HfArgumentParser((DataTrainingArguments, TrainingArguments))
    data_args, training_args = parser.parse_args_into_dataclasses()
    set_seed(training_args.seed)
    corners = [np.array([[chance.randrange(2) for _ in range(2)] for _ in range(2)]) for _ in range(48)]
    masks = [np.kron(corner, np.ones((8, 8))) for corner in corners]
    raw_datasets = Dataset.from_dict({"mask": masks})

    def preprocess(examples):
        labels = torch.tensor(np.array(examples["mask"]), dtype=torch.int64)
        return {"pixel_values": labels.float().unsqueeze(1).repeat(1, 3, 1, 1), "labels": labels}

    train_dataset = raw_datasets.with_transform(preprocess)
    model = SegformerForSemanticSegmentation(SegformerConfig(
        num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[3, 3], strides=[2, 2],
        num_attention_heads=[1, 1], mlp_ratios=[2, 2], decoder_hidden_size=8, num_labels=2,
    ))
    trainer = Trainer(
        model=model, args=training_args, train_dataset=train_dataset, data_collator=default_data_collator
    )
    train_result = trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)
    trainer.save_model()
    trainer.save_metrics("train", train_result.metrics)
    trainer.save_state()
"""

CALL = """
if __name__ == "__main__":
    main()
"""
SWAPPED = "\nfrom hf_kakurenbo import KakurenboTrainer as Trainer\n"

SCRIPTS = {
    "text classification": (TEXT_CLASSIFICATION, []),
    "token classification": (TOKEN_CLASSIFICATION, []),
    "language modelling": (LANGUAGE_MODELING, []),
    "segmentation": (SEGMENTATION, ["--remove_unused_columns", "False"]),
}


OPTIONS = {
    "num_train_epochs": 12,
    "per_device_train_batch_size": 8,
    "learning_rate": 1e-2,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}


def run_script(file, arguments):
    """As `python file arguments`."""
    sys.argv = [file, *arguments]
    runpy.run_path(file, run_name="__main__")


def history(folder, script, flags):
    """What a script logged that was run as a user runs it."""
    folder.mkdir()
    (folder / "script.py").write_text(script, encoding="utf-8")
    flags = [*flags, "--output_dir", str(folder / "out")]
    for name, value in OPTIONS.items():
        flags += [f"--{name}", str(value)]
    processes.run(run_script, str(folder / "script.py"), flags)
    return json.loads((folder / "out" / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]


@pytest.mark.parametrize(("script", "flags"), SCRIPTS.values(), ids=SCRIPTS)
def test_a_script_runs_with_the_class_swapped(tmp_path, script, flags):
    plain = history(tmp_path / "plain", PREAMBLE + script + CALL, flags)
    swapped = history(tmp_path / "swapped", PREAMBLE + SWAPPED + script + CALL, flags)
    first_epoch = [entry for entry in plain if "loss" in entry and entry["epoch"] <= 1]
    assert len(first_epoch) >= 5
    assert [entry for entry in swapped if "loss" in entry][: len(first_epoch)] == first_epoch
    shares = [entry["kakurenbo/hidden_fraction"] for entry in swapped if "kakurenbo/hidden_fraction" in entry]
    assert len(shares) == 12
    assert shares[0] == 0
    assert max(shares) > 0
    assert swapped[-1]["step"] < plain[-1]["step"]
