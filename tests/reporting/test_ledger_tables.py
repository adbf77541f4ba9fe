"""The ledger as tables of other libraries: values, dtypes, order and NaN survive; its words."""

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from hf_kakurenbo import SampleLedger
from hf_kakurenbo.hiding import CompactLedger, LedgerHistory, Measurements

DTYPES = {
    "sample_id": "int64",
    "loss": "float32",
    "confidence": "float32",
    "correct": "bool",
    "hidden": "bool",
    "times_hidden": "int32",
}
# Representable in half precision, so that both ledgers hold the same.
VALUES = {
    "sample_id": [0, 1, 2, 3, 4, 5],
    "loss": [0.5, np.nan, 2.0, np.inf, 0.25, np.nan],
    "confidence": [0.75, 0.0, 0.5, 0.25, 1.0, 0.0],
    "correct": [True, False, False, True, True, False],
    "hidden": [True, False, False, False, True, False],
    "times_hidden": [2, 0, 0, 0, 1, 0],
}


@pytest.fixture(params=[SampleLedger, CompactLedger], ids=lambda kind: kind.__name__)
def ledger(request):
    made = request.param(6)
    made.update(
        Measurements.of(
            torch.tensor([4, 0, 3, 2]),
            torch.tensor([0.25, 0.5, torch.inf, 2.0]),
            torch.tensor([True, True, True, False]),
            torch.tensor([1.0, 0.75, 0.25, 0.5]),
        )
    )
    made.hide(torch.tensor([True, False, False, False, False, False]))
    made.hide(torch.tensor([True, False, False, False, True, False]))
    return made


def assert_is_the_ledger(frame):
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == DTYPES
    assert list(frame.columns) == list(DTYPES)
    for name, values in VALUES.items():
        np.testing.assert_array_equal(frame[name].to_numpy(), np.array(values, dtype=DTYPES[name]))


def test_pandas(ledger):
    assert_is_the_ledger(ledger.to_pandas())


def test_a_table_does_not_change_with_the_training(ledger):
    frame, dataset = ledger.to_pandas(), ledger.to_dataset()
    ledger.update(Measurements.of(torch.arange(6), torch.ones(6), torch.ones(6, dtype=torch.bool), torch.ones(6)))
    ledger.hide(torch.zeros(6, dtype=torch.bool))
    assert_is_the_ledger(frame)
    assert_is_the_ledger(dataset.to_pandas())


def test_parquet(ledger, tmp_path):
    ledger.to_parquet(tmp_path / "ledger.parquet")
    assert_is_the_ledger(pq.read_table(tmp_path / "ledger.parquet").to_pandas(ignore_metadata=True))
    read = datasets.Dataset.from_parquet(str(tmp_path / "ledger.parquet"), cache_dir=str(tmp_path / "cache"))
    assert_is_the_ledger(read.to_pandas())
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["ledger.parquet"]


def test_a_table_that_cannot_be_written_leaves_what_was_there(ledger, tmp_path, monkeypatch):
    target = tmp_path / "ledger.parquet"
    target.write_text("earlier")

    def half(dataset, path):
        with open(path, "w") as stream:
            stream.write("half")
        raise OSError("disk full")

    monkeypatch.setattr(datasets.Dataset, "to_parquet", half)
    with pytest.raises(OSError, match="disk full"):
        ledger.to_parquet(target)
    assert target.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [target]


def test_a_dataset(ledger):
    dataset = ledger.to_dataset()
    assert {name: feature.dtype for name, feature in dataset.features.items()} == DTYPES
    assert_is_the_ledger(dataset.to_pandas())


def users_dataset():
    rows = datasets.Dataset.from_dict({"text": list("fedcba"), "id": [f"doc-{i}" for i in "543210"]})
    return rows.select([5, 4, 3, 2, 1, 0])  # an order of its own, which the ledger's ids follow


def test_beside_the_training_dataset(ledger):
    frame = ledger.to_dataset(users_dataset()).to_pandas()
    assert list(frame.columns) == ["text", "id", *DTYPES]
    assert list(frame["text"]) == list("abcdef")
    assert_is_the_ledger(frame.drop(columns=["text", "id"]))


def test_ids_of_the_users_own_stand_beside_the_index(ledger, tmp_path):
    expected = [f"doc-{i}" for i in range(6)]
    frame = ledger.to_pandas(users_dataset(), columns=["id"])
    assert list(frame["id"]) == expected
    assert_is_the_ledger(frame.drop(columns="id"))
    ledger.to_parquet(tmp_path / "ledger.parquet", users_dataset(), columns=["id"])
    assert list(pd.read_parquet(tmp_path / "ledger.parquet")["id"]) == expected


def test_a_column_of_the_same_name_is_kept_and_the_ledgers_gets_a_prefix(ledger):
    own = datasets.Dataset.from_dict({"sample_id": [60, 50, 40, 30, 20, 10], "loss": [0.0] * 6})
    frame = ledger.to_pandas(own)
    assert list(frame.columns)[:4] == ["sample_id", "loss", "kakurenbo_sample_id", "kakurenbo_loss"]
    assert list(frame["sample_id"]) == [60, 50, 40, 30, 20, 10]
    assert list(frame["kakurenbo_sample_id"]) == [0, 1, 2, 3, 4, 5]


def test_the_hidden_samples_of_a_dataset_can_be_selected(ledger):
    assert users_dataset().select(ledger.hidden_ids)["text"][:] == ["a", "e"]
    assert users_dataset().select(ledger.visible_ids)["text"][:] == ["b", "c", "d", "f"]


def test_a_dataset_of_another_length_or_kind(ledger):
    ledger.rows = "the index of a packed row"
    with pytest.raises(ValueError, match=r"of 6 samples and the dataset has 5 rows. A `sample_id` is the index of a p"):
        ledger.to_pandas(users_dataset().select(range(5)))
    with pytest.raises(TypeError, match=r"`datasets.Dataset`.*got list.*join the rows by `sample_id`"):
        ledger.to_dataset([1] * 6)


def test_words(ledger):
    assert repr(ledger).splitlines() == [
        type(ledger).__name__,
        "  samples    6",
        "  hidden     2 (33.3%)",
        "  accuracy   75.0% of 4 measured",
        "  mean loss  0.9167",  # of the three that are finite
        "  sample_id  the index of a row of the training dataset",
    ]


def test_words_before_the_first_measurement():
    ledger = SampleLedger(2_000_000)
    ledger.history = LedgerHistory(2_000_000)
    assert repr(ledger).splitlines()[1:] == [
        "  samples    2,000,000",
        "  hidden     0 (0.0%)",
        "  accuracy   nothing measured yet",
        "  mean loss  nothing measured yet",
        "  sample_id  the index of a row of the training dataset",
        "  history    0 epochs",
    ]
