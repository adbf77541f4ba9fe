"""The way of the measurements from each rank into every rank's ledger: what is sent, in what order, in what pieces."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hf_kakurenbo import SampleLedger, SampleStatistics
from hf_kakurenbo.distributed.collectives import gather_padded
from hf_kakurenbo.distributed.data_parallel import DataParallelWorld
from hf_kakurenbo.hiding import Measurements, Recorder, pending
from processes import run_ranks
from toy import same_tensors

SAMPLES = 97
BATCHES = {0: [5, 5, 1], 1: [], 2: [3, 9]}
"""The sizes of the batches on each rank: many, none, and the longest."""


def batches_of(rank):
    """Ids, with repetitions within a rank and between ranks, and losses that tell each measurement apart."""
    generator = torch.Generator().manual_seed(rank)
    for number, size in enumerate(BATCHES[rank]):
        ids = torch.randint(0, SAMPLES // 3, (size,), generator=generator)
        yield ids, 1000 * rank + 100 * number + torch.arange(size, dtype=torch.float32)


def recorded(recorder, batches):
    for ids, loss in batches:
        recorder.add(ids, SampleStatistics(loss, loss % 2 == 0, (loss % 7) / 10))
    return recorder


def literally(ranks):
    """What counts of each sample, measurement by measurement: the first by place within the rank, then by rank."""
    by_rank = [
        [pair for ids, loss in batches_of(rank) for pair in zip(ids.tolist(), loss.tolist(), strict=True)]
        for rank in ranks
    ]
    counts, order = {}, []
    for place in range(max(map(len, by_rank))):
        for measured in by_rank:
            if place < len(measured):
                sample_id, loss = measured[place]
                order.append(sample_id)
                counts.setdefault(sample_id, loss)
    return counts, order


def merged_on_ranks(round_rows, block_rows):
    torch.distributed.init_process_group("gloo")
    pending._ROUND_ROWS, pending._ROUND_ROWS_OF_A_RANK, pending._BLOCK_ROWS = round_rows, 1, block_rows
    sizes, sent = [], []
    update, all_gather = SampleLedger.update, torch.distributed.all_gather

    def noting_the_size(ledger, measurements):
        sizes.append(len(measurements.ids))
        update(ledger, measurements)

    def noting_what_is_sent(gathered, own):
        sent.append(own.nbytes)
        all_gather(gathered, own)

    SampleLedger.update, torch.distributed.all_gather = noting_the_size, noting_what_is_sent
    ledger, seen = SampleLedger(SAMPLES), torch.zeros(SAMPLES, dtype=torch.bool)
    recorder = recorded(Recorder(num_samples=SAMPLES), batches_of(torch.distributed.get_rank()))
    order = recorder.gathered().ids
    sent.clear()
    count = recorder.merge_into(ledger, seen)
    return {
        "ledger": ledger.state_dict(),
        "seen": seen,
        "count": count,
        "order": order,
        "sizes": sizes,
        "sent": sum(sent),
        "left": len(recorder.gathered().ids),
    }


@pytest.mark.parametrize(
    ("round_rows", "block_rows"),
    [
        pytest.param(3, 2, marks=pytest.mark.wide),
        pytest.param(2**20, 2**18, marks=pytest.mark.wide),
        pytest.param(7, 6, marks=pytest.mark.wide),
    ],
    ids=["small pieces", "one piece", "uneven pieces"],
)
def test_three_ranks_merge_what_each_measured(round_rows, block_rows):
    outcomes = run_ranks(3, merged_on_ranks, round_rows, block_rows)
    counts, order = literally(BATCHES)
    for outcome in outcomes:
        ledger, measured = outcome["ledger"], list(counts)
        assert ledger["loss"][measured].tolist() == list(counts.values())
        assert int(ledger["loss"].isfinite().sum()) == len(counts)
        assert ledger["correct"][measured].tolist() == [loss % 2 == 0 for loss in counts.values()]
        torch.testing.assert_close(
            ledger["confidence"][measured], torch.tensor([loss % 7 / 10 for loss in counts.values()])
        )
        assert outcome["order"].tolist() == order
        assert outcome["order"].dtype == torch.int32
        assert set(outcome["seen"].nonzero().squeeze(1).tolist()) == set(counts)
        assert (outcome["count"], sum(outcome["sizes"]), outcome["left"]) == (len(order), len(order), 0)
        assert max(outcome["sizes"]) <= max(round_rows, 3)
        # A rank sends as many rows as the one that measured most, 12 bytes each, and its number of them.
        longest = max(sum(sizes) for sizes in BATCHES.values())
        assert outcome["sent"] == 12 * longest + 8


def merged_in_groups(apart):
    """Two groups of two ranks, which measure a little differently; in the second, `apart`, other samples too."""
    torch.distributed.init_process_group("gloo")
    pending._ROUND_ROWS, pending._ROUND_ROWS_OF_A_RANK, pending._BLOCK_ROWS = 8, 1, 2
    rank = torch.distributed.get_rank()
    world = DataParallelWorld(size=2, rank=rank // 2, group_size=2, group_rank=rank % 2)
    batches = [(ids, loss + 0.25 * (rank % 2)) for ids, loss in batches_of(2 * (rank // 2))]
    if apart and rank == 3:
        batches[-1] = (batches[-1][0] + 1, batches[-1][1])
    recorder, ledger = recorded(Recorder(num_samples=SAMPLES, data_parallel=world), batches), SampleLedger(SAMPLES)
    if apart:
        with pytest.raises(RuntimeError) as raised:
            recorder.merge_into(ledger)
        return str(raised.value)
    gathered = recorder.gathered()
    again = Recorder(num_samples=SAMPLES, data_parallel=world)
    again.restore(gathered)
    restored = again.gathered()
    count = recorder.merge_into(ledger)
    return {"count": count, "ledger": ledger.state_dict(), "order": gathered.ids, "again": restored.ids}


@pytest.mark.wide
def test_ranks_that_share_a_batch_count_as_the_first_of_them():
    counts, order = literally([0, 2])
    for outcome in run_ranks(4, merged_in_groups, False):
        assert outcome["order"].tolist() == order
        assert sorted(outcome["again"].tolist()) == sorted(order)
        assert outcome["count"] == len(order)
        assert outcome["ledger"]["loss"][list(counts)].tolist() == list(counts.values())
        assert int(outcome["ledger"]["loss"].isfinite().sum()) == len(counts)


@pytest.mark.wide
def test_ranks_that_should_share_a_batch_and_do_not_are_named_on_every_rank():
    messages = run_ranks(4, merged_in_groups, True)
    assert len(set(messages)) == 1
    assert "Ranks 2 to 3 share each batch" in messages[0]


@given(sizes=st.lists(st.integers(1, 9), max_size=8), round_rows=st.integers(1, 12), block_rows=st.integers(1, 12))
def test_one_process_merges_in_pieces_of_any_size(sizes, round_rows, block_rows):
    ids = torch.randint(0, 20, (sum(sizes),), generator=torch.Generator().manual_seed(0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pending, "_ROUND_ROWS", round_rows)
        patch.setattr(pending, "_ROUND_ROWS_OF_A_RANK", 1)
        patch.setattr(pending, "_BLOCK_ROWS", block_rows)
        recorder, ledger = Recorder(num_samples=20), SampleLedger(20)
        losses = torch.arange(len(ids), dtype=torch.float32)
        recorded(recorder, zip(ids.split(sizes), losses.split(sizes), strict=True) if sizes else [])
        gathered = recorder.gathered()
        assert (gathered.ids.tolist(), gathered.loss.tolist()) == (ids.tolist(), losses.tolist())
        again = Recorder(num_samples=20)
        again.restore(gathered)
        assert again.merge_into(ledger) == recorder.merge_into(SampleLedger(20)) == len(ids)
    first = {sample_id: place for place, sample_id in reversed(list(enumerate(ids.tolist())))}
    assert ledger.loss[list(first)].tolist() == list(first.values())


def test_measurements_are_packed_and_unpacked():
    loss = torch.tensor([0.5, float("nan"), -1.0, float("inf"), 2.0], dtype=torch.float64)
    correct = torch.tensor([True, False, False, True, False])
    confidence = torch.tensor([0.0, 0.0, 0.7, 1.0, -0.3], dtype=torch.bfloat16)
    packed = Measurements.of(torch.arange(5, dtype=torch.int32), loss, correct, confidence)
    assert sum(tensor.nbytes for tensor in packed) == 12 * 5
    assert torch.equal(packed.loss.nan_to_num(), loss.float().nan_to_num())
    assert torch.equal(packed.correct, correct)
    assert torch.equal(packed.confidence, confidence.float().clamp(min=0)), "below 0 it would hide what is unsure"


@pytest.mark.parametrize("wrong", [4, -1, 2**31, 2**32 + 1])
def test_an_id_that_is_none_stays_one_in_four_bytes(wrong):
    recorder = recorded(Recorder(num_samples=4), [(torch.tensor([0, wrong]), torch.ones(2))])
    with pytest.raises(ValueError, match=r"must be in 0\.\.3, got (0\.\.4|-1\.\.0)"):
        recorder.merge_into(SampleLedger(4))


@pytest.mark.parametrize(("num_samples", "dtype"), [(2**31 - 1, torch.int32), (2**31, torch.int64)])
def test_ids_of_more_samples_than_four_bytes_name(num_samples, dtype):
    last = num_samples - 1
    recorder = recorded(Recorder(num_samples=num_samples), [(torch.tensor([last, 0]), torch.ones(2))])
    gathered = recorder.gathered()
    assert (gathered.ids.dtype, gathered.ids.tolist()) == (dtype, [last, 0])


def test_what_rows_are_filled_up_with_in_one_process():
    rows = torch.arange(6).reshape(3, 2)
    gathered = gather_padded(rows, 5)
    assert gathered.shape == (1, 5, 2)
    assert torch.equal(gathered[0, :3], rows)


def test_a_merge_forgets_what_it_merged():
    recorder, ledger = Recorder(num_samples=5), SampleLedger(5)
    recorded(recorder, [(torch.tensor([1, 2]), torch.tensor([1.0, 2.0]))])
    assert recorder.merge_into(ledger) == 2
    before = {name: tensor.clone() for name, tensor in ledger.state_dict().items()}
    assert recorder.merge_into(ledger) == 0
    assert same_tensors(before, ledger.state_dict())
