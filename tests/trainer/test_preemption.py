"""Told to end (SIGTERM), a training saves at the end of an update, and continues from there as if nothing had been."""

import inspect
import os
import signal
import time

import pytest
from transformers import Trainer, TrainerCallback
from transformers.trainer_jit_checkpoint import CheckpointManager, JITCheckpointCallback

from hf_kakurenbo.trainer.preemption import AgreedCheckpoint
from processes import run, run_ranks
from toy import losses, make_trainer, same_tensors, samples, skip_where_ranks_cannot_resume, without_timings

TRAINING = {"num_train_epochs": 5, "learning_rate": 0.05, "enable_jit_checkpoint": True}


class Preemption(TrainerCallback):
    """Sends the signal to this process at an event of an update, and lets the updates after it last a while."""

    def __init__(self, event, step):
        self.step, self.sent = step, False
        setattr(self, event, self.send)

    def send(self, args, state, control, **kwargs):
        if state.global_step >= self.step and not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.2)  # the timer, which is set to no time at all, has to run

    def on_step_begin(self, args, state, control, **kwargs):
        if self.sent:
            time.sleep(0.02)


def outcome(output_dir, options, event=None, on_rank=0, resume_from_checkpoint=None):
    """Train, perhaps to the signal, and bring home what the tests look at."""
    preempted = event is not None and int(os.environ.get("RANK", "0")) == on_rank
    trainer_options = {"callbacks": [Preemption(event, 14)] if preempted else [], "eval_dataset": samples(40, seed=5)}
    trainer = make_trainer(output_dir, trainer_options=trainer_options, **{**TRAINING, **options})
    callbacks = trainer.callback_handler.callbacks
    [callback] = [callback for callback in callbacks if isinstance(callback, JITCheckpointCallback)]
    callback.jit_manager.kill_wait = 0
    trainer.train(resume_from_checkpoint)
    return {
        "step": trainer.state.global_step,
        "max_steps": trainer.state.max_steps,
        "weights": trainer.model.state_dict(),
        "ledger": trainer.ledger.state_dict(),
        "losses": losses(trainer),
        "log": [entry for entry in without_timings(trainer.state.log_history) if "train_loss" not in entry],
        "evaluations": sum("eval_loss" in entry for entry in trainer.state.log_history),
        "handler": signal.getsignal(signal.SIGTERM),
    }


def saved_in(folder):
    return sorted(folder.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))


@pytest.mark.parametrize(
    ("event", "options"),
    [
        pytest.param(
            "on_step_begin", {"save_strategy": "no", "gradient_accumulation_steps": 2}, marks=pytest.mark.wide
        ),
        ("on_substep_end", {"save_strategy": "epoch", "gradient_accumulation_steps": 3, "eval_strategy": "epoch"}),
        pytest.param("on_pre_optimizer_step", {"save_strategy": "epoch"}, marks=pytest.mark.wide),
        pytest.param("on_step_end", {"save_strategy": "steps", "save_steps": 5}, marks=pytest.mark.wide),
        pytest.param("on_epoch_end", {"save_strategy": "epoch", "eval_strategy": "epoch"}, marks=pytest.mark.wide),
    ],
)
def test_told_to_end_and_resumed_is_never_told(tmp_path, event, options):
    _, whole = run(outcome, tmp_path / "whole", options)
    code, preempted = run(outcome, tmp_path / "preempted", options, event)
    assert code == 0
    assert 14 <= preempted["step"] < whole["step"]
    assert preempted["handler"] == signal.SIG_DFL
    checkpoint = saved_in(tmp_path / "preempted")[-1]
    assert checkpoint.name == f"checkpoint-{preempted['step']}"
    assert preempted["evaluations"] == (preempted["step"] * whole["evaluations"]) // whole["step"], (
        "evaluated when preempted to end"
    )
    _, resumed = run(outcome, tmp_path / "preempted", options, None, 0, True)
    assert whole["ledger"]["times_hidden"].sum() > 20, "too little was hidden to compare"
    for name in ("weights", "ledger"):
        assert same_tensors(resumed[name], whole[name])
    for name in ("log", "step", "max_steps"):
        assert resumed[name] == whole[name]


@pytest.mark.wide
@pytest.mark.parametrize("on_rank", [1, 0])
def test_told_on_one_rank_all_ranks_save_and_end_at_the_same_update(tmp_path, on_rank):
    options = {"save_strategy": "no", "per_device_train_batch_size": 4}
    whole = run_ranks(2, outcome, tmp_path / "whole", options)
    preempted = run_ranks(2, outcome, tmp_path / "preempted", options, "on_step_end", on_rank)
    assert preempted[0]["step"] == preempted[1]["step"] < whole[0]["step"]
    assert [folder.name for folder in saved_in(tmp_path / "preempted")] == [f"checkpoint-{preempted[0]['step']}"]
    skip_where_ranks_cannot_resume()
    resumed = run_ranks(2, outcome, tmp_path / "preempted", options, None, 0, True)
    for rank in range(2):
        for name in ("weights", "ledger"):
            assert same_tensors(resumed[rank][name], whole[rank][name])
        assert resumed[rank]["losses"] == whole[rank]["losses"]


def test_a_training_that_stops_within_an_epoch_saves_it_as_not_ended(tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 23

    options = {"num_train_epochs": 4, "save_strategy": "epoch"}
    whole = make_trainer(tmp_path / "whole", **options)
    whole.train()
    stopped = make_trainer(tmp_path / "stopped", trainer_options={"callbacks": [Stop()]}, **options)
    stopped.train()
    assert stopped.ledger.loss.isfinite().all()
    resumed = make_trainer(tmp_path / "stopped", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "stopped" / "checkpoint-23"))
    assert same_tensors(resumed.ledger.state_dict(), whole.ledger.state_dict())
    assert same_tensors(resumed.model.state_dict(), whole.model.state_dict())


def test_without_hiding_the_callback_is_transformers_own(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    try:
        plain = make_trainer(tmp_path, hiding_policy="none", enable_jit_checkpoint=True)
        assert not any(isinstance(callback, AgreedCheckpoint) for callback in plain.callback_handler.callbacks)
        hiding = make_trainer(tmp_path, enable_jit_checkpoint=True)
        kinds = [type(callback) for callback in hiding.callback_handler.callbacks]
        assert AgreedCheckpoint in kinds
        assert JITCheckpointCallback not in kinds
    finally:
        signal.signal(signal.SIGTERM, before)


def test_what_the_callback_rests_on():
    assert "self._enable_checkpoint" in inspect.getsource(CheckpointManager._sigterm_handler)
    assert "self.is_checkpoint_requested = False" in inspect.getsource(CheckpointManager.execute_jit_checkpoint)
    assert "set_trainer(self)" in inspect.getsource(Trainer.__init__)
    assert {name for name in vars(JITCheckpointCallback) if name.startswith("on_")} <= vars(AgreedCheckpoint).keys()
