"""The id of a sample reaches the trainer and never the model, whatever holds the samples."""

import datasets
import pytest
import torch
from torch.utils.data import Dataset, default_collate
from transformers import default_data_collator

from hf_kakurenbo import KakurenboTrainer
from hf_kakurenbo.data import IdentifyingCollator, drop_ids, read_ids
from hf_kakurenbo.data.identity import IdentifiedExamples
from toy import LinearClassifier, make_trainer, same_tensors, samples, trained


class Strict(LinearClassifier):
    """Notes the names of what it is given."""

    seen: set[str]

    def __init__(self):
        super().__init__()
        self.seen = set()

    def forward(self, x, labels, weight=None):
        self.seen |= {"x", "labels"} | ({"weight"} if weight is not None else set())
        return super().forward(x, labels)


class Tuples(Dataset):
    """A plain PyTorch dataset of (features, label), which counts what is fetched."""

    def __init__(self):
        self.samples, self.fetched = samples(), []

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        self.fetched.append(index)
        return self.samples[index]["x"], self.samples[index]["labels"]


def collate_tuples(examples):
    x, labels = default_collate(examples)
    return {"x": x, "labels": labels}


def as_hub_dataset():
    return datasets.Dataset.from_list(
        [{"x": s["x"].tolist(), "labels": int(s["labels"]), "name": f"sample {i}"} for i, s in enumerate(samples())]
    )


def with_transform():
    def transform(batch):
        return {"x": [torch.tensor(x) for x in batch["x"]], "labels": batch["labels"]}

    return as_hub_dataset().with_transform(transform)


def with_extra_tensor():
    return [{**sample, "weight": torch.tensor(1.0)} for sample in samples()]


def set_transform():
    dataset = as_hub_dataset()
    dataset.set_transform(lambda batch: {"x": [torch.tensor(x) for x in batch["x"]], "labels": batch["labels"]})
    return dataset


SOURCES = {
    "list of dicts": (samples, default_data_collator, {"x", "labels"}),
    "datasets.Dataset": (as_hub_dataset, default_data_collator, {"x", "labels"}),
    "datasets.Dataset with a transform": (with_transform, default_data_collator, {"x", "labels"}),
    "datasets.Dataset whose transform is set": (set_transform, default_data_collator, {"x", "labels"}),
    "tuples": (Tuples, collate_tuples, {"x", "labels"}),
    "dicts with an extra tensor": (with_extra_tensor, default_data_collator, {"x", "labels", "weight"}),
}


@pytest.mark.parametrize(("make", "collator", "expected"), SOURCES.values(), ids=SOURCES)
def test_the_id_reaches_the_ledger_and_not_the_model(tmp_path, make, collator, expected):
    trainer = trained(tmp_path, model=Strict, dataset=make(), trainer_options={"data_collator": collator})
    assert trainer.args.remove_unused_columns
    assert trainer.model.seen == expected
    recorded = trainer.ledger.loss.clone()
    # With a learning rate of 0 the recorded loss is the loss of the very sample.
    still = trained(
        tmp_path,
        model=Strict,
        dataset=make(),
        learning_rate=0.0,
        num_train_epochs=1,
        trainer_options={"data_collator": collator},
    )
    for index in (0, 17, 202):
        sample = samples()[index]
        logits = still.model.head(sample["x"])
        torch.testing.assert_close(
            still.ledger.loss[index], torch.nn.functional.cross_entropy(logits, sample["labels"])
        )
    assert not torch.equal(recorded, still.ledger.loss)


class Columns(Dataset):
    """Gives a batch as one dict of tensors."""

    def __init__(self):
        self.columns = default_data_collator(samples())

    def __len__(self):
        return len(self.columns["x"])

    def __getitem__(self, index):
        return self.__getitems__([index])

    def __getitems__(self, indices):
        return {name: column[indices] for name, column in self.columns.items()}


def test_a_dataset_that_gives_ready_batches(tmp_path):
    options = {"model": LinearClassifier, "learning_rate": 0.1, "remove_unused_columns": False}
    expected = trained(tmp_path, **options)
    found = trained(tmp_path, dataset=Columns(), trainer_options={"data_collator": dict}, **options)
    assert expected.ledger.times_hidden.sum() > 0
    assert same_tensors(found.ledger.state_dict(), expected.ledger.state_dict())


def test_the_collator_and_the_dataset_stay_the_users(tmp_path):
    dataset = samples()
    trainer = trained(tmp_path, dataset=dataset)
    assert trainer.train_dataset is dataset
    assert trainer.data_collator is default_data_collator


def test_a_collator_that_uses_the_name(tmp_path):
    def collate(examples):
        return {**default_data_collator(examples), "sample_id": torch.zeros(len(examples))}

    with pytest.raises(ValueError, match=r"already has an entry 'sample_id'.*sample_id_column"):
        trained(tmp_path, trainer_options={"data_collator": collate})


