"""Users override Trainer's hooks: each override hides right, by an independent count, or is refused before a step.

"Refused" means that the weights are those from before the training.
"""

import math
from collections import Counter

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, default_data_collator

from counting import Counting, Epochs, assert_hides_right, rows
from hf_kakurenbo import KakurenboMixin, KakurenboTrainer
from toy import LinearClassifier, make_trainer, same_tensors, samples

HIDING = {"move_back": False, "num_train_epochs": 3}


def make(tmp_path, trainer=KakurenboTrainer, *, callbacks=(), collator=None, dataset=None, **options):
    epochs = Epochs()
    given = {"callbacks": [epochs, *callbacks], "eval_dataset": rows(40)}
    if collator is not None:
        given["data_collator"] = collator
    options = {**HIDING, "learning_rate": 1e-3, **options}
    made = make_trainer(tmp_path, trainer, model=Counting, dataset=dataset or rows(), trainer_options=given, **options)
    epochs.trainer, made.epochs = made, epochs
    return made


def assert_recorded(trainer):
    """With a learning rate of 0: the recorded loss of each sample is its own, computed here."""
    toys = samples()
    x, labels = torch.stack([toy["x"] for toy in toys]), torch.stack([toy["labels"] for toy in toys])
    with torch.no_grad():
        expected = nn.functional.cross_entropy(trainer.model.head(x), labels, reduction="none")
    torch.testing.assert_close(trainer.ledger.loss, expected, rtol=1e-4, atol=1e-5)


class OwnStep(KakurenboTrainer):
    """A copy of what a step does, as adversarial training and profilers write it."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        inputs = self._prepare_inputs(inputs)
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        self.accelerator.backward(loss)
        return loss.detach()


class StepAround(KakurenboTrainer):
    def training_step(self, model, inputs, *args, **kwargs):
        assert "sample_id" in inputs
        return super().training_step(model, inputs, *args, **kwargs)


class LossBelow(KakurenboTrainer):
    """Its loss is computed below the mixin, and a term is added."""

    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        assert "sample_id" not in inputs
        loss, outputs = super().compute_loss(model, inputs, True, **kwargs)
        loss = loss + 1e-3 * model.head.weight.square().mean()
        return (loss, outputs) if return_outputs else loss


class LossTrainer(Trainer):
    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        labels = inputs.pop("labels")
        outputs = model(**inputs)
        loss = nn.functional.cross_entropy(outputs["logits"], labels, label_smoothing=0.1)
        return (loss, outputs) if return_outputs else loss


class LossAbove(KakurenboMixin, LossTrainer):
    """Its loss is computed above the mixin, in the class behind it."""


class Passing:
    """One loader, wrapped: prefetching, timing, moving to a device."""

    def __init__(self, loader):
        self.loader = loader

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        yield from self.loader


class WrappedLoader(KakurenboTrainer):
    def get_train_dataloader(self):
        return Passing(super().get_train_dataloader())


class KeptLoader(KakurenboTrainer):
    """The loader is made once and kept."""

    kept = None

    def get_train_dataloader(self):
        if self.kept is None:
            self.kept = super().get_train_dataloader()
        return self.kept


class LoaderTwiceMade(KakurenboTrainer):
    """Makes one to ask for its length, and trains on another."""

    def get_train_dataloader(self):
        assert len(super().get_train_dataloader()) == 13
        return super().get_train_dataloader()


class SwappedDataset(KakurenboTrainer):
    """Trains on another dataset than the trainer was given: the same rows in the other order."""

    def get_train_dataloader(self):
        given, self.train_dataset = self.train_dataset, rows()
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset = given


class OwnSampler(KakurenboTrainer):
    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(train_dataset)


class OwnOptimizer(KakurenboTrainer):
    def create_optimizer(self, *args, **kwargs):
        if self.optimizer is None:
            self.optimizer = torch.optim.SGD(self.model.parameters(), lr=self.args.learning_rate, momentum=0.9)
        return self.optimizer


class OwnScheduler(KakurenboTrainer):
    def create_scheduler(self, num_training_steps, optimizer=None):
        if self.lr_scheduler is None:
            self.lr_scheduler = LambdaLR(self.optimizer, lambda step: 1 - step / (2 * num_training_steps))
        return self.lr_scheduler


class OwnEvaluation(KakurenboTrainer):
    def evaluate(self, *args, **kwargs):
        return {**super().evaluate(*args, **kwargs), "eval_extra": 1.0}

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)


class OwnLog(KakurenboTrainer):
    def log(self, logs, *args, **kwargs):
        super().log({**logs, "extra": 1.0}, *args, **kwargs)


class OwnLoops(KakurenboTrainer):
    """Overrides the loops themselves, and calls them."""

    def _inner_training_loop(self, *args, **kwargs):
        return super()._inner_training_loop(*args, **kwargs)

    def _run_epoch(self, **kwargs):
        return super()._run_epoch(**kwargs)

    def get_batch_samples(self, epoch_iterator, num_batches, device):
        return super().get_batch_samples(epoch_iterator, num_batches, device)


HIDES_RIGHT = [
    KakurenboTrainer,
    OwnStep,
    StepAround,
    LossBelow,
    LossAbove,
    WrappedLoader,
    KeptLoader,
    LoaderTwiceMade,
    SwappedDataset,
    OwnSampler,
    OwnOptimizer,
    OwnScheduler,
    OwnEvaluation,
    OwnLog,
    OwnLoops,
]


@pytest.mark.parametrize("trainer", HIDES_RIGHT, ids=lambda trainer: trainer.__name__)
def test_an_override_hides_right(tmp_path, trainer):
    made = make(tmp_path, trainer, eval_strategy="epoch")
    if trainer is SwappedDataset:
        made.train_dataset = rows()[::-1]
    made.train()
    assert_hides_right(made)


@pytest.mark.parametrize("trainer", HIDES_RIGHT, ids=lambda trainer: trainer.__name__)
def test_the_losses_are_those_of_the_samples(tmp_path, trainer):
    made = make(tmp_path, trainer, learning_rate=0.0)
    if trainer is SwappedDataset:
        made.train_dataset = rows()[::-1]
    made.train()
    assert_recorded(made)


def test_a_step_assigned_to_the_trainer(tmp_path):
    trainer = make(tmp_path)
    calls = []

    def step(model, inputs, num_items_in_batch=None):
        calls.append(len(inputs["labels"]))
        return OwnStep.training_step(trainer, model, inputs, num_items_in_batch)

    trainer.training_step = step
    trainer.train()
    assert_hides_right(trainer)
    assert sum(calls) == sum(sum(trained.values()) for trained in trainer.model.trained)
    assert trainer.training_step is step
    assert "compute_loss" not in vars(trainer)


class Adversarial(KakurenboTrainer):
    """A second pass over the same batch, disturbed."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        again = dict(inputs)
        loss = super().training_step(model, inputs, num_items_in_batch)
        again = self._prepare_inputs({**again, "x": again["x"] + 0.01})
        with self.compute_loss_context_manager():
            disturbed = self.compute_loss(model, again, num_items_in_batch=num_items_in_batch)
        self.accelerator.backward(disturbed)
        return loss


