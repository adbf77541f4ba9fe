"""What every epoch measured: right by an independent record, the same when killed and resumed, and small."""

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

import killing
from hf_kakurenbo import load_ledger
from hf_kakurenbo.hiding import HidingRun, KakurenboPolicy, LedgerHistory, SampleLedger, SampleStatistics
from processes import run, run_ranks
from toy import NUM_SAMPLES, LinearClassifier, make_trainer, same_tensors, trained


def measure(run, ids, losses, correct):
    ids, losses = torch.tensor(ids), torch.tensor(losses)
    run.record(ids, SampleStatistics(losses, torch.tensor(correct), torch.full((len(ids),), 0.9)))


def three_epochs():
    """Five samples: 0 and 1 are hidden in the second epoch, of which 0 is measured no more; 4 is always wrong."""
    made = HidingRun(5, KakurenboPolicy(0.4, [0.0], [1.0], confidence_threshold=0.5), history=True)
    made.begin_epoch(0, 0.0)
    measure(made, [0, 1, 2, 3, 4], [0.25, 0.5, 1.0, 2.0, 100_000.0], [True, True, True, False, False])
    made.finish_epoch()
    made.begin_epoch(1, 0.4)
    assert made.ledger.hidden_ids.tolist() == [0, 1]
    measure(made, [2, 3, 4], [3.0, 1.5, 7.0], [False, True, False])
    made.finish_epoch()
    with made.refreshing():
        measure(made, [1], [4.0], [False])
    made.begin_epoch(2, 0.8)
    assert made.ledger.hidden_ids.tolist() == [0, 3]
    measure(made, [1, 2, 4], [torch.inf, torch.nan, 0.5], [True, False, False])
    made.finish_epoch()
    return made


def test_what_three_epochs_measured():
    history = three_epochs().ledger.history
    nan, largest, infinite = np.nan, 65504.0, np.inf
    assert (history.loss.dtype, history.correct.dtype, history.hidden.dtype) == (np.float16, bool, bool)
    np.testing.assert_array_equal(
        history.loss,
        [[0.25, 0.5, 1.0, 2.0, largest], [nan, 4.0, 3.0, 1.5, 7.0], [nan, infinite, nan, nan, 0.5]],
    )
    assert history.correct.tolist() == [
        [True, True, True, False, False],
        [True, False, False, True, False],
        [True, True, False, True, False],
    ]
    assert [np.flatnonzero(row).tolist() for row in history.hidden] == [[], [0, 1], [0, 3]]
    assert history.epochs.tolist() == [0, 1, 2]
    assert repr(history) == "LedgerHistory of 3 epochs of 5 samples"


def test_what_follows_from_them():
    history = three_epochs().ledger.history
    assert history.forgetting_events().tolist() == [0, 1, 1, 0, 0]
    assert history.never_learnt().tolist() == [False, False, False, False, True]
    confidence, variability, correctness = history.data_map()
    probabilities = [[-0.25], [-0.5, -4.0, -np.inf], [-1.0, -3.0], [-2.0, -1.5], [-65504.0, -7.0, -0.5]]
    np.testing.assert_allclose(confidence, [np.mean(np.exp(p)) for p in probabilities], rtol=1e-5)
    np.testing.assert_allclose(variability, [np.std(np.exp(p)) for p in probabilities], rtol=1e-5)
    np.testing.assert_allclose(correctness, [1, 2 / 3, 1 / 2, 1 / 2, 0], rtol=1e-6)


def test_the_rows_one_after_the_other_are_the_arrays():
    history = three_epochs().ledger.history
    rows = list(history.rows())
    assert [row.epoch for row in rows] == [0, 1, 2]
    for name in ("loss", "correct", "hidden"):
        np.testing.assert_array_equal(np.stack([getattr(row, name) for row in rows]), getattr(history, name))


def random_history(count, epochs, seed=0):
    """A history and the arrays that it was made of."""
    generator = np.random.default_rng(seed)
    history, ledger = LedgerHistory(count), SampleLedger(count)
    losses, corrects, hiddens = [], [], []
    for epoch in range(epochs):
        loss = generator.exponential(1.0, count).astype(np.float32)
        correct, hidden = generator.random(count) < 0.7, generator.random(count) < 0.3
        ledger._write(slice(None), loss, np.where(correct, 0.5, -0.5).astype(np.float32))
        ledger.hidden.copy_(torch.from_numpy(hidden))
        measured = generator.random(count) < 0.9
        history.write(epoch, ledger, torch.from_numpy(measured))
        losses.append(np.where(measured, loss, np.nan).astype(np.float16))
        corrects.append(correct)
        hiddens.append(hidden)
    return history, np.stack(losses), np.stack(corrects), np.stack(hiddens)


@pytest.mark.parametrize("count", [1, 7, 8, 2**17 + 13])
def test_any_number_of_samples(count):
    history, loss, correct, hidden = random_history(count, 5)
    np.testing.assert_array_equal(history.loss, loss)
    np.testing.assert_array_equal(history.correct, correct)
    np.testing.assert_array_equal(history.hidden, hidden)
    np.testing.assert_array_equal(history.forgetting_events(), (correct[:-1] & ~correct[1:]).sum(axis=0))
    np.testing.assert_array_equal(history.never_learnt(), ~np.isnan(loss).all(0) & ~correct.any(0))
    chosen = np.random.default_rng(1).integers(0, count, 20)
    found = history.data_map()
    for sample in chosen:
        seen = ~np.isnan(loss[:, sample])
        if seen.any():
            probability = np.exp(-loss[seen, sample].astype(np.float64))
            expected = probability.mean(), probability.std(), correct[seen, sample].mean()
            np.testing.assert_allclose([column[sample] for column in found], expected, atol=1e-6)


