"""What is ranked belongs to the loss that is trained: known transformations are distinguished from other losses."""

import logging
from types import SimpleNamespace

import pytest
import torch
import transformers
from torch import nn
from transformers import Trainer

from hf_kakurenbo import KakurenboMixin, KakurenboTrainer
from hf_kakurenbo.hiding.statistics import (
    Prediction,
    StatisticsMatcher,
    question_answering_statistics,
    segmentation_statistics,
    single_label_statistics,
    token_statistics,
)
from hf_kakurenbo.hiding.statistics.batch_loss import batch_loss, losses_of_its_criteria, smoothed
from hf_kakurenbo.trainer.loss_check import LossCheck
from processes import run_ranks
from task_toy import CASES, make
from toy import (
    NUM_CLASSES,
    NUM_FEATURES,
    LinearClassifier,
    losses,
    make_trainer,
    same_tensors,
    same_weights,
    samples,
    trained,
)
from toy import mean_loss as weighted_loss

WEIGHT = torch.tensor([1.0, 5.0, 1.0, 0.1])
WARNING = "Samples are ranked by their plain loss"


@pytest.fixture
def explained(monkeypatch):
    """Of each batch that is compared, whether a known transformation explains its loss."""
    answers = []
    explains = LossCheck._explains

    def noting(self, *args):
        answers.append(explains(self, *args))
        return answers[-1]

    monkeypatch.setattr(LossCheck, "_explains", noting)
    return answers


def with_other_labels():
    generator = torch.Generator().manual_seed(1)
    others = torch.randint(0, 3, (203,), generator=generator)
    return [{**sample, "labels_b": label} for sample, label in zip(samples(), others, strict=True)]


class TwoHeads(nn.Module):
    """Trains on the losses of both heads, as far as it gets their labels."""

    config = SimpleNamespace(problem_type=None)

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(NUM_FEATURES, NUM_CLASSES), nn.Linear(NUM_FEATURES, 3)

    def forward(self, x, labels=None, labels_b=None):
        a, b = self.a(x), self.b(x)
        loss = {} if labels is None else {"loss": self.loss(a, b, labels, labels_b)}
        return {**loss, "logits": a, "logits_b": b}

    def loss(self, a, b, labels, labels_b):
        return nn.functional.cross_entropy(a, labels) + nn.functional.cross_entropy(b, labels_b)


class OneHead(TwoHeads):
    """Has another head and does not train it."""

    def loss(self, a, b, labels, labels_b):
        return nn.functional.cross_entropy(a, labels)


class TwoHeadsInATuple(TwoHeads):
    def forward(self, x, labels=None, labels_b=None):
        return tuple(super().forward(x, labels, labels_b).values())


class LossOfBoth(Trainer):
    """Sums the losses of two heads beside the model."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs["logits"], inputs["labels"])
        loss = loss + nn.functional.cross_entropy(outputs["logits_b"], inputs["labels_b"])
        return (loss, outputs) if return_outputs else loss


class Below(KakurenboMixin, LossOfBoth):
    pass


class Above(KakurenboTrainer):
    """Adds the loss of the other head to that of the model."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        labels_b = inputs["labels_b"]
        loss, outputs = super().compute_loss(model, inputs, True, **kwargs)
        loss = loss + nn.functional.cross_entropy(outputs["logits_b"], labels_b)
        return (loss, outputs) if return_outputs else loss


class Similarities(LinearClassifier):
    """Supervised contrastive learning: the logits compare the samples of the batch."""

    def forward(self, x, labels):
        features = nn.functional.normalize(self.head(x), dim=1)
        similarity = 5 * features @ features.T
        same = (labels[:, None] == labels[None]).float()
        return {"loss": nn.functional.cross_entropy(similarity, same / same.sum(1, keepdim=True)), "logits": similarity}


class Pairs(LinearClassifier):
    """Compares the samples of the batch with something else about them, by labels of its own making."""

    def __init__(self):
        super().__init__()
        self.other = nn.Linear(NUM_FEATURES, NUM_CLASSES)

    def forward(self, x, labels):
        similarity = self.head(x) @ self.other(x).T
        return {"loss": nn.functional.cross_entropy(similarity, torch.arange(len(x))), "logits": similarity}


class PairsByTheirPlace(Pairs):
    """Is given the places in the batch as labels, so its loss is the one that is ranked."""

    def forward(self, x, labels):
        similarity = self.head(x) @ self.other(x).T
        return {"loss": nn.functional.cross_entropy(similarity, labels), "logits": similarity}


def places_as_labels(examples):
    return {"x": torch.stack([example["x"] for example in examples]), "labels": torch.arange(len(examples))}


