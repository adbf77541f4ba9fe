"""What else users do around a training: it hides right by an independent count, or is refused before it is wrong."""

import math
import random
from collections import Counter

import pytest
import torch
from accelerate import skip_first_batches
from torch import nn
from transformers import TrainerCallback, set_seed

from counting import Counting, Epochs, assert_hides_right, rows
from hf_kakurenbo import KakurenboTrainer
from toy import make_trainer, same_tensors

HIDING = {"move_back": False, "num_train_epochs": 3, "learning_rate": 1e-3}


def make(tmp_path, trainer=KakurenboTrainer, *, callbacks=(), dataset=None, model=Counting, **options):
    epochs = Epochs()
    given = {"callbacks": [epochs, *callbacks], "eval_dataset": rows(40)}
    dataset = rows() if dataset is None else dataset
    made = make_trainer(tmp_path, trainer, model=model, dataset=dataset, trainer_options=given, **{**HIDING, **options})
    epochs.trainer, made.epochs = made, epochs
    for callback in callbacks:
        callback.trainer = made
    return made


def assert_recorded(trainer, dataset):
    """With a learning rate of 0: the recorded loss of each sample is its own, computed here."""
    x, labels = (torch.stack([sample[name] for sample in dataset]) for name in ("x", "labels"))
    with torch.no_grad():
        expected = nn.functional.cross_entropy(trainer.model.head(x), labels, reduction="none")
    torch.testing.assert_close(trainer.ledger.loss, expected, rtol=1e-4, atol=1e-5)


# ---- Callbacks ----


class Callback(TrainerCallback):
    trainer = None

    def every(self, state, steps=5):
        return state.global_step % steps == 0


class EvaluatesTheTrainingData(Callback):
    def on_step_end(self, args, state, control, **kwargs):
        if self.every(state):
            self.trainer.evaluate(self.trainer.train_dataset)


class GoesThroughTheLoader(Callback):
    """Takes the accuracy over the loader that is being trained on, from within the epoch and at its end."""

    def on_step_end(self, args, state, control, train_dataloader=None, model=None, **kwargs):
        if self.every(state):
            with torch.no_grad():
                for batch in train_dataloader:
                    model(batch["x"], batch["row"], batch["labels"])

    def on_epoch_end(self, args, state, control, **kwargs):
        self.on_step_end(args, state, control, **kwargs)


class MakesALoader(Callback):
    def on_step_end(self, args, state, control, model=None, **kwargs):
        if self.every(state):
            with torch.no_grad():
                for batch in self.trainer.get_train_dataloader():
                    model(**batch)


class SeedsTheGenerators(Callback):
    def on_step_begin(self, args, state, control, **kwargs):
        set_seed(0)
        random.seed(0)