def test_another_name_for_the_id(tmp_path):
    def collate(examples):
        batch = default_data_collator(examples)
        assert "row" not in batch
        return batch

    class Noting(KakurenboTrainer):
        names = frozenset()

        def training_step(self, model, inputs, *args, **kwargs):
            self.names |= set(inputs)
            return super().training_step(model, inputs, *args, **kwargs)

    trainer = make_trainer(tmp_path, Noting, sample_id_column="row", trainer_options={"data_collator": collate})
    trainer.train()
    assert trainer.names == {"x", "labels", "row"}
    assert bool(trainer.ledger.loss.isfinite().all())


def test_hidden_samples_are_not_fetched_for_training(tmp_path):
    dataset = Tuples()
    options = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3, "model": LinearClassifier}
    trained(tmp_path, dataset=dataset, trainer_options={"data_collator": collate_tuples}, **options)
    # Four epochs, three of them with 60 hidden samples, refreshed at the end of two.
    assert len(dataset.fetched) == 203 + 3 * 143 + 2 * 60
    assert sorted(dataset.fetched[203 : 203 + 143]) == list(range(60, 203))
    assert dataset.fetched[203 + 143 : 203 + 203] == list(range(60))


def test_skipped_samples_are_not_fetched_on_resume(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 20, "learning_rate": 0.05}
    options["trainer_options"] = {"data_collator": collate_tuples}
    dataset = Tuples()
    assert trained(tmp_path, dataset=dataset, **options).ledger.times_hidden.sum() > 0
    complete, dataset.fetched = list(dataset.fetched), []
    resumed = make_trainer(tmp_path, dataset=dataset, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-20"))
    assert dataset.fetched == complete[20 * 16 - 5 :]  # the first epoch's 13th batch has 11 samples


def test_length_and_evaluation_do_not_disturb_the_order(tmp_path):
    from transformers import TrainerCallback

    class Disturb(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            len(trainer._training.sampler)
            list(trainer._training.sampler)[:3]
            trainer.get_train_dataloader()

    plain, disturbed = Tuples(), Tuples()
    collator = {"data_collator": collate_tuples}
    trained(tmp_path, dataset=plain, trainer_options=collator)
    trainer = make_trainer(tmp_path, dataset=disturbed, trainer_options={**collator, "callbacks": [Disturb()]})
    trainer.train()
    assert disturbed.fetched == plain.fetched


def test_a_loader_made_past_the_trainer_is_told(tmp_path):
    class OwnLoader(KakurenboTrainer):
        def get_train_dataloader(self):
            return torch.utils.data.DataLoader(self.train_dataset, batch_size=8)

    trainer = make_trainer(tmp_path, OwnLoader)
    with pytest.raises(RuntimeError, match="builds its training loader without"):
        trainer.train()


def lay_end_to_end(examples):
    """As padding-free collators do."""
    return {"input_ids": torch.cat([torch.tensor(example["input_ids"]) for example in examples]).unsqueeze(0)}


def collate_with_ids(collator, ids, examples):
    return IdentifyingCollator(collator, "sample_id", active=True)(IdentifiedExamples(ids, examples))


def test_samples_laid_end_to_end_are_told_apart_token_by_token():
    examples = [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}, {"input_ids": [9, 9]}]
    batch = collate_with_ids(lay_end_to_end, [4, 2, 7], examples)
    ids = read_ids(batch, "sample_id")
    drop_ids(batch, "sample_id")
    assert ids.samples.tolist() == [4, 2, 7]
    assert ids.of_tokens.tolist() == [0, 0, 0, 1, 2, 2]
    assert list(batch) == ["input_ids"]


@pytest.mark.parametrize(
    "collator",
    [
        lambda examples: {"input_ids": lay_end_to_end(examples)["input_ids"][:, :4]},
        lambda examples: {"input_ids": lay_end_to_end(examples)["input_ids"].flip(1)},
        lambda examples: {"input_ids": lay_end_to_end(examples)["input_ids"].reshape(2, 3)},
        lambda examples: {"pixels": torch.zeros(1, 3)},
    ],
    ids=["cut", "in another order", "rows", "no tokens"],
)
def test_tokens_that_are_not_those_of_the_samples_end_to_end_belong_to_none(collator):
    examples = [{"input_ids": [5, 6, 7]}, {"input_ids": [8, 9, 1]}]
    batch = collate_with_ids(collator, [4, 2], examples)
    assert read_ids(batch, "sample_id").of_tokens is None


def test_padding_after_samples_end_to_end_belongs_to_none():
    examples = [{"input_ids": [5, 6]}, {"input_ids": torch.tensor([7])}]
    padded = collate_with_ids(lambda _: {"input_ids": torch.tensor([[5, 6, 7, 0, 0]])}, [0, 1], examples)
    assert read_ids(padded, "sample_id").of_tokens.tolist() == [0, 0, 1, -1, -1]
