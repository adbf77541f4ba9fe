"""The rate in effect at each update, whoever drives it: of every group, against PyTorch's scheduler alone."""

import logging
import os
from functools import partial

import pytest
import torch
from accelerate.scheduler import AcceleratedScheduler
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR, LinearLR, OneCycleLR, SequentialLR
from transformers import Trainer, TrainerCallback, get_scheduler
from transformers.optimization import Adafactor, AdafactorSchedule
from transformers.trainer_pt_utils import LayerWiseDummyOptimizer, LayerWiseDummyScheduler

from hf_kakurenbo import KakurenboTrainer
from processes import run_ranks
from toy import LinearClassifier, epochs, losses, make_trainer, trained

EPOCHS, FULL_UPDATES, HIDDEN_UPDATES = 4, 13, 9  # 203 samples in batches of 16, 143 of them visible after the first
TOTAL = EPOCHS * FULL_UPDATES
SCALE = 203 / 143
HIDING = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3}


class Groups(TrainerCallback):
    """Notes of each update what every group of an optimizer has for some names."""

    def __init__(self, optimizer, names=("lr",)):
        self.optimizer, self.names, self.seen = optimizer, names, []

    def on_pre_optimizer_step(self, *args, **kwargs):
        self.seen.append(values(self.optimizer, self.names))


def values(optimizer, names):
    found = [[group[name] for name in names] for group in optimizer.param_groups]
    return [[float(value[0] if isinstance(value, tuple) else value) for value in group] for group in found]


def alone(optimizer, scheduler, names=("lr",), steps=1):
    """What a scheduler sets before each update of the full training, by PyTorch alone."""
    seen = []
    for _ in range(TOTAL):
        seen.append(values(optimizer, names))
        optimizer.step()
        for _ in range(steps):
            scheduler.step()
    return seen


