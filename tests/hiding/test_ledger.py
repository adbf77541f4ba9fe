"""The record, what is exchanged between ranks, and the file beside a checkpoint."""

import pytest
import torch

from hf_kakurenbo import SampleLedger, SampleStatistics
from hf_kakurenbo.distributed.collectives import any_rank, gather_rows, require_consistency
from hf_kakurenbo.hiding import Measurements, Recorder, checkpoint
from hf_kakurenbo.hiding.checkpoint import LEDGER_NAME, load_state, save_state
from processes import run_ranks
from toy import same_tensors


def measured(ids, losses):
    count = len(ids)
    return Measurements.of(
        torch.tensor(ids), torch.tensor(losses), torch.ones(count, dtype=torch.bool), torch.full((count,), 0.5)
    )


def statistics(losses):
    count = len(losses)
    return SampleStatistics(torch.tensor(losses), torch.ones(count, dtype=torch.bool), torch.ones(count))


def test_shapes_dtypes_and_bytes():
    ledger = SampleLedger(1000)
    found = {name: (getattr(ledger, name).dtype, getattr(ledger, name).shape) for name in ledger.state_dict()}
    assert found == {
        "loss": (torch.float32, (1000,)),
        "confidence": (torch.float32, (1000,)),
        "correct": (torch.bool, (1000,)),
        "hidden": (torch.bool, (1000,)),
        "times_hidden": (torch.int32, (1000,)),
    }
    assert ledger.nbytes <= 12 * 1000
    assert bool(ledger.loss.isnan().all())


def test_hide_and_unhide():
    ledger = SampleLedger(5)
    ledger.hide(torch.tensor([True, False, True, False, False]))
    ledger.hide(torch.tensor([True, False, False, False, True]))
    assert ledger.times_hidden.tolist() == [2, 0, 1, 0, 1]
    assert (ledger.hidden_ids.tolist(), ledger.visible_ids.tolist(), ledger.num_hidden) == ([0, 4], [1, 2, 3], 2)
    ledger.unhide(torch.tensor([4]))
    assert (ledger.times_hidden.tolist(), ledger.hidden_ids.tolist()) == ([2, 0, 1, 0, 0], [0])
    ledger.unhide()
    assert (ledger.times_hidden.tolist(), ledger.num_hidden) == ([1, 0, 1, 0, 0], 0)


def test_the_first_measurement_of_a_sample_counts():
    ledger = SampleLedger(4)
    ledger.update(measured([2, 0, 2, 0, 2], [1.0, 2.0, 3.0, 4.0, 5.0]))
    assert ledger.loss[[0, 2]].tolist() == [2.0, 1.0]
    assert bool(ledger.loss[[1, 3]].isnan().all())
    ledger.update(measured([2], [9.0]))
    assert ledger.loss[2] == 9.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SampleLedger(0), "at least one sample, got num_samples=0"),
        (lambda: SampleLedger(4).update(measured([4], [1.0])), r"must be in 0..3, got 4..4"),
        (lambda: SampleLedger(4).update(measured([-1, 2], [1.0, 1.0])), r"must be in 0..3, got -1..2"),
        (lambda: SampleLedger(4).hide(torch.zeros(3, dtype=torch.bool)), r"must be \(4,\) bool, got \(3,\) bool"),
        (lambda: SampleLedger(4).hide(torch.zeros(4)), r"must be \(4,\) bool, got \(4,\) float32"),
        (
            lambda: SampleLedger(4).load_state_dict(SampleLedger(5).state_dict()),
            "of 5 samples, the training dataset has 4",
        ),
        (
            lambda: Recorder().add(torch.arange(3), statistics([1.0, 2.0])),
            r"loss is \(2,\) float32; expected shape \(3,\)",
        ),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_state_is_taken_over():
    ledger, other = SampleLedger(5), SampleLedger(5)
    ledger.update(measured([1, 3], [0.5, float("inf")]))
    ledger.hide(torch.arange(5) < 2)
    other.load_state_dict(ledger.state_dict())
    assert same_tensors(other.state_dict(), ledger.state_dict())
    assert other.digest() == ledger.digest() != SampleLedger(5).digest()


