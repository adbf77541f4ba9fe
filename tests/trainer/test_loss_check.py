"""What is ranked belongs to the loss that is trained, and a user's statistics are what they have to be."""

import logging

import pytest
import torch
from torch import nn
from transformers import Trainer

from hf_kakurenbo import SampleStatistics
from hf_kakurenbo.hiding.statistics import Prediction, single_label_statistics, token_statistics
from hf_kakurenbo.hiding.statistics.base import exp
from hf_kakurenbo.hiding.statistics.batch_loss import mean_loss
from toy import NUM_CLASSES, NUM_FEATURES, LinearClassifier, make_trainer, same_tensors, samples, trained
from toy import mean_loss as weighted_loss


def with_other_labels():
    generator = torch.Generator().manual_seed(1)
    others = torch.randint(0, 3, (203,), generator=generator)
    return [{**sample, "labels_b": label} for sample, label in zip(samples(), others, strict=True)]


class TwoHeads(nn.Module):
    """Trains on the losses of both heads."""

    factor = 1.0

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(NUM_FEATURES, NUM_CLASSES), nn.Linear(NUM_FEATURES, 3)

    def forward(self, x, labels=None, labels_b=None):
        a, b = self.a(x), self.b(x)
        other = self.factor * nn.functional.cross_entropy(b, labels_b)
        return {"loss": nn.functional.cross_entropy(a, labels) + other, "logits": a, "logits_b": b}


class OneHead(TwoHeads):
    """Has another head and does not train it."""

    factor = 0.0


class Similarities(LinearClassifier):
    """Supervised contrastive learning: the logits compare the samples of the batch."""

    def forward(self, x, labels):
        features = nn.functional.normalize(self.head(x), dim=1)
        similarity = 5 * features @ features.T
        same = (labels[:, None] == labels[None]).float()
        return {"loss": nn.functional.cross_entropy(similarity, same / same.sum(1, keepdim=True)), "logits": similarity}


REFUSED = {
    "two heads": (TwoHeads, with_other_labels, {"label_names": ["labels", "labels_b"]}, "several labels.*labels_b"),
    "similarities": (Similarities, samples, {}, r"\(16, 16\), are similarities between the samples"),
}


@pytest.mark.parametrize(("model", "data", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_the_loss_of_something_else_is_refused_before_a_step(tmp_path, model, data, options, message):
    trainer = make_trainer(tmp_path, model=model, dataset=data(), **options)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"(?s){message}.*statistics_fn.*hiding_policy=\"none\""):
        trainer.train()
    assert same_tensors(trainer.model.state_dict(), before)


def test_a_second_head_that_is_not_trained_is_no_hindrance(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        trained(tmp_path, model=OneHead, dataset=with_other_labels(), label_names=["labels", "labels_b"])
    assert "ranked by their plain loss" not in caplog.text


class Weighted(LinearClassifier):
    """Weighs its classes."""

    def forward(self, x, labels=None):
        logits = self.head(x)
        if labels is None:
            return {"logits": logits}
        weight = torch.tensor([1.0, 5.0, 1.0, 0.1])
        return {"loss": 2 * nn.functional.cross_entropy(logits, labels, weight=weight), "logits": logits}


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({}, True),
        ({"statistics_fn": "single_label_classification"}, False),
        ({"label_smoothing_factor": 0.1}, False),
        ({"hiding_policy": "none"}, False),
    ],
    ids=str,
)
def test_a_loss_that_differs_is_warned_of_once(tmp_path, caplog, options, warned):
    from types import SimpleNamespace

    class Model(Weighted):
        config = SimpleNamespace(problem_type=None)

    with caplog.at_level(logging.WARNING):
        trained(tmp_path, model=Model, **options)
    assert caplog.text.count("Samples are ranked by their plain loss") == warned


class OwnLoss(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = 3 * outputs["loss"]
        return (loss, outputs) if return_outputs else loss


def test_no_false_alarm(tmp_path, caplog):
    from hf_kakurenbo import KakurenboMixin

    class Own(KakurenboMixin, OwnLoss): ...

    with caplog.at_level(logging.WARNING):
        trained(tmp_path, bf16=True)
        trained(tmp_path, gradient_accumulation_steps=4)
        trained(tmp_path, Own)
        trained(tmp_path, trainer_options={"compute_loss_func": weighted_loss})
    assert "ranked by their plain loss" not in caplog.text


def test_the_mean_of_a_batch_counts_tokens():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 7, generator=generator)
    labels = torch.tensor([[1, 2, -100, -100, -100], [3, 4, 5, 6, 0], [-100] * 5])
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(mean_loss(Prediction(token_statistics, logits, labels)), expected)
    masked = torch.tensor([1, 9, -1, 4])
    expected = nn.functional.cross_entropy(logits[0, [0, 3]], torch.tensor([1, 4]))
    torch.testing.assert_close(mean_loss(Prediction(single_label_statistics, logits[0, :4], masked)), expected)


# ---- statistics_fn ----


def right(outputs, inputs):
    loss = nn.functional.cross_entropy(outputs["logits"].detach(), inputs["labels"], reduction="none")
    confidence, predicted = outputs["logits"].detach().softmax(1).max(1)
    return SampleStatistics(loss, predicted == inputs["labels"], confidence)


