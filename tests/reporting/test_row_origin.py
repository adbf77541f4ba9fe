"""Which row of the user's dataset an id means, under trainers that prepare, filter and pack what they are given."""

import datasets
import pytest
from torch.utils.data import Subset
from transformers import Trainer

from hf_kakurenbo import KakurenboTrainer
from hf_kakurenbo.trainer.row_origin import given_dataset, rows_in_words
from toy import Classifier, arguments, make_trainer, samples
from trl_toy import QUIET, llama, text, tokenizer, with_hiding


def test_the_dataset_among_the_arguments(tmp_path):
    rows = samples(64)
    by_place = KakurenboTrainer(Classifier(), arguments(tmp_path, num_train_epochs=1), None, rows)
    by_name = KakurenboTrainer(Classifier(), arguments(tmp_path, num_train_epochs=1), train_dataset=rows)
    assert by_place._given_dataset is by_name._given_dataset is rows
    assert given_dataset(Trainer, (1,) * 50, {"train_dataset": rows}) is rows
    by_name.train()
    assert by_name.ledger.rows == "the index of a row of the training dataset"


def test_a_dataset_that_was_changed_in_between(tmp_path):
    rows = samples(64)
    trainer = make_trainer(tmp_path, dataset=Subset(rows, range(32)), num_train_epochs=1)
    trainer._given_dataset = rows
    trainer.train()
    assert "kept 32 of the 64 rows that it was given; `to_pandas(trainer.train_dataset" in trainer.ledger.rows


class TestOfTRL:
    @pytest.fixture
    def trl(self):
        return pytest.importorskip("trl", minversion="1.16")

    @staticmethod
    def trained(trl, folder, dataset, **options):
        trainer, config = with_hiding(trl.SFTTrainer, trl.SFTConfig)
        made = trainer(
            model=llama(),
            args=config(output_dir=str(folder), **{**QUIET, "num_train_epochs": 1, "max_length": 32, **options}),
            train_dataset=dataset,
            processing_class=tokenizer(),
        )
        made.train()
        return made

    @staticmethod
    def texts():
        return datasets.Dataset.from_dict(
            {"text": [text(seed, 4 + seed % 5) for seed in range(12)], "id": [f"doc-{seed}" for seed in range(12)]}
        )

    def test_prepared_row_by_row(self, trl, tmp_path):
        trainer = self.trained(trl, tmp_path, self.texts())
        assert trainer.train_dataset is not trainer._given_dataset
        assert trainer.ledger.rows == (
            "the index of a row of the dataset that was given to KakurenboSFTTrainer, which prepared it row by row"
        )
        frame = trainer.ledger.to_pandas(trainer._given_dataset, columns=["id"])
        assert list(frame["id"]) == [f"doc-{seed}" for seed in range(12)]

    def test_filtered(self, trl, tmp_path):
        # Every label of a conversation that is cut before the answer is masked: TRL drops it.
        letters = [text(seed, 40 if seed % 3 == 0 else 4) for seed in range(12)]
        rows = datasets.Dataset.from_dict(
            {"prompt": letters, "completion": [" a b c"] * 12, "id": [f"doc-{seed}" for seed in range(12)]}
        )
        trainer = self.trained(trl, tmp_path, rows, max_length=16)
        if len(trainer.train_dataset) == 12:
            pytest.skip("this release of TRL keeps rows without labels")
        assert "kept 8 of the 12 rows" in trainer.ledger.rows
        frame = trainer.ledger.to_pandas(trainer.train_dataset, columns=["id"])
        assert list(frame["id"]) == [f"doc-{seed}" for seed in range(12) if seed % 3]

    def test_packed(self, trl, tmp_path):
        trainer = self.trained(trl, tmp_path, self.texts(), packing=True, max_length=16)
        assert len(trainer.ledger) == len(trainer.train_dataset) < 12
        assert "packed several rows" in trainer.ledger.rows
        assert "which ones is not known" in repr(trainer.ledger)


def test_as_many_rows_of_which_nothing_can_be_compared(tmp_path):
    trainer = make_trainer(tmp_path, dataset=samples(20))
    assert "could not be told" in rows_in_words(trainer, [object()] * 20)
