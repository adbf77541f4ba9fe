"""Every message that a person can meet with the trainer: at once, with the value and the way out."""

import ast
import inspect

import datasets
import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset, WeightedRandomSampler
from transformers import Trainer, TrainingArguments

from hf_kakurenbo import KakurenboMixin, KakurenboTrainer, SampleStatistics
from hf_kakurenbo.hiding.checkpoint import LEDGER_NAME
from hf_kakurenbo.trainer import validation
from toy import Classifier, LinearClassifier, arguments, losses, make_trainer, same_weights, samples, trained


class Stream(IterableDataset):
    def __iter__(self):
        yield from samples()


class StreamWithLength(Stream):
    def __len__(self):
        return len(samples())


class NoLength:
    def __getitem__(self, index):
        return samples()[index]


HUB_STREAM = datasets.Dataset.from_dict({"x": [[0.0] * 16] * 50, "labels": [0] * 50}).to_iterable_dataset()


@pytest.mark.parametrize("options", [{}, {"max_steps": 10}], ids=str)
def test_a_dataset_without_a_length(tmp_path, options):
    with pytest.raises(ValueError, match=r"\(NoLength\) has no length and is no stream.*__len__.*hiding_policy=.none"):
        make_trainer(tmp_path, dataset=NoLength(), **options)


@pytest.mark.parametrize("dataset", [Stream(), HUB_STREAM], ids=["of PyTorch", "of datasets"])
@pytest.mark.parametrize("options", [{}, {"max_steps": 10}], ids=str)
def test_a_stream_without_a_length(tmp_path, dataset, options):
    with pytest.raises(ValueError, match=r"not known how many samples.*num_samples=\.\.\..*streaming=False"):
        make_trainer(tmp_path, dataset=dataset, **options)


def test_a_stream_without_ids(tmp_path):
    trainer = make_trainer(tmp_path, dataset=StreamWithLength())
    with pytest.raises(
        ValueError, match=r"no column 'sample_id'.*they have 'x', 'labels'.*`sample_id_column`.*map-style"
    ):
        trainer.train()


def test_a_stream_trains_with_the_policy_none(tmp_path):
    trainer = trained(tmp_path, dataset=Stream(), hiding_policy="none", max_steps=3)
    assert trainer.state.global_step == 3
    assert trainer.ledger is None


def test_data_parallel(tmp_path):
    args = arguments(tmp_path)
    args._n_gpu = 2
    with pytest.raises(ValueError, match=r"2 GPUs, which is DataParallel.*accelerate launch"):
        KakurenboTrainer(Classifier(), args, train_dataset=samples())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_sampling_strategy": "batch_rebalance"}, "batch_rebalance.*group_by_length"),
        ({"accelerator_config": {"use_seedable_sampler": False}}, "use_seedable_sampler=False.*Leave it at True"),
        ({"ignore_data_skip": True}, "ignore_data_skip=True.*Leave it at False"),
    ],
    ids=str,
)
def test_sampling_options_that_could_not_be_honoured(tmp_path, options, message):
    try:
        args = arguments(tmp_path, **options)
    except ValueError as error:
        pytest.skip(f"this release of transformers does not know the option: {error}")
    with pytest.raises(ValueError, match=message):
        KakurenboTrainer(Classifier(), args, train_dataset=samples())
    KakurenboTrainer(Classifier(), arguments(tmp_path, hiding_policy="none", **options), train_dataset=samples())


def test_the_mixin_after_the_trainer():
    with pytest.raises(TypeError, match=r"class Wrong\(KakurenboMixin, Trainer\)"):

        class Wrong(Trainer, KakurenboMixin):
            pass


class NoLogits(LinearClassifier):
    def forward(self, x, labels):
        return {"loss": super().forward(x, labels)["loss"]}


class WeightedLabels(LinearClassifier):
    """Its loss is that of several labels, but weighted, so that it does not say what the labels are."""

    def forward(self, x, labels):
        logits = self.head(x)
        weight = torch.tensor([3.0, 1.0, 1.0, 1.0])
        return {"loss": nn.functional.binary_cross_entropy_with_logits(logits, labels, weight), "logits": logits}


class NoLabels(LinearClassifier):
    def forward(self, x, targets):
        return super().forward(x, targets)


def several_labels():
    return [{"x": s["x"], "labels": torch.tensor([1.0, 1.0, 0.0, 1.0])} for s in samples()]


def without_labels():
    return [{"x": s["x"], "targets": s["labels"]} for s in samples()]


