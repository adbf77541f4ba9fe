"""What scripts do with a trainer besides training once."""

import copy
import pickle

import pytest
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from hf_kakurenbo import KakurenboConfig, KakurenboTrainer
from toy import (
    Classifier,
    LinearClassifier,
    arguments,
    epochs,
    losses,
    make_trainer,
    same_tensors,
    same_weights,
    samples,
    trained,
    without_timings,
)


def test_hides_what_is_known_and_learns(tmp_path):
    trainer = trained(tmp_path, num_train_epochs=10, learning_rate=0.05)
    shares = [entry["kakurenbo/hidden_fraction"] for entry in epochs(trainer)]
    assert shares[0] == 0
    assert max(shares) > 0.2
    assert max(shares) <= 0.3
    ledger = trainer.ledger
    assert bool((ledger.correct & (ledger.confidence >= 0.7))[ledger.hidden].all())
    assert ledger.times_hidden.dtype == torch.int32
    assert float(ledger.correct.float().mean()) > 0.9


def test_plain_training_arguments_get_the_defaults(tmp_path):
    options = {"learning_rate": 0.05, "num_train_epochs": 6}
    set_seed(1)
    plain = KakurenboTrainer(Classifier(), arguments(tmp_path, TrainingArguments, **options), train_dataset=samples())
    plain.train()
    assert plain.ledger.times_hidden.sum() > 0
    assert without_timings(plain.state.log_history) == without_timings(trained(tmp_path, **options).state.log_history)


def test_training_again_starts_afresh(tmp_path):
    set_seed(1)
    args = arguments(tmp_path, num_train_epochs=3, learning_rate=0.05)
    trainer = KakurenboTrainer(args=args, train_dataset=samples(), model_init=Classifier)
    histories, ledgers = [], []
    for _ in range(2):
        trainer.train()
        histories.append(without_timings(trainer.state.log_history))
        ledgers.append({name: tensor.clone() for name, tensor in trainer.ledger.state_dict().items()})
    assert histories[0] == histories[1]
    assert same_tensors(ledgers[0], ledgers[1])
    assert ledgers[0]["times_hidden"].sum() > 0


def test_training_on_with_a_scheduler_of_the_users(tmp_path):
    trainer = make_trainer(tmp_path, hiding_policy="first_ids", max_hidden_fraction=0.3)
    optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    trainer.optimizer = optimizer
    trainer.lr_scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    for training in (1, 2, 3):
        trainer.watch.rates.clear()
        trainer.train()
        assert trainer.lr_scheduler.scheduler.last_epoch == training * 4 * 13
        # This scheduler computes the next rate from the last, so a compensation left in it would stay.
        assert trainer.watch.rates[0] == pytest.approx(0.1 * 0.99 ** ((training - 1) * 4 * 13))


def test_a_training_that_failed_leaves_no_compensation(tmp_path):
    class FailAt(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 15:  # in the first epoch that hides
                trainer.remove_callback(self)
                raise RuntimeError("CUDA out of memory.")

    options = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3, "auto_find_batch_size": True}
    trainer = make_trainer(tmp_path, trainer_options={"callbacks": [FailAt()]}, **options)
    trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    trainer.lr_scheduler = torch.optim.lr_scheduler.ExponentialLR(trainer.optimizer, 0.99)
    trainer.train()
    # 13 full steps, and two of an epoch of nine, in which the scheduler takes two.
    assert trainer.watch.rates[15] == pytest.approx(0.1 * 0.99**15)
    assert trainer.state.epoch == 4.0


def loss_per_item(outputs, labels, num_items_in_batch=None):
    """A `compute_loss_func` that needs to know how many items an update has."""
    return torch.nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum") / num_items_in_batch


def test_a_loss_function_that_divides_by_the_number_of_items(tmp_path):
    options = {"gradient_accumulation_steps": 2, "hiding_policy": "first_ids", "max_hidden_fraction": 0.3}
    trainer = trained(tmp_path, trainer_options={"compute_loss_func": loss_per_item}, **options)
    assert trainer.ledger.times_hidden.sum() == 3 * 60
    looked_at = [entry["kakurenbo/refresh_runtime"] > 0 for entry in epochs(trainer)]
    assert looked_at == [False, True, True, False]
    assert bool(trainer.ledger.loss.isfinite().all())