def test_a_second_pass_over_a_batch_is_not_recorded(tmp_path):
    made = make(tmp_path, Adversarial)
    made.train()
    assert_hides_right(made, passes=2)
    still = make(tmp_path, Adversarial, learning_rate=0.0)
    still.train()
    assert_recorded(still)


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("step", [4, 17])
def test_an_own_step_resumes_where_it_was(tmp_path, accumulation, step):
    options = {"save_strategy": "steps", "save_steps": 1, "gradient_accumulation_steps": accumulation}
    whole = make(tmp_path / "whole", OwnStep, **options)
    whole.train()
    if step > whole.state.global_step:
        step = whole.state.global_step - 1
    resumed = make(tmp_path / "resumed", OwnStep, seed=2, **{**options, "save_strategy": "no"})
    resumed.train(str(tmp_path / "whole" / f"checkpoint-{step}"))
    assert same_tensors(resumed.model.state_dict(), whole.model.state_dict())
    assert same_tensors(resumed.ledger.state_dict(), whole.ledger.state_dict())


# ---- Refused before the first step that would be wrong ----


class LossOfItsOwn(KakurenboTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        outputs = model(**inputs)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]


class StepWithoutALoss(KakurenboTrainer):
    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = model(inputs["x"], inputs["row"], inputs["labels"])["loss"]
        self.accelerator.backward(loss)
        return loss.detach()


class ForeignLoader(KakurenboTrainer):
    def get_train_dataloader(self):
        return torch.utils.data.DataLoader(self.train_dataset, batch_size=16, collate_fn=self.data_collator)


