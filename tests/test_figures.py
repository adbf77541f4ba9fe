"""The figures that a person, a tracker or a callback sees are right with hiding on."""

import math

import pytest
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from toy import LinearClassifier, epochs, losses, make_trainer, samples, trained

HIDING = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3, "model": LinearClassifier}
# 203 samples in batches of 16 are 13 updates; the 143 that stay when 60 are hidden are 9.
FULL, SHORT = 13, 9


class Events(TrainerCallback):
    """Notes when what happens."""

    def __init__(self):
        self.steps, self.epoch_ends, self.evaluations, self.saves, self.logs = [], [], [], [], []

    def on_step_end(self, args, state, control, **kwargs):
        self.steps.append(state.global_step)

    def on_epoch_end(self, args, state, control, **kwargs):
        self.epoch_ends.append((state.global_step, state.epoch))

    def on_evaluate(self, args, state, control, **kwargs):
        self.evaluations.append(state.global_step)

    def on_save(self, args, state, control, **kwargs):
        self.saves.append(state.global_step)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.logs.append(state.global_step)


def watched(output_dir, *args, callbacks=(), **options):
    events = Events()
    trainer_options = {"callbacks": [events, *callbacks], "eval_dataset": samples(40, seed=5)}
    return trained(output_dir, *args, trainer_options=trainer_options, **options), events


def test_epochs_and_steps(tmp_path):
    trainer, events = watched(tmp_path, num_train_epochs=4, **HIDING)
    assert events.epoch_ends == [(13, 1.0), (22, 2.0), (31, 3.0), (40, 4.0)]
    assert trainer.state.epoch == 4.0
    assert trainer.state.global_step == trainer.state.max_steps == FULL + 3 * SHORT
    assert trainer.watch.places[FULL:] == pytest.approx([1 + (k + 1) / SHORT for k in range(3 * SHORT)])


@pytest.mark.parametrize("accumulation", [2, 4])
def test_a_partial_accumulation_is_stepped(tmp_path, accumulation):
    trainer, _ = watched(tmp_path, num_train_epochs=3, gradient_accumulation_steps=accumulation, **HIDING)
    assert trainer.state.global_step == math.ceil(FULL / accumulation) + 2 * math.ceil(SHORT / accumulation)
    assert trainer.state.epoch == 3.0
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in trainer.model.parameters())


def test_fractional_epochs(tmp_path):
    trainer, _ = watched(tmp_path, num_train_epochs=2.5, **HIDING)
    assert trainer.state.global_step == trainer.state.max_steps == FULL + SHORT + math.ceil(7 * SHORT / FULL)
    assert trainer.state.epoch == pytest.approx(2.5, abs=1 / SHORT)


def test_max_steps_is_that_many_updates(tmp_path):
    trainer, _ = watched(tmp_path, max_steps=50, **HIDING)
    assert trainer.state.global_step == trainer.state.max_steps == 50
    assert trainer.state.epoch == pytest.approx(1 + (50 - FULL) / SHORT)
    assert trainer.state.num_train_epochs == 6


def test_the_throughput_counts_what_was_trained(tmp_path):
    trainer = make_trainer(tmp_path, num_train_epochs=4, **HIDING)
    metrics = trainer.train().metrics
    assert metrics["kakurenbo/trained_samples"] == 203 + 3 * 143
    assert metrics["kakurenbo/refreshed_samples"] == 2 * 60
    counted = metrics["train_samples_per_second"] * metrics["train_runtime"]
    assert counted == pytest.approx(203 + 3 * 143, rel=0.02)
    counted = metrics["train_steps_per_second"] * metrics["train_runtime"]
    assert counted == pytest.approx(FULL + 3 * SHORT, rel=0.02)