def test_options_changed_between_trainings_as_in_a_search(tmp_path):
    set_seed(1)
    trainer = KakurenboTrainer(args=arguments(tmp_path), train_dataset=samples(), model_init=Classifier)
    for fraction in (0.0, 0.5):
        trainer.args.max_hidden_fraction = fraction
        trainer.args.learning_rate = 0.05
        trainer.train()
        hidden = int(trainer.ledger.times_hidden.sum())
        assert (hidden > 0) == (fraction > 0)
    trainer.args.hiding_policy = "none"
    trainer.train()
    assert trainer.ledger is None


def test_hyperparameter_search(tmp_path):
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    fractions, candidates = [], []

    class Note(TrainerCallback):
        def on_train_end(self, args, state, control, **kwargs):
            fractions.append(args.max_hidden_fraction)
            candidates.append(epochs(trainer)[-1]["kakurenbo/candidates"])

    trainer = KakurenboTrainer(
        args=arguments(tmp_path, num_train_epochs=2, eval_strategy="epoch", fraction_factors=[1.0] * 4),
        callbacks=[Note()],
        train_dataset=samples(),
        eval_dataset=samples(40, seed=5),
        model_init=lambda trial: Classifier(),
    )
    space = lambda trial: {"max_hidden_fraction": trial.suggest_float("max_hidden_fraction", 0.1, 0.5)}  # noqa: E731
    best = trainer.hyperparameter_search(space, n_trials=2, backend="optuna", direction="minimize")
    assert best.hyperparameters["max_hidden_fraction"] in fractions
    assert len(set(fractions)) == 2
    assert candidates == [int(fraction * 203) for fraction in fractions]


def test_auto_find_batch_size(tmp_path):
    class OutOfMemoryOnce(Classifier):
        def forward(self, x, labels=None):
            if x.shape[0] > 8:
                raise RuntimeError("CUDA out of memory.")
            return super().forward(x, labels)

    trainer = trained(tmp_path, model=OutOfMemoryOnce, auto_find_batch_size=True, learning_rate=0.02)
    assert trainer._train_batch_size <= 8
    assert trainer.state.epoch == 4.0
    assert trainer.state.global_step == trainer.state.max_steps
    assert bool(trainer.ledger.loss.isfinite().all())


