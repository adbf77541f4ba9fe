"""One tiny model of Transformers and a few samples for each kind of task, and the figures of a sample as a person would
work them out.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    LlamaConfig,
    LlamaForCausalLM,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
)

from hf_kakurenbo import HidingArguments, KakurenboConfig, KakurenboMixin, KakurenboTrainer

VOCABULARY, COUNT = 24, 30

BERT = BertConfig(
    vocab_size=VOCABULARY,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=16,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    pad_token_id=0,
)


class KakurenboSeq2SeqTrainer(KakurenboMixin, Seq2SeqTrainer):
    pass


@dataclass
class KakurenboSeq2SeqConfig(HidingArguments, Seq2SeqTrainingArguments):
    pass


def bert(kind: type[nn.Module], **options: Any) -> nn.Module:
    return kind(BertConfig(**{**BERT.to_diff_dict(), **options}))


def llama() -> nn.Module:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            pad_token_id=0,
        )
    )


def t5() -> nn.Module:
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=VOCABULARY,
            d_model=16,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            dropout_rate=0.0,
            decoder_start_token_id=0,
        )
    )


def segformer() -> nn.Module:
    model = SegformerForSemanticSegmentation(
        SegformerConfig(
            num_encoder_blocks=2,
            depths=[1, 1],
            sr_ratios=[2, 1],
            hidden_sizes=[8, 16],
            patch_sizes=[3, 3],
            strides=[2, 2],
            num_attention_heads=[1, 1],
            mlp_ratios=[2, 2],
            decoder_hidden_size=8,
            classifier_dropout_prob=0.0,
            drop_path_rate=0.0,
            num_labels=3,
        )
    )
    model.decode_head.batch_norm = nn.Identity()  # a sample's figures must not depend on its batch
    return model


def sentences() -> list[list[int]]:
    """Each word is the one before and one more, so that a language model has something to learn."""
    chance = random.Random(0)
    starts = [chance.randrange(2, VOCABULARY - 9) for _ in range(COUNT)]
    return [list(range(start, start + chance.randint(5, 9))) for start in starts]


def texts(label: Callable[[list[int]], dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"input_ids": words, **label(words)} for words in sentences()]


def pictures() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 3, (COUNT, 4, 4), generator=generator)
    labels = labels.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    pixels = labels.unsqueeze(1).repeat(1, 3, 1, 1) + 0.1 * torch.randn(COUNT, 3, 16, 16, generator=generator)
    labels[:, 0] = 255
    return [{"pixel_values": image, "labels": mask} for image, mask in zip(pixels, labels, strict=True)]


def pad(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pads every list of a sample to the longest: labels with −100, the rest with 0."""
    batch: dict[str, torch.Tensor] = {}
    for name in samples[0]:
        columns = [torch.as_tensor(sample[name]) for sample in samples]
        fill = -100 if name == "labels" else 0
        if columns[0].ndim == 1:
            batch[name] = nn.utils.rnn.pad_sequence(columns, batch_first=True, padding_value=fill)
        else:
            batch[name] = torch.stack(columns)
    if "input_ids" in batch:
        batch["attention_mask"] = (batch["input_ids"] != 0).long()
    return batch


def over_questions(logits: torch.Tensor, labels: torch.Tensor, threshold: float) -> tuple[bool, float]:
    """Correct and confidence of one sample with many questions: logits (Q, C), labels (Q,)."""
    asked = (labels >= 0) & (labels < logits.shape[1])
    right = (logits.argmax(1) == labels)[asked].float().mean()
    return bool(right >= threshold), float(logits.softmax(1).amax(1)[asked].mean())


def of_tokens(outputs: Any, batch: dict[str, torch.Tensor], threshold: float) -> tuple[bool, float]:
    return over_questions(outputs.logits[0], batch["labels"][0], threshold)


def of_next_tokens(outputs: Any, batch: dict[str, torch.Tensor], threshold: float) -> tuple[bool, float]:
    return over_questions(outputs.logits[0, :-1], batch["labels"][0, 1:], threshold)


def of_pixels(outputs: Any, batch: dict[str, torch.Tensor], threshold: float) -> tuple[bool, float]:
    resized = nn.functional.interpolate(outputs.logits, size=batch["labels"].shape[-2:], mode="bilinear")
    return over_questions(resized[0].flatten(1).T, batch["labels"][0].flatten(), threshold)


