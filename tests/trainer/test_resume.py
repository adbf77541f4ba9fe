"""Killed and resumed is the same as never killed: weights, ledger and logs, bit for bit."""

import random

import pytest
from transformers import ViTConfig, ViTForImageClassification, set_seed

from hf_kakurenbo import KakurenboTrainer
from killing import train
from processes import run
from toy import TextClassifier, arguments, pad, same_tensors, samples, texts

SETTINGS = {
    "saved by steps": {"save_strategy": "steps", "save_steps": 5, "save_total_limit": 2, "logging_steps": 3},
    "saved by epochs, best kept": {
        "save_strategy": "epoch",
        "eval_strategy": "epoch",
        "gradient_accumulation_steps": 3,
        "learning_rate": 0.05,
        "load_best_model_at_end": True,
        "save_total_limit": 1,
        "trainer_options": {"eval_dataset": samples(40, seed=5)},
    },
    "partial accumulation, cosine, refreshed every other epoch": {
        "save_strategy": "steps",
        "save_steps": 3,
        "gradient_accumulation_steps": 4,
        "learning_rate": 0.05,
        "lr_scheduler_type": "cosine",
        "refresh_interval": 2,
    },
    "grouped by length": {
        "model": TextClassifier,
        "dataset": texts(),
        "trainer_options": {"data_collator": pad},
        "train_sampling_strategy": "group_by_length",
        "learning_rate": 0.1,
        "save_strategy": "steps",
        "save_steps": 4,
    },
    "grouped by length, saved by epochs": {
        "model": TextClassifier,
        "dataset": texts(),
        "trainer_options": {"data_collator": pad},
        "train_sampling_strategy": "group_by_length",
        "learning_rate": 0.1,
        "save_strategy": "epoch",
    },
    "max steps": {"max_steps": 70, "save_strategy": "steps", "save_steps": 7},
    "fractional epochs": {"num_train_epochs": 5.5, "save_strategy": "steps", "save_steps": 6},
}
PHASES = ["in the epoch", "in the refresh", "while saving", "at the end of an epoch", "after saving", "while rotating"]
ROTATING = [setting for setting in SETTINGS if "save_total_limit" in SETTINGS[setting]]

_undisturbed = {}


def undisturbed(setting, tmp_path_factory):
    if setting not in _undisturbed:
        options = {"num_train_epochs": 6, **SETTINGS[setting]}
        code, result = run(train, tmp_path_factory.mktemp("undisturbed"), options)
        assert code == 0
        assert result["ledger"]["times_hidden"].sum() > 20, "too little was hidden to compare"
        _undisturbed[setting] = result
    return _undisturbed[setting]


def assert_survives(setting, kill_points, tmp_path, tmp_path_factory):
    """Kill at each of the points in turn, resuming in between, and compare with never killed."""
    expected = undisturbed(setting, tmp_path_factory)
    options = {"num_train_epochs": 6, **SETTINGS[setting]}
    for attempt, kill_at in enumerate(kill_points):
        code, _ = run(train, tmp_path, options, kill_at, attempt > 0)
        assert code == -9, "the training was to be killed"
    code, result = run(train, tmp_path, options, None, True)
    assert code == 0
    assert same_tensors(result["weights"], expected["weights"])
    assert same_tensors(result["ledger"], expected["ledger"])
    assert result["log"] == expected["log"]
    for figure in ("rates", "step", "max_steps", "best_step"):
        assert result[figure] == expected[figure], figure


def moment_of(phase, moments, seed):
    """The index of a random moment of a phase, in the later two thirds of the training, where samples are hidden."""
    chosen = [index for index, moment in enumerate(moments) if moment == phase and index > len(moments) // 3]
    return random.Random(seed).choice(chosen)


@pytest.mark.parametrize("phase", PHASES)
def test_killed_once(phase, tmp_path, tmp_path_factory):
    setting = ROTATING[PHASES.index(phase) % 2]
    moments = undisturbed(setting, tmp_path_factory)["moments"]
    assert_survives(setting, [moment_of(phase, moments, seed=1)], tmp_path, tmp_path_factory)


def test_killed_where_an_epochs_order_depends_on_the_global_generator(tmp_path, tmp_path_factory):
    setting = "grouped by length, saved by epochs"
    moments = undisturbed(setting, tmp_path_factory)["moments"]
    assert_survives(setting, [moment_of("in the epoch", moments, seed=1)], tmp_path, tmp_path_factory)


@pytest.mark.parametrize("setting", ROTATING)
def test_killed_when_everything_was_saved(setting, tmp_path, tmp_path_factory):
    moments = undisturbed(setting, tmp_path_factory)["moments"]
    assert_survives(setting, [len(moments) - 1], tmp_path, tmp_path_factory)


def test_killed_twice(tmp_path, tmp_path_factory):
    moments = undisturbed("saved by steps", tmp_path_factory)["moments"]
    assert_survives("saved by steps", [len(moments) // 2, len(moments) // 4], tmp_path, tmp_path_factory)


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("setting", "phase"),
    [(setting, phase) for setting in SETTINGS for phase in PHASES if phase != "while rotating" or setting in ROTATING],
)
def test_killed_anywhere(setting, phase, seed, tmp_path, tmp_path_factory):
    moments = undisturbed(setting, tmp_path_factory)["moments"]
    assert_survives(setting, [moment_of(phase, moments, seed)], tmp_path, tmp_path_factory)


@pytest.mark.wide
@pytest.mark.parametrize("seed", range(12))
def test_killed_at_random(seed, tmp_path, tmp_path_factory):
    generator = random.Random(seed)
    setting = generator.choice(list(SETTINGS))
    total = len(undisturbed(setting, tmp_path_factory)["moments"])
    assert_survives(setting, [generator.randrange(total)], tmp_path, tmp_path_factory)


def train_vit(folder, resume_from_checkpoint=None, **options):
    """Trains a model whose weights are saved under other names than they have in it."""
    set_seed(0)
    config = ViTConfig(
        image_size=4,
        patch_size=2,
        num_channels=1,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        num_labels=4,
    )
    pixels = [{"pixel_values": sample["x"].view(1, 4, 4), "labels": sample["labels"]} for sample in samples(64)]
    trainer = KakurenboTrainer(
        model=ViTForImageClassification(config),
        args=arguments(folder, max_hidden_fraction=0.5, confidence_threshold=0.3, **options),
        train_dataset=pixels,
        eval_dataset=pixels[:16],
    )
    trainer.train(resume_from_checkpoint)
    return trainer


def test_weights_saved_under_other_names_are_resumed_with(tmp_path):
    expected = train_vit(tmp_path / "whole", save_strategy="steps", save_steps=6)
    resumed = train_vit(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-6"))
    assert expected.ledger.times_hidden.sum() > 0
    assert same_tensors(resumed.model.state_dict(), expected.model.state_dict())


def test_the_best_of_weights_saved_under_other_names_is_loaded_at_the_end(tmp_path):
    worst = {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss", "greater_is_better": True}
    trainer = train_vit(tmp_path, eval_strategy="epoch", save_strategy="epoch", **worst)
    assert trainer.state.best_global_step < trainer.state.global_step
    best = ViTForImageClassification.from_pretrained(trainer.state.best_model_checkpoint)
    assert same_tensors(trainer.model.state_dict(), best.state_dict())
