"""Learning rates that are tensors of the device: compensated there, without waiting for it."""

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from transformers import Trainer

from hf_kakurenbo import KakurenboTrainer
from hf_kakurenbo.hiding import AlignedScheduler
from standin_device import DEVICE, report
from standin_training import own, read_back, standin, steps, train_on_standin
from toy import LinearClassifier, make_trainer

SCHEDULERS = {
    "lambda": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 40),
    "from the last rate": lambda optimizer: lr_scheduler.ExponentialLR(optimizer, 0.9),
    "cosine": lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, 40),
    "in a row": lambda optimizer: lr_scheduler.SequentialLR(
        optimizer,
        [lr_scheduler.LinearLR(optimizer, 0.1, total_iters=10), lr_scheduler.ExponentialLR(optimizer, 0.9)],
        [10],
    ),
}
EPOCHS = [(10, 1.0), (7, 10 / 7), (5, 2.0), (8, 1.25)]


def groups(rate, device="cpu"):
    """An optimizer with two groups at the rate, and at a tenth of it."""
    weights = [nn.Parameter(torch.zeros(1, device=device)) for _ in range(2)]
    parameters = [{"params": [weights[0]]}, {"params": [weights[1]], "lr": rate / 10}]
    return torch.optim.SGD(parameters, lr=rate, foreach=False)


def course(make_scheduler, rate, device="cpu", after_step=lambda: None):
    """The rates of all updates, of both groups."""
    optimizer = groups(rate, device)
    scheduler, rates = AlignedScheduler(make_scheduler(optimizer), optimizer), []
    for updates, scale in EPOCHS:
        scheduler.begin_epoch(updates, 10, scale)
        for _ in range(updates):
            rates.append([group["lr"] for group in optimizer.param_groups])
            rates[-1] = [one.clone() if isinstance(one, torch.Tensor) else one for one in rates[-1]]
            optimizer.step()
            scheduler.step()
            after_step()
    return rates


@pytest.mark.parametrize("make_scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_rates_on_the_device_are_those_of_numbers_and_are_not_waited_for(make_scheduler):
    expected = course(make_scheduler, 0.5)
    with standin() as device:
        rates = course(make_scheduler, torch.tensor(0.5).to(DEVICE), DEVICE)
        waits = [event for event in read_back(device.events) if "aligned_scheduler" in (event.line or "")]
        found = [[float(rate) for rate in row] for row in rates]
    assert not waits, report(waits)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-5, atol=1e-7)


class RatesOnDevice(KakurenboTrainer):
    def create_optimizer(self, *args, **kwargs):
        self.optimizer = with_rate_on_device(self)
        return self.optimizer


class PlainRatesOnDevice(Trainer):
    def create_optimizer(self, *args, **kwargs):
        self.optimizer = with_rate_on_device(self)
        return self.optimizer


def with_rate_on_device(trainer):
    rate = torch.tensor(trainer.args.learning_rate).to(trainer.args.device)
    return torch.optim.SGD(trainer.model.parameters(), lr=rate, foreach=False)


def test_a_training_with_a_rate_on_the_device_waits_no_more_than_trainer(tmp_path):
    options = {"model": LinearClassifier, "num_train_epochs": 2}
    hiding = {"initial_pass": True, "hiding_warmup_epochs": 0, "move_back": False}
    trainer, device = train_on_standin(make_trainer, tmp_path / "a", RatesOnDevice, **options, **hiding)
    _, plain = train_on_standin(make_trainer, tmp_path / "b", PlainRatesOnDevice, **options)
    assert trainer.ledger.num_hidden
    (waits,) = {len(read_back(step)) for step in steps(plain)}
    for step in steps(device):
        assert len(read_back(step)) == waits, report(read_back(step))
        # Trainer reads the rate after each update, for the log; so does the one that is compensated.
        assert len(own(read_back(step))) == 1, report(own(read_back(step)))