class TrainsAnother(Callback):
    """Trains a probe of its own on the same dataset object, with hiding too, in the middle of an epoch."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 20:
            self.other = make(self.trainer.args.output_dir, dataset=self.trainer.train_dataset)
            self.other.train()
            assert_hides_right(self.other)


class ReplacesTheDataset(Callback):
    """The loader of a training is made once: another dataset is for the next one."""

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.trainer.train_dataset = rows(50)


class ComputesALoss(Callback):
    def on_step_end(self, args, state, control, model=None, **kwargs):
        batch = {name: torch.stack([row[name] for row in rows(8)]) for name in ("x", "row", "labels")}
        with torch.no_grad():
            self.trainer.compute_loss(model, batch)


CALLBACKS = [
    EvaluatesTheTrainingData,
    GoesThroughTheLoader,
    MakesALoader,
    SeedsTheGenerators,
    TrainsAnother,
    ReplacesTheDataset,
    ComputesALoss,
]


@pytest.mark.parametrize("callback", CALLBACKS, ids=lambda callback: callback.__name__)
def test_what_a_callback_does_beside_a_training(tmp_path, callback):
    trainer = make(tmp_path, callbacks=[callback()], learning_rate=0.0)
    trainer.train()
    assert_hides_right(trainer)
    assert_recorded(trainer, rows())


# ---- Options ----


class Renamed(Counting):
    """Its labels have another name."""

    def forward(self, x, row, target=None):
        return super().forward(x, row, target)


class OutOfMemoryLater(Counting):
    """Fails once, in the first epoch that hides, on batches that are not smaller yet."""

    failed = False

    def forward(self, x, row, labels=None):
        if not self.failed and len(self.trained) == 2 and self.training and torch.is_grad_enabled():
            self.failed = True
            self.trained.clear()
            raise RuntimeError("CUDA out of memory.")
        return super().forward(x, row, labels)


class OutOfMemoryInRefresh(Counting):
    """Fails once, in the second batch of the first refresh."""

    looks = 0

    def forward(self, x, row, labels=None):
        self.looks += not self.training
        if self.looks == 2 and not self.training:
            self.trained.clear()
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().forward(x, row, labels)


OPTIONS = {
    "columns kept": {"remove_unused_columns": False},
    "caches emptied": {"torch_empty_cache_steps": 1},
    "dispatched": {"accelerator_config": {"dispatch_batches": True}},
    "split": {"accelerator_config": {"split_batches": True}},
    "states of callbacks": {"restore_callback_states_from_checkpoint": True},
    "labels of another name": {
        "model": Renamed,
        "label_names": ["target"],
        "dataset": [{"x": row["x"], "row": row["row"], "target": row["labels"]} for row in rows()],
    },
}
SLOW_OPTIONS = {"workers that stay": {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}}


@pytest.mark.parametrize(
    "options",
    [*OPTIONS.values(), *(pytest.param(one, marks=pytest.mark.wide) for one in SLOW_OPTIONS.values())],
    ids=[*OPTIONS, *SLOW_OPTIONS],
)
def test_an_option_of_trainers(tmp_path, options):
    trainer = make(tmp_path, **options)
    trainer.train()
    assert_hides_right(trainer)


def test_part_of_an_epoch_at_the_end(tmp_path):
    trainer = make(tmp_path, num_train_epochs=2.5)
    trainer.train()
    hidden = trainer.epochs.hidden
    first, second, third = trainer.model.trained
    assert first == Counter(range(203))
    assert second == Counter(set(range(203)) - hidden[1])
    # Half an epoch of 13 batches are 7: of one with fewer batches as large a part, rounded up.
    batches = math.ceil((203 - len(hidden[2])) / 16)
    assert sum(third.values()) == math.ceil(7 * batches / 13) * 16
    assert max(third.values()) == 1
    assert not set(third) & hidden[2]
    assert all(hidden[1:])


@pytest.mark.parametrize("model", [OutOfMemoryLater, OutOfMemoryInRefresh], ids=lambda model: model.__name__)
def test_a_batch_that_fails_in_an_epoch_that_hides_begins_the_training_anew(tmp_path, model):
    trainer = make(tmp_path, model=model, auto_find_batch_size=True)
    trainer.train()
    assert trainer._train_batch_size == 14  # nine tenths of 16
    assert len(trainer.epochs.hidden) == 4
    del trainer.epochs.hidden[0]  # of the training that failed
    assert_hides_right(trainer)


def test_a_refresh_that_fails_leaves_the_model_in_training_mode(tmp_path):
    trainer = make(tmp_path, model=OutOfMemoryInRefresh)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.train()
    assert trainer.model.training
    assert torch.is_grad_enabled()


def test_tokens_are_counted_of_what_is_trained(tmp_path):
    trainer = make(tmp_path, include_num_input_tokens_seen=True)
    trainer.model.main_input_name = "row"
    trainer.train()
    assert trainer.state.num_input_tokens_seen == sum(sum(trained.values()) for trained in trainer.model.trained)
    assert_hides_right(trainer)


def test_only_the_model_saved_and_resumed(tmp_path):
    saving = {"save_strategy": "epoch", "save_only_model": True}
    make(tmp_path, **saving).train()
    trainer = make(tmp_path, **saving)
    trainer.train(str(tmp_path / "checkpoint-13"))
    trained, hidden = trainer.model.trained, trainer.epochs.hidden
    assert trained == [Counter(set(range(203)) - gone) for gone in hidden]
    assert [bool(gone) for gone in hidden] == [True, True]


class Embeds(Counting):
    """Embeds its rows, to which NEFTune adds noise while it trains."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(203, 16)

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, x, row, labels=None):
        return super().forward(x + self.embedding(row[:, None])[:, 0], row, labels)