@pytest.mark.parametrize(
    ("model", "dataset", "message"),
    [
        (NoLogits, samples(), r"The model returned dict\(loss: \(\) float32\).*def my_statistics\(outputs, inputs\)"),
        (WeightedLabels, several_labels(), r"Several built-in rules fit.*its loss is that of none.*def my_statistics"),
        (
            NoLabels,
            without_labels(),
            r"The batch has no labels.*dict\(x: \(16, 16\) float32, targets.*def my_statistics",
        ),
    ],
    ids=["no logits", "several labels", "no labels"],
)
def test_a_batch_that_no_rule_fits_is_told_on_the_first_one(tmp_path, model, dataset, message):
    trainer = make_trainer(tmp_path, model=model, dataset=dataset)
    with pytest.raises(ValueError, match=f"(?s){message}"):
        trainer.train()
    assert trainer.state.global_step == 0


def confident(outputs, inputs):
    """A `statistics_fn`: nothing is needed of the model but its loss."""
    count = inputs["x"].shape[0]
    return SampleStatistics(torch.rand(count), torch.ones(count, dtype=torch.bool), torch.ones(count))


def scalar(outputs, inputs):
    return SampleStatistics(outputs["loss"], torch.tensor(True), torch.tensor(1.0))


def test_a_statistics_function_of_the_users(tmp_path):
    trainer = trained(tmp_path, model=NoLogits, statistics_fn=confident)
    assert trainer.ledger.times_hidden.sum() > 100


def test_a_statistics_function_that_returns_one_figure(tmp_path):
    trainer = make_trainer(tmp_path, statistics_fn=scalar)
    with pytest.raises(ValueError, match=r"loss is \(\) float32; expected shape \(16,\)"):
        trainer.train()


def test_a_statistics_function_by_name(tmp_path):
    trainer = trained(tmp_path, model=NoLogits, statistics_fn="test_trainer_errors:confident")
    assert trainer.ledger.times_hidden.sum() > 100


