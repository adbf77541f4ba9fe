"""The refresh looks at the hidden samples and leaves no trace."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from hf_kakurenbo.hiding import forward_only
from hf_kakurenbo.trainer import epochs
from needs_gpu import NEEDS_GPU
from toy import Classifier, make_trainer, samples, trained

HIDING = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3}


class PartlyFrozen(Classifier):
    """One module stays in evaluation mode while the rest trains."""

    def train(self, mode=True):
        super().train(mode)
        self.layers[3].eval()
        return self


class Noisy:
    """Samples whose transform draws from all three global generators."""

    def __init__(self):
        self.samples = samples()

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        sample = self.samples[index]
        noise = torch.randn(1) + random.random() + float(np.random.rand())
        return {"x": sample["x"] + 0.01 * noise, "labels": sample["labels"]}


def snapshot(model):
    return (
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        [module.training for module in model.modules()],
        torch.get_rng_state(),
        np.random.get_state()[1].tolist(),
        random.getstate(),
        [state.tolist() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else [],
    )


def assert_untouched(before, after):
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    assert before[2] == after[2]
    assert torch.equal(before[3], after[3])
    assert before[4:] == after[4:]


@pytest.mark.parametrize(
    "options",
    [
        {"dataloader_num_workers": 0},
        {"dataloader_num_workers": 1},
        pytest.param({"use_cpu": False}, marks=NEEDS_GPU),
    ],
    ids=str,
)
def test_leaves_no_trace(tmp_path, monkeypatch, options):
    trainer = make_trainer(tmp_path, model=PartlyFrozen, dataset=Noisy(), num_train_epochs=3, **options, **HIDING)
    looks = []
    refresh = epochs.refresh_hidden

    def watched_refresh(trainer, training):
        for parameter in trainer.model.parameters():  # as if a gradient were still held
            parameter.grad = torch.ones_like(parameter)
        before = snapshot(trainer.model)
        refresh(trainer, training)
        assert_untouched(before, snapshot(trainer.model))
        for parameter in trainer.model.parameters():
            parameter.grad = None
        looks.append(training.run.ledger.loss[:60].clone())

    monkeypatch.setattr(epochs, "refresh_hidden", watched_refresh)
    trainer.train()
    assert len(looks) == 1


@pytest.mark.parametrize("bf16", [False, True])
def test_measures_in_evaluation_mode_and_in_the_precision_of_the_training(tmp_path, monkeypatch, bf16):
    trainer = make_trainer(tmp_path, num_train_epochs=3, bf16=bf16, **HIDING)
    expected = {}
    refresh = epochs.refresh_hidden

    def watched_refresh(trainer, training):
        refresh(trainer, training)
        model = Classifier().eval()  # Accelerate has put its autocast around the trainer's
        model.load_state_dict(trainer.model.state_dict())
        x = torch.stack([sample["x"] for sample in samples()[:60]])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(x)["logits"].float()
        with torch.no_grad():
            expected["in full"] = model(x)["logits"].softmax(1).max(1).values
        labels = torch.stack([sample["labels"] for sample in samples()[:60]])
        expected["loss"] = nn.functional.cross_entropy(logits, labels, reduction="none")
        expected["confidence"] = logits.softmax(1).max(1).values
        expected["measured"] = training.run.ledger.loss[:60].clone(), training.run.ledger.confidence[:60].clone()

    monkeypatch.setattr(epochs, "refresh_hidden", watched_refresh)
    trainer.train()
    torch.testing.assert_close(expected["measured"][0], expected["loss"])
    torch.testing.assert_close(expected["measured"][1], expected["confidence"])
    assert torch.allclose(expected["measured"][1], expected["in full"], rtol=1e-5) is not bf16


@pytest.mark.parametrize(("interval", "times"), [(1, 4), (2, 2), (3, 1)])
def test_every_so_many_epochs_and_not_after_the_last(tmp_path, interval, times):
    options = {"num_train_epochs": 6, "hiding_warmup_epochs": 1, "confidence_threshold": 0.0, "move_back": False}
    trainer = trained(tmp_path, refresh_interval=interval, **options)
    looked = [entry for entry in trainer.state.log_history if entry.get("kakurenbo/refresh_runtime", 0) > 0]
    assert len(looked) == times
    assert all((entry["epoch"]) % interval == 0 for entry in looked)


def test_forward_only_restores_modes_after_an_error():
    model = PartlyFrozen().train()
    modes = [module.training for module in model.modules()]

    def fail_inside():
        with forward_only(model):
            assert not any(module.training for module in model.modules())
            assert not torch.is_grad_enabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert [module.training for module in model.modules()] == modes
    assert torch.is_grad_enabled()
