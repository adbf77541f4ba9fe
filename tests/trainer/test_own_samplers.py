"""Samplers that do not draw each sample once: F is a fraction of the epoch's draws, by an independent count."""

import logging
import math
from collections import Counter

import numpy as np
import pytest
import torch
from test_overrides import make
from torch.utils.data import RandomSampler, Sampler, SubsetRandomSampler, WeightedRandomSampler

from counting import rows
from hf_kakurenbo import KakurenboTrainer

SAMPLES, F = 203, 0.3
CONSTANT = {"max_hidden_fraction": F, "fraction_milestones": [0.0], "fraction_factors": [1.0]}


class Noting(Sampler):
    """Another sampler, whose draws are noted."""

    def __init__(self, sampler):
        self.sampler, self.drawn = sampler, []

    def __len__(self):
        return len(self.sampler)

    def __iter__(self):
        self.drawn.append(list(self.sampler))
        yield from self.drawn[-1]


class Stateful(Sampler):
    """Draws from a generator of its own, so that no draw is like another."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def __len__(self):
        return 150

    def __iter__(self):
        return iter(self.generator.integers(0, SAMPLES, 150).tolist())


def weights():
    return torch.where(torch.arange(SAMPLES) < 6, 20.0, 1.0).double()


SAMPLERS = {
    "a subset": lambda: SubsetRandomSampler(range(40)),
    "a few": lambda: SubsetRandomSampler(range(8)),
    "weighted": lambda: WeightedRandomSampler(weights(), SAMPLES),
    "weighted, more draws": lambda: WeightedRandomSampler(weights(), 500),
    "with replacement": lambda: RandomSampler(range(SAMPLES), replacement=True, num_samples=300),
    "a part in each epoch": lambda: RandomSampler(range(SAMPLES), num_samples=100),
    "each twice": lambda: [*range(SAMPLES), *range(SAMPLES)],
    "each once": lambda: SubsetRandomSampler(range(SAMPLES)),
    "stateful": Stateful,
}


def trained_with(tmp_path, sampler, **options):
    class Own(KakurenboTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return sampler

    trainer = make(tmp_path, Own, **{"num_train_epochs": 4, **CONSTANT, **options})
    trainer.train()
    return trainer


def reports(trainer):
    return [entry for entry in trainer.state.log_history if "kakurenbo/hidden_fraction" in entry]


POLICIES = {
    "kakurenbo": {},
    "random": {"hiding_policy": "random"},
    "spaced_repetition": {"hiding_policy": "spaced_repetition", "confidence_threshold": 0.0, "learning_rate": 0.05},
    "coin": {"hiding_policy": "coin", "confidence_threshold": 0.3, "learning_rate": 0.05},
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("kind", SAMPLERS)
def test_what_is_hidden_is_a_fraction_of_the_draws(tmp_path, kind, policy):
    sampler = Noting(SAMPLERS[kind]())
    trainer = trained_with(tmp_path, sampler, **policy)
    assert len(sampler.drawn) == 4
    limited = policy is not POLICIES["coin"]
    for order, trained, hidden, report in zip(
        sampler.drawn, trainer.model.trained, trainer.epochs.hidden, reports(trainer), strict=True
    ):
        drawn = Counter(order)
        assert trained == Counter({row: count for row, count in drawn.items() if row not in hidden})
        assert hidden <= set(drawn)
        gone = sum(drawn[row] for row in hidden)
        assert not limited or gone <= math.floor(F * len(order))
        assert report["kakurenbo/hidden_fraction"] == pytest.approx(gone / len(order))
        assert report["kakurenbo/visible_samples"] == len(order) - gone
        assert report["kakurenbo/lr_scale"] == pytest.approx(len(order) / (len(order) - gone))
    assert any(trainer.epochs.hidden)
    total = sum(sum(trained.values()) for trained in trainer.model.trained)
    assert trainer._training.run.trained_samples == total


@pytest.mark.parametrize(("kind", "drawn"), [("a subset", 40), ("a few", 8), ("each once", SAMPLES)])
def test_kakurenbo_hides_the_lowest_losses_of_those_drawn(tmp_path, kind, drawn):
    trainer = trained_with(tmp_path, SAMPLERS[kind](), learning_rate=0.0)
    lowest = torch.argsort(trainer.ledger.loss[:drawn], stable=True)[: math.floor(F * drawn)]
    assert [set(), *[set(lowest.tolist())] * 3] == trainer.epochs.hidden


def test_samples_that_were_not_drawn_are_not_warned_of(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        trained_with(tmp_path, SAMPLERS["weighted"]())
    assert "no finite loss" not in caplog.text


def test_samples_that_were_drawn_and_have_no_loss_are_counted(tmp_path, caplog):
    class Masked(KakurenboTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return SubsetRandomSampler(range(40))

    data = rows()
    for index in (3, 5, 77):
        data[index]["labels"] = torch.tensor(-100)
    with caplog.at_level(logging.WARNING):
        make(tmp_path, Masked, dataset=data).train()
    assert "2 of the 203 samples have no finite loss" in caplog.text


@pytest.mark.parametrize("step", [5, 17])
def test_a_resumed_training_is_as_one_that_was_not_interrupted(tmp_path, step):
    options = {"save_strategy": "steps", "save_steps": 1, "logging_steps": 1}

    class Weighted(KakurenboTrainer):
        def _get_train_sampler(self, train_dataset=None):
            return WeightedRandomSampler(weights(), SAMPLES)

    whole = make(tmp_path / "whole", Weighted, **CONSTANT, **options)
    whole.train()
    resumed = make(tmp_path / "resumed", Weighted, **CONSTANT, **{**options, "save_strategy": "no"})
    resumed.train(str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert torch.equal(resumed.model.head.weight, whole.model.head.weight)
    assert torch.equal(resumed.ledger.times_hidden, whole.ledger.times_hidden)
    assert [{k: v for k, v in e.items() if "time" not in k} for e in reports(resumed)] == [
        {k: v for k, v in e.items() if "time" not in k} for e in reports(whole)
    ]
