"""A stream that is resumed: in the order that it had, with the ids that it had, or it says what has changed."""

import itertools

import numpy as np
import pytest
from test_resumed_training import COUNT, EPOCHS, FULL, MID_EPOCH, OPTIONS, Saving, aged, reported

from hf_kakurenbo.data.sources import Choice, PartialEpoch
from stream_toy import ImageClassifier, NotingTrainer, images, order_of, rows, streamed
from toy import make_trainer, same_tensors, same_weights

STREAM = {**OPTIONS, "num_samples": COUNT}
OF_IMAGES = {**OPTIONS, "model": ImageClassifier}


def train(folder, dataset, checkpoint=None, trainer=NotingTrainer, **options):
    made = make_trainer(folder, trainer, dataset=dataset, **{**STREAM, **options})
    made.train(None if checkpoint is None else str(checkpoint))
    return made


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A training on a stream that was saved after some updates."""
    folder = tmp_path_factory.mktemp("saved")
    return train(folder, streamed(), trainer=Saving), folder


def refusal(folder, dataset, checkpoint, **options):
    """The message of a training that is refused before it has made a step."""
    made = make_trainer(folder, NotingTrainer, dataset=dataset, **{**STREAM, **options})
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the message is what is tested)
        made.train(str(checkpoint))
    assert not getattr(made, "batches", {}), "it has trained"
    assert 'hiding_policy="none"' in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("step", [FULL, MID_EPOCH])
@pytest.mark.parametrize("age", [lambda checkpoint, folder: checkpoint, aged], ids=["of now", "of the first release"])
def test_the_same_stream_goes_on(saved, tmp_path, age, step):
    whole, folder = saved
    resumed = train(tmp_path / "resumed", streamed(), age(folder / f"checkpoint-{step}", tmp_path))
    assert same_weights(resumed, whole)
    assert same_tensors(resumed.ledger.state_dict(), whole.ledger.state_dict())


WORKERS = [0, pytest.param(2, marks=pytest.mark.wide)]


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize(
    "other",
    [lambda: streamed(seed=4), lambda: rows(COUNT).to_iterable_dataset().with_format("torch")],
    ids=["another seed", "unshuffled"],
)
def test_another_order_within_an_epoch_is_refused(saved, tmp_path, other, workers):
    _, folder = saved
    checkpoint = folder / f"checkpoint-{MID_EPOCH}"
    message = refusal(tmp_path, other(), checkpoint, dataloader_num_workers=workers)
    assert f"{checkpoint} was saved in the middle of an epoch, and the stream has another order now: sample" in message
    assert "is among the first 64 and was not trained on" in message
    assert "a checkpoint saved at the end of an epoch" in message


def test_another_order_within_an_epoch_of_an_old_checkpoint_is_refused_too(saved, tmp_path):
    _, folder = saved
    old = aged(folder / f"checkpoint-{MID_EPOCH}", tmp_path)
    assert "another order" in refusal(tmp_path / "resumed", streamed(seed=4), old)


def test_another_order_after_an_epoch_is_trained_on(saved, tmp_path):
    _, folder = saved
    resumed = train(tmp_path, streamed(seed=4), folder / f"checkpoint-{FULL}")
    for epoch in range(1, EPOCHS):
        visible = [sample for sample in order_of(streamed(seed=4), epoch) if sample >= 60]
        assert list(itertools.chain(*resumed.batches[epoch])) == visible


def test_images_by_number_are_compared_as_any_dataset(tmp_path):
    # Of 210 images 63 are hidden: 7 batches, then 5.
    saving = {**OF_IMAGES, "num_samples": None}
    whole = train(tmp_path / "whole", images(streaming=True), trainer=Saving, **saving)
    checkpoint = tmp_path / "whole" / f"checkpoint-{MID_EPOCH}"
    assert same_weights(train(tmp_path / "same", images(streaming=True), checkpoint, **saving), whole)
    message = refusal(tmp_path / "order", images(streaming=True).shuffle(6), checkpoint, **saving)
    assert "this training would continue it in another order" in message
    message = refusal(tmp_path / "rows", images(streaming=True, seed=1), checkpoint, **saving)
    assert "of other rows" in message
    assert "'rows_fingerprint'" in message


def test_another_column_of_ids_is_refused(saved, tmp_path):
    _, folder = saved
    numbered = rows(COUNT).rename_column("sample_id", "id").to_iterable_dataset().with_format("torch")
    message = refusal(tmp_path, numbered, folder / f"checkpoint-{FULL}", sample_id_column="id")
    assert "Its samples are numbered by 'sample_id', as `sample_id_column` said" in message


MAP_STYLE = rows(COUNT).remove_columns("sample_id").with_format("torch")


@pytest.mark.parametrize("step", [FULL, MID_EPOCH])
def test_a_stream_that_becomes_a_table(saved, tmp_path, caplog, step):
    _, folder = saved
    checkpoint, options = folder / f"checkpoint-{step}", {"num_samples": None}
    if step == MID_EPOCH:
        assert "another order" in refusal(tmp_path, MAP_STYLE, checkpoint, **options)
        return
    resumed = train(tmp_path, MAP_STYLE, checkpoint, **options)
    assert (
        f"It was not checked that the training dataset has the rows that {checkpoint} was saved with"
        in reported(caplog)[0]
    )
    assert "num_samples: 203 -> None" in reported(caplog)[-1]
    assert sorted(itertools.chain(*resumed.batches[1])) == list(range(60, COUNT))


@pytest.mark.parametrize("step", [FULL, MID_EPOCH])
def test_a_table_that_becomes_a_stream(tmp_path, step):
    train(tmp_path / "table", MAP_STYLE, trainer=Saving, num_samples=None)
    checkpoint = tmp_path / "table" / f"checkpoint-{step}"
    if step == MID_EPOCH:
        assert "another order" in refusal(tmp_path / "stream", streamed(), checkpoint)
        return
    resumed = train(tmp_path / "stream", streamed(), checkpoint)
    assert sorted(itertools.chain(*resumed.batches[1])) == list(range(60, COUNT))


def from_the_hub(split):
    stream = rows(COUNT).to_iterable_dataset().with_format("torch")
    stream.info.dataset_name, stream.info.builder_name, stream.info.config_name = "imdb", "parquet", "plain"
    stream._split = split
    return stream


def test_what_a_stream_is_loaded_by_is_compared(tmp_path, caplog):
    train(tmp_path, from_the_hub("train"), trainer=Saving)
    checkpoint = tmp_path / f"checkpoint-{FULL}"
    train(tmp_path / "same", from_the_hub("train"), checkpoint)
    assert reported(caplog) == []
    train(tmp_path / "other", from_the_hub("test"), checkpoint)
    assert reported(caplog) == [
        f"It was not checked that the training dataset has the rows that {checkpoint} was saved with: those of a "
        "stream cannot be had by number (imdb plain train -> imdb plain test)."
    ]


def test_only_visible_samples_have_a_place_in_an_interrupted_order():
    wanted, trained = [True, False, True, True], [True, False, True, False]

    def choose(order):
        partial_epoch = PartialEpoch(1, np.array(trained), "checkpoint-9")
        choice = Choice("id", np.array(wanted), lambda position: position >= 2, partial_epoch=partial_epoch)
        return [sample for sample in order if choice({"id": sample})]

    assert choose([1, 2, 0, 3]) == [3]
    assert choose([0, 1, 2, 3]) == [3]
    with pytest.raises(ValueError, match=r"checkpoint-9 was saved in .* sample 3 is among the first 2 and was not"):
        choose([0, 3, 1, 2])
