"""What Transformers' own tests do with a trainer: as with `Trainer` where nothing is hidden, and right where it is.

Each feature is trained by `Trainer`, with `hiding_policy="none"` and with a fraction of 0, which must be the same bit
for bit, and with hiding, where the model itself counts what is trained.
"""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, default_data_collator

from counting import Counting, Epochs, rows
from hf_kakurenbo import KakurenboTrainer
from toy import losses, make_trainer, same_weights, without_timings

HIDING = {"move_back": False, "max_hidden_fraction": 0.3}
NOTHING = {"none": {"hiding_policy": "none"}, "fraction 0": {"max_hidden_fraction": 0.0}}


class Tuples(Counting):
    """Returns a tuple, as models without `return_dict` do."""

    def forward(self, x, row, labels=None):
        outputs = super().forward(x, row, labels)
        return tuple(outputs[name] for name in ("loss", "logits") if name in outputs)


class Doubled(Counting):
    """Returns hidden states beside the logits."""

    def forward(self, x, row, labels=None):
        outputs = super().forward(x, row, labels)
        return {**outputs, "hidden_states": (x, 2 * x)}


class Stops(TrainerCallback):
    """Ends the training within the third epoch."""

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step == 30


class SavesWhenAsked(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_save = control.should_evaluate = control.should_log = state.global_step % 7 == 3


class LearningRate(TrainerCallback):
    """Reads what Trainer hands to callbacks."""

    def __init__(self):
        self.seen = []

    def on_step_end(self, args, state, control, lr_scheduler=None, optimizer=None, train_dataloader=None, **kwargs):
        assert len(train_dataloader) > 0
        self.seen.append((lr_scheduler.get_last_lr()[0], optimizer.param_groups[0]["lr"]))


def sgd(model):
    return torch.optim.SGD(
        [{"params": [model.head.weight]}, {"params": [model.head.bias], "lr": 0.02}], lr=0.05, momentum=0.9
    )


def own_pair(model):
    optimizer = sgd(model)
    return optimizer, LambdaLR(optimizer, [lambda step: 1 / (1 + step / 20), lambda step: 1.0])


def accuracy(prediction):
    logits = prediction.predictions
    return {"accuracy": float(np.mean(np.argmax(logits, axis=-1) == prediction.label_ids))}


EVALUATED = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}

# Fields of the arguments; below `trainer`, arguments of the trainer, or functions of the model that make them.
FEATURES = {
    "tuples": {"model": Tuples},
    "more outputs": {"model": Doubled},
    "evaluation by steps": {"eval_strategy": "steps", "eval_steps": 5, "eval_on_start": True},
    "best model at the end": {**EVALUATED, "metric_for_best_model": "loss"},
    "early stopping": {
        **EVALUATED,
        "metric_for_best_model": "loss",
        "trainer": {"callbacks": [EarlyStoppingCallback(2, 0.02)]},
        "num_train_epochs": 12,
    },
    "metrics": {
        "eval_strategy": "epoch",
        "trainer": {"compute_metrics": accuracy},
    },
    "few checkpoints": {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 1},
    "a callback that stops": {"trainer": {"callbacks": [Stops()]}},
    "a callback that saves": {"trainer": {"callbacks": [SavesWhenAsked()]}},
    "a callback that reads": {"trainer": {"callbacks": [LearningRate()]}},
    "own optimizer": {"optimizers": lambda model: (sgd(model), None)},
    "own optimizer and scheduler": {"optimizers": own_pair},
    "cosine with restarts": {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 2}},
    "polynomial": {"lr_scheduler_type": "polynomial", "warmup_steps": 5},
    "constant with warm-up": {"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 20},
    "warm-up, stable, decay": {
        "lr_scheduler_type": "warmup_stable_decay",
        "lr_scheduler_kwargs": {"num_decay_steps": 10},
        "warmup_steps": 5,
    },
    "adafactor": {"optim": "adafactor"},
    "sgd": {"optim": "sgd"},
    "no clipping": {"max_grad_norm": 0.0},
    "average of tokens off": {"average_tokens_across_devices": False, "gradient_accumulation_steps": 3},
    "logging by a fraction": {"logging_steps": 0.1, "save_strategy": "steps", "save_steps": 0.5},
    "max steps within an epoch": {"max_steps": 17},
    "max steps and accumulation": {"max_steps": 9, "gradient_accumulation_steps": 4},
    "one batch": {"per_device_train_batch_size": 256},
    "batches of one": {"per_device_train_batch_size": 1, "num_train_epochs": 2},
    "collator of one's own": {"trainer": {"data_collator": lambda examples: default_data_collator(examples)}},
    "columns kept": {"remove_unused_columns": False},
    "full determinism": {"seed": 3, "data_seed": 5},
}


def make(tmp_path, trainer, feature, **options):
    options = {"num_train_epochs": 4, "learning_rate": 0.02, **FEATURES[feature], **options}
    given = {"eval_dataset": rows(40), **options.pop("trainer", {})}
    epochs = Epochs()
    given["callbacks"] = [epochs, *given.get("callbacks", [])]
    optimizers, model = options.pop("optimizers", None), options.pop("model", Counting)
    torch.manual_seed(1)
    if optimizers is not None:
        network = model()
        given["optimizers"], make_model = optimizers(network), lambda: network
    else:
        make_model = model
    made = make_trainer(tmp_path, trainer, model=make_model, dataset=rows(), trainer_options=given, **options)
    epochs.trainer, made.epochs = made, epochs
    return made


@pytest.mark.parametrize("nothing", NOTHING.values(), ids=NOTHING)
@pytest.mark.parametrize("feature", FEATURES)
def test_with_nothing_hidden_it_is_trainer(tmp_path, feature, nothing):
    plain, hiding = (
        make(tmp_path / "plain", Trainer, feature),
        make(tmp_path / "ours", KakurenboTrainer, feature, **nothing),
    )
    plain.train()
    hiding.train()
    assert losses(plain) == losses(hiding) != []
    evaluated = [[e for e in without_timings(t.state.log_history) if "eval_loss" in e] for t in (plain, hiding)]
    assert evaluated[0] == evaluated[1]
    assert same_weights(plain, hiding)
    assert plain.model.trained == hiding.model.trained
    for name in ("global_step", "max_steps", "epoch", "best_metric", "best_global_step", "num_train_epochs"):
        assert getattr(plain.state, name) == getattr(hiding.state, name), name
    assert sorted(path.name for path in (tmp_path / "plain").glob("checkpoint-*")) == sorted(
        path.name for path in (tmp_path / "ours").glob("checkpoint-*")
    )


@pytest.mark.parametrize("feature", FEATURES)
def test_with_hiding_each_visible_sample_is_trained_on_once(tmp_path, feature):
    trainer = make(tmp_path, KakurenboTrainer, feature, **HIDING)
    trainer.train()
    counted, hidden = trainer.model.trained, trainer.epochs.hidden
    stops_short = "stops" in feature or "max steps" in feature
    complete = len(hidden) - stops_short
    for trained, gone in zip(counted[:complete], hidden[:complete], strict=True):
        assert trained == Counter(row for row in range(203) if row not in gone)
    for trained, gone in zip(counted, hidden, strict=True):
        assert not set(trained) & gone
        assert set(trained.values()) <= {1}
    assert any(hidden)
    assert trainer.state.max_steps == trainer.state.global_step or "stop" in feature
