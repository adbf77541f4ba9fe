"""Streams with ids: each visible sample once whoever shares the work, hidden ones neither mapped nor decoded."""

import functools
import itertools
import os
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from datasets.distributed import split_dataset_by_node
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader, IterableDataset

from hf_kakurenbo.data import BatchAssignment, SampleStream, StreamCollator

COUNT, BATCH = 41, 4

pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")


# ---- What is streamed ----


def number_of(sample_id):
    return 3 * sample_id + 1


def table(count=COUNT, **columns):
    return datasets.Dataset.from_dict(
        {"number": [number_of(i) for i in range(count)], "sample_id": list(range(count)), **columns}
    )


def streamed(**columns):
    return table(**columns).to_iterable_dataset(num_shards=3)


def generate(shards):
    for first, end in shards:
        yield from ({"number": number_of(i), "sample_id": i} for i in range(first, end))


def generated():
    """Shards of very different sizes, one of them empty."""
    shards = [(0, 2), (2, 2), (2, 30), (30, 31), (31, COUNT)]
    return datasets.IterableDataset.from_generator(generate, gen_kwargs={"shards": shards})


def note(folder, example):
    """Leave a line in a file of the process's own."""
    if folder is not None:
        with open(Path(folder) / str(os.getpid()), "a") as file:
            file.write(f"{example['number']}\n")
    return {"double": 2 * example["number"]}


def noting(folder=None):
    return functools.partial(note, folder)


def noted(folder):
    """The numbers of all examples that were mapped, in ascending order; they are forgotten."""
    numbers = []
    for file in Path(folder).iterdir():
        numbers += map(int, file.read_text().split())
        file.unlink()
    return sorted(numbers)


def note_batch(batch):
    return {"double": [2 * number for number in batch["number"]]}


def is_example(example):
    return example["number"] > 0


class InOrder(IterableDataset):
    """A PyTorch stream in another order in each epoch."""

    def __init__(self, count=COUNT, **changed):
        self.ids, self.epoch, self.changed = list(range(count)), 0, changed

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        for sample_id in np.random.default_rng(self.epoch).permutation(self.ids).tolist():
            yield {"number": number_of(sample_id), "sample_id": sample_id, **self.changed}


STREAMS = {
    "a table": streamed,
    "mapped": lambda: streamed().map(noting()),
    "shuffled": lambda: streamed().shuffle(seed=3, buffer_size=7),
    "shuffled, then mapped": lambda: streamed().shuffle(seed=3, buffer_size=7).map(noting()),
    "mapped, then shuffled": lambda: streamed().map(noting()).shuffle(seed=3, buffer_size=7),
    "mapped in batches": lambda: streamed().map(note_batch, batched=True, batch_size=5),
    "formatted, mapped": lambda: streamed().with_format("numpy").map(noting()),
    "tensors": lambda: streamed().map(noting()).with_format("torch"),
    "without the id": lambda: streamed().map(noting()).remove_columns("sample_id"),
    "renamed to the id": lambda: (
        streamed(index=list(range(COUNT))).remove_columns("sample_id").rename_column("index", "sample_id")
    ),
    "selected": lambda: streamed(other=[0] * COUNT).select_columns(["number", "sample_id"]),
    "cast": lambda: streamed().cast_column("number", datasets.Value("float32")),
    "filtered": lambda: streamed().filter(is_example).map(noting()),
    "uneven shards": lambda: generated().map(noting()),
    "uneven shards, shuffled": lambda: generated().shuffle(seed=5, buffer_size=6),
    "concatenated": lambda: datasets.concatenate_datasets(
        [table().select(range(11)).to_iterable_dataset(), table().select(range(11, COUNT)).to_iterable_dataset()]
    ),
    "of PyTorch": InOrder,
}


