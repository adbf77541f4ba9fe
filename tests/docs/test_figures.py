"""The figures that a person, a tracker or a callback sees are right with hiding on."""

import math

import pytest
import torch
from torch.utils.data import WeightedRandomSampler
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from hf_kakurenbo import KakurenboTrainer
from toy import Classifier, LinearClassifier, epochs, losses, make_trainer, samples, trained

HIDING = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3, "model": LinearClassifier}
# 203 samples in batches of 16 are 13 updates; the 143 that stay when 60 are hidden are 9.
FULL, SHORT = 13, 9


class Events(TrainerCallback):
    """Notes when what happens."""

    def __init__(self):
        self.steps, self.epoch_ends, self.evaluations, self.saves, self.logs = [], [], [], [], []
        self.plans = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.plans.append((state.max_steps, state.num_train_epochs))

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.plans.append((state.max_steps, state.num_train_epochs))

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
    # What is to be expected is known at the end of the first epoch that hides something.
    assert events.plans == [(4 * FULL, 4)] * 3 + [(FULL + 3 * SHORT, 4)] * 2
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
    trainer, events = watched(tmp_path, max_steps=50, **HIDING)
    assert events.plans == [(50, 4)] * 3 + [(50, 6)] * 4
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


def counted(metrics):
    """The samples from which the throughput was worked out."""
    return metrics["train_samples_per_second"] * metrics["train_runtime"]


def test_incomplete_batches_that_are_dropped_are_not_counted(tmp_path):
    metrics = make_trainer(tmp_path, dataloader_drop_last=True, num_train_epochs=4, **HIDING).train().metrics
    assert metrics["kakurenbo/trained_samples"] == 12 * 16 + 3 * 8 * 16
    assert counted(metrics) == pytest.approx(12 * 16 + 3 * 8 * 16, rel=0.02)


def test_of_an_epoch_that_is_not_finished_what_was_trained_is_counted(tmp_path):
    metrics = make_trainer(tmp_path, max_steps=17, **HIDING).train().metrics
    assert metrics["kakurenbo/trained_samples"] == 203 + 4 * 16
    assert counted(metrics) == pytest.approx(203 + 4 * 16, rel=0.02)


class SomeOf(KakurenboTrainer):
    """Draws 150 of the 203 samples, none twice."""

    def _get_train_sampler(self, dataset=None):
        return WeightedRandomSampler([1.0] * 150 + [0.0] * 53, num_samples=150, replacement=False)


def test_what_a_sampler_of_the_users_draws_is_counted(tmp_path):
    metrics = make_trainer(tmp_path, SomeOf, num_train_epochs=3, **HIDING).train().metrics
    assert metrics["kakurenbo/trained_samples"] == 150 + 2 * 90
    assert counted(metrics) == pytest.approx(150 + 2 * 90, rel=0.02)


def test_after_a_resumption_the_throughput_is_that_of_the_rest(tmp_path):
    options = {"num_train_epochs": 4, "save_strategy": "steps", "save_steps": 20, **HIDING}
    trained(tmp_path, **options)
    metrics = make_trainer(tmp_path, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-20")).metrics
    assert metrics["kakurenbo/trained_samples"] == 203 + 3 * 143
    assert counted(metrics) == pytest.approx(143 - 7 * 16 + 2 * 143, rel=0.02)


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
    shares = {"logging_steps": 0.1, "eval_strategy": "steps", "eval_steps": 0.1, "save_steps": 0.2}
    _, events = watched(tmp_path, num_train_epochs=4, save_strategy="steps", **shares, **HIDING)
    # A tenth of the 52 updates of full epochs in the first epoch, and of the 40 that it comes to after it.
    assert events.logs == events.evaluations == [6, 12, 16, 20, 24, 28, 32, 36, 40]
    assert events.saves == [11, 16, 24, 32, 40]


def test_callbacks_see_the_events_that_trainer_makes_with_max_steps(tmp_path):
    _, expected = watched(tmp_path, Trainer, model=LinearClassifier, max_steps=50)
    _, seen = watched(tmp_path, max_hidden_fraction=0.0, model=LinearClassifier, max_steps=50)
    assert vars(seen) == vars(expected)


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


def test_no_last_batch_of_one_sample_by_hiding_with_a_sampler_of_the_users(tmp_path):
    # Of the 150 that it draws, 53 hidden ones would leave 97 = 6 · 16 + 1.
    options = {"hiding_policy": "first_ids", "max_hidden_fraction": 53.5 / 203, "num_train_epochs": 2}
    trainer = trained(tmp_path, SomeOf, **options)
    assert len(trainer.watch.orders[1]) == 98
    assert epochs(trainer)[1]["kakurenbo/moved_back"] == 1


@pytest.mark.parametrize(("count", "hidden"), [(5, 3), (2, 0)])
def test_fewer_samples_than_a_batch(tmp_path, count, hidden):
    # Of two, one hidden one would leave a batch of one, on which the BatchNorm of this model raises.
    options = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.6, "model": Classifier}
    trainer = trained(tmp_path, dataset=samples(count), **options)
    assert [entry["kakurenbo/visible_samples"] for entry in epochs(trainer)] == [count] + [count - hidden] * 3
    assert (trainer.state.global_step, trainer.state.epoch) == (4, 4.0)
    assert bool(trainer.ledger.loss.isfinite().all())


def test_samples_whose_loss_is_not_a_number_are_never_hidden(tmp_path):
    dataset = samples()
    for index in (3, 50, 202):
        dataset[index]["labels"] = torch.tensor(-100)  # masked: cross entropy is asked nothing
    trainer = trained(tmp_path, dataset=dataset, learning_rate=0.05, num_train_epochs=6, move_back=False)
    assert trainer.ledger.loss.isnan().nonzero().squeeze(1).tolist() == [3, 50, 202]
    assert trainer.ledger.times_hidden[[3, 50, 202]].tolist() == [0, 0, 0]
    assert [entry["kakurenbo/moved_back"] for entry in epochs(trainer)] == [0] * 6
    assert trainer.ledger.times_hidden.sum() > 100


def test_an_epoch_without_a_full_batch_hides_nothing(tmp_path, caplog):
    options = {"dataloader_drop_last": True, "per_device_train_batch_size": 150, **HIDING}
    trainer = trained(tmp_path, **options)
    assert [entry["kakurenbo/visible_samples"] for entry in epochs(trainer)] == [203] * 4
    assert "do not fill one batch" in caplog.text
    assert trainer.state.global_step == 4