def of_spans(outputs: Any, batch: dict[str, torch.Tensor], threshold: float) -> tuple[bool, float]:
    start, end = outputs.start_logits[0], outputs.end_logits[0]
    right = int(start.argmax()) == int(batch["start_positions"]) and int(end.argmax()) == int(batch["end_positions"])
    return right, float(start.softmax(0).max() * end.softmax(0).max())


def of_several_labels(outputs: Any, batch: dict[str, torch.Tensor], threshold: float) -> tuple[bool, float]:
    probabilities, labels = outputs.logits[0].sigmoid(), batch["labels"][0]
    return bool(((probabilities > 0.5) == (labels > 0.5)).all()), float(((probabilities - 0.5).abs() + 0.5).min())


def of_a_number(outputs: Any, batch: dict[str, torch.Tensor], threshold: float) -> tuple[bool, float]:
    return True, 1.0


@dataclass(frozen=True)
class Case:
    """A task: its model, its samples, the figures of a sample alone, the trainer that people use for it."""

    model: Callable[[], nn.Module]
    samples: Callable[[], list[dict[str, Any]]]
    figures: Callable[[Any, dict[str, torch.Tensor], float], tuple[bool, float]]
    base: type[Trainer] = Trainer
    trainer: type[Trainer] = KakurenboTrainer
    base_config: type[TrainingArguments] = TrainingArguments
    config: type[TrainingArguments] = KakurenboConfig


def _masked(words: list[int]) -> dict[str, Any]:
    # Some of the words asked for are left as they are, as in BERT.
    return {
        "input_ids": [1 if place % 3 == 1 else word for place, word in enumerate(words)],
        "labels": [word if place % 3 < 2 else -100 for place, word in enumerate(words)],
    }


def _question(words: list[int]) -> dict[str, Any]:
    # All of one length: the padding of a batch is among the places that the model chooses from.
    place = next(place for place, word in enumerate(words) if word % 5 == 0)
    return {"input_ids": words + [1] * (9 - len(words)), "start_positions": place, "end_positions": len(words) - 1}


CASES = {
    "several labels": Case(
        lambda: bert(BertForSequenceClassification, num_labels=3, problem_type="multi_label_classification"),
        lambda: texts(lambda words: {"labels": torch.tensor([float(len(words) > 6), float(words[0] > 8), 1.0])}),
        of_several_labels,
    ),
    "regression": Case(
        lambda: bert(BertForSequenceClassification, num_labels=1),
        lambda: texts(lambda words: {"labels": words[0] / VOCABULARY}),
        of_a_number,
    ),
    "token classification": Case(
        lambda: bert(BertForTokenClassification, num_labels=3),
        lambda: texts(lambda words: {"labels": [-100, *(word % 3 for word in words[1:])]}),
        of_tokens,
    ),
    "masked language modelling": Case(lambda: bert(BertForMaskedLM), lambda: texts(_masked), of_tokens),
    "causal language modelling": Case(llama, lambda: texts(lambda words: {"labels": words}), of_next_tokens),
    "sequence to sequence": Case(
        t5,
        lambda: texts(lambda words: {"labels": [*words[:2], 1]}),
        of_tokens,
        Seq2SeqTrainer,
        KakurenboSeq2SeqTrainer,
        Seq2SeqTrainingArguments,
        KakurenboSeq2SeqConfig,
    ),
    "segmentation": Case(segformer, pictures, of_pixels),
    "question answering": Case(
        lambda: bert(BertForQuestionAnswering),
        lambda: texts(_question),
        of_spans,
    ),
}


def make(case: Case, output_dir: Any, *, plain: bool = False, **options: Any) -> Any:
    """A trainer for a task; `plain` is the one of Transformers."""
    transformers.set_seed(0)
    defaults: dict[str, Any] = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-2,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    config = case.base_config if plain else case.config
    trainer = case.base if plain else case.trainer
    made = trainer(
        model=case.model(),
        args=config(output_dir=str(output_dir), **{**defaults, **options}),
        train_dataset=case.samples(),
        data_collator=pad,
    )
    made.remove_callback(transformers.PrinterCallback)
    return made
