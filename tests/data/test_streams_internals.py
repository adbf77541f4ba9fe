"""What streams rest on inside `datasets` and PyTorch. A release that moves one of these fails here first."""

import copy
import inspect

import datasets
import numpy as np
import pytest
from datasets.distributed import split_dataset_by_node
from datasets.iterable_dataset import (
    BufferShuffledExamplesIterable,
    FilteredExamplesIterable,
    FormattedExamplesIterable,
    MappedExamplesIterable,
    SelectColumnsIterable,
    _BaseExamplesIterable,
)
from torch.utils.data import _utils, get_worker_info

from abstract_members import left_to_subclasses
from hf_kakurenbo.utils.examples_iterables import (
    ChosenExamples,
    ExamplesInHand,
    one_to_one_chain,
    over_another_source,
    varied,
)

COUNT = 12
USED_ATTRIBUTES = ["_ex_iterable", "_info", "_split", "_formatting", "_distributed", "_epoch"]


def table():
    return datasets.Dataset.from_dict({"number": list(range(COUNT)), "sample_id": list(range(COUNT))})


def streamed():
    return table().to_iterable_dataset(num_shards=3)


def plus_one(example):
    return {"number": example["number"] + 1}


def plus_one_and_index(example, index):
    return {"number": example["number"] + index}


def plus_one_batched(batch):
    return {"number": [number + 1 for number in batch["number"]]}


# What may stand between an example and its choice, from the outermost on; the innermost is where the examples are from.
CHAINS = {
    "as it is": (lambda stream: stream, []),
    "map": (lambda stream: stream.map(plus_one), [MappedExamplesIterable]),
    "map twice": (lambda stream: stream.map(plus_one).map(plus_one), [MappedExamplesIterable] * 2),
    "rename_column": (lambda stream: stream.rename_column("number", "other"), [MappedExamplesIterable]),
    "remove_columns": (lambda stream: stream.remove_columns("number"), [MappedExamplesIterable]),
    "select_columns": (lambda stream: stream.select_columns(["sample_id"]), [SelectColumnsIterable]),
}


@pytest.mark.parametrize("name", CHAINS)
def test_what_changes_examples_one_by_one_is_understood(name):
    change, expected = CHAINS[name]
    *outer, source = one_to_one_chain(change(streamed())._ex_iterable)
    outer = [iterable for iterable in outer if type(iterable) is not FormattedExamplesIterable]
    assert [type(iterable) for iterable in outer] == expected
    assert not {MappedExamplesIterable, SelectColumnsIterable} & set(types_below(source)), "it is made for nothing"


def types_below(iterable):
    """The types of an iterable and of all that it iterates over."""
    while iterable is not None:
        yield type(iterable)
        iterable = getattr(iterable, "ex_iterable", None)


@pytest.mark.parametrize(
    ("change", "source"),
    [
        (lambda stream: stream.map(plus_one_batched, batched=True), MappedExamplesIterable),
        (lambda stream: stream.map(plus_one_and_index, with_indices=True), MappedExamplesIterable),
        (lambda stream: stream.filter(bool), FilteredExamplesIterable),
        (lambda stream: stream.shuffle(seed=1), BufferShuffledExamplesIterable),
    ],
    ids=["batched", "with indices", "filter", "shuffle"],
)
def test_what_needs_other_examples_is_left_alone(change, source):
    assert source in types_below(one_to_one_chain(change(streamed()).map(plus_one)._ex_iterable)[-1])


@pytest.mark.parametrize("name", USED_ATTRIBUTES)
def test_attributes_of_a_stream_exist(name):
    assert name in vars(streamed())


def test_a_map_says_what_it_is():
    mapped = streamed().map(plus_one)._ex_iterable
    assert (mapped.batched, mapped.with_indices, mapped.formatting) == (False, False, None)
    assert streamed().with_format("arrow").map(plus_one)._ex_iterable.formatting.is_table


@pytest.mark.parametrize(
    "name",
    [
        "__iter__",
        "iter_arrow",
        "is_typed",
        "features",
        "num_shards",
        "shuffle_data_sources",
        "shard_data_sources",
        "_init_state_dict",
    ],
)
def test_what_an_iterable_must_have(name):
    assert hasattr(_BaseExamplesIterable, name)


def test_what_an_iterable_is_asked_for_is_no_more_than_we_know():
    required = left_to_subclasses(_BaseExamplesIterable)
    for ours in (ChosenExamples, ExamplesInHand):
        missing = {name for name in required if getattr(ours, name) is getattr(_BaseExamplesIterable, name)}
        # The one is asked for by `shuffle`, the others by sharing out, and neither is done to these.
        assert missing <= {"shuffle_data_sources", "shard_data_sources", "reshard_data_sources"}


def test_streams_are_iterated_over_by_their_iterables():
    stream = streamed().map(plus_one)
    *outer, source = one_to_one_chain(stream._ex_iterable)
    asked = []
    chosen = ChosenExamples(source, lambda example: asked.append(example["number"]) or example["number"] % 2 == 0)
    changed = varied(stream, _ex_iterable=over_another_source(outer, chosen))
    assert [example["number"] for example in changed] == [number + 1 for number in range(0, COUNT, 2)]
    assert asked == list(range(COUNT))
    assert len(list(stream)) == COUNT, "the original is as it was"
    assert (chosen.num_shards, chosen.features, chosen.is_typed) == (3, source.features, source.is_typed)


def test_the_epoch_is_read_when_iterated():
    stream = streamed().shuffle(seed=1, buffer_size=5)
    orders = []
    for epoch in (0, 2):
        stream.set_epoch(epoch)
        orders.append([example["number"] for example in stream])
    stream.set_epoch(1)
    for epoch, order in zip((0, 2), orders, strict=True):
        assert [example["number"] for example in varied(stream, _epoch=epoch)] == order
    assert orders[0] != orders[1]
    assert stream.epoch == 1


def test_a_copy_shares_everything_with_the_original():
    # Why `varied` is needed; if this fails, `copy.copy` will do.
    stream = streamed()
    copied = copy.copy(stream)
    copied._info = None
    assert stream._info is None
    assert varied(streamed(), _info=None)._info is None


def test_what_is_shared_out_says_so():
    assert streamed()._distributed is None
    assert split_dataset_by_node(streamed(), rank=0, world_size=2)._distributed is not None


def test_examples_in_hand():
    features = datasets.Features({"number": datasets.Value("int64")})
    examples = [{"number": number} for number in (3, 1, 2)]
    stream = datasets.IterableDataset(ExamplesInHand(examples, features)).map(plus_one)
    assert [example["number"] for example in stream] == [4, 2, 3]


def test_the_source_of_a_shuffled_stream_is_shuffled_when_chosen_from():
    generator = np.random.default_rng(0)
    chosen = ChosenExamples(streamed()._ex_iterable, lambda example: example["number"] > 3)
    numbers = [example["number"] for _, example in chosen.shuffle_data_sources(generator)]
    assert sorted(numbers) == list(range(4, COUNT))


def test_who_works_for_a_loader_is_known_by_one_name():
    assert get_worker_info() is _utils.worker._worker_info is None
    assert "_worker_info" in inspect.getsource(get_worker_info)
