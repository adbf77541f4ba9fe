"""The learning rate arrives where it arrives without hiding, whatever the scheduler."""

import pytest
import torch
from transformers import SchedulerType, Trainer
from transformers.optimization import GreedyLR

from hf_kakurenbo import KakurenboTrainer
from hf_kakurenbo.hiding import AlignedScheduler
from toy import LinearClassifier, samples, trained

EPOCHS = 5
WITH_METRIC = {SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY}
NEEDED = {
    SchedulerType.COSINE_WITH_MIN_LR: {"min_lr_rate": 0.1},
    SchedulerType.COSINE_WARMUP_WITH_MIN_LR: {"min_lr_rate": 0.1},
    SchedulerType.COSINE_WITH_RESTARTS: {"num_cycles": 2},
    SchedulerType.POLYNOMIAL: {"lr_end": 1e-4, "power": 2.0},
    SchedulerType.WARMUP_STABLE_DECAY: {"num_decay_steps": 20},
}
USERS = {
    "exponential": lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97),
    "one cycle": lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=EPOCHS * 13 + 1),
    "lambda": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
}
HIDING = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3, "model": LinearClassifier}


def assert_arrives(plain, hiding):
    assert hiding.ledger.num_hidden == 60
    assert len(hiding.watch.rates) < len(plain.watch.rates)
    # What is left in the optimizer, for whoever continues from there.
    rates = [[group["lr"] for group in trainer.optimizer.param_groups] for trainer in (hiding, plain)]
    assert rates[0] == pytest.approx(rates[1], rel=1e-9)
    assert hiding.lr_scheduler.scheduler.last_epoch == plain.lr_scheduler.last_epoch
    # At a place in the training, the rate is that of the full training's update at this place, times the epoch's scale.
    for place, rate in zip(hiding.watch.places, hiding.watch.rates[1:], strict=False):
        if place != int(place):  # at the seam of two epochs the scale changes
            scale = 1.0 if place < 1 else 203 / 143
            assert rate == pytest.approx(plain.watch.rates[int(place * 13 + 1e-9)] * scale)


@pytest.mark.parametrize("warmup", [{}, {"warmup_steps": 7}, {"warmup_steps": 0.5}], ids=str)
@pytest.mark.parametrize(
    "kind", [kind for kind in SchedulerType if kind not in WITH_METRIC], ids=lambda kind: kind.value
)
def test_every_scheduler_of_transformers(tmp_path, kind, warmup):
    options = {"lr_scheduler_type": kind, "num_train_epochs": EPOCHS, "lr_scheduler_kwargs": NEEDED.get(kind), **warmup}
    plain = trained(tmp_path, Trainer, model=LinearClassifier, **options)
    assert_arrives(plain, trained(tmp_path, **options, **HIDING))


@pytest.mark.parametrize("make", USERS.values(), ids=USERS)
def test_a_scheduler_of_the_users(tmp_path, make):
    def run(trainer_class, **options):
        model = LinearClassifier()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizers = {"optimizers": (optimizer, make(optimizer))}
        options = {"num_train_epochs": EPOCHS, "trainer_options": optimizers, **options}
        return trained(tmp_path, trainer_class, model=lambda: model, **options)

    options = {name: value for name, value in HIDING.items() if name != "model"}
    assert_arrives(run(Trainer), run(KakurenboTrainer, **options))


def test_without_compensation_only_the_place_counts(tmp_path):
    plain = trained(tmp_path, Trainer, model=LinearClassifier)
    hiding = trained(tmp_path, lr_compensation=False, **HIDING)
    assert isinstance(hiding.lr_scheduler, AlignedScheduler)
    assert set(hiding.watch.rates) <= set(plain.watch.rates)
    assert hiding._get_learning_rate() == plain._get_learning_rate()


def test_the_logged_rate_is_the_one_that_was_used(tmp_path):
    hiding = trained(tmp_path, **HIDING)
    assert [entry["learning_rate"] for entry in hiding.state.log_history if "loss" in entry] == hiding.watch.rates


# The threshold lets nothing but the first evaluation count as an improvement, by which GreedyLR doubles the rate.
@pytest.mark.parametrize(
    ("kind", "factors"),
    [(SchedulerType.REDUCE_ON_PLATEAU, [1, 0.5, 0.25, 0.125]), (SchedulerType.GREEDY, [1, 2, 1, 0.5])],
    ids=lambda value: getattr(value, "value", ""),
)
def test_what_goes_by_a_metric_is_left_alone(tmp_path, kind, factors):
    options = {
        "lr_scheduler_type": kind,
        "lr_scheduler_kwargs": {"patience": 0, "factor": 0.5, "threshold": 1.0},
        "eval_strategy": "epoch",
        "metric_for_best_model": "loss",
        "trainer_options": {"eval_dataset": samples(40, seed=5)},
    }
    hiding = trained(tmp_path, **options, **HIDING)
    assert isinstance(hiding.lr_scheduler, (torch.optim.lr_scheduler.ReduceLROnPlateau, GreedyLR))
    updates = [13, 9, 9, 9]
    expected = [1e-2 * factor for factor, count in zip(factors, updates, strict=True) for _ in range(count)]
    assert hiding.watch.rates == expected
    reported = [entry["kakurenbo/lr_scale"] for entry in hiding.state.log_history if "kakurenbo/lr_scale" in entry]
    assert reported == [1.0] * 4


def test_a_scheduler_made_in_a_subclass_is_aligned_too(tmp_path):
    class OwnScheduler(KakurenboTrainer):
        def create_scheduler(self, num_training_steps, optimizer=None):
            self.lr_scheduler = torch.optim.lr_scheduler.ExponentialLR(self.optimizer, 0.9)
            return self.lr_scheduler

    hiding = trained(tmp_path, OwnScheduler, **HIDING)
    assert hiding.lr_scheduler.scheduler.last_epoch == 4 * 13