def test_the_progress_bar_ends_at_its_end(tmp_path):
    class Bar(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            from transformers.trainer_callback import ProgressCallback

            [progress] = [c for c in trainer.callback_handler.callbacks if isinstance(c, ProgressCallback)]
            self.ended_at = (progress.training_bar.n, progress.training_bar.total)

    bar = Bar()
    trainer = make_trainer(tmp_path, disable_tqdm=False, trainer_options={"callbacks": [bar]}, **HIDING)
    # Trainer's own bar closes in the same event; ours must look at it before.
    trainer.remove_callback(bar)
    trainer.callback_handler.callbacks.insert(0, bar)
    trainer.train()
    assert bar.ended_at == (40, 40)


def test_steps_of_evaluating_saving_and_logging(tmp_path):
    options = {
        "eval_strategy": "steps",
        "eval_steps": 5,
        "save_strategy": "steps",
        "save_steps": 10,
        "logging_steps": 4,
    }
    _, events = watched(tmp_path, num_train_epochs=4, **options, **HIDING)
    assert events.evaluations == [5, 10, 15, 20, 25, 30, 35, 40]
    assert events.saves == [10, 20, 30, 40]
    assert events.logs == [4, 8, 12, 16, 20, 24, 28, 32, 36, 40]


def test_a_ratio_is_of_the_training_as_it_is_now_expected(tmp_path):
    _, events = watched(tmp_path, num_train_epochs=4, logging_steps=0.1, **HIDING)
    # A tenth of the 52 updates of full epochs in the first epoch, and of the 40 that it comes to after it.
    assert events.logs == [6, 12, 16, 20, 24, 28, 32, 36, 40]


def test_callbacks_see_the_events_that_trainer_makes(tmp_path):
    options = {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch", "num_train_epochs": 3}
    plain, expected = watched(tmp_path / "plain", Trainer, model=LinearClassifier, **options)
    hiding, seen = watched(tmp_path / "hiding", max_hidden_fraction=0.0, model=LinearClassifier, **options)
    assert vars(seen) == vars(expected)
    assert losses(hiding) == losses(plain)
    _, shorter = watched(tmp_path / "shorter", **options, **HIDING)
    ends = [FULL, FULL + SHORT, FULL + 2 * SHORT]
    assert (shorter.evaluations, shorter.saves, shorter.logs) == (ends, ends, ends)


def test_early_stopping_stops(tmp_path):
    options = {
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "load_best_model_at_end": True,
        "metric_for_best_model": "loss",
        "learning_rate": 0.0,
        "num_train_epochs": 9,
    }
    callbacks = [EarlyStoppingCallback(early_stopping_patience=2)]
    trainer, events = watched(tmp_path, callbacks=callbacks, **options, **HIDING)
    assert len(events.epoch_ends) == 3
    assert trainer.state.epoch == 3.0


def test_what_is_logged_once_an_epoch(tmp_path):
    trainer = trained(tmp_path, **HIDING)
    logged = epochs(trainer)
    assert [entry["epoch"] for entry in logged] == [1.0, 2.0, 3.0, 4.0]
    assert [entry["kakurenbo/visible_samples"] for entry in logged] == [203, 143, 143, 143]
    assert [entry["kakurenbo/candidates"] for entry in logged] == [0, 60, 60, 60]
    assert [entry["kakurenbo/moved_back"] for entry in logged] == [0, 0, 0, 0]
    assert [entry["kakurenbo/hidden_fraction"] for entry in logged] == [0.0, *[60 / 203] * 3]
    assert [entry["kakurenbo/lr_scale"] for entry in logged] == [1.0, *[203 / 143] * 3]
    assert [entry["kakurenbo/refresh_runtime"] > 0 for entry in logged] == [False, True, True, False]
    assert trainer.ledger.times_hidden.tolist() == [3] * 60 + [0] * 143


def test_no_last_batch_of_one_sample_by_hiding(tmp_path):
    # Of 203, 58 hidden ones would leave 145 = 9 · 16 + 1, on which the BatchNorm of this model raises.
    trainer = trained(tmp_path, hiding_policy="first_ids", max_hidden_fraction=58.5 / 203, num_train_epochs=2)
    assert epochs(trainer)[1]["kakurenbo/visible_samples"] == 146
    assert epochs(trainer)[1]["kakurenbo/moved_back"] == 1


def test_an_epoch_without_a_full_batch_hides_nothing(tmp_path, caplog):
    options = {"dataloader_drop_last": True, "per_device_train_batch_size": 150, **HIDING}
    trainer = trained(tmp_path, **options)
    assert [entry["kakurenbo/visible_samples"] for entry in epochs(trainer)] == [203] * 4
    assert "do not fill one batch" in caplog.text
    assert trainer.state.global_step == 4