def examples(dataset, epoch):
    """What a stream gives in an epoch by itself, with the ids: they may have been left out at the end."""
    dataset.set_epoch(epoch)
    made = list(dataset)
    return [((int(example["number"]) - 1) // 3, plain(example)) for example in made]


def plain(example):
    return {name: torch.as_tensor(value) for name, value in example.items() if name != "sample_id"}


def batches_of(loader):
    """The (id, example) of each batch."""
    return [[(int(sample_id), plain(example)) for sample_id, example in batch] for batch in loader]


def keep(samples):
    return samples


def make(dataset, **options):
    return SampleStream(dataset, "sample_id", COUNT, **options)


def load(stream, workers=0, **options):
    return DataLoader(stream, batch_size=stream.assignment.batch_size, num_workers=workers, collate_fn=keep, **options)


def some_hidden(seed=0, share=0.4, count=COUNT):
    return torch.from_numpy(np.random.default_rng(seed).random(count) < share)


def expected_batches(samples, hidden, assignment):
    """The batches of a rank, from what the stream gives by itself."""
    wanted = [sample for sample in samples if not hidden[sample[0]]]
    wanted = wanted[: len(wanted) - len(wanted) % assignment.whole]
    size = assignment.batch_size * assignment.ranks
    if assignment.ranks > 1 and len(wanted) % size:
        wanted += list(itertools.islice(itertools.cycle(wanted), size - len(wanted) % size))
    cut = [wanted[start : start + assignment.batch_size] for start in range(0, len(wanted), assignment.batch_size)]
    return cut[assignment.rank :: assignment.ranks]


def ids_of(batches):
    return [[sample_id for sample_id, _ in batch] for batch in batches]


# ---- How they are assigned out ----

assignments = st.builds(
    lambda size, ranks, drops: [
        BatchAssignment(size, rank, ranks, whole=size * ranks if drops else 1) for rank in range(ranks)
    ],
    st.integers(1, 5),
    st.integers(1, 4),
    st.booleans(),
)


@given(assignments, st.integers(0, 60))
def test_every_position_is_dealt_once(assignments, samples):
    places = [
        (position, batch, assignment.rank)
        for assignment in assignments
        for batch in range(assignment.batches(samples))
        for position in assignment.positions(batch, samples)
    ]
    assert sorted(position for position, _, _ in places) == list(range(assignments[0].assigned(samples)))
    end = assignments[0].assigned(samples)
    for assignment in assignments:
        for batches in (range(0, 99, 2), range(1, 99, 2)):
            is_own = assignment.owner(batches, end)
            own = {position for position, batch, rank in places if rank == assignment.rank and batch in batches}
            assert {position for position in range(-9, samples + 9) if is_own(position)} == own


@given(assignments, st.integers(0, 60))
def test_ranks_have_as_many_batches_and_those_of_one_process(assignments, samples):
    [one] = {
        BatchAssignment(assignment.batch_size * assignment.ranks, whole=assignment.whole) for assignment in assignments
    }
    assert {assignment.batches(samples) for assignment in assignments} == {one.batches(samples)}
    for batch in range(one.batches(samples)):
        parts = [
            [*assignment.positions(batch, samples), *assignment.filling(batch, samples)] for assignment in assignments
        ]
        together = list(itertools.chain(*parts))
        own = list(one.positions(batch, samples))
        assert together[: len(own)] == own
        assert not one.filling(batch, samples)
        if len(assignments) > 1:
            assert {len(part) for part in parts} == {assignments[0].batch_size}
            end = assignments[0].assigned(samples)
            assert together[len(own) :] == [position % end for position in range(end, end + len(together) - len(own))]


@given(assignments, st.integers(0, 60))
def test_what_is_left_out_does_not_fill_a_batch(assignments, samples):
    assigned = assignments[0].assigned(samples)
    assert samples - assignments[0].whole < assigned <= samples
    assert assigned % assignments[0].whole == 0


@given(assignments, st.lists(st.booleans(), min_size=1, max_size=40), st.booleans())
def test_the_length_is_what_is_yielded(assignments, hidden, of_hidden):
    stream = SampleStream([{"sample_id": i, "number": number_of(i)} for i in range(len(hidden))], "sample_id")
    stream.begin_epoch(0, torch.tensor(hidden))
    for assignment in assignments:
        assigned = stream.assigned(assignment)
        assigned = assigned.of_hidden() if of_hidden else assigned
        assert assigned.samples == sum(shown == of_hidden for shown in hidden)
        assert len(list(assigned)) == len(assigned)
        assert len(
            list(DataLoader(assigned, batch_size=assignment.batch_size, collate_fn=keep))
        ) == assigned.assignment.batches(assigned.samples)


# ---- What comes through ----


def assert_dealt_out(dataset, epochs, ranks, workers, drops=False):
    for epoch in epochs:
        whole, hidden = examples(dataset, epoch), some_hidden(epoch)
        assert sorted(sample_id for sample_id, _ in whole) == list(range(COUNT))
        for rank in range(ranks):
            assignment = BatchAssignment(BATCH, rank, ranks, whole=BATCH * ranks if drops else 1)
            stream = make(dataset, shared=workers > 0).assigned(assignment)
            stream.begin_epoch(epoch, hidden)
            assert batches_of(load(stream, workers)) == expected_batches(whole, hidden, assignment)
            left = stream.of_hidden()
            assert batches_of(load(left, workers)) == expected_batches(whole, ~hidden, left.assignment)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("kind", STREAMS)
def test_each_visible_sample_once(kind, ranks):
    assert_dealt_out(STREAMS[kind](), (0, 2), ranks, workers=0)


@pytest.mark.parametrize("kind", ["a table", "shuffled, then mapped", "uneven shards, shuffled", "of PyTorch"])
def test_the_order_does_not_depend_on_workers(kind):
    assert_dealt_out(STREAMS[kind](), (1,), ranks=2, workers=2)


@pytest.mark.parametrize("ranks", [1, 2])
def test_only_whole_batches(ranks):
    assert_dealt_out(STREAMS["shuffled"](), (0, 1), ranks, workers=0, drops=True)


@pytest.mark.wide
@pytest.mark.parametrize(("workers", "drops"), [(1, True), (3, False)])
@pytest.mark.parametrize("ranks", [1, 3])
@pytest.mark.parametrize("kind", STREAMS)
def test_every_kind_with_workers(kind, ranks, workers, drops):
    assert_dealt_out(STREAMS[kind](), (1,), ranks, workers, drops)


def test_persistent_workers_learn_what_is_hidden():
    dataset = STREAMS["shuffled, then mapped"]()
    whole = [examples(dataset, epoch) for epoch in range(4)]
    stream = make(dataset, shared=True).assigned(BatchAssignment(BATCH, rank=1, ranks=2))
    visible, left = (load(one, 2, persistent_workers=True) for one in (stream, stream.of_hidden()))
    for epoch, samples in enumerate(whole):
        hidden = some_hidden(epoch, share=0.2 * epoch)
        stream.begin_epoch(epoch, hidden)
        assert batches_of(visible) == expected_batches(samples, hidden, stream.assignment)
        assert batches_of(left) == expected_batches(samples, ~hidden, stream.assignment)
    again = some_hidden(9)
    stream.hide_less(again)
    assert batches_of(visible) == expected_batches(whole[-1], again, stream.assignment)
    stream.hide_nothing()
    assert batches_of(visible) == expected_batches(whole[0], torch.zeros(COUNT, dtype=torch.bool), stream.assignment)


def test_spawned_workers():
    stream = make(STREAMS["shuffled, then mapped"](), shared=True).assigned(BatchAssignment(BATCH))
    loader = load(stream, 1, multiprocessing_context="spawn", persistent_workers=True)
    for epoch in range(2):
        stream.begin_epoch(epoch, some_hidden(epoch))
        whole = examples(STREAMS["shuffled, then mapped"](), epoch)
        assert batches_of(loader) == expected_batches(whole, some_hidden(epoch), stream.assignment)


def test_a_rank_that_is_sent_its_batches_makes_none():
    stream = make(streamed().map(refuse)).assigned(BatchAssignment(BATCH, reads=0))
    assert list(stream) == []
    assert len(stream) == COUNT


def refuse(example):
    raise AssertionError("a sample was made")


def test_the_epoch_is_begun_once():
    stream = make(streamed()).assigned(BatchAssignment(BATCH))
    stream.begin_epoch(3, some_hidden(), batches_done=2)
    stream.set_epoch(3)
    assert len(list(stream)) - len(made(stream)) == 2 * BATCH
    stream.set_epoch(4)
    assert len(list(stream)) == len(made(stream)) == len(stream)


def made(stream):
    return [sample for sample in stream if isinstance(sample, tuple)]


# ---- What is not made ----

BELOW_MAP = ["mapped", "shuffled, then mapped", "formatted, mapped", "tensors", "without the id", "filtered"]


def mapped(kind, folder):
    """One of the streams, whose mapping leaves traces in a folder."""
    return {
        "mapped": lambda: streamed().map(noting(folder)),
        "shuffled, then mapped": lambda: streamed().shuffle(seed=3, buffer_size=7).map(noting(folder)),
        "formatted, mapped": lambda: streamed().with_format("numpy").map(noting(folder)),
        "tensors": lambda: streamed().map(noting(folder)).with_format("torch"),
        "without the id": lambda: streamed().map(noting(folder)).remove_columns("sample_id"),
        "filtered": lambda: streamed().filter(is_example).map(noting(folder)),
    }[kind]()


def numbers(sample_ids):
    return sorted(number_of(sample_id) for sample_id in sample_ids)


@pytest.mark.parametrize("kind", BELOW_MAP)
def test_hidden_samples_are_not_mapped_and_no_other_twice(kind, tmp_path):
    dataset, hidden = mapped(kind, tmp_path), some_hidden()
    for ranks in (1, 3):
        filling = {False: 0, True: 0}
        made = {False: [], True: []}
        for rank, of_hidden in itertools.product(range(ranks), (False, True)):
            stream = make(dataset).assigned(BatchAssignment(BATCH, rank, ranks))
            stream.begin_epoch(1, hidden)
            stream = stream.of_hidden() if of_hidden else stream
            last = stream.assignment.batches(stream.samples) - 1
            filling[of_hidden] += len(stream.assignment.filling(last, stream.samples))
            given = [sample_id for sample_id, _ in stream]
            made[of_hidden] += noted(tmp_path)
            assert made[of_hidden][-len(set(given)) :] == sorted(set(numbers(given)))
        for of_hidden in (False, True):
            wanted = (hidden == of_hidden).nonzero().flatten().tolist()
            assert set(made[of_hidden]) == set(numbers(wanted))
            assert len(wanted) <= len(made[of_hidden]) <= len(wanted) + filling[of_hidden]


def test_workers_map_nothing_twice(tmp_path):
    hidden = some_hidden()
    stream = make(mapped("shuffled, then mapped", tmp_path), shared=True).assigned(BatchAssignment(BATCH))
    stream.begin_epoch(1, hidden)
    assert len(list(load(stream, 3))) == stream.assignment.batches(stream.samples)
    assert noted(tmp_path) == numbers((~hidden).nonzero().flatten().tolist())


@pytest.mark.parametrize("shuffled", [False, True])
def test_hidden_images_are_not_decoded(shuffled, monkeypatch):
    decoded = []
    decode = datasets.Image.decode_example
    monkeypatch.setattr(
        datasets.Image, "decode_example", lambda self, *args, **kw: decoded.append(1) or decode(self, *args, **kw)
    )
    pictures = [Image.new("L", (2, 2), shade) for shade in range(COUNT)]
    rows = {"image": pictures, "sample_id": list(range(COUNT))}
    features = datasets.Features({"image": datasets.Image(), "sample_id": datasets.Value("int64")})
    dataset = datasets.Dataset.from_dict(rows, features=features)
    dataset = dataset.to_iterable_dataset(num_shards=2)
    dataset = (dataset.shuffle(seed=1, buffer_size=5) if shuffled else dataset).map(brightness)
    hidden = some_hidden()
    stream = make(dataset).assigned(BatchAssignment(BATCH))
    stream.begin_epoch(0, hidden)
    for part, expected in ((stream, ~hidden), (stream.of_hidden(), hidden)):
        decoded.clear()
        shades = sorted((sample_id, example["shade"]) for sample_id, example in part)
        assert shades == [(i, i) for i in expected.nonzero().flatten().tolist()]
        assert len(decoded) == len(shades)


def brightness(example):
    return {"shade": example["image"].getpixel((0, 0))}


def test_iterating_leaves_the_stream_as_it_was():
    dataset = STREAMS["shuffled, then mapped"]()
    dataset.set_epoch(5)
    before = list(dataset)
    stream = make(dataset)
    stream.begin_epoch(1, some_hidden())
    list(stream)
    assert list(dataset) == before


# ---- Resumed ----


@pytest.mark.parametrize(
    ("done", "ranks", "workers"),
    [*itertools.product([0, 1, 2, 3, 99], [1, 2], [0]), (3, 1, 2), (2, 2, 2), (2, 1, 3)],
)
def test_what_was_trained_on_is_not_made_again(done, ranks, workers, tmp_path):
    hidden = some_hidden()
    stream = make(mapped("shuffled, then mapped", tmp_path), shared=workers > 0).assigned(
        BatchAssignment(BATCH, ranks - 1, ranks)
    )
    stream.begin_epoch(1, hidden)
    whole = batches_of(load(stream))
    noted(tmp_path)
    stream.begin_epoch(1, hidden, batches_done=done)
    skipped, rest = itertools.tee(load(stream, workers))
    assert [len(batch) for batch in skipped] == list(map(len, whole))
    assert batches_of(itertools.islice(rest, done, None)) == whole[done:]
    fresh = list(itertools.chain(*ids_of(whole[done:])))
    assert noted(tmp_path) == sorted(set(numbers(fresh)))
    stream.begin_epoch(1, hidden)
    assert batches_of(load(stream)) == whole
    noted(tmp_path)
    stream.begin_epoch(1, hidden, batches_done=done)
    left = stream.of_hidden()
    assert len(made(left)) == len(left), "of the hidden samples, none was seen before"


def test_who_sends_batches_makes_the_first_ones_again(tmp_path):
    stream = make(mapped("mapped", tmp_path)).assigned(BatchAssignment(BATCH, reads=2, again=2))
    stream.begin_epoch(0, torch.zeros(COUNT, dtype=torch.bool), batches_done=3)
    samples = list(stream)
    missing = [place for place, sample in enumerate(samples) if not isinstance(sample, tuple)]
    assert missing == list(range(2 * BATCH, 6 * BATCH))
    assert noted(tmp_path) == numbers([*range(2 * BATCH), *range(6 * BATCH, COUNT)])


def test_a_batch_of_skipped_samples_has_nothing_but_ids():
    collate = StreamCollator(torch.utils.data.default_collate, "sample_id", active=True)
    stream = make(streamed()).assigned(BatchAssignment(BATCH))
    stream.begin_epoch(0, torch.zeros(COUNT, dtype=torch.bool), batches_done=1)
    first, second, *_ = DataLoader(stream, batch_size=BATCH, collate_fn=collate)
    assert {name: tuple(value.shape) for name, value in first.items()} == {"sample_id": (BATCH,)}
    assert second["sample_id"].tolist() == [4, 5, 6, 7]
    assert second["number"].tolist() == [number_of(i) for i in (4, 5, 6, 7)]


# ---- Its length ----


def test_the_length_that_a_dataset_says():
    assert len(SampleStream(InOrderWithLength(), "sample_id")) == COUNT
    described = streamed()
    described._info.splits = {"train": datasets.SplitInfo("train", num_examples=COUNT)}
    described._split = datasets.NamedSplit("train")
    assert len(SampleStream(described, "sample_id")) == COUNT
    assert len(SampleStream(described, "sample_id", num_samples=7)) == 7


class InOrderWithLength(InOrder):
    def __len__(self):
        return len(self.ids)


def test_a_parquet_file_says_its_length(tmp_path):
    table().to_parquet(tmp_path / "rows.parquet")
    stream = datasets.load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), split="train", streaming=True)
    made = SampleStream(stream, "sample_id", COUNT)
    assert sorted(sample_id for sample_id, _ in made) == list(range(COUNT))