class OwnLoss(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = model(**inputs)
        loss = 3 * outputs["loss"]
        return (loss, outputs) if return_outputs else loss


class Own(KakurenboMixin, OwnLoss):
    pass


HEADS = {"model": TwoHeads, "dataset": with_other_labels()}
SEVERAL = r"several heads and several labels.*labels_b"
SIMILAR = r"\(16, 16\) float32, are similarities between the samples"
REFUSED = {
    "two heads": (KakurenboTrainer, HEADS, SEVERAL),
    "two heads by name": (KakurenboTrainer, {**HEADS, "label_names": ["labels", "labels_b"]}, SEVERAL),
    "two heads in a tuple": (KakurenboTrainer, {**HEADS, "model": TwoHeadsInATuple}, SEVERAL),
    "two heads, accumulated": (KakurenboTrainer, {**HEADS, "gradient_accumulation_steps": 4}, SEVERAL),
    "two heads in bfloat16": (KakurenboTrainer, {**HEADS, "bf16": True}, SEVERAL),
    "two heads in a trainer below the mixin": (Below, {**HEADS, "model": OneHead}, SEVERAL),
    "two heads in a trainer above it": (Above, {**HEADS, "model": OneHead}, SEVERAL),
    "the head that is not smoothed": (
        KakurenboTrainer,
        {**HEADS, "label_smoothing_factor": 0.1, "label_names": ["labels_b", "labels"]},
        "several heads and several labels.*'labels'",
    ),
    "similarities": (KakurenboTrainer, {"model": Similarities}, SIMILAR),
    "similarities, accumulated": (KakurenboTrainer, {"model": Similarities, "gradient_accumulation_steps": 4}, SIMILAR),
    "similarities and a loss of the trainer's": (Own, {"model": Similarities}, SIMILAR),
    "similarities of pairs": (KakurenboTrainer, {"model": Pairs}, SIMILAR),
    "pairs whose labels are their places": (
        KakurenboTrainer,
        {"model": PairsByTheirPlace, "trainer_options": {"data_collator": places_as_labels}},
        SIMILAR,
    ),
}


@pytest.mark.parametrize(("trainer", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_the_loss_of_something_else_is_refused_before_a_step(tmp_path, trainer, options, message):
    made = make_trainer(tmp_path, trainer, remove_unused_columns=False, **options)
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"(?s){message}.*statistics_fn.*hiding_policy=\"none\""):
        made.train()
    assert same_tensors(made.model.state_dict(), before)


def test_classes_that_are_as_many_as_the_samples_of_each_batch_are_none():
    match = StatisticsMatcher()
    match(torch.randn(16, 16), {"labels": torch.arange(16)})
    match(torch.randn(11, 16), {"labels": torch.arange(11)})
    message = r"(?s)\(16, 16\) in one batch and \(11, 11\) in another.*hiding_policy=\"none\""
    with pytest.raises(ValueError, match=message):
        match(torch.randn(11, 11), {"labels": torch.arange(11)})


def test_a_number_of_choices_may_be_that_of_the_samples():
    """Of questions with as many choices as the batch has samples, where the model is made for choices."""
    match = StatisticsMatcher(["single_label_classification"])
    for size in (4, 3):
        match(torch.randn(size, size), {"labels": torch.arange(size)})


# ---- Known transformations ----


def losing(loss, **tensors):
    """A classifier with a loss of its own, from (the model, logits, labels), that holds tensors or modules."""

    class Model(LinearClassifier):
        config = SimpleNamespace(problem_type=None)

        def __init__(self):
            super().__init__()
            for name, held in tensors.items():
                setattr(self, name, held)

        def forward(self, x, labels=None):
            logits = self.head(x)
            return {"logits": logits} if labels is None else {"loss": loss(self, logits, labels), "logits": logits}

    return Model


def plain(model, logits, labels, **options):
    return nn.functional.cross_entropy(logits, labels, **options)


EXPLAINED = {
    "one head of two": (KakurenboTrainer, {**HEADS, "model": OneHead}),
    "one head of two, smoothed": (KakurenboTrainer, {**HEADS, "model": OneHead, "label_smoothing_factor": 0.3}),
    "a criterion": (
        KakurenboTrainer,
        {"model": losing(lambda m, *batch: m.criterion(*batch), criterion=nn.CrossEntropyLoss(WEIGHT))},
    ),
    "a criterion that smooths": (
        KakurenboTrainer,
        {"model": losing(lambda m, *batch: m.criterion(*batch), criterion=nn.CrossEntropyLoss(label_smoothing=0.4))},
    ),
    "weights of classes that the model holds": (
        KakurenboTrainer,
        {"model": losing(lambda m, *batch: plain(m, *batch, weight=m.weights), weights=WEIGHT)},
    ),
    "as many classes as samples, weighed": (
        KakurenboTrainer,
        {
            "model": losing(lambda m, *batch: plain(m, *batch, weight=m.weights), weights=WEIGHT),
            "per_device_train_batch_size": NUM_CLASSES,
        },
    ),
    "smoothing": (KakurenboTrainer, {"model": losing(plain), "label_smoothing_factor": 0.3}),
    "accumulation": (KakurenboTrainer, {"gradient_accumulation_steps": 4}),
    "bfloat16": (KakurenboTrainer, {"bf16": True}),
}


@pytest.mark.parametrize(("trainer", "options"), EXPLAINED.values(), ids=EXPLAINED)
def test_what_is_known_of_a_loss_explains_it_batch_by_batch(tmp_path, explained, trainer, options):
    trained(tmp_path, trainer, num_train_epochs=1, remove_unused_columns=False, **options)
    assert explained == [True] * 8


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_so_does_the_rule_of_each_task(tmp_path, explained, case):
    # Accumulated, Trainer divides the loss of a language model by all tokens of four batches.
    trainer = make(case, tmp_path, num_train_epochs=2, gradient_accumulation_steps=4, max_hidden_fraction=0.0)
    trainer.train()
    assert explained == [True] * 8


SCALED = {
    "a sum": (KakurenboTrainer, {"model": losing(lambda *batch: plain(*batch, reduction="sum"))}),
    "a factor and a constant": (KakurenboTrainer, {"model": losing(lambda *batch: 3 * plain(*batch) + 7)}),
    "a loss of the trainer's": (Own, {}),
    "a loss function": (KakurenboTrainer, {"trainer_options": {"compute_loss_func": weighted_loss}}),
    "a statistics_fn by name": (
        KakurenboTrainer,
        {
            "model": losing(lambda *batch: plain(*batch, weight=WEIGHT)),
            "statistics_fn": "single_label_classification",
        },
    ),
    "no hiding": (
        KakurenboTrainer,
        {"model": losing(lambda *batch: plain(*batch, weight=WEIGHT)), "hiding_policy": "none"},
    ),
}
WARNED = {
    "weights of classes that are nowhere": losing(lambda *batch: plain(*batch, weight=WEIGHT)),
    "other labels": losing(lambda model, logits, labels: plain(model, logits, (labels + 1) % NUM_CLASSES)),
    "no labels": losing(lambda model, logits, labels: logits.square().mean()),
    "the opposite": losing(lambda *batch: 5 - plain(*batch)),
}


@pytest.mark.parametrize(("trainer", "options"), SCALED.values(), ids=SCALED)
def test_a_loss_that_ranks_alike_or_is_the_users_word_is_not_warned_of(tmp_path, caplog, trainer, options):
    with caplog.at_level(logging.WARNING):
        trained(tmp_path, trainer, num_train_epochs=1, **options)
    assert WARNING not in caplog.text


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 4}], ids=["each step", "accumulated"])
@pytest.mark.parametrize("model", WARNED.values(), ids=WARNED)
def test_a_loss_that_nothing_explains_is_warned_of_once(tmp_path, caplog, model, options):
    with caplog.at_level(logging.WARNING):
        ours = trained(tmp_path, model=model, max_hidden_fraction=0.0, **options)
    [message] = [record.getMessage() for record in caplog.records if WARNING in record.getMessage()]
    assert "statistics_fn" in message
    assert 'hiding_policy="none"' in message
    # Reading the first batches changes nothing of the training.
    reference = trained(tmp_path, Trainer, model=model, **options)
    assert losses(ours) == losses(reference)
    assert same_weights(ours, reference)


