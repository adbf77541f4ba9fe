"""A user's statistics are what they have to be, labels that are ignored are masked, and predictions are found."""

import logging

import pytest
import torch
from torch import nn

from hf_kakurenbo import SampleStatistics
from hf_kakurenbo.hiding.statistics import single_label_statistics
from hf_kakurenbo.hiding.statistics.base import exp, masked_outside
from toy import LinearClassifier, make_trainer, same_tensors, samples, trained

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


def of_the_batch(outputs, inputs):
    statistics = right(outputs, inputs)
    return statistics._replace(loss=statistics.loss.mean().expand(len(statistics.loss)))


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


def test_the_loss_of_the_batch_in_the_place_of_each_samples_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, statistics_fn=of_the_batch)
    with pytest.raises(ValueError, match=r"(?s)one value for all samples of a batch.*hiding_policy=\"none\""):
        trainer.train()
    assert trainer.state.global_step == 3  # four batches may not be chance, as equal samples in one may


def test_samples_that_all_have_one_loss_are_not_refused(tmp_path):
    """As those of a model that answers nothing yet: its loss is the same in every batch."""

    class Silent(LinearClassifier):
        def __init__(self):
            super().__init__()
            nn.init.zeros_(self.head.weight), nn.init.zeros_(self.head.bias)

    trainer = trained(tmp_path, model=Silent, statistics_fn=right, learning_rate=0.0, num_train_epochs=2)
    torch.testing.assert_close(trainer.ledger.loss, torch.full((203,), 4.0).log())


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
    ("make", "reason"),
    [
        (lambda loss, logits: {"loss": loss}, "no predictions among it"),
        (lambda loss, logits: (loss,), "no predictions among it"),
        (lambda loss, logits: {"loss": loss, "a": logits, "b": logits}, "nothing says which are the predictions"),
    ],
    ids=["loss only", "loss only in a tuple", "several"],
)
def test_a_model_without_predictions_is_refused_with_the_true_reason(tmp_path, make, reason):
    with pytest.raises(ValueError, match=rf"(?s){reason}.*hiding_policy=\"none\"") as refused:
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


def test_a_model_that_needs_no_labels_is_refused_with_the_true_reason(tmp_path):
    """As masked image modelling and contrastive models do."""

    class Reconstructs(LinearClassifier):
        def forward(self, x):
            logits = self.head(x)
            return {"loss": logits.square().mean(), "logits": logits}

    unlabelled = [{"x": sample["x"]} for sample in samples()]
    with pytest.raises(ValueError, match=r"(?s)computes its loss without any.*hiding_policy=\"none\""):
        trained(tmp_path, model=Reconstructs, dataset=unlabelled)


def test_of_several_tensors_the_one_whose_name_says_so_holds_the_predictions(tmp_path):
    def make(loss, logits):
        return {"loss": loss, "features": -logits, "class_logits": logits}

    trainer = trained(tmp_path, model=returning(make), learning_rate=0.05)
    assert trainer.ledger.times_hidden.sum() > 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_few_bits_are_masked_outside_the_classes(dtype):
    labels = torch.tensor([0, 2, 9, 3], dtype=dtype)
    assert masked_outside(labels, 3).tolist() == [0, 2, -100, -100]
