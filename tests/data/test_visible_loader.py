"""The loader of a loop of one's own: which samples it gives, in which order, to which rank, and where it continues."""

import random

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import TensorDataset, WeightedRandomSampler

from hf_kakurenbo.data import VisibleLoader
from hf_kakurenbo.distributed.data_parallel import DataParallelWorld
from hf_kakurenbo.hiding import HidingPolicy, HidingRun, SampleStatistics, Selection


class These(HidingPolicy):
    """Hides the same samples in every epoch, or draws some of them more often."""

    def __init__(self, hidden=(), repeats=None):
        self.hidden, self.repeats = list(hidden), repeats

    def select(self, ledger, epoch, progress):
        hidden = torch.zeros(len(ledger), dtype=torch.bool)
        hidden[self.hidden] = True
        return Selection(hidden, len(self.hidden), repeats=self.repeats)

    def wants_refresh(self, epoch):
        return True

    def most_hidden(self, num_samples, epoch, progress):
        return len(self.hidden)


class SizedStream(torch.utils.data.IterableDataset):
    """A stream with a length is one too."""

    def __iter__(self):
        yield 1

    def __len__(self):
        return 1


def rows(count):
    """A dataset whose row says its number."""
    return TensorDataset(torch.arange(count) * 10)


def make_loader(count=20, hidden=(), batch_size=4, policy=None, ranks=None, **options):
    run = HidingRun(count, policy or These(hidden), data_parallel=ranks)
    return VisibleLoader(rows(count), run, batch_size, **options)


def ids_of(batches):
    """The ids of some batches, each checked against its rows."""
    found = []
    for ids, (numbers,) in batches:
        assert torch.equal(numbers, ids * 10)
        found.append(ids.tolist())
    return found


def record(run, ids):
    count = len(ids)
    right = torch.ones(count, dtype=torch.bool)
    run.record(ids, SampleStatistics(torch.rand(count, generator=torch.Generator()), right, torch.ones(count)))


def train(loader, epoch, epochs=10, batches=None):
    """Train an epoch, or its first batches; their ids."""
    loader.begin_epoch(epoch, epoch / epochs)
    found = []
    for ids, _ in loader:
        record(loader.run, ids)
        loader.run.batches_done += 1
        found.append(ids.tolist())
        if len(found) == batches:
            return found
    loader.run.finish_epoch()
    return found


def flat(lists):
    return [number for numbers in lists for number in numbers]


# ---- Which, in which order ----


@pytest.mark.parametrize("epoch", [0, 3])
def test_with_nothing_hidden_the_order_is_that_of_the_seed_and_the_epoch(epoch):
    loader = make_loader(seed=7)
    loader.begin_epoch(epoch, 0.0)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(7 + epoch)).tolist()
    assert flat(ids_of(loader)) == order


def test_the_visible_samples_come_in_the_same_order_and_the_hidden_ones_never():
    hidden = {1, 5, 6, 19}
    loader, whole = make_loader(hidden=hidden), make_loader()
    for each in (loader, whole):
        each.begin_epoch(2, 0.0)
    assert flat(ids_of(loader)) == [number for number in flat(ids_of(whole)) if number not in hidden]
    assert (len(loader), loader.full_batches) == (4, 5)


def test_an_order_neither_depends_on_the_global_generators_nor_moves_them():
    def order(sampler):
        loader = make_loader(sampler=sampler)
        loader.begin_epoch(1, 0.1)
        before = torch.get_rng_state(), random.getstate(), str(np.random.get_state())
        found = flat(ids_of(loader))
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (random.getstate(), str(np.random.get_state())) == before[1:]
        return found

    def weighted():
        return WeightedRandomSampler([1.0] * 20, 20)

    for make in (lambda: None, weighted):
        first = order(make())
        torch.manual_seed(5)
        random.seed(5)
        assert order(make()) == first
    assert len(set(order(weighted()))) < 20  # it draws with replacement


def test_of_a_sampler_that_draws_some_only_what_is_drawn_counts():
    class Evens(torch.utils.data.Sampler):
        def __iter__(self):
            return iter(range(0, 20, 2))

        def __len__(self):
            return 10

    loader = make_loader(hidden=[1, 2, 3, 4], sampler=Evens())
    loader.begin_epoch(0, 0.0)
    assert flat(ids_of(loader)) == [0, 6, 8, 10, 12, 14, 16, 18]
    run = loader.run
    assert (run.visible_samples, run.full_samples, run.ledger.num_hidden) == (8, 10, 2)


def test_without_shuffling_they_come_in_their_order():
    loader = make_loader(hidden=[1], shuffle=False)
    loader.begin_epoch(3, 0.0)
    assert flat(ids_of(loader)) == [0, *range(2, 20)]


def test_samples_are_repeated_as_the_policy_says():
    repeats = torch.ones(20, dtype=torch.int32)
    repeats[3] = 4
    loader = make_loader(policy=These([7], repeats))
    loader.begin_epoch(0, 0.0)
    found = flat(ids_of(loader))
    assert (found.count(3), found.count(7), len(found)) == (4, 0, 22)