class Chained:
    def __init__(self, loaders):
        self.loaders = loaders

    def __len__(self):
        return sum(map(len, self.loaders))

    def __iter__(self):
        for loader in self.loaders:
            yield from loader


class TwoLoaders(KakurenboTrainer):
    def get_train_dataloader(self):
        return Chained([super().get_train_dataloader(), super().get_train_dataloader()])


class LoaderTwice(KakurenboTrainer):
    def get_train_dataloader(self):
        loader = super().get_train_dataloader()
        return Chained([loader, loader])


class NoLength(KakurenboTrainer):
    def get_train_dataloader(self):
        return iter(super().get_train_dataloader())


class OwnLoop(KakurenboTrainer):
    """A training loop of its own, as copies of Trainer's have it."""

    def _inner_training_loop(self, *args, **kwargs):
        self.create_optimizer_and_scheduler(10)
        for inputs in self.get_train_dataloader():
            self.training_step(self.model, inputs)
            self.optimizer.step()


class OwnEpoch(KakurenboTrainer):
    """A pass over the loader of its own."""

    def _run_epoch(self, *, model, train_dataloader, **kwargs):
        for inputs in train_dataloader:
            self.training_step(model, inputs)
            self.optimizer.step()


REFUSED = {
    LossOfItsOwn: r"LossOfItsOwn computes the loss of a batch without.*super\(\)\.compute_loss",
    StepWithoutALoss: r"StepWithoutALoss computes the loss of a batch without.*self\.compute_loss",
    ForeignLoader: "ForeignLoader builds its training loader without",
    TwoLoaders: "TwoLoaders.get_train_dataloader made 2 training loaders",
    LoaderTwice: "LoaderTwice.get_train_dataloader returned Chained, which has 26 batches, around.* of 13 batches",
    NoLength: "NoLength.get_train_dataloader returned generator, which has no length",
    OwnLoop: "OwnLoop trains without `Trainer._init_training_state`.*a training loop of its own",
    OwnEpoch: "OwnEpoch trains on a batch outside the epochs.*`_run_epoch` of its own",
}


@pytest.mark.parametrize(("trainer", "message"), REFUSED.items(), ids=[trainer.__name__ for trainer in REFUSED])
def test_an_override_is_refused_before_a_step(tmp_path, trainer, message):
    made = make(tmp_path, trainer)
    made.model.trained.append(Counter())
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    with pytest.raises(RuntimeError, match=rf"(?s){message}.*hiding_policy=\"none\""):
        made.train()
    assert same_tensors(made.model.state_dict(), before)
    assert "training_step" not in vars(made)


@pytest.mark.parametrize(
    "trainer", [LossOfItsOwn, StepWithoutALoss, ForeignLoader, TwoLoaders, LoaderTwice], ids=lambda one: one.__name__
)
def test_the_way_out_of_a_refusal_works(tmp_path, trainer):
    made = make(tmp_path, trainer, hiding_policy="none", num_train_epochs=1)
    made.train()
    passes = 2 if trainer in (TwoLoaders, LoaderTwice) else 1
    assert made.model.trained == [Counter(dict.fromkeys(range(203), passes))]


class Repeating(Passing):
    """Gives its third batch in the place of the fourth, too: as many batches, one of them twice."""

    def __iter__(self):
        batches = list(self.loader)
        yield from [*batches[:3], batches[2], *batches[4:]]


class Stopping(Passing):
    """Ends before its last batches, as a loader that passes over broken ones does."""

    def __iter__(self):
        for number, batch in enumerate(self.loader):
            if number < len(self.loader) - 2:
                yield batch


class Copying(Passing):
    """As `Repeating`, the batch being a copy."""

    def __iter__(self):
        batches = list(self.loader)
        yield from [*batches[:3], dict(batches[2]), *batches[4:]]


@pytest.mark.parametrize(
    ("wrapper", "message"),
    [
        (Copying, r"In epoch 0 187 different samples were trained on, 0 of them hidden, where the sampler drew 203"),
        (Repeating, r"trains on a batch without 'sample_id'.*comes twice"),
        (Stopping, r"Epoch 0 ended after 11 of its 13 batches"),
    ],
    ids=["a copy of a batch", "a batch twice", "fewer batches"],
)
def test_a_wrapper_that_does_not_pass_on_each_batch_once(tmp_path, wrapper, message):
    class Wrapping(KakurenboTrainer):
        def get_train_dataloader(self):
            return wrapper(super().get_train_dataloader())

    with pytest.raises(RuntimeError, match=message):
        make(tmp_path, Wrapping).train()