def test_the_figures_of_the_warning_are_the_means_of_both_losses(tmp_path, caplog):
    # At learning rate 0 the losses of the first eight batches are known beforehand.
    with caplog.at_level(logging.WARNING):
        made = make_trainer(tmp_path, model=WARNED["no labels"], learning_rate=0.0, num_train_epochs=1)
        made.train()
    first = [made.train_dataset[index] for index in made.watch.orders[0][: 8 * 16]]
    logits = made.model.head(torch.stack([sample["x"] for sample in first])).detach()
    recorded = nn.functional.cross_entropy(logits, torch.stack([sample["labels"] for sample in first]))
    assert f"on average {recorded:.4g} in the first batches" in caplog.text
    assert f"a loss of {logits.square().mean():.4g}," in caplog.text


def test_experts_balance_their_load_beside_the_loss(tmp_path, caplog):
    words = [{"input_ids": ids, "labels": ids} for ids in torch.randint(0, 24, (40, 6)).tolist()]
    config = transformers.MixtralConfig(
        vocab_size=24,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
        output_router_logits=True,
        router_aux_loss_coef=0.5,
    )
    with caplog.at_level(logging.WARNING):
        trained(tmp_path, model=lambda: transformers.MixtralForCausalLM(config), dataset=words, num_train_epochs=4)
    assert WARNING not in caplog.text