def test_workers_and_options_of_the_loader():
    loader, other = make_loader(hidden=[2], num_workers=2, persistent_workers=True), make_loader(hidden=[2])
    for epoch in range(2):
        for each in (loader, other):
            each.begin_epoch(epoch, 0.0)
        assert ids_of(loader) == ids_of(other)


def test_a_last_batch_of_one_sample_is_avoided():
    loader = make_loader(hidden=[0, 1, 2])
    record(loader.run, torch.arange(20))
    loader.run.finish_epoch()
    loader.begin_epoch(0, 0.0)
    assert [len(ids) for ids in ids_of(loader)] == [4, 4, 4, 4, 2]
    assert loader.run.ledger.num_hidden == 2


def test_samples_that_fill_no_batch_are_not_hidden():
    loader = make_loader(count=6, hidden=[0, 1, 2], drop_last=True)
    loader.begin_epoch(0, 0.0)
    assert loader.run.ledger.num_hidden == 0
    assert [len(ids) for ids in ids_of(loader)] == [4]


def test_a_table_of_datasets_is_read_by_the_batch():
    table = datasets.Dataset.from_dict({"number": [10 * place for place in range(9)]}).with_format("torch")
    loader = VisibleLoader(table, HidingRun(9, These([4])), 4)
    loader.begin_epoch(0, 0.0)
    batches = list(loader)
    assert [len(ids) for ids, _ in batches] == [4, 4]
    assert all(torch.equal(batch["number"], 10 * ids) for ids, batch in batches)


# ---- Which rank ----


@given(
    count=st.integers(2, 40),
    ranks=st.integers(1, 4),
    of_a_rank=st.integers(1, 5),
    drop_last=st.booleans(),
    data=st.data(),
)
def test_the_ranks_have_the_parts_of_the_batches_of_one(count, ranks, of_a_rank, drop_last, data):
    hidden = data.draw(st.sets(st.integers(0, count - 1), max_size=count - 1))
    options = {"count": count, "hidden": hidden, "batch_size": ranks * of_a_rank, "drop_last": drop_last}
    one = make_loader(**options)
    one.begin_epoch(0, 0.0)
    of_ranks = []
    for rank in range(ranks):
        loader = make_loader(**options, ranks=DataParallelWorld(ranks, rank))
        loader.begin_epoch(0, 0.0)
        of_ranks.append(ids_of(loader))
        assert len(of_ranks[-1]) == len(loader) == len(one)
    for whole, *parts in zip(ids_of(one), *of_ranks, strict=True):
        assert len({len(part) for part in parts}) == 1
        together = [number for numbers in zip(*parts, strict=True) for number in numbers]
        assert together[: len(whole)] == whole
        assert len(together) - len(whole) < ranks  # the last one is filled up


def test_a_batch_that_the_ranks_cannot_share_is_refused():
    loader = make_loader(batch_size=5, ranks=DataParallelWorld(2, 0))
    with pytest.raises(ValueError, match="batch_size=5 is of all ranks together, and no multiple of their number, 2"):
        loader.begin_epoch(0, 0.0)


# ---- Samples to refresh ----


@pytest.mark.parametrize("ranks", [1, 3])
def test_chosen_samples_come_by_their_ids_and_leave_no_trace(ranks):
    chosen = torch.zeros(20, dtype=torch.bool)
    chosen[[3, 4, 9, 11, 17]] = True
    found = []
    for rank in range(ranks):
        loader = make_loader(batch_size=3, ranks=DataParallelWorld(ranks, rank))
        loader.begin_epoch(0, 0.0)
        before = torch.get_rng_state()
        batches = loader.batches_of(chosen)
        found.append([])
        for ids, (numbers,) in batches:
            torch.rand(3)  # as a forward pass may draw
            assert torch.equal(numbers, ids * 10)
            found[-1].append(ids.tolist())
        assert torch.equal(torch.get_rng_state(), before)
    assert len({len(batches) for batches in found}) == 1
    seen = [number for batches in zip(*found, strict=True) for number in flat(zip(*batches, strict=True))]
    assert seen[:5] == [3, 4, 9, 11, 17]
    assert len(seen) < 5 + ranks


def test_with_full_batches_alone_the_chosen_ones_are_filled_up_too():
    loader = make_loader(drop_last=True)
    loader.begin_epoch(0, 0.0)
    chosen = torch.zeros(20, dtype=torch.bool)
    assert list(loader.batches_of(chosen)) == []
    chosen[[1, 2, 3, 4, 5]] = True
    assert ids_of(loader.batches_of(chosen)) == [[1, 2, 3, 4], [5, 1, 2, 3]]