def swapped(outputs, inputs):
    loss, correct, confidence = right(outputs, inputs)
    return loss, confidence, correct


def integers(outputs, inputs):
    return right(outputs, inputs)._replace(correct=right(outputs, inputs).correct.long())


def percent(outputs, inputs):
    return right(outputs, inputs)._replace(confidence=100 * right(outputs, inputs).confidence)


def nothing(outputs, inputs):
    return None


def lists(outputs, inputs):
    return [field.tolist() for field in right(outputs, inputs)]


def two(outputs, inputs):
    return right(outputs, inputs)[:2]


def one_number(outputs, inputs):
    return right(outputs, inputs)._replace(loss=right(outputs, inputs).loss.mean())


ANSWERS = {
    swapped: r"correct is \(16,\) float32; expected bool",
    integers: r"correct is \(16,\) int64; expected bool",
    percent: r"confidence has the value \d\d.*; expected a probability in \[0, 1\]",
    nothing: r"returned NoneType; expected SampleStatistics\(loss, correct, confidence\)",
    lists: r"loss is list.*; expected a tensor",
    two: r"returned tuple.*; expected SampleStatistics",
    one_number: r"loss is \(\) float32; expected shape \(16,\)",
}


@pytest.mark.parametrize(("function", "message"), ANSWERS.items(), ids=[function.__name__ for function in ANSWERS])
def test_a_wrong_answer_is_refused_before_a_step(tmp_path, function, message):
    trainer = make_trainer(tmp_path, statistics_fn=function)
    before = {name: tensor.clone() for name, tensor in trainer.model.named_parameters()}
    with pytest.raises(ValueError, match=rf"(?s){message}.*hiding_policy=\"none\""):
        trainer.train()
    assert same_tensors(dict(trainer.model.named_parameters()), before)


def test_the_right_answer_is_what_the_built_in_rule_gives(tmp_path):
    own, built_in = trained(tmp_path, statistics_fn=right), trained(tmp_path)
    torch.testing.assert_close(own.ledger.loss, built_in.ledger.loss)
    assert torch.equal(own.ledger.hidden, built_in.ledger.hidden)


# ---- Labels that are ignored ----


class Ignoring(LinearClassifier):
    ignored = -1

    def forward(self, x, labels):
        logits = self.head(x)
        loss = nn.functional.cross_entropy(logits, labels, ignore_index=self.ignored)
        return {"loss": loss, "logits": logits}


@pytest.mark.parametrize("ignored", [-1, 255, -100])
@pytest.mark.parametrize("policy", ["kakurenbo", "infobatch"])
def test_another_label_that_is_ignored(tmp_path, ignored, policy, caplog):
    data = [{**s, "labels": torch.tensor(ignored)} if i % 10 == 0 else s for i, s in enumerate(samples())]
    model = type("Model", (Ignoring,), {"ignored": ignored})
    with caplog.at_level(logging.WARNING):
        trainer = trained(tmp_path, model=model, dataset=data, hiding_policy=policy, learning_rate=0.05)
    masked = torch.arange(203) % 10 == 0
    assert bool(trainer.ledger.loss[masked].isnan().all())
    assert int(trainer.ledger.times_hidden[masked].sum()) == 0
    assert bool(trainer.ledger.loss[~masked].isfinite().all())
    assert "ranked by their plain loss" not in caplog.text


# ---- What a model returns ----


def returning(make):
    class Model(LinearClassifier):
        def forward(self, x, labels):
            outputs = super().forward(x, labels)
            return make(outputs["loss"], outputs["logits"])

    return Model


@pytest.mark.parametrize(
    "make",
    [
        lambda loss, logits: (loss, logits),
        lambda loss, logits: {"loss": loss, "logits": logits, "output": 2 * logits},
        lambda loss, logits: {"loss": loss, "output": logits},
        lambda loss, logits: {"loss": loss, "output": logits, "last_hidden_state": logits, "hidden_states": (logits,)},
    ],
    ids=["tuple", "logits", "another name", "beside hidden states"],
)
def test_predictions_are_found(tmp_path, make):
    trainer = trained(tmp_path, model=returning(make), learning_rate=0.05)
    assert bool(trainer.ledger.loss.isfinite().all())
    assert trainer.ledger.times_hidden.sum() > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda loss, logits: {"loss": loss},
        lambda loss, logits: (loss,),
        lambda loss, logits: {"loss": loss, "a": logits, "b": logits},
    ],
    ids=["loss only", "loss only in a tuple", "several"],
)
def test_a_model_without_predictions_is_refused_with_the_true_reason(tmp_path, make):
    with pytest.raises(ValueError, match=r"(?s)no predictions among it.*hiding_policy=\"none\"") as refused:
        trained(tmp_path, model=returning(make))
    assert "iger" not in str(refused.value)


def test_the_exponential_needs_no_float64_off_the_cpu_and_is_the_same_in_every_row():
    values = -torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 5
    for size in (1, 3, 7, 16, 17, 100):
        assert torch.equal(exp(values[:size]), exp(values)[:size])
    made = []

    class Noting(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            made.append(getattr(result, "dtype", None))
            return result

    with Noting():
        exp(torch.empty(4, device="meta"))
        single_label_statistics(torch.empty(4, 3, device="meta"), torch.empty(4, dtype=torch.int64, device="meta"))
    assert torch.float64 not in made
    assert made