def gather_on_ranks():
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else init_and_get_rank()
    own = torch.arange(3 * rank).reshape(-1, 1)  # no row on rank 0, three on rank 1
    recorder = Recorder()
    # Four batches of two over six samples: the last batch of rank 1 repeats the epoch's first samples.
    for ids in {0: [[0, 1], [4, 5]], 1: [[2, 3], [0, 1]]}[rank]:
        recorder.add(torch.tensor(ids), statistics([10.0 * (rank + 1) + i for i in ids]))
    pending = recorder.gathered()
    again = Recorder()
    again.restore(pending)
    return {
        "rows": [part.tolist() for part in gather_rows(own)],
        "ids": pending.ids.tolist(),
        "losses": pending.loss.tolist(),
        "restored": again.gathered().ids.tolist(),
        "any": (any_rank(rank == 1, torch.device("cpu")), any_rank(False, torch.device("cpu"))),
    }


def init_and_get_rank():
    torch.distributed.init_process_group("gloo")
    return torch.distributed.get_rank()


def test_what_two_ranks_measured_is_the_same_on_both():
    outcomes = run_ranks(2, gather_on_ranks)
    assert outcomes[0] == outcomes[1]
    outcome = outcomes[0]
    assert outcome["rows"] == [[], [[0], [1], [2]]]
    assert outcome["ids"] == [0, 2, 1, 3, 4, 0, 5, 1]
    assert outcome["restored"] == outcome["ids"]
    assert outcome["any"] == (True, False)
    ledger = SampleLedger(6)
    ledger.update(measured(outcome["ids"], outcome["losses"]))
    assert ledger.loss.tolist() == [10.0, 11.0, 22.0, 23.0, 14.0, 15.0], "a repetition counted"


def disagree_on_ranks(figure):
    rank = init_and_get_rank()
    require_consistency({"samples": 5, "batches": 7}, torch.device("cpu"), "at first")
    with pytest.raises(RuntimeError) as raised:
        require_consistency({"samples": 5, "batches": figure + rank}, torch.device("cpu"), "before epoch 3")
    return str(raised.value)


def test_a_disagreement_is_told_on_every_rank():
    for message in run_ranks(2, disagree_on_ranks, 7):
        assert "out of sync before epoch 3. batches: 7 on rank 0, 8 on rank 1. Give" in message
        assert "samples" not in message.split("Give")[0]


STATE = {"loss": torch.tensor([1.0, float("nan")]), "hidden": torch.tensor([True, False]), "empty": torch.empty(0, 3)}


def test_the_file_gives_back_what_it_took(tmp_path):
    save_state(tmp_path / "new", STATE, {"epoch": 3, "trainer": {"loss": 0.1}})
    tensors, scalars = load_state(tmp_path / "new")
    assert same_tensors(tensors, STATE)
    assert scalars == {"epoch": 3, "trainer": {"loss": 0.1}}
    assert [path.name for path in (tmp_path / "new").iterdir()] == [LEDGER_NAME]


@pytest.mark.parametrize("length", [0, 7, 8, 60, 200, -1])
def test_a_cut_file(tmp_path, length):
    save_state(tmp_path, STATE, {})
    path = tmp_path / LEDGER_NAME
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"is damaged.*Resume from another checkpoint.*from_pretrained"):
        load_state(tmp_path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is missing.*Resume from another checkpoint.*from_pretrained"):
        load_state(tmp_path)


def test_a_file_of_another_format(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "_FORMAT", "7")
    save_state(tmp_path, STATE, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="has format '7', this release of hf_kakurenbo reads '1'"):
        load_state(tmp_path)


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    save_state(tmp_path, STATE, {"epoch": 1})

    def half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint, "save_file", half)
    with pytest.raises(OSError, match="disk full"):
        save_state(tmp_path, STATE, {"epoch": 2})
    assert load_state(tmp_path)[1] == {"epoch": 1}
    assert [path.name for path in tmp_path.iterdir()] == [LEDGER_NAME]