# ---- The loss of a batch ----


def test_the_mean_of_a_batch_counts_tokens():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 7, generator=generator)
    labels = torch.tensor([[1, 2, -100, -100, -100], [3, 4, 5, 6, 0], [-100] * 5])
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
    found = batch_loss(Prediction(token_statistics, logits, labels))
    torch.testing.assert_close(found.mean, expected)
    assert int(found.questions) == 7
    first, second = (nn.functional.cross_entropy(logits[i], labels[i]) for i in (0, 1))
    torch.testing.assert_close(found.mean_of_samples, (first + second) / 2)
    masked = torch.tensor([1, 9, -1, 4])
    expected = nn.functional.cross_entropy(logits[0, [0, 3]], torch.tensor([1, 4]))
    torch.testing.assert_close(batch_loss(Prediction(single_label_statistics, logits[0, :4], masked)).mean, expected)


def test_the_mean_of_a_batch_counts_pixels_and_places():
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 3, 4, 4, generator=generator), torch.randint(0, 3, (2, 4, 4), generator=generator)
    labels[0, :3], labels[1, 0] = 255, -100
    asked = labels.clamp(0, 2) == labels
    expected = nn.functional.cross_entropy(logits.movedim(1, 3)[asked], labels[asked])
    torch.testing.assert_close(batch_loss(Prediction(segmentation_statistics, logits, labels)).mean, expected)
    # Two tokens with a class each have the shapes of a span.
    spans, places = torch.randn(5, 2, 9, generator=generator), torch.randint(0, 9, (5, 2), generator=generator)
    expected = nn.functional.cross_entropy(spans.flatten(0, 1), places.flatten())
    for rule in (question_answering_statistics, token_statistics):
        torch.testing.assert_close(batch_loss(Prediction(rule, spans, places)).mean, expected)


@pytest.mark.parametrize("shape", [(6,), (6, 5)], ids=["classes", "tokens"])
def test_smoothed_labels_are_pytorchs(shape):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(*shape, 7, generator=generator), torch.randint(0, 7, shape, generator=generator)
    labels[1] = -100
    batch = Prediction(single_label_statistics if len(shape) == 1 else token_statistics, logits, labels)
    expected = nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten(), label_smoothing=0.3)
    torch.testing.assert_close(smoothed(batch, batch_loss(batch), 0.3).mean, expected)


def test_a_criterion_is_tried_on_nothing_that_it_is_not_for():
    model = nn.Sequential(
        nn.MSELoss(), nn.TripletMarginLoss(), nn.CrossEntropyLoss(torch.ones(9)), nn.CrossEntropyLoss(), nn.Linear(3, 4)
    )
    batch = Prediction(single_label_statistics, torch.randn(6, 4), torch.tensor([0, 1, 2, 3, -100, 7]))
    found = list(losses_of_its_criteria(batch, model))
    expected = nn.functional.cross_entropy(batch.logits[:4], batch.labels[:4])
    torch.testing.assert_close(found[0], expected)
    assert len(found) == 2  # the bias has one number for each class too


# ---- Two processes ----


def alarms(output_dir, options):
    """Train a language model on this rank; of each batch, whether its loss is explained."""
    answers, explains = [], LossCheck._explains

    def noting(self, *args):
        answers.append(explains(self, *args))
        return answers[-1]

    LossCheck._explains = noting
    make(CASES["causal language modelling"], output_dir, num_train_epochs=6, **options).train()
    return answers


def refusal(output_dir):
    """The message with which two heads are refused on this rank."""
    with pytest.raises(ValueError, match="several heads") as raised:
        trained(output_dir, **HEADS)
    return str(raised.value)


@pytest.mark.wide
@pytest.mark.parametrize("average", [True, False], ids=["tokens of all ranks", "tokens of each rank"])
def test_two_processes_divide_by_the_tokens_of_both(tmp_path, average):
    options = {"gradient_accumulation_steps": 2, "average_tokens_across_devices": average}
    assert run_ranks(2, alarms, str(tmp_path), options) == [[True] * 8] * 2


@pytest.mark.wide
def test_both_processes_refuse(tmp_path):
    assert all("labels_b" in message for message in run_ranks(2, refusal, str(tmp_path)))