def test_bytes():
    history, *_ = random_history(80_000, 10)
    assert history.nbytes == 80_000 * 10 * 2.25
    assert sum(tensor.nbytes for tensor in history.state_dict().values()) == 80_000 * 10 * 2.25 + 10 * 8


def test_a_history_without_epochs():
    history = LedgerHistory(10)
    assert history.loss.shape == history.correct.shape == history.hidden.shape == (0, 10)
    assert history.forgetting_events().tolist() == [0] * 10
    assert not history.never_learnt().any()
    assert np.isnan(history.data_map().confidence).all()
    other = LedgerHistory(10)
    other.load_state_dict(history.state_dict())
    assert len(other) == 0


def test_another_number_of_samples():
    with pytest.raises(ValueError, match="The history is of 11 samples, the ledger of 10"):
        LedgerHistory(10).load_state_dict(LedgerHistory(11).state_dict())


class Ledgers(TrainerCallback):
    """Notes the ledger at the end of each epoch, when its hidden samples are refreshed."""

    def __init__(self):
        self.epochs = []

    def on_epoch_end(self, args, state, control, model=None, **kwargs):
        self.epochs.append({name: tensor.clone() for name, tensor in self.trainer.ledger.state_dict().items()})


def test_it_is_the_ledger_at_the_end_of_each_epoch(tmp_path):
    watch = Ledgers()
    trainer = make_trainer(tmp_path, ledger_history=True, learning_rate=0.05, num_train_epochs=6, refresh_interval=2)
    watch.trainer = trainer
    trainer.add_callback(watch)
    trainer.train()
    history, seen = trainer.ledger.history, watch.epochs
    assert len(history) == len(seen) == 6
    assert sum(int(epoch["hidden"].sum()) for epoch in seen) > 50
    for row, epoch in zip(history.rows(), seen, strict=True):
        assert row.correct.tolist() == epoch["correct"].tolist()
        assert row.hidden.tolist() == epoch["hidden"].tolist()
        refreshed = row.epoch in (1, 3)  # not 5: after the last epoch nothing is refreshed
        unmeasured = epoch["hidden"].numpy() & (not refreshed)
        expected = np.where(unmeasured, np.nan, epoch["loss"].numpy()).astype(np.float16)
        np.testing.assert_array_equal(row.loss, expected)


def test_it_is_off_by_default_and_changes_nothing(tmp_path):
    with_it = trained(tmp_path / "with", ledger_history=True, learning_rate=0.05)
    without = trained(tmp_path / "without", learning_rate=0.05)
    assert without.ledger.history is None
    assert same_tensors(with_it.ledger.state_dict(), without.ledger.state_dict())
    assert same_tensors(with_it.model.state_dict(), without.model.state_dict())


# ---- Killed and resumed ----

OPTIONS = {"num_train_epochs": 6, "ledger_history": True, "learning_rate": 0.05}
SAVING = {"by steps": {"save_strategy": "steps", "save_steps": 5}, "by epochs": {"save_strategy": "epoch"}}


def train_and_tell(folder, options, kill_at=None, resume=False):
    """As `killing.train`, with the history; in a process of its own."""
    make, made = killing.make_trainer, []
    killing.make_trainer = lambda *args, **kwargs: made.append(make(*args, **kwargs)) or made[-1]
    result = killing.train(folder, options, kill_at, resume)
    return {**result, "history": made[-1].ledger.history.state_dict()}


@pytest.mark.wide
@pytest.mark.parametrize("saving", ["by steps", "by epochs"])
def test_killed_and_resumed_is_never_killed(tmp_path, saving):
    options = {**OPTIONS, **SAVING[saving]}
    code, expected = run(train_and_tell, tmp_path / "whole", options)
    assert code == 0
    assert expected["history"]["hidden"].sum() > 0
    within = [place for place, moment in enumerate(expected["moments"]) if moment == "in the epoch"]
    kill_at = within[2 * len(within) // 3]
    code, _ = run(train_and_tell, tmp_path / "killed", options, kill_at)
    assert code == -9
    code, result = run(train_and_tell, tmp_path / "killed", options, None, True)
    assert code == 0
    assert same_tensors(result["history"], expected["history"])


def test_a_history_that_is_switched_on_later_begins_there(tmp_path):
    options = {**OPTIONS, "save_strategy": "epoch"}
    trained(tmp_path, **{**options, "ledger_history": False, "num_train_epochs": 2})
    resumed = make_trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.ledger.history.epochs.tolist() == [2, 3, 4, 5]


def test_a_history_that_is_switched_off_later_is_dropped(tmp_path):
    options = {**OPTIONS, "save_strategy": "epoch"}
    trained(tmp_path, **{**options, "num_train_epochs": 2})
    resumed = make_trainer(tmp_path, **{**options, "ledger_history": False})
    resumed.train(resume_from_checkpoint=True)
    assert resumed.ledger.history is None
    assert load_ledger(tmp_path).history is None


def history_of_rank(folder):
    trainer = trained(folder, model=LinearClassifier, per_device_train_batch_size=8, **OPTIONS)
    return trainer.ledger.history.state_dict()


@pytest.mark.wide
def test_two_processes_have_the_same(tmp_path):
    first, second = run_ranks(2, history_of_rank, tmp_path)
    assert same_tensors(first, second)
    assert first["loss"].shape == (6, NUM_SAMPLES)
    assert first["hidden"].sum() > 0