def test_evaluating_in_between_changes_nothing(tmp_path):
    class Evaluate(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % 7 == 0:
                trainer.evaluate(samples(40, seed=5))
                assert trainer.predict(samples(10, seed=6)).predictions.shape == (10, 4)

    quiet = trained(tmp_path, model=LinearClassifier, learning_rate=0.1)
    trainer = make_trainer(
        tmp_path, model=LinearClassifier, learning_rate=0.1, trainer_options={"callbacks": [Evaluate()]}
    )
    trainer.train()
    assert quiet.ledger.times_hidden.sum() > 0
    assert same_weights(trainer, quiet)
    assert same_tensors(trainer.ledger.state_dict(), quiet.ledger.state_dict())


def test_evaluating_alone_needs_no_training_data(tmp_path):
    trainer = KakurenboTrainer(Classifier(), arguments(tmp_path), eval_dataset=samples(40, seed=5))
    assert trainer.evaluate()["eval_loss"] > 0
    assert trainer.ledger is None


@pytest.mark.parametrize("persistent", [False, True])
def test_workers_change_nothing(tmp_path, persistent):
    options = {"model": LinearClassifier, "learning_rate": 0.1, "num_train_epochs": 3}
    alone = trained(tmp_path, **options)
    helped = trained(tmp_path, dataloader_num_workers=2, dataloader_persistent_workers=persistent, **options)
    assert alone.ledger.times_hidden.sum() > 0
    assert losses(helped) == losses(alone)
    assert same_tensors(helped.ledger.state_dict(), alone.ledger.state_dict())


def test_a_compiled_model(tmp_path):
    options = {"num_train_epochs": 3, "hiding_policy": "first_ids", "max_hidden_fraction": 0.3}
    compiled = make_trainer(tmp_path, torch_compile=True, torch_compile_backend="eager", **options)
    compiled.train()
    assert losses(compiled) == losses(trained(tmp_path, **options))
    assert bool(compiled.ledger.loss.isfinite().all())


def test_bf16_ranks_by_float32_losses(tmp_path):
    still = trained(tmp_path, bf16=True, learning_rate=0.0, num_train_epochs=1, model=LinearClassifier)
    recorded = still.ledger.loss
    x, labels = (torch.stack([sample[name] for sample in samples()]) for name in ("x", "labels"))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = still.model.head(x)
    assert logits.dtype == torch.bfloat16
    # Losses in bf16 would be ties by the dozen.
    assert recorded.bfloat16().unique().numel() < recorded.unique().numel()
    torch.testing.assert_close(
        recorded, torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none"), rtol=1e-4, atol=1e-4
    )
    assert trained(tmp_path, bf16=True, learning_rate=0.05, num_train_epochs=6).ledger.times_hidden.sum() > 0


def test_label_smoothing_does_not_reach_the_ranking(tmp_path):
    options = {"learning_rate": 0.0, "num_train_epochs": 1, "model": LinearClassifier}
    smooth = trained(tmp_path, label_smoothing_factor=0.3, **{**options, "model": Classifier})
    plain = trained(tmp_path, **{**options, "model": Classifier})
    assert losses(smooth)[0]["loss"] != losses(plain)[0]["loss"]
    assert torch.equal(smooth.ledger.loss, plain.ledger.loss)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_a_copied_config_trains_the_same(tmp_path, duplicate):
    args = duplicate(arguments(tmp_path, max_hidden_fraction=0.4, learning_rate=0.05))
    assert isinstance(args, KakurenboConfig)
    set_seed(1)
    trainer = KakurenboTrainer(Classifier(), args, train_dataset=samples())
    trainer.train()
    expected = trained(tmp_path, max_hidden_fraction=0.4, learning_rate=0.05)
    assert expected.ledger.times_hidden.sum() > 0
    assert without_timings(trainer.state.log_history) == without_timings(expected.state.log_history)


def test_resumed_twice_and_at_an_epochs_end(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 13, "learning_rate": 0.05, "num_train_epochs": 5}
    whole = trained(tmp_path, **options)
    assert whole.ledger.times_hidden.sum() > 0
    checkpoints = sorted(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    assert [path.name for path in checkpoints][:2] == ["checkpoint-13", "checkpoint-26"]
    for checkpoint in checkpoints[:3]:
        for _ in range(2):
            again = make_trainer(tmp_path / "again", **options)
            again.train(resume_from_checkpoint=str(checkpoint))
            assert same_weights(again, whole)
            assert same_tensors(again.ledger.state_dict(), whole.ledger.state_dict())


@pytest.mark.parametrize(("seconds_lost", "warnings"), [(100, 1), (0.1, 0)])
def test_a_warning_when_hiding_costs_noticeably_more_than_it_saves(
    tmp_path, caplog, monkeypatch, seconds_lost, warnings
):
    from hf_kakurenbo.hiding import HidingRun

    finish = HidingRun.finish_epoch

    def slow(run, *seen):
        measured = finish(run, *seen)
        run.time_saved = -seconds_lost * (run.ledger.num_hidden > 0)
        return measured

    monkeypatch.setattr(HidingRun, "finish_epoch", slow)
    trained(tmp_path, hiding_policy="first_ids", max_hidden_fraction=0.3, num_train_epochs=6)
    assert caplog.text.count("Hiding has cost") == warnings


def test_the_warning_comes_once_and_late_if_need_be(tmp_path, caplog, monkeypatch):
    from hf_kakurenbo.hiding import HidingRun

    finish = HidingRun.finish_epoch

    def slow_from_the_fifth_on(run, *seen):
        measured = finish(run, *seen)
        run.time_saved += 100 if run.epoch < 5 else -1000
        return measured

    monkeypatch.setattr(HidingRun, "finish_epoch", slow_from_the_fifth_on)
    milestones = {"fraction_milestones": [0.0, 0.7], "fraction_factors": [1.0, 0.0]}
    options = {"confidence_threshold": 0.0, "move_back": False, "num_train_epochs": 9, **milestones}
    trainer = trained(tmp_path, **options)
    hidden = [entry["kakurenbo/hidden_fraction"] > 0 for entry in epochs(trainer)]
    assert hidden == [False, True, True, True, True, True, True, False, False]
    assert caplog.text.count("Hiding has cost") == 1


def test_the_base_trainer_is_not_changed(tmp_path):
    trained(tmp_path)
    assert Trainer.compute_loss.__module__ == "transformers.trainer"
    assert losses(trained(tmp_path, Trainer)) == losses(trained(tmp_path, Trainer))
