"""Ledgers beside models and in checkpoints: read back, begun with, refused where they are of other samples."""

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

import hf_kakurenbo
from hf_kakurenbo import load_ledger
from hf_kakurenbo.hiding import CompactLedger, SampleLedger, checkpoint
from hf_kakurenbo.hiding.checkpoint import LEDGER_NAME
from hf_kakurenbo.hiding.saved_ledger import save_ledger
from stream_toy import streamed
from toy import NUM_SAMPLES, LinearClassifier, epochs, make_trainer, same_tensors, samples, trained

HIDING = {"learning_rate": 0.05, "num_train_epochs": 4}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A training with checkpoints and a saved model."""
    trainer = trained(tmp_path_factory.mktemp("first"), save_strategy="epoch", ledger_history=True, **HIDING)
    trainer.save_model()
    trainer.save_model(f"{trainer.args.output_dir}/model")
    return trainer


def test_a_saved_model_has_its_ledger(first):
    for folder in (first.args.output_dir, f"{first.args.output_dir}/model"):
        ledger = load_ledger(folder)
        assert same_tensors(ledger.state_dict(), first.ledger.state_dict())
        assert same_tensors(ledger.history.state_dict(), first.ledger.history.state_dict())
        assert ledger.rows == first.ledger.rows


def test_a_checkpoint_has_the_ledger_of_its_moment(first, tmp_path):
    shorter = trained(tmp_path, save_strategy="epoch", ledger_history=True, **HIDING)
    folders = sorted(tmp_path.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    assert len(folders) == 4
    assert same_tensors(load_ledger(folders[-1]).state_dict(), shorter.ledger.state_dict())
    assert len(load_ledger(folders[0]).history) == 1
    assert load_ledger(folders[0]).num_hidden == 0
    # Of a folder of checkpoints the newest, and by the file's own name.
    assert same_tensors(load_ledger(tmp_path).state_dict(), shorter.ledger.state_dict())
    assert same_tensors(load_ledger(folders[-1] / LEDGER_NAME).state_dict(), shorter.ledger.state_dict())


def test_saving_a_checkpoint_leaves_all_of_its_state(tmp_path):
    trained(tmp_path, save_strategy="steps", save_steps=3, num_train_epochs=2)
    assert all("pending_ids" in checkpoint.load_state(folder)[0] for folder in tmp_path.glob("checkpoint-*"))


def test_without_hiding_no_ledger_is_written(tmp_path):
    trainer = trained(tmp_path, hiding_policy="none", num_train_epochs=1)
    trainer.save_model()
    assert not (tmp_path / LEDGER_NAME).exists()
    with pytest.raises(FileNotFoundError, match=r"has no kakurenbo.safetensors. Give a checkpoint folder"):
        load_ledger(tmp_path)


def test_nothing_was_trained_yet(tmp_path):
    make_trainer(tmp_path).save_model()
    assert not (tmp_path / LEDGER_NAME).exists()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing is not there.*`save_model`"):
        load_ledger(tmp_path / "missing")


def test_a_damaged_file(tmp_path):
    save_ledger(tmp_path, SampleLedger(10), {})
    path = tmp_path / LEDGER_NAME
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"is damaged \(.*\). Give another checkpoint, or the folder of a model"):
        load_ledger(tmp_path)


def test_a_compact_ledger_stays_compact(tmp_path):
    ledger = CompactLedger(5)
    ledger.hide(torch.arange(5) < 2)
    save_ledger(tmp_path, ledger, {})
    assert type(load_ledger(tmp_path)) is CompactLedger
    assert same_tensors(load_ledger(tmp_path).state_dict(), ledger.state_dict())


def test_the_package_names_it():
    assert hf_kakurenbo.load_ledger is load_ledger
    assert "load_ledger" in hf_kakurenbo.__all__


# ---- Begin with an earlier one ----

LATER = {**HIDING, "hiding_warmup_epochs": 0, "num_train_epochs": 2, "seed": 3}


def test_hiding_starts_at_once_with_what_was_known(first, tmp_path):
    later = make_trainer(tmp_path, initial_ledger=first.args.output_dir, **LATER)
    later.train()
    known = first.ledger
    count = int(0.3 * len(known))
    order = np.argsort(known.loss.numpy(), kind="stable")[:count]
    expected = {int(i) for i in order if known.correct[i] and known.confidence[i] >= 0.7}
    assert set(later.watch.hidden[0].nonzero().squeeze(1).tolist()) == expected
    assert len(expected) > 20
    assert later.ledger.times_hidden.max() <= 2, "times_hidden counts this training's epochs"


def test_it_is_what_a_pass_over_all_samples_would_have_measured(tmp_path):
    """A ledger taken of a model at its start is as good as the pass that measured it."""
    options = {**LATER, "confidence_threshold": 0.0, "model": LinearClassifier}
    passed = trained(tmp_path / "pass", initial_pass=True, **options)
    measured = make_trainer(tmp_path / "measure", initial_pass=True, **{**options, "num_train_epochs": 1})
    ledgers = []
    measured.add_callback(_TakesLedger(measured, ledgers))
    measured.train()
    save_ledger(tmp_path / "ledger", ledgers[0], {})
    begun = trained(tmp_path / "begun", initial_ledger=str(tmp_path / "ledger"), **options)
    assert begun.watch.hidden[0].any()
    assert begun.watch.orders == passed.watch.orders
    assert same_tensors(begun.model.state_dict(), passed.model.state_dict())
    assert same_tensors(begun.ledger.state_dict(), passed.ledger.state_dict())


class _TakesLedger(TrainerCallback):
    def __init__(self, trainer, ledgers):
        self.trainer, self.ledgers = trainer, ledgers

    def on_step_begin(self, *args, **kwargs):
        taken = SampleLedger(len(self.trainer.ledger))
        taken.load_state_dict(self.trainer.ledger.state_dict())
        self.ledgers.append(taken)


def test_a_policy_with_a_state_of_its_own_learns_of_it(first, tmp_path):
    spaced = {"hiding_policy": "spaced_repetition", "confidence_threshold": 0.6}
    later = trained(tmp_path, initial_ledger=first.args.output_dir, **{**LATER, **spaced})
    assert later.watch.hidden[0].sum() > 0


def test_a_resumed_training_does_not_read_it_again(first, tmp_path):
    earlier = tmp_path / "earlier"
    save_ledger(earlier, first.ledger, {})
    options = {**LATER, "save_strategy": "steps", "save_steps": 5}
    whole = trained(tmp_path / "whole", initial_ledger=str(earlier), **options)
    (earlier / LEDGER_NAME).unlink()
    resumed = make_trainer(tmp_path / "resumed", initial_ledger=str(earlier), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-5"))
    assert same_tensors(resumed.ledger.state_dict(), whole.ledger.state_dict())


def shuffled():
    rows = samples()
    return [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (samples(100), r"It is of 203 samples, the training dataset has 100\. Give the ledger of a training on these"),
        (samples(seed=5), r"Its ledger is of other rows than the training dataset has"),
        (shuffled(), r"or of the same in another order"),
    ],
    ids=["another number", "other rows", "another order"],
)
def test_a_ledger_of_other_samples_is_refused(first, tmp_path, dataset, message):
    trainer = make_trainer(tmp_path, dataset=dataset, initial_ledger=first.args.output_dir, **LATER)
    before = {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"initial_ledger='.*' does not fit this training\. .*" + message):
        trainer.train()
    assert same_tensors(trainer.model.state_dict(), before)


def test_a_ledger_measured_by_another_rule_is_refused(first, tmp_path):
    trainer = make_trainer(
        tmp_path, initial_ledger=first.args.output_dir, statistics_fn="causal_language_modeling", **LATER
    )
    with pytest.raises(ValueError, match=r"Its losses were measured by '.*' and cannot be compared"):
        trainer.train()


def test_a_ledger_that_is_not_there(tmp_path):
    trainer = make_trainer(tmp_path, initial_ledger=str(tmp_path / "none"), **LATER)
    with pytest.raises(ValueError, match=r"initial_ledger='.*none' cannot be read\. .*is not there"):
        trainer.train()


# ---- Which row an id means ----


def test_the_dataset_as_it_was_given(first):
    assert first.ledger.rows == "the index of a row of the training dataset"


def test_a_stream(tmp_path):
    trainer = trained(tmp_path, dataset=streamed(), num_samples=NUM_SAMPLES, num_train_epochs=1)
    assert "column 'sample_id' of the training stream" in trainer.ledger.rows
    trainer.save_model()
    assert load_ledger(tmp_path).rows == trainer.ledger.rows
    assert len(epochs(trainer)) == 1
