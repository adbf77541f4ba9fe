"""Ids beside examples, the samplers, and the state of the generators."""

import pickle
import random
import tracemalloc

import datasets
import numpy as np
import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import RandomSampler, SequentialSampler
from transformers.trainer_pt_utils import LengthGroupedSampler

from hf_kakurenbo.data import (
    HiddenSampler,
    IdentifiedDataset,
    IdentifyingCollator,
    RandomState,
    VisibleSampler,
    make_visible_sampler,
    samplers,
    untouched_random_state,
)
from hf_kakurenbo.data.identity import IdentifiedExamples


def seedable(count, seed=3):
    return SeedableRandomSampler(range(count), data_seed=seed)


def grouped(count=100):
    lengths = np.random.default_rng(0).integers(1, 50, count).tolist()
    return LengthGroupedSampler(8, lengths=lengths)


@given(
    hidden=st.lists(st.booleans(), min_size=1, max_size=60), epochs=st.lists(st.integers(0, 5), min_size=1, max_size=4)
)
def test_visible_is_the_order_less_the_hidden(hidden, epochs):
    mask = torch.tensor(hidden)
    visible, reference = VisibleSampler(seedable(len(hidden))), seedable(len(hidden))
    for epoch in epochs:
        reference.set_epoch(epoch)
        expected = [index for index in reference if not hidden[index]]
        visible.begin_epoch(epoch, mask)
        assert len(visible) == len(expected)
        assert list(visible) == expected
        visible.set_epoch(epoch)
        assert list(visible) == expected, "a second pass, or a second set_epoch, changed the order"


def test_the_order_does_not_depend_on_the_global_generator():
    torch.manual_seed(0)
    first = VisibleSampler(seedable(50))
    first.begin_epoch(2, torch.arange(50) < 9)
    torch.manual_seed(1)
    second = VisibleSampler(seedable(50))
    second.begin_epoch(2, torch.arange(50) < 9)
    assert list(first) == list(second)


def test_another_epoch_is_another_order():
    sampler = VisibleSampler(seedable(50))
    orders = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert orders[0] != orders[1]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50))


def test_with_nothing_hidden_the_global_generator_sees_the_same_calls():
    torch.manual_seed(5)
    expected = [list(grouped()), list(grouped())]
    after = torch.get_rng_state()
    torch.manual_seed(5)
    sampler = VisibleSampler(grouped())
    found = []
    for epoch in range(2):
        sampler.begin_epoch(epoch, torch.zeros(100, dtype=torch.bool))
        assert len(sampler) == 100
        found.append(list(sampler))
    assert found == expected
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("count", [0, 30])
def test_an_interrupted_epoch_is_drawn_again_from_its_generators(count):
    hidden = torch.arange(100) < count
    sampler = VisibleSampler(grouped())
    sampler.begin_epoch(1, hidden)
    order = list(sampler)
    saved = RandomState.from_json(sampler.random_state.to_json())
    torch.manual_seed(77)
    before = torch.get_rng_state()
    again = VisibleSampler(grouped())
    again.begin_epoch(1, hidden, saved)
    assert list(again) == order
    assert torch.equal(torch.get_rng_state(), before)


def test_a_sampler_with_replacement():
    sampler = make_visible_sampler(RandomSampler(range(20), replacement=True, num_samples=50), data_seed=1)
    sampler.begin_epoch(0, torch.arange(20) < 10)
    order = list(sampler)
    assert len(sampler) == len(order)
    assert set(order) <= set(range(10, 20))


def test_the_sampler_is_the_one_that_accelerate_would_make():
    sampler = make_visible_sampler(RandomSampler(range(40)), data_seed=11)
    assert isinstance(sampler.sampler, SeedableRandomSampler)
    assert list(sampler) == list(seedable(40, 11))
    assert list(make_visible_sampler(SequentialSampler(range(5)), None)) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("sampler", [None, torch.utils.data.BatchSampler(range(9), 3, False)])
def test_what_is_no_sampler_of_indices(sampler):
    with pytest.raises(ValueError, match="Hiding needs a sampler that yields sample indices"):
        make_visible_sampler(sampler, None)


def test_hidden_ids_are_read_anew():
    hidden = torch.tensor([True, False, True])
    sampler = HiddenSampler(hidden)
    assert (list(sampler), len(sampler)) == ([0, 2], 2)
    hidden[0] = False
    assert (list(sampler), len(sampler)) == ([2], 1)


def test_more_ids_than_a_chunk():
    assert list(HiddenSampler(torch.arange(150_000) % 7 == 3)) == list(range(3, 150_000, 7))


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [([], []), ([4], [4, 4, 4]), ([1, 2, 7], [1, 2, 7]), ([1, 2, 3, 7], [1, 2, 3, 7, 1, 2])],
    ids=str,
)
def test_hidden_samples_fill_whole_batches_where_they_must(hidden, expected):
    mask = torch.zeros(8, dtype=torch.bool)
    mask[hidden] = True
    sampler = HiddenSampler(mask, whole=3)
    assert list(sampler) == list(sampler) == expected
    assert len(sampler) == len(expected)
    sampler = VisibleSampler(SequentialSampler(range(150_000)))
    sampler.begin_epoch(0, torch.arange(150_000) == 70_000)
    assert list(sampler) == [index for index in range(150_000) if index != 70_000]