class NotesTheLedger(Callback):
    """At the end of the second epoch, when what it hid has been refreshed."""

    def on_epoch_end(self, args, state, control, **kwargs):
        if len(self.trainer.model.trained) == 2:
            self.loss, self.hidden = self.trainer.ledger.loss.clone(), self.trainer.ledger.hidden.clone()


def test_noise_in_the_embeddings_is_recorded_where_it_is_trained_with(tmp_path):
    note = NotesTheLedger()
    trainer = make(tmp_path, model=Embeds, neftune_noise_alpha=5.0, callbacks=[note], learning_rate=0.0)
    trainer.train()
    assert_hides_right(trainer)
    x, row, labels = (torch.stack([sample[name] for sample in rows()]) for name in ("x", "row", "labels"))
    with torch.no_grad():
        expected = nn.functional.cross_entropy(trainer.model.eval()(x, row)["logits"], labels, reduction="none")
    differs = (note.loss - expected).abs() > 1e-4
    assert not differs[note.hidden].any()
    assert differs[~note.hidden].float().mean() > 0.9


class StopsEpoch(Callback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_epoch_stop = state.global_step in (5, 12)


def test_resumed_after_an_epoch_that_a_callback_ended(tmp_path):
    options = {"save_strategy": "epoch", "num_train_epochs": 4, "learning_rate": 0.05}
    whole = make(tmp_path, callbacks=[StopsEpoch()], **options)
    whole.train()
    resumed = make(tmp_path / "resumed", callbacks=[StopsEpoch()], **options)
    resumed.train(str(tmp_path / "checkpoint-12"))
    assert same_tensors(resumed.model.state_dict(), whole.model.state_dict())
    assert same_tensors(resumed.ledger.state_dict(), whole.ledger.state_dict())


def test_more_epochs_in_the_same_process(tmp_path):
    """A notebook trains on: one trainer object resumes from its own last checkpoint."""
    trainer = make(tmp_path, save_strategy="epoch")
    trainer.train()
    assert_hides_right(trainer)
    trainer.model.trained.clear()
    trainer.epochs.hidden.clear()
    trainer.args.num_train_epochs = 5
    trainer.train(resume_from_checkpoint=True)
    assert trainer.model.trained == [Counter(set(range(203)) - gone) for gone in trainer.epochs.hidden]
    assert [bool(gone) for gone in trainer.epochs.hidden] == [True, True]


# ---- Datasets between trainings ----


def test_another_dataset_for_the_next_training(tmp_path):
    trainer = make(tmp_path)
    trainer.train()
    for dataset, count in ((rows(77), 77), (rows(), 203)):
        trainer.model.trained.clear()
        trainer.epochs.hidden.clear()
        trainer.train_dataset = dataset
        trainer.train()
        assert_hides_right(trainer, samples=count)


def test_two_trainers_take_turns_on_one_dataset(tmp_path):
    shared = rows()
    first, second = (make(tmp_path / name, dataset=shared, seed=seed) for name, seed in (("a", 1), ("b", 2)))
    for trainer in (first, second, first):
        trainer.model.trained.clear()
        trainer.epochs.hidden.clear()
        trainer.train()
        assert_hides_right(trainer)


@pytest.mark.parametrize(("change", "then"), [(10, 213), (-10, 193)])
def test_a_dataset_that_changes_its_length_within_a_training_is_refused(tmp_path, change, then):
    dataset = rows()

    class Changes(Callback):
        def on_epoch_end(self, args, state, control, **kwargs):
            dataset[:] = rows(203 + change)

    trainer = make(tmp_path, dataset=dataset, callbacks=[Changes()])
    with pytest.raises(RuntimeError, match=rf"{then} samples before epoch 1, and 203 when.*hiding_policy=\"none\""):
        trainer.train()
    assert trainer.state.global_step == 13


# ---- Loaders ----


def skipping(count):
    class Skipping(KakurenboTrainer):
        def get_train_dataloader(self):
            return skip_first_batches(super().get_train_dataloader(), count)

    return Skipping


def test_a_loader_that_skips_batches_is_refused(tmp_path):
    trainer = make(tmp_path, skipping(2))
    with pytest.raises(RuntimeError, match="which has 11 batches, around a training loader of 13"):
        trainer.train()


def test_a_loader_that_skips_nothing(tmp_path):
    trainer = make(tmp_path, skipping(0))
    trainer.train()
    assert_hides_right(trainer)
