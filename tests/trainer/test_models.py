"""Whatever trains with Trainer trains with hiding: timm, tuples, adapters, mixing, users' own classes."""

import datasets
import numpy as np
import peft
import pytest
import timm
import torch
import transformers
from timm.data import Mixup
from torch import nn
from torch.utils.data import RandomSampler, SequentialSampler
from transformers import BertForSequenceClassification, Trainer, TrainingArguments

from hf_kakurenbo import KakurenboConfig, KakurenboMixin, KakurenboTrainer
from task_toy import bert, pad, texts
from toy import losses, same_weights

SIDE = 16


def pictures(count=40):
    """Bright or dark ones."""
    labels = np.arange(count) % 2
    noise = np.random.default_rng(0).normal(0, 0.3, size=(count, 3, SIDE, SIDE))
    pixels = (noise + labels[:, None, None, None]).astype(np.float32)
    return [{"x": torch.from_numpy(image), "labels": int(label)} for image, label in zip(pixels, labels, strict=True)]


def wrapped_pictures():
    return [{"pixel_values": sample["x"], "labels": sample["labels"]} for sample in pictures()]


def plain_timm():
    return timm.create_model("test_resnet", num_classes=2)


def wrapped_timm():
    config = transformers.TimmWrapperConfig(architecture="test_resnet", num_labels=2)
    return transformers.TimmWrapperForImageClassification(config)


def stack(samples):
    return {"x": torch.stack([s["x"] for s in samples]), "labels": torch.tensor([s["labels"] for s in samples])}


class Mixing:
    """timm's mixup and CutMix, as a collator."""

    def __init__(self):
        self.mix = Mixup(mixup_alpha=0.2, cutmix_alpha=0.2, label_smoothing=0.0, num_classes=2)

    def __call__(self, samples):
        batch = stack(samples)
        x, labels = self.mix(batch["x"], batch["labels"])
        return {"x": x, "labels": labels}


def soft_loss(outputs, labels, num_items_in_batch=None):
    return nn.functional.cross_entropy(outputs, labels)


def weighted_loss(outputs, labels, num_items_in_batch=None):
    return nn.functional.cross_entropy(outputs.logits, labels, weight=torch.tensor([1.0, 3.0]))


def sentences():
    return texts(lambda words: {"labels": int(words[0] > 8)})


def tuple_bert():
    return bert(BertForSequenceClassification, num_labels=2, return_dict=False)


def lora_bert():
    options = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query", "value"], r=4, lora_dropout=0.1)
    return peft.get_peft_model(bert(BertForSequenceClassification, num_labels=2), options)


def plain_bert():
    return bert(BertForSequenceClassification, num_labels=2, hidden_dropout_prob=0.1)


PLAIN = {"label_names": ["labels"], "remove_unused_columns": False}
IMAGES = {"data_collator": stack, "compute_loss_func": soft_loss}
CASES = {
    "timm in Transformers' wrapper": (wrapped_timm, wrapped_pictures, {}, {}),
    "timm as it is": (plain_timm, pictures, IMAGES, PLAIN),
    "mixup and CutMix": (
        plain_timm,
        pictures,
        {**IMAGES, "data_collator": Mixing()},
        {**PLAIN, "dataloader_drop_last": True},
    ),
    "a model that returns tuples": (tuple_bert, sentences, {"data_collator": pad}, {}),
    "LoRA": (lora_bert, sentences, {"data_collator": pad}, {"label_names": ["labels"]}),
    "gradient checkpointing": (plain_bert, sentences, {"data_collator": pad}, {"gradient_checkpointing": True}),
    "torch.compile": (plain_bert, sentences, {"data_collator": pad}, {"torch_compile_backend": "eager"}),
    "label smoothing": (plain_bert, sentences, {"data_collator": pad}, {"label_smoothing_factor": 0.2}),
    "class weights": (plain_bert, sentences, {"data_collator": pad, "compute_loss_func": weighted_loss}, {}),
}
EVERY_CASE = [
    pytest.param(case, id=name, marks=[pytest.mark.wide] if name == "torch.compile" else [])
    for name, case in CASES.items()
]