@pytest.mark.parametrize("dataset", [streamed(), generated(), InOrder()], ids=["a table", "generated", "of PyTorch"])
def test_a_length_that_is_not_known(dataset):
    with pytest.raises(ValueError, match=r"not known how many samples.*num_samples=\.\.\..*streaming=False"):
        SampleStream(dataset, "sample_id")


def test_samples_in_the_place_of_others_are_told():
    stream = make(streamed()).assigned(BatchAssignment(BATCH, ranks=2))
    hidden = some_hidden()
    stream.begin_epoch(4, hidden)
    visible = (~hidden).nonzero().flatten()
    stream.require_distinct(len(visible) + 3, ~hidden)
    stream.require_distinct(len(visible) - 1, among(visible[1:]))  # the epoch was stopped
    with pytest.raises(ValueError, match=rf"epoch 4 .* {len(visible) - 1} diff.* instead of {len(visible)}.*seed"):
        stream.require_distinct(len(visible), among(visible[1:]))
    dropping = stream.assigned(BatchAssignment(BATCH, whole=BATCH))
    whole = len(visible) - len(visible) % BATCH
    dropping.require_distinct(whole, among(visible[:whole]))


def among(ids):
    return torch.zeros(COUNT, dtype=torch.bool).index_fill(0, ids, True)


