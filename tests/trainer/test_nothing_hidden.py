"""With nothing hidden, the loss history and the weights are Trainer's, bit for bit."""

import pytest
from transformers import Trainer

from toy import TextClassifier, losses, mean_loss, pad, same_weights, samples, texts, trained

NOTHING_HIDDEN = {"policy none": {"hiding_policy": "none"}, "fraction 0": {"max_hidden_fraction": 0.0}}

# 203 samples in batches of 16 are 13 batches: with 4 of them per update the last update is partial.
SETTINGS = {
    "plain": {},
    "partial accumulation": {"gradient_accumulation_steps": 4},
    "drop last": {"dataloader_drop_last": True},
    "drop last, partial accumulation": {"dataloader_drop_last": True, "gradient_accumulation_steps": 5},
    "two workers": {"dataloader_num_workers": 2},
    "persistent workers": {"dataloader_num_workers": 2, "dataloader_persistent_workers": True},
    "bf16": {"bf16": True},
    "label smoothing": {"label_smoothing_factor": 0.1},
    "max steps": {"max_steps": 30},
    "fractional epochs": {"num_train_epochs": 2.5},
    "data seed": {"data_seed": 7},
    "sequential": {"train_sampling_strategy": "sequential"},
    "cosine, warm-up": {"lr_scheduler_type": "cosine", "warmup_steps": 0.1},
    "plateau": {
        "lr_scheduler_type": "reduce_lr_on_plateau",
        "eval_strategy": "epoch",
        "metric_for_best_model": "loss",
    },
}


def assert_identical(tmp_path, hidden, **options):
    plain = trained(tmp_path / "plain", Trainer, **options)
    hiding = trained(tmp_path / "hiding", **options, **hidden)
    assert losses(plain), "nothing was logged"
    assert losses(hiding) == losses(plain)
    assert same_weights(hiding, plain)
    assert hiding.state.global_step == plain.state.global_step
    assert hiding.state.max_steps == plain.state.max_steps
    assert hiding.state.epoch == plain.state.epoch
    assert hiding._get_learning_rate() == plain._get_learning_rate()


@pytest.fixture(params=NOTHING_HIDDEN.values(), ids=NOTHING_HIDDEN)
def hidden(request):
    return request.param


@pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)
def test_identical_to_trainer(tmp_path, hidden, options):
    trainer_options = {"eval_dataset": samples(40, seed=5)} if "eval_strategy" in options else {}
    assert_identical(tmp_path, hidden, trainer_options=trainer_options, **options)


def test_identical_with_a_loss_function_of_the_users(tmp_path, hidden):
    trainer_options = {"compute_loss_func": mean_loss}
    assert_identical(tmp_path, hidden, trainer_options=trainer_options, gradient_accumulation_steps=4)


def test_identical_when_grouped_by_length(tmp_path, hidden):
    assert_identical(
        tmp_path,
        hidden,
        model=TextClassifier,
        dataset=texts(),
        trainer_options={"data_collator": pad},
        train_sampling_strategy="group_by_length",
        gradient_accumulation_steps=2,
    )