def test_without_the_callback_an_epoch_is_not_finished(tmp_path):
    """The kind: something takes away what hiding put into the trainer."""

    class TakesAway(TrainerCallback):
        def on_train_begin(self, args, state, control, **kwargs):
            trainer.callback_handler.callbacks = [trainer.epochs]

    trainer = make(tmp_path, callbacks=[TakesAway()])
    with pytest.raises(RuntimeError, match="Epoch 1 begins and epoch 0 is not finished"):
        trainer.train()


def test_a_callback_taken_away_before_is_put_back(tmp_path):
    trainer = make(tmp_path)
    trainer.callback_handler.callbacks = [trainer.epochs]
    trainer.train()
    assert_hides_right(trainer)


class StopsEpoch(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_epoch_stop = state.global_step in (5, 12)


def test_a_callback_may_end_an_epoch(tmp_path):
    trainer = make(tmp_path, callbacks=[StopsEpoch()])
    trainer.train()
    trained, hidden = trainer.model.trained, trainer.epochs.hidden
    assert [sum(counter.values()) for counter in trained[:2]] == [5 * 16, 7 * 16]
    assert all(not set(counter) & gone for counter, gone in zip(trained, hidden, strict=True))
    assert trained[2] == dict.fromkeys(set(range(203)) - hidden[2], 1)


# ---- Collators ----


def dropping(examples):
    return default_data_collator([example for example in examples if int(example["row"]) != 7])


def sorting(examples):
    return default_data_collator(sorted(examples, key=lambda example: float(example["x"][0])))


def doubling(examples):
    return {**default_data_collator(examples), "x": 2 * torch.stack([example["x"] for example in examples])}


@pytest.mark.parametrize(
    ("collator", "message"),
    [
        (dropping, r"The data collator, dropping, returned \d+ rows for \d+ examples"),
        (sorting, r"The data collator, sorting, returned the examples in another order \(their '(x|row|labels)'"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_collator_whose_rows_are_not_the_examples(tmp_path, collator, message, workers):
    trainer = make(tmp_path, collator=collator, dataloader_num_workers=workers)
    with pytest.raises(ValueError, match=rf"(?s){message}.*hiding_policy=\"none\""):
        trainer.train()


def test_a_collator_that_changes_values_is_left_in_peace(tmp_path):
    trainer = make(tmp_path, collator=doubling)
    trainer.train()
    assert_hides_right(trainer)


# ---- The ids are nobody else's business ----


class TakesSampleId(LinearClassifier):
    """A loss with a memory by sample has an input of that name."""

    def __init__(self):
        super().__init__()
        self.given = []

    def forward(self, x, labels, sample_id=None):
        if torch.is_grad_enabled():
            self.given += [None] if sample_id is None else sample_id.tolist()
        return super().forward(x, labels)


@pytest.mark.parametrize("column", ["0..N-1", "N-1..0"])
@pytest.mark.parametrize("policy", ["none", "kakurenbo"])
def test_a_model_with_an_input_called_sample_id_gets_its_own(tmp_path, column, policy):
    numbers = range(203) if column == "0..N-1" else range(202, -1, -1)
    dataset = [{**sample, "sample_id": torch.tensor(number)} for sample, number in zip(samples(), numbers, strict=True)]
    trainer = make_trainer(tmp_path, model=TakesSampleId, dataset=dataset, hiding_policy=policy, num_train_epochs=1)
    trainer.train()
    assert sorted(trainer.model.given) == list(range(203))


def test_batches_outside_the_training_carry_no_ids(tmp_path):
    trainer = make(tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    assert set(batch) == {"x", "row", "labels"}
    trainer.train()
    assert_hides_right(trainer)
    assert set(next(iter(trainer.get_train_dataloader()))) == {"x", "row", "labels"}


def test_a_second_training_of_the_same_trainer_begins_anew(tmp_path):
    trainer = make(tmp_path, KeptLoader)
    trainer.train()
    first = [*trainer.model.trained]
    trainer.model.trained.clear()
    trainer.epochs.hidden.clear()
    trainer.train()
    assert_hides_right(trainer)
    assert sum(first[0].values()) == sum(trainer.model.trained[0].values()) == 203
    assert (
        trainer.state.max_steps
        == trainer.state.global_step
        == sum(math.ceil(sum(counter.values()) / 16) for counter in trainer.model.trained)
    )