# ---- What is wrong with a stream is told ----


def with_ids(ids):
    return datasets.Dataset.from_dict({"number": [1] * len(ids), "sample_id": ids}).to_iterable_dataset()


class Rows(IterableDataset):
    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def renumber(example):
    return {"sample_id": example["sample_id"] + 1}


def to_text(example):
    return {"sample_id": f"number {example['sample_id']}"}


def raise_key_error(example):
    return {"other": example["missing"]}


MISTAKES = {
    "no id column": (
        lambda: streamed().map(noting()),
        ValueError,
        r"no column 'wrong', by.*they have 'number', 'sample_id', 'double'.*`sample_id_column`.*`streaming=False`",
    ),
    "no id column, of PyTorch": (lambda: Rows([{"a": 1, "b": 2}]), ValueError, r"no column 'wrong'.*have 'a', 'b'"),
    "no dicts": (lambda: Rows([(1, 2)]), TypeError, r"must be dicts with an entry 'wrong', their id; got tuple"),
    "tables": (lambda: streamed().with_format("arrow"), TypeError, r"must be dicts.*got Table"),
    "an id comes again": (lambda: with_ids([0, 1, 2, 1]), ValueError, "id 1 comes a second time.*leave `repeat`"),
    "repeated": (lambda: with_ids(list(range(COUNT))).repeat(None), ValueError, "id 0 comes a second time"),
    "an id too high": (lambda: with_ids([0, COUNT]), ValueError, rf"the id {COUNT}, but.*0\.\.{COUNT - 1}.*41 samples"),
    "an id below 0": (lambda: with_ids([0, -1]), ValueError, r"the id -1, but its ids must be in 0\.\.40"),
    "a float": (
        lambda: with_ids([0.0, 1.0]),
        ValueError,
        r"must be an integer, got 0\.0 of type float in.*'sample_id'",
    ),
    "a text": (lambda: with_ids(["a", "b"]), ValueError, "must be an integer, got 'a' of type str"),
    "None": (lambda: with_ids([0, None]), ValueError, "must be an integer, got None of type NoneType"),
    "too few": (lambda: with_ids([0, 1, 3]), ValueError, r"ended after 3 of its 41 samples.*not come is 2\. Say with"),
    "none": (lambda: Rows([]), ValueError, "ended after 0 of its 41 samples; the lowest id that did not come is 0"),
    "too many": (lambda: with_ids(list(range(COUNT + 1))), ValueError, "the id 41, but.*say so with `num_samples`"),
    "other ids": (lambda: streamed().map(renumber), ValueError, "changes 'sample_id' from 0 to 1.*column of their own"),
    "ids become text": (lambda: streamed().map(to_text), ValueError, "changes 'sample_id' from 0 to number 0"),
    "a mistake in a map": (lambda: streamed().map(raise_key_error), KeyError, "missing"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(mistake):
    dataset, error, message = MISTAKES[mistake]
    name = "wrong" if "wrong" in message else "sample_id"
    stream = SampleStream(dataset(), "wrong" if name == "wrong" or error is TypeError else name, COUNT)
    with pytest.raises(error, match=message):
        list(stream)


def test_a_mistake_at_the_end_is_told_though_it_is_hidden():
    hidden = torch.zeros(COUNT, dtype=torch.bool)
    hidden[-5:] = True
    for dataset, message in (
        (with_ids(list(range(COUNT - 1))), "ended after 40"),
        (with_ids([*range(COUNT), 3]), "3 c"),
    ):
        for assignment in (BatchAssignment(BATCH), BatchAssignment(BATCH, rank=1, ranks=2)):
            stream = make(dataset).assigned(assignment)
            stream.begin_epoch(0, hidden)
            with pytest.raises(ValueError, match=message):
                list(load(stream))


def test_shared_out_already():
    with pytest.raises(ValueError, match=r"`split_dataset_by_node`.*Leave it whole"):
        make(split_dataset_by_node(streamed(), rank=0, world_size=2))