# ---- Continued ----


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("done", [0, 1, 3, 5])
def test_an_interrupted_epoch_continues_with_the_next_batch(done, drop_last):
    options = {"count": 22, "hidden": [4, 8], "seed": 3, "drop_last": drop_last}
    whole = train(make_loader(**options), 0)
    first, second = make_loader(**options), make_loader(**options)
    before = train(first, 0, batches=done) if done else []
    if not done:
        first.begin_epoch(0, 0.0)
    second.run.load_state_dict(first.run.state_dict())
    assert second.run.next_epoch == 0
    assert second.begin_epoch(0, 0.0) is False
    assert len(second) == len(whole)
    assert before + ids_of(second) == whole


def test_after_a_finished_epoch_the_next_one_is_new():
    loader = make_loader()
    train(loader, 0)
    assert loader.run.next_epoch == 1
    assert loader.begin_epoch(1, 0.1) is True


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 5}, {"count": None}])
def test_an_epoch_that_cannot_be_continued_is_refused(change):
    first = make_loader()
    train(first, 0, batches=2)
    if "count" in change:  # what was trained on is not counted
        first.run.batches_done = 0
        change = {}
    second = make_loader(**change)
    second.run.load_state_dict(first.run.state_dict())
    with pytest.raises(ValueError, match=r"Epoch 0 cannot continue: the 8 samples recorded in it are not those of its"):
        second.begin_epoch(0, 0.0)


# ---- Wrong use ----


def test_a_dataset_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"The dataset has 5 samples and the run 6: .* `HidingRun\(len\(dataset\)"):
        VisibleLoader(rows(5), HidingRun(6, These()), 2)


@pytest.mark.parametrize(
    "stream", [datasets.Dataset.from_dict({"a": [1]}).to_iterable_dataset(), iter([1]), SizedStream()]
)
def test_a_stream_is_refused(stream):
    with pytest.raises(ValueError, match=r"is a stream\. Load it map-style"):
        VisibleLoader(stream, HidingRun(1, These()), 1)


@pytest.mark.parametrize("begun", [False, True])
def test_a_loader_whose_epoch_was_not_begun_is_not_iterated(begun):
    loader = make_loader()
    if begun:
        train(loader, 0)
        loader.run.begin_epoch(1, 0.1)  # of the run alone
    with pytest.raises(RuntimeError, match=r"Call `loader\.begin_epoch\(epoch, progress\)` before each epoch"):
        next(iter(loader))


def test_a_collator_that_loses_rows_is_refused():
    def lose(examples):
        return {"x": torch.tensor([row[0] for row in examples[1:]])}

    loader = make_loader(collate_fn=lose)
    loader.begin_epoch(0, 0.0)
    with pytest.raises(ValueError, match="returned 3 rows for 4 examples"):
        next(iter(loader))


# ---- As many updates, in smaller batches ----


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("ranks", [1, 2])
def test_constant_updates(ranks, drop_last):
    hidden = set(range(60))
    options = {"hidden": hidden, "batch_size": 20, "constant_updates": True, "drop_last": drop_last}
    parts = []
    for rank in range(ranks):
        loader = make_loader(200, ranks=DataParallelWorld(ranks, rank), **options)
        loader.begin_epoch(1, 0.1)
        assert (len(loader), loader.full_batches, loader.epoch_batch_size) == (10, 10, 14)
        assert loader.run.lr_scale == pytest.approx(1.0)
        parts.append(ids_of(loader))
    assert {len(batch) for part in parts for batch in part} == {14 // ranks}
    assert sorted(flat(flat(parts))) == sorted(set(range(200)) - hidden)


def test_an_epoch_in_smaller_batches_continues_after_those_done():
    def make():
        return make_loader(200, hidden=set(range(60)), batch_size=20, constant_updates=True)

    whole, begun = make(), make()
    expected = train(whole, 1)
    done = train(begun, 1, batches=4)
    resumed = make()
    resumed.run.load_state_dict(begun.run.state_dict())
    assert not resumed.begin_epoch(1, 0.1)
    assert done + ids_of(resumed) == expected


def test_an_epoch_that_hides_nothing_has_whole_batches_again():
    class Late(These):
        def select(self, ledger, epoch, progress):
            return super().select(ledger, epoch, progress) if epoch == 1 else Selection(torch.zeros(200).bool(), 0)

    loader = make_loader(200, policy=Late(set(range(60))), batch_size=20, constant_updates=True)
    assert [len(train(loader, epoch)[0]) for epoch in range(3)] == [20, 14, 20]


def test_smaller_batches_stay_a_multiple_of_other_ranks():
    def make(ranks):
        return make_loader(200, hidden=set(range(60)), batch_size=20, constant_updates=True, ranks=ranks)

    begun = make(None)
    train(begun, 1, batches=4)
    resumed = make(DataParallelWorld(4, 0))
    resumed.run.load_state_dict(begun.run.state_dict())
    # 14 samples are no multiple of 4 ranks; batches of 16 are, and are others than those recorded.
    with pytest.raises(ValueError, match=r"Epoch 1 cannot continue: .* first 4 batches, of 16"):
        resumed.begin_epoch(1, 0.1)