def expected(full, scale=SCALE):
    """In an epoch that hides, what the full training has at the same place; rates, which stand first, × the scale."""
    aligned = list(full[:FULL_UPDATES])
    for epoch in range(1, EPOCHS):
        for update in range(HIDDEN_UPDATES):
            there = full[epoch * FULL_UPDATES + update * FULL_UPDATES // HIDDEN_UPDATES]
            aligned.append([[rate * scale, *others] for rate, *others in there])
    return aligned


def assert_equal(found, wanted):
    assert torch.tensor(found) == pytest.approx(torch.tensor(wanted), rel=1e-6, abs=1e-12)


def two_groups(model, cls=torch.optim.SGD, rates=(0.1, 0.01), **options):
    weights, bias = [model.head.weight], [model.head.bias]
    return cls([{"params": weights, "lr": rates[0]}, {"params": bias, "lr": rates[1]}], **options)


def tensor_rates(model):
    return two_groups(model, torch.optim.Adam, (torch.tensor(0.1), torch.tensor(0.01)), foreach=False, capturable=False)


SCHEDULES = {
    "a factor for each group": (two_groups, lambda o: LambdaLR(o, [lambda s: 1 / (1 + s), lambda s: 0.9**s]), ["lr"]),
    "tensors": (tensor_rates, lambda o: LambdaLR(o, lambda s: 1 - s / 100), ["lr"]),
    "one cycle, of the momentum too": (
        lambda model: two_groups(model, momentum=0.9),
        lambda o: OneCycleLR(o, [0.1, 0.05], total_steps=TOTAL + 1),
        ["lr", "momentum"],
    ),
    "one cycle of Adam's betas": (
        lambda model: two_groups(model, torch.optim.AdamW),
        lambda o: OneCycleLR(o, [0.1, 0.05], total_steps=TOTAL + 1),
        ["lr", "betas"],
    ),
    "restarts": (two_groups, lambda o: CosineAnnealingWarmRestarts(o, 10, 2), ["lr"]),
    "two, one after the other": (
        two_groups,
        lambda o: SequentialLR(o, [LinearLR(o, 0.1, 1, 6), torch.optim.lr_scheduler.ExponentialLR(o, 0.95)], [6]),
        ["lr"],
    ),
}


def run(tmp_path, optimizer, scheduler, model, names=("lr",), trainer=KakurenboTrainer, **options):
    noted = Groups(optimizer, names)
    given = {"optimizers": (optimizer, scheduler), "callbacks": [noted]}
    done = trained(tmp_path, trainer, model=lambda: model, trainer_options=given, **{**HIDING, **options})
    return done, noted.seen


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_group_of_a_scheduler_that_is_handed_in(tmp_path, name):
    make_optimizer, make_scheduler, names = SCHEDULES[name]
    model = LinearClassifier()
    reference = make_optimizer(LinearClassifier())
    wanted = expected(alone(reference, make_scheduler(reference), names))
    optimizer = make_optimizer(model)
    done, seen = run(tmp_path, optimizer, make_scheduler(optimizer), model, names)
    assert_equal(seen, wanted)
    assert [entry["learning_rate"] for entry in losses(done)] == [update[0][0] for update in seen]
    assert values(optimizer, ["lr"]) == values(reference, ["lr"]), "what is left for whoever continues"


# ---- Accelerate's scheduler, which steps once for each process ----


def prepared_by_accelerate(output_dir, split_batches):
    """Train with it; what was in effect, and what should have been."""
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    make = partial(LambdaLR, lr_lambda=lambda step: 0.98**step)
    model = LinearClassifier()
    optimizer = two_groups(model)
    given = {"optimizers": (optimizer, None), "callbacks": [noted := Groups(optimizer)]}
    size = {"per_device_train_batch_size": 16 // ranks}
    trainer = make_trainer(output_dir, model=lambda: model, trainer_options=given, **HIDING, **size)
    prepared = trainer.accelerator.prepare(optimizer)
    trainer.lr_scheduler = AcceleratedScheduler(make(optimizer), prepared, split_batches=split_batches)
    trainer.train()
    reference = two_groups(LinearClassifier())
    full = alone(reference, make(reference), steps=1 if split_batches else ranks)
    return noted.seen, expected(full)


@pytest.mark.parametrize("split_batches", [False, True])
def test_a_scheduler_that_accelerate_has_prepared(tmp_path, split_batches):
    assert_equal(*prepared_by_accelerate(tmp_path, split_batches))


@pytest.mark.wide
@pytest.mark.parametrize("split_batches", [False, True])
def test_it_steps_for_each_of_several_processes(tmp_path, split_batches):
    for seen, wanted in run_ranks(2, prepared_by_accelerate, tmp_path, split_batches):
        assert_equal(seen, wanted)


# ---- Optimizers whose rate is not the one of Trainer's groups ----


def layer_wise(model, rates=(0.1, 0.01)):
    """An optimizer for each weight, which steps in the backward pass, as Transformers makes GaLore's and Apollo's."""
    trained_weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizers = {
        weight: torch.optim.SGD([weight], lr=rate) for weight, rate in zip(trained_weights, rates, strict=True)
    }

    def step(weight):
        optimizers[weight].step()
        optimizers[weight].zero_grad()

    for weight in optimizers:
        weight.register_post_accumulate_grad_hook(step)
    return LayerWiseDummyOptimizer(optimizer_dict=optimizers, lr=rates[0])


class Stepped:
    """Notes the rate of each step of some optimizers, as they make it."""

    def __init__(self, optimizers):
        self.rates = [[] for _ in optimizers]
        for optimizer, rates in zip(optimizers, self.rates, strict=True):
            optimizer.register_step_pre_hook(lambda o, *_, rates=rates: rates.append(float(o.param_groups[0]["lr"])))


def test_layer_wise_optimizers_are_compensated(tmp_path):
    model = LinearClassifier()
    dummy = layer_wise(model)
    stepped = Stepped(dummy.optimizer_dict.values())
    given = {"optimizers": (dummy, None)}
    done = trained(tmp_path, model=lambda: model, trainer_options=given, **HIDING)
    # Trainer's schedule reaches only the dummy: without hiding the rates that are stepped with never change.
    plain = LinearClassifier()
    without = layer_wise(plain)
    in_vain = Stepped(without.optimizer_dict.values())
    trained(tmp_path / "plain", Trainer, model=lambda: plain, trainer_options={"optimizers": (without, None)})
    assert in_vain.rates == [[0.1] * TOTAL, [0.01] * TOTAL]
    wanted = [[rate] * FULL_UPDATES + [rate * SCALE] * 3 * HIDDEN_UPDATES for rate in (0.1, 0.01)]
    assert stepped.rates == wanted
    assert [entry["learning_rate"] for entry in losses(done)] == wanted[0]
    assert [entry["kakurenbo/lr_scale"] for entry in epochs(done)] == [1.0] + [SCALE] * 3
    assert values_of(dummy) == [0.1, 0.01], "what is left for whoever continues"


def values_of(dummy):
    return [optimizer.param_groups[0]["lr"] for optimizer in dummy.optimizer_dict.values()]


def test_layer_wise_optimizers_resume_with_the_rate_of_the_epoch(tmp_path):
    def run(folder, checkpoint=None):
        model = LinearClassifier()
        dummy = layer_wise(model)
        stepped = Stepped(dummy.optimizer_dict.values())
        given = {"optimizers": (dummy, None)}
        options = {"save_strategy": "steps", "save_steps": 17, **HIDING}
        trainer = make_trainer(tmp_path / folder, model=lambda: model, trainer_options=given, **options)
        trainer.train(checkpoint)
        return stepped.rates[0], trainer

    whole, _ = run("whole")
    resumed, trainer = run("resumed", str(tmp_path / "whole" / "checkpoint-17"))
    assert resumed == whole[17:]
    assert [entry["learning_rate"] for entry in losses(trainer)] == whole


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
def test_layer_wise_schedulers_that_hooks_step_are_left_alone_with_a_warning(tmp_path, caplog):
    model = LinearClassifier()
    model.head.bias.requires_grad = False  # PyTorch's zip of recent releases allows of the dummy but one group
    dummy = layer_wise(model, (0.1,))
    scheduler = get_scheduler("linear", dummy, num_warmup_steps=0, num_training_steps=TOTAL)
    assert isinstance(scheduler, LayerWiseDummyScheduler)
    stepped = Stepped(dummy.optimizer_dict.values())
    with caplog.at_level(logging.WARNING):
        done = trained(tmp_path, model=lambda: model, trainer_options={"optimizers": (dummy, scheduler)}, **HIDING)
    updates = FULL_UPDATES + 3 * HIDDEN_UPDATES
    assert stepped.rates[0] == pytest.approx([0.1 * (TOTAL - step) / TOTAL for step in range(updates)])
    assert [entry["learning_rate"] for entry in losses(done)] == pytest.approx(stepped.rates[0])
    assert_not_compensated(done, caplog, "each weight has a scheduler of its own")


def assert_not_compensated(done, caplog, reason):
    assert [entry["kakurenbo/lr_scale"] for entry in epochs(done)] == [1.0] * EPOCHS
    warned = [record.message for record in caplog.records if "not compensated for hidden samples" in record.message]
    assert len(warned) == 1
    assert reason in warned[0]


def test_a_rate_that_an_optimizer_works_out_by_itself_is_not_compensated(tmp_path, caplog):
    model = LinearClassifier()
    optimizer = Adafactor(model.parameters(), scale_parameter=False, relative_step=True, warmup_init=True)
    with caplog.at_level(logging.WARNING):
        done, _ = run(tmp_path, optimizer, AdafactorSchedule(optimizer, 1e-3), model)
    assert_not_compensated(done, caplog, "relative_step=True")
    assert optimizer.state[model.head.weight]["step"] == FULL_UPDATES + 3 * HIDDEN_UPDATES


class Elsewhere(torch.optim.SGD):
    """Stands for optimizers that Trainer does not see, each of which steps with a rate of its own."""

    def __init__(self, model):
        self.real = torch.optim.SGD(model.parameters(), lr=0.05)
        super().__init__([torch.zeros(1, requires_grad=True)], lr=0.1)

    def step(self, closure=None):
        self.real.step()


def test_an_optimizer_that_does_not_hold_the_weights_is_not_compensated(tmp_path, caplog):
    model = LinearClassifier()
    optimizer = Elsewhere(model)
    with caplog.at_level(logging.WARNING):
        done, _ = run(tmp_path, optimizer, LambdaLR(optimizer, lambda step: 1.0), model)
    assert_not_compensated(done, caplog, "the weights are not in the groups of")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        run(tmp_path, Elsewhere(model), None, model, lr_compensation=False)
    assert "not compensated" not in caplog.text, "nobody asked for it"


class ScheduleFree(torch.optim.SGD):
    """Warms its rate up by itself, and keeps it under the name that the schedulefree package gives it."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.stepped = []

    def step(self, closure=None):
        for group in self.param_groups:
            group["scheduled_lr"] = group["lr"] * min(1.0, (len(self.stepped) + 1) / 20)
        self.stepped.append(self.param_groups[0]["scheduled_lr"])


def test_the_rate_of_a_schedule_free_optimizer_is_compensated_and_logged(tmp_path):
    model = LinearClassifier()
    optimizer = ScheduleFree(model.parameters(), 0.1)
    done, _ = run(tmp_path, optimizer, LambdaLR(optimizer, lambda step: 1.0), model)
    scales = [1.0] * FULL_UPDATES + [SCALE] * 3 * HIDDEN_UPDATES
    wanted = [0.1 * scale * min(1.0, (update + 1) / 20) for update, scale in enumerate(scales)]
    assert optimizer.stepped == pytest.approx(wanted)
    assert [entry["learning_rate"] for entry in losses(done)] == optimizer.stepped


# ---- Somebody else who sets the rate ----


class Setting(TrainerCallback):
    """Sets the rate by hand before each update, or once."""

    def __init__(self, rates):
        self.rates = rates

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        if state.global_step in self.rates:
            for group in optimizer.param_groups:
                group["lr"] = self.rates[state.global_step]


def test_a_callback_that_sets_the_rate_keeps_it_and_is_reported(tmp_path, caplog):
    rates = {update: 0.1 / (1 + update) for update in range(TOTAL)}
    model = LinearClassifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    given = {"optimizers": (optimizer, LambdaLR(optimizer, lambda step: 1.0))}
    given["callbacks"] = [Setting(rates), noted := Groups(optimizer)]
    with caplog.at_level(logging.WARNING):
        done = trained(tmp_path, model=lambda: model, trainer_options=given, **HIDING)
    wanted = list(rates.values())[: FULL_UPDATES + 3 * HIDDEN_UPDATES]
    assert noted.seen == [[[rate]] for rate in wanted]
    assert [entry["learning_rate"] for entry in losses(done)] == wanted
    assert caplog.text.count("Somebody other than the scheduler has set the learning rate") == 1


def test_a_rate_that_is_set_once_stays_for_a_scheduler_that_goes_on_from_it(tmp_path):
    """As without hiding: ExponentialLR multiplies what it finds."""
    model = LinearClassifier()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    update = FULL_UPDATES + 3
    given = {"optimizers": (optimizer, scheduler), "callbacks": [Setting({update: 0.5}), noted := Groups(optimizer)]}
    trained(tmp_path, model=lambda: model, trainer_options=given, **HIDING)
    # It is the third update of nine, at the fourth full one; from there it decays to the end of the training.
    steps = TOTAL - FULL_UPDATES - 3 * FULL_UPDATES // HIDDEN_UPDATES
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 / SCALE * 0.9**steps)
    assert noted.seen[update] == [[0.5]]


class Asking(TrainerCallback):
    """Asks the trainer for the rate before each update, as Trainer does to hand it to LOMO's backward pass."""

    def __init__(self):
        self.trainer, self.rates = None, []

    def on_step_begin(self, *args, **kwargs):
        self.rates.append(self.trainer._get_learning_rate())


def test_the_rate_that_lomo_is_given_is_compensated_and_logged(tmp_path):
    asking = Asking()
    asking.trainer = trainer = make_trainer(tmp_path, model=LinearClassifier, **HIDING)
    trainer.add_callback(asking)
    trainer.train()
    wanted = expected([[[1e-2 * (TOTAL - step) / TOTAL]] for step in range(TOTAL)])
    assert_equal([[[rate]] for rate in asking.rates], wanted)
    assert [entry["learning_rate"] for entry in losses(trainer)] == asking.rates
