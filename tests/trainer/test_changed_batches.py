"""Steps and losses that change their batch: what is recorded is right, or the training ends before a wrong step."""

import math
import os
from collections import Counter

import pytest
import torch
from test_further_uses import EvaluatesTheTrainingData, MakesALoader, assert_recorded, make
from torch.utils.checkpoint import checkpoint
from transformers import Trainer

from counting import assert_hides_right, rows
from hf_kakurenbo import KakurenboMixin, KakurenboTrainer
from processes import run_ranks
from toy import same_tensors


class Generates(Trainer):
    """Lets the model answer, without gradients, before and after its loss."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        with torch.no_grad():
            model(x=torch.zeros(3, 16), row=torch.zeros(3))
        loss, outputs = super().compute_loss(model, inputs, True)
        with torch.no_grad():
            model(x=torch.zeros(3, 16), row=torch.zeros(3))
        return (loss, outputs) if return_outputs else loss


class Checkpoints(Trainer):
    """Its forward pass is run once more in the backward pass."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        outputs = checkpoint(model, **inputs, use_reentrant=False)
        return (outputs["loss"], outputs) if return_outputs else outputs["loss"]


class Generating(KakurenboMixin, Generates):
    pass


class Checkpointing(KakurenboMixin, Checkpoints):
    pass


@pytest.mark.parametrize(("trainer", "passes"), [(Generating, 1), (Checkpointing, 2)], ids=["generates", "checkpoints"])
def test_further_passes_of_a_loss(tmp_path, trainer, passes):
    made = make(tmp_path, trainer, learning_rate=0.0)
    made.train()
    assert_hides_right(made, passes=passes)
    assert_recorded(made, rows())


class Reorders(KakurenboTrainer):
    """Sorts the rows of a batch in the step, ids included."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        order = inputs["x"][:, 0].argsort()
        return super().training_step(model, {name: entry[order] for name, entry in inputs.items()}, num_items_in_batch)


class ReordersWhenPreparing(KakurenboTrainer):
    def _prepare_inputs(self, inputs):
        inputs = super()._prepare_inputs(inputs)
        order = inputs["x"][:, 0].argsort()
        return {name: entry[order] for name, entry in inputs.items()}


class InPieces(KakurenboTrainer):
    """Splits a batch in two, each with a loss of its own."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        model.train()
        losses = []
        for half in range(2):
            loss = self.compute_loss(model, self._prepare_inputs(self.piece(inputs, half)))
            self.accelerator.backward(loss / 2)
            losses.append(loss.detach())
        return sum(losses) / 2

    def piece(self, inputs, half):
        return {name: entry[half::2] for name, entry in inputs.items()}


class Repeats(KakurenboTrainer):
    """Each row comes twice in one pass."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        return super().training_step(
            model, {name: entry.repeat_interleave(2, 0) for name, entry in inputs.items()}, num_items_in_batch
        )


class LeavesOut(KakurenboTrainer):
    def training_step(self, model, inputs, num_items_in_batch=None):
        return super().training_step(model, {name: entry[1:] for name, entry in inputs.items()}, num_items_in_batch)


@pytest.mark.parametrize("trainer", [Reorders, ReordersWhenPreparing, InPieces], ids=lambda one: one.__name__)
def test_a_step_that_sorts_or_splits_its_batch(tmp_path, trainer):
    made = make(tmp_path, trainer, learning_rate=0.0)
    made.train()
    assert_hides_right(made)
    assert_recorded(made, rows())


class PiecesWithoutIds(InPieces):
    def piece(self, inputs, half):
        return {name: inputs[name][half::2] for name in ("x", "row", "labels")}


CHANGED = {
    Repeats: "computes the losses of 32 samples in the step of a batch of 16",
    LeavesOut: "computes the losses of 15 samples in the step of a batch of 16",
    PiecesWithoutIds: "gives the model 8 rows of a batch of 16 samples",
}


@pytest.mark.parametrize(("trainer", "message"), CHANGED.items(), ids=[trainer.__name__ for trainer in CHANGED])
def test_a_step_that_trains_on_others_than_its_batch_is_refused(tmp_path, trainer, message):
    made = make(tmp_path, trainer)
    before = {name: tensor.clone() for name, tensor in made.model.state_dict().items()}
    with pytest.raises((RuntimeError, ValueError), match=rf"(?s){message}.*hiding_policy=\"none\""):
        made.train()
    assert same_tensors(made.model.state_dict(), before)


class WritesLabels(KakurenboTrainer):
    """Changes a batch in place when its loss is known."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        loss = super().training_step(model, inputs, num_items_in_batch)
        inputs["labels"].fill_(0)
        return loss


class Buffers:
    """Copies each batch into the same tensors, as graphs of CUDA want them."""

    def __init__(self, loader):
        self.loader, self.buffers = loader, {}

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        for batch in self.loader:
            for name, entry in batch.items():
                buffer = self.buffers.setdefault(name, torch.empty_like(entry))
                batch[name] = buffer[: len(entry)].copy_(entry)
            yield batch


class Buffered(KakurenboTrainer):
    def get_train_dataloader(self):
        return Buffers(super().get_train_dataloader())


@pytest.mark.parametrize("trainer", [WritesLabels, Buffered], ids=lambda one: one.__name__)
def test_a_batch_that_is_written_over_is_refused_before_anything_is_hidden(tmp_path, trainer):
    made = make(tmp_path, trainer)
    with pytest.raises(RuntimeError, match=r"(?s)have been written over.*hiding_policy=\"none\""):
        made.train()
    assert made.state.epoch <= 1


class OnlyALoss(Trainer):
    """Returns no outputs, whatever it is asked for."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        return model(**inputs)["loss"]


class HidingOnlyALoss(KakurenboMixin, OnlyALoss):
    pass


def test_a_loss_without_outputs_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"(?s)OnlyALoss.compute_loss.*return_outputs=True.*hiding_policy=\"none\""):
        make(tmp_path, HidingOnlyALoss).train()


def on_each_rank(trainer, callbacks, folder):
    made = make(
        folder / os.environ["RANK"],
        trainer,
        callbacks=[callback() for callback in callbacks],
        per_device_train_batch_size=8,
        learning_rate=0.0,
    )
    made.train()
    assert_recorded(made, rows())
    return made.model.trained, made.epochs.hidden


@pytest.mark.wide
@pytest.mark.parametrize("trainer", [Reorders, InPieces], ids=lambda one: one.__name__)
def test_on_two_processes(tmp_path, trainer):
    callbacks = [EvaluatesTheTrainingData, MakesALoader]
    (first, hidden), (second, hidden_too) = run_ranks(2, on_each_rank, trainer, callbacks, tmp_path)
    assert hidden == hidden_too
    assert [bool(gone) for gone in hidden] == [False, True, True]
    for trained, gone in zip(map(Counter.__add__, first, second), hidden, strict=True):
        assert set(trained) == set(range(203)) - gone
        # The last batch of both is filled up with samples of the first.
        assert sum(trained.values()) == math.ceil((203 - len(gone)) / 16) * 16
