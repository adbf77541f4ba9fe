"""Samples that count more than others: the loss of a batch, its gradient, and how often a sample comes."""

import pytest
import torch
from torch import nn
from transformers import Trainer, ViTConfig, ViTForImageClassification

from hf_kakurenbo import SampleLedger, SampleStatistics
from hf_kakurenbo.data import VisibleSampler
from hf_kakurenbo.hiding import (
    HidingPolicy,
    HidingRun,
    InfoBatchPolicy,
    Selection,
    multi_label_statistics,
    register_policy,
    regression_statistics,
    single_label_statistics,
    soft_label_statistics,
)
from hf_kakurenbo.hiding.statistics import Prediction
from hf_kakurenbo.hiding.weighting import require_weighable, weighed_loss
from stream_toy import streamed
from toy import NUM_CLASSES, NUM_SAMPLES, LinearClassifier, epochs, make_trainer, samples, trained

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 4, generator=GENERATOR)
WEIGHTS = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0, 0.0])
CLASSES = torch.tensor([0, 1, 2, 3, 0, 1])
SOFT = torch.softmax(torch.randn(6, 4, generator=GENERATOR), dim=1)
SEVERAL = (torch.randn(6, 4, generator=GENERATOR) > 0).float()
NUMBERS = torch.randn(6, 4, generator=GENERATOR)