@pytest.mark.parametrize("hidden", [0, 30])
def test_a_long_random_order_is_that_of_its_sampler(hidden, monkeypatch):
    monkeypatch.setattr(samplers, "_MANY", 1)
    sampler, reference = VisibleSampler(seedable(200_000)), seedable(200_000)
    for epoch in (0, 1, 4):
        reference.set_epoch(epoch)
        sampler.begin_epoch(epoch, torch.arange(200_000) < hidden)
        assert list(sampler) == [index for index in reference if index >= hidden]
        assert sampler._order.dtype == np.int32


def test_a_long_order_with_repetitions_is_that_of_its_sampler(monkeypatch):
    monkeypatch.setattr(samplers, "_MANY", 1)
    for options in ({"replacement": True}, {"num_samples": 250}):
        order = SeedableRandomSampler(range(100), data_seed=3, **options)
        reference = SeedableRandomSampler(range(100), data_seed=3, **options)
        assert list(VisibleSampler(order)) == list(reference)


def test_less_may_be_hidden_of_an_epoch_that_was_begun():
    sampler = VisibleSampler(grouped())
    sampler.begin_epoch(1, torch.arange(100) < 30)
    order, after = list(sampler), torch.get_rng_state()
    sampler.hide_less(torch.arange(100) < 10)
    assert [index for index in sampler if index >= 30] == order
    assert sorted(sampler) == list(range(10, 100))
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize(("underneath", "takes_it"), [(seedable(5), True), (SequentialSampler(range(5)), False)])
def test_the_epoch_is_taken_only_by_a_sampler_that_wants_it(underneath, takes_it):
    # Accelerate hands it to the dataset otherwise.
    assert hasattr(VisibleSampler(underneath), "set_epoch") is takes_it


class OneByOne:
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return {"x": index * 10}


@pytest.mark.parametrize(
    "dataset",
    [OneByOne(), datasets.Dataset.from_dict({"x": [0, 10, 20, 30]}), [{"x": x} for x in (0, 10, 20, 30)]],
    ids=["one by one", "datasets", "list"],
)
def test_ids_beside_examples(dataset):
    identified = pickle.loads(pickle.dumps(IdentifiedDataset(dataset)))
    assert len(identified) == 4
    assert identified[2] == (2, {"x": 20})
    batch = identified.__getitems__([3, 1])
    assert (batch.examples, batch.ids) == ([{"x": 30}, {"x": 10}], [3, 1])


def test_the_collator_adds_the_ids():
    given = []

    def collate(examples):
        given.extend(examples)
        return {"x": torch.tensor([example["x"] for example in examples])}

    batch = IdentifyingCollator(collate, "row", active=True)(IdentifiedDataset(OneByOne()).__getitems__([3, 1]))
    assert given == [{"x": 30}, {"x": 10}]
    assert batch["x"].tolist() == [30, 10]
    assert (batch["row"].dtype, batch["row"].tolist()) == (torch.int64, [3, 1])


def test_a_batch_that_the_dataset_has_collated_reaches_the_collator_as_it_is():
    class Columns(OneByOne):
        def __getitems__(self, indices):
            return {"x": torch.tensor(indices) * 10}

    fetched = IdentifiedDataset(Columns()).__getitems__([3, 1])
    batch = IdentifyingCollator(lambda examples: examples, "row", active=True)(fetched)
    assert (batch["x"].tolist(), batch["row"].tolist()) == ([30, 10], [3, 1])


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        ([1, 2], TypeError, "must return a dict.*<lambda> returned list"),
        ({"row": 1}, ValueError, "already has an entry 'row'.*sample_id_column"),
    ],
)
def test_a_batch_to_which_no_id_can_be_added(returned, error, message):
    examples = IdentifiedDataset(OneByOne()).__getitems__([0])
    with pytest.raises(error, match=message):
        IdentifyingCollator(lambda examples: returned, "row", active=True)(examples)


def test_the_epoch_is_handed_on():
    class WithEpoch(OneByOne):
        def set_epoch(self, epoch):
            self.epoch = epoch

    dataset = WithEpoch()
    IdentifiedDataset(dataset).set_epoch(3)
    assert dataset.epoch == 3
    IdentifiedDataset(OneByOne()).set_epoch(3)


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(())), random.gauss(0, 1), float(np.random.randn())


def test_a_state_of_the_generators_as_text():
    draw()
    state = RandomState.from_json(RandomState.capture().to_json())
    expected = [draw() for _ in range(3)]
    state.restore()
    assert [draw() for _ in range(3)] == expected


def test_the_generators_are_untouched_after_an_error_too():
    before = RandomState.capture()
    with pytest.raises(ZeroDivisionError), untouched_random_state("cpu"):  # noqa: PT012
        draw()
        raise ZeroDivisionError
    first = draw()
    before.restore()
    assert draw() == first


@pytest.mark.parametrize("whole", [1, 64])
def test_hidden_ids_are_not_kept(whole):
    """As Python's integers they would take 32 bytes each, of millions."""
    sampler = HiddenSampler(torch.ones(300_000, dtype=torch.bool), whole)
    tracemalloc.start()
    try:
        assert sum(1 for _ in sampler) == len(sampler)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_sparse_examples_have_no_ends_to_compare():
    rows = [torch.eye(3)[i].to_sparse() for i in range(3)]
    collator = IdentifyingCollator(lambda some: {"x": torch.stack([row.to_dense() for row in rows])}, "id", active=True)
    assert collator(IdentifiedExamples([4, 5, 6], [{"x": row} for row in rows]))["id"].tolist() == [4, 5, 6]