def test_a_loss_computed_past_the_trainer(tmp_path):
    class OwnLoss(KakurenboTrainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            outputs = model(**inputs)
            return (outputs["loss"], outputs) if return_outputs else outputs["loss"]

    trainer = make_trainer(tmp_path, OwnLoss)
    with pytest.raises(RuntimeError, match=r"OwnLoss computes the loss.*call `super\(\).compute_loss"):
        trainer.train()


def test_a_loss_that_stands_after_the_mixin_is_recorded(tmp_path):
    class OwnLoss(Trainer):
        def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
            outputs = model(**inputs)
            return (2 * outputs["loss"], outputs) if return_outputs else 2 * outputs["loss"]

    class Hiding(KakurenboMixin, OwnLoss):
        pass

    assert bool(trained(tmp_path, Hiding).ledger.loss.isfinite().all())


def test_a_sampler_of_the_users_is_wrapped(tmp_path):
    class Weighted(KakurenboTrainer):
        def _get_train_sampler(self, dataset=None):
            return WeightedRandomSampler([1.0] * 100 + [0.0] * 103, num_samples=150)

    trainer = trained(tmp_path, Weighted, hiding_policy="first_ids", max_hidden_fraction=0.2)
    assert bool(trainer.ledger.loss[:100].isfinite().any())
    assert bool(trainer.ledger.loss[100:].isnan().all())


def test_a_batch_sampler_of_the_users_is_refused(tmp_path):
    class Batches(KakurenboTrainer):
        def _get_train_sampler(self, dataset=None):
            return torch.utils.data.BatchSampler(range(203), 4, False)

    with pytest.raises(ValueError, match="yields sample indices, got BatchSampler"):
        trained(tmp_path, Batches)


SAVING = {"save_strategy": "steps", "save_steps": 20, "num_train_epochs": 4, "learning_rate": 0.05}


def test_a_ledger_of_another_length(tmp_path):
    trained(tmp_path, **SAVING)
    with pytest.raises(ValueError, match=r"ledger is of a dataset of 203 samples, the training dataset has 150"):
        make_trainer(tmp_path, dataset=samples(150), **SAVING).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(("step", "alike_until"), [(20, 26), (26, 39)], ids=["mid-epoch", "at an epoch's end"])
def test_a_plain_trainers_checkpoint_resumes_with_a_fresh_ledger(tmp_path, caplog, step, alike_until):
    options = {**SAVING, "save_steps": step}
    plain = trained(tmp_path, Trainer, **options)
    hiding = make_trainer(tmp_path, **options)
    hiding.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert "The ledger starts empty" in caplog.text
    assert hiding.state.epoch == 4.0
    # The first epoch that it trains hides nothing, so it is Trainer's; later ones hide what they have seen.
    assert losses(hiding)[:alike_until] == losses(plain)[:alike_until]
    assert losses(hiding)[alike_until] != losses(plain)[alike_until]
    assert hiding.ledger.times_hidden.sum() > 0


@pytest.mark.parametrize("without", [{"hiding_policy": "none"}, {"trainer": Trainer}], ids=["policy none", "Trainer"])
def test_a_training_that_went_on_without_hiding_resumes_with_a_fresh_ledger(tmp_path, caplog, without):
    trained(tmp_path, **SAVING)
    make_trainer(tmp_path, **SAVING, **without).train(resume_from_checkpoint=str(tmp_path / "checkpoint-20"))
    (tmp_path / "checkpoint-40" / LEDGER_NAME).unlink(missing_ok=True)  # that of the training that hid
    assert "The ledger starts empty" not in caplog.text
    hiding = make_trainer(tmp_path, **SAVING)
    hiding.train(resume_from_checkpoint=str(tmp_path / "checkpoint-40"))
    assert "checkpoint-40 was saved by a Trainer that hides nothing. The ledger starts empty" in caplog.text
    assert hiding.state.epoch == 4.0


def test_a_checkpoint_named_by_a_path(tmp_path):
    whole = trained(tmp_path, **SAVING)
    again = make_trainer(tmp_path, **{**SAVING, "save_strategy": "no"})
    again.train(resume_from_checkpoint=tmp_path / "checkpoint-20")
    assert len(again.watch.rates) == whole.state.global_step - 20
    assert whole.ledger.times_hidden.sum() > 0
    assert same_weights(again, whole)


def test_a_plain_trainer_resumes_a_checkpoint_of_ours(tmp_path):
    trained(tmp_path, **SAVING)
    plain = make_trainer(tmp_path, Trainer, **SAVING)
    plain.train(resume_from_checkpoint=str(tmp_path / "checkpoint-20"))
    assert plain.state.epoch == 4.0


def test_no_checkpoint_at_all_is_trainers_message(tmp_path):
    with pytest.raises(ValueError, match="No valid checkpoint found"):
        make_trainer(tmp_path / "empty").train(resume_from_checkpoint=True)


def test_a_wrong_option_of_plain_arguments_cannot_be_and_one_set_later_is_told(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.args.max_hidden_fraction = 1.5  # as a hyperparameter search sets it
    with pytest.raises(ValueError, match=r"max_hidden_fraction=1.5 is not in \[0, 1\)"):
        trainer.train()


def test_soft_labels_train_with_a_loss_function(tmp_path):
    soft = [{"x": s["x"], "labels": nn.functional.one_hot(s["labels"], 4) * 0.9 + 0.025} for s in samples()]

    class LogitsOnly(LinearClassifier):
        def forward(self, x):
            return self.head(x)

    def soft_loss(outputs, labels, num_items_in_batch=None):
        return nn.functional.cross_entropy(outputs, labels)

    args = TrainingArguments(**{**arguments(tmp_path, TrainingArguments).to_dict(), "label_names": ["labels"]})
    trainer = KakurenboTrainer(LogitsOnly(), args, train_dataset=soft, compute_loss_func=soft_loss)
    trainer.train()
    assert bool(trainer.ledger.loss.isfinite().all())


@pytest.mark.parametrize(("masked", "drop_last"), [(203, False), (50, False), (50, True), (0, True), (0, False)])
def test_samples_with_every_label_masked_are_told_once(tmp_path, caplog, masked, drop_last):
    dataset = [{**sample, "labels": torch.tensor(-100)} for sample in samples(masked)] + samples(203 - masked)
    trainer = trained(tmp_path, dataset=dataset, num_train_epochs=4, dataloader_drop_last=drop_last)
    told = [record.getMessage() for record in caplog.records if "no finite loss" in record.getMessage()]
    seen = 192 if drop_last else 203
    assert len(told) == (masked > 0)
    if masked:
        count = int(told[0].split()[0])
        assert 0 <= masked - count <= 203 - seen
        assert not bool(trainer.ledger.times_hidden[:masked].any())


# What no policy could train on, and a search that is about hiding itself.
WITHOUT_THE_WAY_OUT = ["The training dataset is empty", "The training loader has no batch", "The trial sets"]


def test_each_refusal_names_the_way_out():
    """The kind: a trainer refuses to train and leaves the user with that."""
    raised = [node for node in ast.walk(ast.parse(inspect.getsource(validation))) if isinstance(node, ast.Raise)]
    texts = [[part.value for part in ast.walk(node) if isinstance(part, ast.Constant)] for node in raised]
    messages = ["".join(map(str, parts)) for parts in texts]
    assert len(messages) > 8
    without = [message for message in messages if 'hiding_policy="none"' not in message]
    assert [message for message in without if not any(text in message for text in WITHOUT_THE_WAY_OUT)] == []