CASES = {
    "one label": (
        single_label_statistics,
        CLASSES,
        nn.functional.cross_entropy,
        lambda logits: -torch.log_softmax(logits, 1)[torch.arange(6), CLASSES],
    ),
    "soft labels": (
        soft_label_statistics,
        SOFT,
        nn.functional.cross_entropy,
        lambda logits: -(SOFT * torch.log_softmax(logits, 1)).sum(1),
    ),
    "several labels": (
        multi_label_statistics,
        SEVERAL,
        nn.functional.binary_cross_entropy_with_logits,
        lambda logits: -(
            SEVERAL * torch.sigmoid(logits).log() + (1 - SEVERAL) * torch.sigmoid(-logits).log()
        ).mean(1),
    ),
    "regression": (
        regression_statistics,
        NUMBERS,
        nn.functional.mse_loss,
        lambda logits: ((logits - NUMBERS) ** 2).mean(1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("accumulated", [1, 4])
def test_a_plain_mean_becomes_the_weighted_mean(case, accumulated):
    rule, labels, mean, each = CASES[case]
    logits = LOGITS.clone().requires_grad_()
    weighed_loss(mean(logits, labels) / accumulated, Prediction(rule, logits, labels), WEIGHTS).backward()
    expected = LOGITS.clone().requires_grad_()
    (WEIGHTS @ each(expected) / 6 / accumulated).backward()
    torch.testing.assert_close(logits.grad, expected.grad)
    assert logits.grad[5].abs().max() < 1e-7, "a weight of 0 leaves the sample out"


def test_a_masked_sample_weighs_nothing():
    labels = torch.tensor([0, 1, -100, 3, -100, 1])
    logits = LOGITS.clone().requires_grad_()
    loss = nn.functional.cross_entropy(logits, labels)
    weighed = weighed_loss(loss, Prediction(single_label_statistics, logits, labels), WEIGHTS)
    asked = [0, 1, 3, 5]
    each = nn.functional.cross_entropy(LOGITS[asked], labels[asked], reduction="none")
    assert float(weighed.detach()) == pytest.approx(float(WEIGHTS[asked] @ each / 4))


def test_a_batch_without_any_loss_stays_without():
    logits = torch.full((3, 4), 0.0).index_fill_(1, torch.tensor([0]), 1e4).requires_grad_()
    labels = torch.zeros(3, dtype=torch.int64)
    loss = weighed_loss(
        nn.functional.cross_entropy(logits, labels), Prediction(single_label_statistics, logits, labels), WEIGHTS[:3]
    )
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad.isfinite().all()


def test_what_has_no_loss_of_each_sample_is_refused():
    figures = SampleStatistics(torch.ones(2), torch.ones(2, dtype=torch.bool), torch.ones(2))
    with pytest.raises(ValueError, match=r"needs a loss of its own with a gradient.*Choose a policy without weights"):
        require_weighable(figures)


def test_weights_are_of_the_epoch():
    run = HidingRun(100, InfoBatchPolicy(hiding_warmup_epochs=0))
    run.ledger.loss.copy_(torch.arange(100.0))
    run.begin_epoch(0, 0.0)
    assert run.weights_of(torch.tensor([0, 99])).tolist() == [2.0, 1.0]
    assert run.ledger.num_hidden > 10
    assert run.lr_scale == 1.0, "the weights stand for what is hidden"
    tensors, scalars = run.state()
    again = HidingRun(100, InfoBatchPolicy())
    again.load_state(tensors, scalars)
    assert again.weights_of(torch.tensor([0, 99])).tolist() == [2.0, 1.0]
    run.finish_epoch()
    assert run.weights_of(torch.tensor([0])) is None
    assert "weights" not in run.state()[0]
    run.hide_nothing()
    assert run.weights is None


def test_repetitions_come_as_often_as_they_shall_and_not_in_a_row():
    repeats = torch.tensor([3, 0, 1, 5, 0, 1, 2, 0] * 4, dtype=torch.int32)
    sampler = VisibleSampler(range(32))
    sampler.repeats = repeats
    sampler.begin_epoch(1, repeats == 0)
    order = list(sampler)
    assert len(sampler) == sampler.samples == len(order) == int(repeats.sum())
    assert [order.count(index) for index in range(32)] == repeats.tolist()
    assert order != sorted(order)
    assert list(sampler) == order
    sampler.hide_less((repeats == 0) & (torch.arange(32) != 1))
    assert sorted(sampler) == sorted([*order, 1]), "a sample that is shown after all comes once"


class TwoToOne(HidingPolicy):
    """Hides nothing, and lets the samples of even ids count three times."""

    weighs_samples = True

    def select(self, ledger: SampleLedger, epoch: int, progress: float) -> Selection:
        weights = torch.where(torch.arange(len(ledger)) % 2 == 0, 3.0, 1.0)
        return Selection(torch.zeros(len(ledger), dtype=torch.bool), 0, weights)

    def wants_refresh(self, epoch: int) -> bool:
        return False


register_policy("two_to_one")(TwoToOne)


class ToyForImageClassification(ViTForImageClassification):
    """Divides its loss by the samples of all batches of an update, as models of Transformers do."""

    def __init__(self):
        super().__init__(
            ViTConfig(
                image_size=4,
                patch_size=2,
                num_channels=1,
                hidden_size=8,
                num_hidden_layers=1,
                num_attention_heads=1,
                intermediate_size=8,
                num_labels=NUM_CLASSES,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
        )

    def forward(self, x, labels, **kwargs):
        return super().forward(pixel_values=x.view(-1, 1, 4, 4), labels=labels, **kwargs)


@pytest.mark.parametrize("model", [LinearClassifier, ToyForImageClassification])
@pytest.mark.parametrize("accumulation", [1, 3])
def test_a_weighted_update_is_that_of_samples_that_come_several_times(tmp_path, model, accumulation):
    """One update of gradient descent: the weights turn the mean of the gradients into the weighted one."""
    options = {
        "model": model,
        "dataset": samples(24),
        "max_steps": 1,
        "per_device_train_batch_size": 24 // accumulation,
        "gradient_accumulation_steps": accumulation,
        "optim": "sgd",
        "learning_rate": 0.5,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
    }
    before = flat(make_trainer(tmp_path, Trainer, **options).model)
    plain = flat(trained(tmp_path, Trainer, **options).model) - before
    weighted = flat(trained(tmp_path, hiding_policy="two_to_one", **options).model) - before
    start = make_trainer(tmp_path, Trainer, **options).model
    weights = torch.where(torch.arange(24) % 2 == 0, 3.0, 1.0)
    gradient, weighted_gradient = gradient_of(start, torch.ones(24)), gradient_of(start, weights)
    # Trainer's own step, which with accumulated gradients is a third of this in Transformers 5.4.0.
    rate = -(plain @ gradient) / gradient.square().sum()
    torch.testing.assert_close(plain, -rate * gradient, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(weighted, -rate * weighted_gradient, rtol=1e-4, atol=1e-6)


def flat(model):
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


def gradient_of(model, weights):
    """Of the weighted mean of the plain losses of the samples."""
    rows = samples(24)
    x, labels = (torch.stack([row[name] for row in rows]) for name in ("x", "labels"))
    losses = nn.functional.cross_entropy(model(x=x, labels=labels)["logits"], labels, reduction="none")
    return torch.cat([part.flatten() for part in torch.autograd.grad(weights @ losses / 24, model.parameters())])


def measured(outputs, inputs):
    return single_label_statistics(outputs["logits"], inputs["labels"])


@pytest.mark.parametrize(
    "policy",
    [
        {"hiding_policy": "infobatch"},
        {"hiding_policy": "importance"},
        {"hiding_policy": "coin", "policy_options": {"weighted": True}},
    ],
    ids=str,
)
def test_a_policy_with_weights_is_refused_where_there_are_none_on_the_first_batch(tmp_path, policy):
    trainer = make_trainer(tmp_path, **policy, statistics_fn=measured)
    with pytest.raises(ValueError, match=r"gives its samples weights.*statistics_fn"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_stream_that_cannot_repeat_is_refused_at_construction(tmp_path):
    with pytest.raises(ValueError, match=r"'importance' draws samples more than once.*stream.*map-style"):
        make_trainer(tmp_path, hiding_policy="importance", dataset=streamed(), num_samples=NUM_SAMPLES)


def test_importance_has_whole_epochs(tmp_path):
    trainer = trained(tmp_path, hiding_policy="importance", num_train_epochs=4)
    orders = trainer.watch.orders
    assert [len(order) for order in orders] == [NUM_SAMPLES] * 4
    assert len(set(orders[0])) == NUM_SAMPLES
    for order, hidden in zip(orders[1:], trainer.watch.hidden[1:], strict=True):
        assert set(order) == set((~hidden).nonzero().squeeze(1).tolist())
    assert all(entry["kakurenbo/lr_scale"] == 1.0 for entry in epochs(trainer))
    assert trainer._training.run.trained_samples == 4 * NUM_SAMPLES