def trained(output_dir, case, trainer=KakurenboTrainer, config=KakurenboConfig, **options):
    model, dataset, trainer_options, arguments = case
    transformers.set_seed(0)
    np.random.seed(0)
    defaults = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 8,
        "learning_rate": 3e-3,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    args = config(output_dir=str(output_dir), **{**defaults, **arguments, **options})
    made = trainer(model=model(), args=args, train_dataset=dataset(), **trainer_options)
    made.remove_callback(transformers.PrinterCallback)
    made.train()
    return made


@pytest.mark.parametrize("case", EVERY_CASE)
def test_nothing_hidden_is_trainer(case, tmp_path):
    ours = trained(tmp_path, case, max_hidden_fraction=0.0)
    plain = trained(tmp_path, case, Trainer, TrainingArguments)
    assert losses(ours) == losses(plain)
    assert same_weights(ours, plain)


@pytest.mark.parametrize("case", EVERY_CASE)
def test_hiding_hides(case, tmp_path):
    hiding = trained(tmp_path, case, num_train_epochs=10, confidence_threshold=0.5, max_hidden_fraction=0.4)
    assert bool(hiding.ledger.loss.isfinite().all())
    assert int(hiding.ledger.times_hidden.sum()) > 10
    visible = [
        entry["kakurenbo/visible_samples"] for entry in hiding.state.log_history if "kakurenbo/candidates" in entry
    ]
    assert len(visible) == 10


# ---- Trainers of the user's own ----


def shortened(samples):
    return {name: entry[:, :6] if entry.ndim == 2 else entry for name, entry in pad(samples).items()}


class OfTheUsers(Trainer):
    """Has an order, a loss and a collator of its own, as users' trainers do."""

    def _get_train_sampler(self, train_dataset=None):
        return SequentialSampler(self.train_dataset)

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels = inputs["labels"]
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs.logits, labels, label_smoothing=0.1)
        return (loss, outputs) if return_outputs else loss

    def get_train_dataloader(self):
        collator, self.data_collator = self.data_collator, shortened
        try:
            return super().get_train_dataloader()
        finally:
            self.data_collator = collator


class HidingOfTheUsers(KakurenboMixin, OfTheUsers):
    pass


OF_THE_USERS = (plain_bert, sentences, {"data_collator": pad}, {"remove_unused_columns": False})


def test_a_trainer_of_the_users_below_the_mixin(tmp_path):
    options = {"num_train_epochs": 2}
    ours = trained(tmp_path, OF_THE_USERS, HidingOfTheUsers, max_hidden_fraction=0.0, **options)
    plain = trained(tmp_path, OF_THE_USERS, OfTheUsers, TrainingArguments, **options)
    assert losses(ours) == losses(plain)
    assert same_weights(ours, plain)


class Around(KakurenboTrainer):
    """Overrides on top of the mixin."""

    calls = 0

    def _get_train_sampler(self, train_dataset=None):
        return RandomSampler(self.train_dataset, generator=torch.Generator().manual_seed(5))

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        self.calls += 1
        loss, outputs = super().compute_loss(model, inputs, True, **kwargs)
        loss = 2 * loss
        return (loss, outputs) if return_outputs else loss

    def get_train_dataloader(self):
        return super().get_train_dataloader()


def test_a_trainer_of_the_users_above_the_mixin(tmp_path):
    case = (plain_bert, sentences, {"data_collator": pad}, {})
    made = trained(tmp_path, case, Around, num_train_epochs=10, confidence_threshold=0.5, max_hidden_fraction=0.4)
    assert int(made.ledger.times_hidden.sum()) > 10
    # The refresh goes through it too.
    assert made.calls > made.state.global_step > 0


def test_a_dataset_of_datasets_and_its_columns(tmp_path):
    """What the model does not take is dropped, as Trainer does it."""
    columns = [{**sample, "note": "unused"} for sample in sentences()]
    case = (plain_bert, lambda: datasets.Dataset.from_list(columns), {"data_collator": pad}, {})
    ours = trained(tmp_path, case, max_hidden_fraction=0.0)
    assert losses(ours) == losses(trained(tmp_path, case, Trainer, TrainingArguments))
