"""A dataset that is asked for a batch gives the examples of its indices, all of them and in their order."""

import datasets
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, Subset

from hf_kakurenbo import load_fdsl
from hf_kakurenbo.data import IdentifiedDataset
from hf_kakurenbo.data.batched_access import may_reorder
from toy import make_trainer, same_tensors, samples, trained


class Batched(Dataset):
    """Gives the toy samples in batches."""

    def __init__(self):
        self.samples = samples()
        self.asked = []

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        return self.samples[index]

    def __getitems__(self, indices):
        self.asked.append(list(indices))
        return [self.samples[index] for index in indices]


class AsInTheFile(Batched):
    """Reads a file from its beginning to its end, as HDF5 wants it, and forgets the order in which it was asked."""

    def __getitems__(self, indices):
        return super().__getitems__(sorted(indices))


class ColumnsOfTheFile(AsInTheFile):
    def __getitems__(self, indices):
        chosen = super().__getitems__(indices)
        return {name: torch.stack([sample[name] for sample in chosen]) for name in ("x", "labels")}


class ReadInAnotherOrder(Batched):
    """Reads in the order of the file, and returns the examples in the one that was asked for."""

    def __getitems__(self, indices):
        order = np.argsort(indices)
        read = super().__getitems__([indices[place] for place in order])
        return [read[place] for place in np.argsort(order)]


class Augmented(Batched):
    """Draws noise for each example anew."""

    def __getitems__(self, indices):
        return [{**sample, "x": sample["x"] + 0.1 * torch.randn(16)} for sample in super().__getitems__(indices)]


class LeavesOut(Batched):
    def __getitems__(self, indices):
        return super().__getitems__([index for index in indices if index != 7])


REFUSED = {
    AsInTheFile: r"AsInTheFile.__getitems__ returned the examples in another order",
    ColumnsOfTheFile: r"ColumnsOfTheFile.__getitems__ returned the examples in another order",
    LeavesOut: r"LeavesOut.__getitems__ returned 15 examples for 16 indices",
}


@pytest.mark.parametrize(("kind", "message"), REFUSED.items(), ids=[kind.__name__ for kind in REFUSED])
def test_other_examples_than_were_asked_for_are_refused(tmp_path, kind, message):
    options = {"trainer_options": {"data_collator": lambda batch: batch}} if kind is ColumnsOfTheFile else {}
    trainer = make_trainer(tmp_path, dataset=kind(), **options)
    with pytest.raises(ValueError, match=rf"(?s){message}.*hiding_policy=\"none\""):
        trainer.train()
    assert trainer.state.epoch < 1  # in which nothing is hidden yet


@pytest.mark.parametrize("kind", [Batched, ReadInAnotherOrder], ids=lambda kind: kind.__name__)
def test_a_dataset_that_reads_as_it_likes_trains_as_one_that_is_asked_one_by_one(tmp_path, kind):
    ours, expected = trained(tmp_path, dataset=kind(), learning_rate=0.05), trained(tmp_path, learning_rate=0.05)
    assert same_tensors(ours.model.state_dict(), expected.model.state_dict())
    assert same_tensors(ours.ledger.state_dict(), expected.ledger.state_dict())
    assert ours.ledger.times_hidden.sum() > 0


def test_what_is_drawn_at_random_is_not_held_against_a_dataset_and_the_generators_are_left(tmp_path):
    torch.manual_seed(0)
    expected, after = Augmented().__getitems__([5, 3, 9]), torch.rand(1)
    torch.manual_seed(0)
    found = IdentifiedDataset(Augmented()).__getitems__([5, 3, 9]).examples
    assert torch.equal(torch.rand(1), after)
    assert all(torch.equal(a["x"], b["x"]) for a, b in zip(found, expected, strict=True))


def test_one_example_is_asked_for_once_more_and_no_other():
    dataset = Batched()
    identified = IdentifiedDataset(Subset(dataset, range(10, 20)))
    identified.__getitems__([0, 1, 2])  # whatever the order, it would look the same
    assert dataset.asked == [[10, 11, 12]]
    for _ in range(3):
        identified.__getitems__([0, 4, 2])
    assert dataset.asked[1:] == [[10, 14, 12], [14], [10, 14, 12], [10, 14, 12]]


def test_of_datasets_whose_order_is_known_nothing_is_asked_for_once_more():
    table = datasets.Dataset.from_dict({"x": list(range(20))})
    assert not may_reorder(table.__getitems__)
    assert not may_reorder(load_fdsl("rcdb-test").__getitems__)
    assert may_reorder(Batched().__getitems__)
    assert may_reorder(Subset(table, range(10)).__getitems__)  # which asks whatever it is a part of
