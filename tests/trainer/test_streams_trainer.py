"""Training on streams: what map-style does in the same order, and nothing hidden is mapped or drawn."""

import itertools
import random

import pytest
from datasets.distributed import split_dataset_by_node
from torch.utils.data import IterableDataset
from transformers import Trainer

from hf_kakurenbo import KakurenboConfig
from hf_kakurenbo.data import SampleStream
from processes import run
from stream_toy import (
    NUM_IMAGES,
    Draws,
    ImageClassifier,
    NotingTrainer,
    Tally,
    images,
    in_orders,
    order_of,
    outcome,
    rows,
    stream_options,
    streamed,
    train_stream,
    visible_ids,
)
from toy import NUM_SAMPLES, epochs, losses, make_trainer, same_tensors, same_weights, samples, trained, without_timings

COUNTED = {"num_samples": NUM_SAMPLES}
EPOCHS = 5
HIDING = {"num_train_epochs": EPOCHS, "learning_rate": 0.05}


def assert_same_training(stream, map_style):
    assert stream.ledger.times_hidden.sum() > 20, "too little was hidden to compare"
    assert losses(stream) == losses(map_style)
    assert without_timings(epochs(stream)) == without_timings(epochs(map_style))
    assert same_weights(stream, map_style)
    assert same_tensors(stream.ledger.state_dict(), map_style.ledger.state_dict())
    assert stream.batches == map_style.batches
    assert stream.state.global_step == map_style.state.global_step
    assert stream.state.epoch == map_style.state.epoch == EPOCHS


# ---- The same as map-style ----

WAYS = {
    "plain": {},
    "two workers": {"dataloader_num_workers": 2},
    "drop last": {"dataloader_drop_last": True},
    "partial accumulation": {"gradient_accumulation_steps": 4},
    "evaluated in between": {
        "eval_strategy": "steps",
        "eval_steps": 5,
        "trainer_options": {"eval_dataset": samples(40, seed=5)},
    },
    "refreshed every other epoch": {"refresh_interval": 2},
}


EVERY_WAY = [pytest.param(way, marks=[pytest.mark.wide] if way == "two workers" else []) for way in WAYS]
OF_IMAGES = [way for way in EVERY_WAY if way.values != ("evaluated in between",)]


def orders_of(stream):
    return [order_of(stream, epoch) for epoch in range(EPOCHS)]


@pytest.mark.parametrize("way", EVERY_WAY)
def test_a_stream_with_ids_is_the_map_style_dataset_in_its_order(tmp_path, way):
    options = {**HIDING, **WAYS[way]}
    orders = orders_of(streamed())
    assert len(set(map(tuple, orders))) == EPOCHS
    map_style = trained(tmp_path / "map", in_orders(orders), dataset=samples(), **options)
    stream = trained(tmp_path / "stream", NotingTrainer, dataset=streamed(), **COUNTED, **options)
    assert_same_training(stream, map_style)


@pytest.mark.parametrize("way", OF_IMAGES)
def test_a_stream_of_images_is_the_map_style_dataset_in_its_order(tmp_path, way):
    options = {**HIDING, **WAYS[way], "model": ImageClassifier}
    orders = orders_of(images(streaming=True))
    map_style = trained(tmp_path / "map", in_orders(orders), dataset=images(), **options)
    stream = trained(tmp_path / "stream", NotingTrainer, dataset=images(streaming=True), **options)
    assert_same_training(stream, map_style)


# In a process of its own, where nothing that comes later waits for the workers to leave.
@pytest.mark.wide
@pytest.mark.parametrize("kind", ["with ids", "of images"])
def test_persistent_workers(tmp_path, kind):
    options = {**HIDING, **(COUNTED if kind == "with ids" else {})}
    options |= {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
    _, expected = run(outcome, tmp_path, kind, options, None, True)
    _, result = run(outcome, tmp_path, kind, options)
    assert expected["ledger"]["times_hidden"].sum() > 20, "too little was hidden to compare"
    assert result["batches"] == expected["batches"]
    assert result["losses"] == expected["losses"]
    assert same_tensors(result["weights"], expected["weights"])
    assert same_tensors(result["ledger"], expected["ledger"])


class InOneOrder(IterableDataset):
    """The toy samples as a PyTorch stream that knows its length."""

    def __init__(self, order):
        self.order = order

    def __len__(self):
        return len(self.order)

    def __iter__(self):
        toys = samples()
        yield from ({**toys[sample_id], "sample_id": sample_id} for sample_id in self.order)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.wide)])
def test_a_stream_of_pytorch(tmp_path, workers):
    order = random.Random(4).sample(range(NUM_SAMPLES), NUM_SAMPLES)
    options = {**HIDING, "dataloader_num_workers": workers}
    map_style = trained(tmp_path / "map", in_orders([order] * EPOCHS), dataset=samples(), **options)
    assert_same_training(trained(tmp_path / "stream", NotingTrainer, dataset=InOneOrder(order), **options), map_style)


def test_with_nothing_hidden_it_is_trainer_on_the_stream(tmp_path):
    # Trainer draws nothing of the stream beforehand, and needs to be told how long it is.
    options = {"num_train_epochs": 2, "max_steps": 26}
    plain = trained(tmp_path / "plain", Trainer, dataset=streamed(), **options)
    hiding = trained(tmp_path / "hiding", dataset=streamed(), max_hidden_fraction=0.0, **COUNTED, **options)
    # Without a length, Trainer takes all steps for one epoch.
    assert [entry["loss"] for entry in losses(hiding)] == [entry["loss"] for entry in losses(plain)]
    assert same_weights(hiding, plain)


@pytest.mark.wide
def test_the_columns_of_a_stream_are_what_the_model_takes(tmp_path):
    wider = rows().add_column("other", ["text"] * NUM_SAMPLES).to_iterable_dataset().with_format("torch")
    trainer = trained(tmp_path, dataset=wider, **HIDING, **COUNTED)
    assert bool(trainer.ledger.loss.isfinite().all())


@pytest.mark.wide
def test_another_name_of_the_id_column(tmp_path):
    renamed = rows().rename_column("sample_id", "index").to_iterable_dataset().with_format("torch")
    trainer = trained(tmp_path, dataset=renamed, sample_id_column="index", **HIDING, **COUNTED)
    assert trainer.ledger.times_hidden.sum() > 20


def test_a_part_of_the_images(tmp_path):
    part = images(streaming=True).take(60)
    trainer = trained(tmp_path, NotingTrainer, dataset=part, model=ImageClassifier, **HIDING)
    assert len(trainer.ledger) == 60
    assert [sorted(itertools.chain(*batches)) for batches in trainer.batches.values()] == [
        visible_ids(hidden) for hidden in trainer.watch.hidden
    ]


@pytest.mark.wide
def test_trained_twice(tmp_path):
    once = trained(tmp_path, NotingTrainer, dataset=streamed(), **HIDING, **COUNTED)
    first = once.batches
    del once.batches
    once.train()
    assert once.state.epoch == EPOCHS
    assert once.batches[0] == first[0]
    assert [sorted(itertools.chain(*batches)) for batches in once.batches.values()] == [
        visible_ids(hidden) for hidden in once.watch.hidden[EPOCHS:]
    ]


def test_max_steps_are_kept(tmp_path):
    trainer = trained(tmp_path, dataset=streamed(), max_steps=30, learning_rate=0.05, **COUNTED)
    assert trainer.state.global_step == 30


def test_epochs_drive_the_training(tmp_path):
    trainer = trained(tmp_path, NotingTrainer, dataset=streamed(), **HIDING, **COUNTED)
    for epoch, hidden in enumerate(trainer.watch.hidden):
        order = [i for i in order_of(streamed(), epoch) if not hidden[i]]
        assert list(itertools.chain(*trainer.batches[epoch])) == order
    assert trainer.state.global_step == trainer.state.max_steps == sum(map(len, trainer.batches.values()))


# ---- Counted, not estimated ----


def counted(trainer, made):
    tally = Tally(trainer, made)
    trainer.add_callback(tally)
    trainer.train()
    return tally


SHARE = {"hiding_policy": "first_ids", "max_hidden_fraction": 0.3, "num_train_epochs": 4}


# What workers draw is not counted, and what they map is noted in a file.
@pytest.mark.parametrize(
    ("kind", "workers"), [("with ids", 0), pytest.param("with ids", 2, marks=pytest.mark.wide), ("of images", 0)]
)
@pytest.mark.parametrize("policy", [SHARE, HIDING], ids=["a fixed share", "the method"])
def test_hidden_samples_are_made_for_the_refresh_only(tmp_path, kind, policy, workers):
    with Draws() as drawn:
        tally = counted(*trainer_that_counts(tmp_path, kind, drawn, dataloader_num_workers=workers, **policy))
    *earlier, last = tally.refreshed
    count = NUM_IMAGES if kind == "of images" else NUM_SAMPLES
    every = list(range(count))
    assert max(tally.hidden) > 0
    for hidden, trained_on, refreshed in zip(tally.hidden, tally.trained, earlier, strict=False):
        assert len(trained_on) == count - hidden
        assert len(refreshed) == hidden
        assert sorted(trained_on + refreshed) == every
    assert len(tally.trained[-1]) == count - tally.hidden[-1]
    assert last == [], "nobody would read the refresh of the last epoch"


def trainer_that_counts(tmp_path, kind, drawn, **options):
    if kind == "of images":
        return make_trainer(tmp_path, **stream_options(kind), **options), lambda: list(drawn)
    file = tmp_path / "mapped"
    file.touch()
    trainer = make_trainer(tmp_path, dataset=streamed(file), **COUNTED, **options)
    return trainer, lambda: list(map(int, file.read_text().split()))


@pytest.mark.wide
@pytest.mark.parametrize("kind", ["with ids", "of images"])
def test_fewer_are_made_with_a_refresh_every_other_epoch(tmp_path, kind):
    options = {**HIDING, "num_train_epochs": 6}
    tallies = []
    for interval in (1, 2):
        folder = tmp_path / str(interval)
        folder.mkdir()
        with Draws() as drawn:
            tallies.append(counted(*trainer_that_counts(folder, kind, drawn, refresh_interval=interval, **options)))
    every, other = tallies
    assert min(other.hidden[1:]) > 0
    made = [len(part) for part in other.refreshed]
    assert made == [hidden if epoch in (1, 3) else 0 for epoch, hidden in enumerate(other.hidden)]
    assert 0 < sum(made) < sum(map(len, every.refreshed))


# ---- Killed and resumed ----

SAVING = {**HIDING, "save_strategy": "steps", "save_steps": 4, "save_total_limit": 2, "logging_steps": 3}
_undisturbed = {}


def undisturbed(kind, workers, tmp_path_factory):
    if (kind, workers) not in _undisturbed:
        options = options_of(kind, workers)
        code, result = run(train_stream, tmp_path_factory.mktemp("undisturbed"), kind, options, None, False)
        assert code == 0
        assert result["ledger"]["times_hidden"].sum() > 20, "too little was hidden to compare"
        _undisturbed[kind, workers] = result
    return _undisturbed[kind, workers]


def options_of(kind, workers):
    counted = COUNTED if kind == "with ids" else {}
    return {**SAVING, **counted, "dataloader_num_workers": workers}


@pytest.mark.parametrize("kind", ["with ids", "of images"])
@pytest.mark.parametrize(
    ("phase", "workers"),
    [
        ("in the epoch", 0),
        ("in the refresh", 0),
        pytest.param("while saving", 0, marks=pytest.mark.wide),
        pytest.param("at the end of an epoch", 0, marks=pytest.mark.wide),
        pytest.param("after saving", 0, marks=pytest.mark.wide),
        pytest.param("in the epoch", 2, marks=pytest.mark.wide),
    ],
)
def test_killed_and_resumed_is_never_killed(kind, phase, workers, tmp_path, tmp_path_factory):
    expected = undisturbed(kind, workers, tmp_path_factory)
    chosen = [place for place, moment in enumerate(expected["moments"]) if moment == phase]
    kill_at = random.Random(1).choice([place for place in chosen if place > len(expected["moments"]) // 3])
    code, _ = run(train_stream, tmp_path, kind, options_of(kind, workers), kill_at, False)
    assert code == -9, "the training was to be killed"
    code, result = run(train_stream, tmp_path, kind, options_of(kind, workers), None, True)
    assert code == 0
    assert same_tensors(result["weights"], expected["weights"])
    assert same_tensors(result["ledger"], expected["ledger"])
    for figure in ("log", "rates", "step", "max_steps"):
        assert result[figure] == expected[figure], figure


@pytest.mark.parametrize("kind", ["with ids", "of images"])
def test_a_resumed_epoch_makes_only_what_is_left(tmp_path, kind):
    options = {**SAVING, "save_total_limit": None, "logging_steps": 1}
    with Draws() as drawn:
        (tmp_path / "whole").mkdir()
        whole, made = trainer_that_counts(tmp_path / "whole", kind, drawn, **options)
        whole.train()
        middle = tmp_path / "whole" / f"checkpoint-{whole.state.global_step - 4 - whole.state.global_step % 4}"
        before = int(middle.name.split("-")[1])
        assert before > 20
        drawn.clear()
        (tmp_path / "resumed").mkdir()
        again, made = trainer_that_counts(tmp_path / "resumed", kind, drawn, **options)
        again.train(resume_from_checkpoint=str(middle))
    assert same_weights(again, whole)
    assert same_tensors(again.ledger.state_dict(), whole.ledger.state_dict())
    report = again._training.run
    assert len(made()) == report.samples_this_session + refreshed_since(whole, middle)


def refreshed_since(trainer, checkpoint):
    """How many hidden samples were refreshed after a checkpoint."""
    scalars = trainer.state.log_history
    step = int(checkpoint.name.split("-")[1])
    ends = [entry for entry in scalars if "kakurenbo/hidden_fraction" in entry]
    count = len(trainer.ledger)
    later = [round(entry["kakurenbo/hidden_fraction"] * count) for entry in ends if entry["step"] >= step]
    return sum(later[:-1])


def test_a_plain_trainers_checkpoint_in_the_middle_of_an_epoch(tmp_path, caplog):
    steps = {"save_strategy": "steps", "save_steps": 20, "num_train_epochs": 4, "learning_rate": 0.05}
    trained(tmp_path, Trainer, dataset=streamed(), **{**steps, "max_steps": 26, "num_train_epochs": 2})
    again = make_trainer(tmp_path, NotingTrainer, dataset=streamed(), **steps, **COUNTED)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-20"))
    assert "The ledger starts empty" in caplog.text
    assert again.state.epoch == 4.0
    assert list(itertools.chain(*again.batches[1])) == order_of(streamed(), 1)[7 * 16 :]


# ---- Mistakes ----


def test_a_stream_without_a_length(tmp_path):
    with pytest.raises(ValueError, match=r"not known how many samples.*num_samples=\.\.\.\)`.*`streaming=False`"):
        make_trainer(tmp_path, dataset=streamed())


def test_no_samples_at_all(tmp_path):
    with pytest.raises(ValueError, match="num_samples=0 must be at least 1: it is the length of the stream"):
        KakurenboConfig(output_dir=str(tmp_path), num_samples=0)


@pytest.mark.parametrize("make", [streamed, lambda: images(streaming=True)], ids=["with ids", "of images"])
def test_shared_out_already(tmp_path, make):
    shared_out = split_dataset_by_node(make(), rank=0, world_size=2)
    with pytest.raises(ValueError, match=r"sharded over ranks already \(`split_dataset_by_node`\).*Leave it whole"):
        make_trainer(tmp_path, dataset=shared_out, **COUNTED)


@pytest.mark.parametrize("make", [streamed, lambda: images(streaming=True)], ids=["with ids", "of images"])
def test_group_by_length(tmp_path, make):
    with pytest.raises(ValueError, match=r"\"group_by_length\" needs random access.*`streaming=False`"):
        make_trainer(tmp_path, dataset=make(), train_sampling_strategy="group_by_length", **COUNTED)


def numbered(ids):
    """The toy samples under other ids."""
    table = rows(len(ids)).remove_columns("sample_id").add_column("sample_id", ids)
    return table.to_iterable_dataset().with_format("torch")


def shift(example):
    return {"sample_id": int(example["sample_id"]) + 1}


HUNDRED = list(range(100))
MISTAKES = {
    "no id column": (lambda: rows().remove_columns("sample_id").to_iterable_dataset(), "have no column 'sample_id'"),
    "an id comes again": (lambda: numbered([*HUNDRED[:-1], 5]), "The id 5 comes a second time"),
    "an id too high": (lambda: numbered([*HUNDRED[:-1], 100]), r"the id 100, but its ids must be in 0\.\.99"),
    "an id below 0": (lambda: numbered([-1, *HUNDRED[:-1]]), r"the id -1, but its ids must be in 0\.\.99"),
    "texts": (lambda: numbered(list(map(str, HUNDRED))), "must be an integer, got '0' of type str"),
    "floats": (lambda: numbered(list(map(float, HUNDRED))), r"must be an integer, got 0\.0 of type float"),
    "too few": (lambda: numbered(HUNDRED[:-3]), "ended after 97 of its 100 samples.*last checkpoint is as good as"),
    "too many": (lambda: numbered([*HUNDRED, 100]), "the id 100, but.*If it has more, say so with `num_samples`"),
    "a map changes them": (lambda: numbered(HUNDRED).map(shift), "changes 'sample_id' from 0 to 1"),
    "repeated": (lambda: numbered(HUNDRED).repeat(2), "The id 0 comes a second time"),
}


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.wide)])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(tmp_path, mistake, workers):
    make, message = MISTAKES[mistake]
    trainer = make_trainer(tmp_path, dataset=make(), num_samples=100, dataloader_num_workers=workers)
    with pytest.raises(ValueError, match=message):
        trainer.train()
    assert trainer.state.epoch < 1


@pytest.mark.wide
def test_checkpoints_before_the_mistake_are_good(tmp_path):
    options = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 3, "num_samples": 100}
    with pytest.raises(ValueError, match="ended after 97 of its 100 samples"):
        trained(tmp_path, dataset=numbered(HUNDRED[:-3]), **options)
    whole = trained(tmp_path / "whole", dataset=numbered(HUNDRED), **{**options, "save_strategy": "no"})
    mended = make_trainer(tmp_path, dataset=numbered(HUNDRED), **options)
    mended.train(resume_from_checkpoint=True)
    assert mended.state.global_step == whole.state.global_step
    assert same_weights(mended, whole)


def test_an_order_that_another_training_does_not_have(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 5, "num_train_epochs": 2, **COUNTED}
    trained(tmp_path, dataset=streamed(seed=None), **options)
    again = make_trainer(tmp_path, dataset=streamed(seed=None), **options)
    with pytest.raises(ValueError, match=r"the stream has another order now.*`shuffle` with the same seed"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))


def test_what_is_wrapped_already_stays_so(tmp_path):
    stream = SampleStream(streamed(), "sample_id", NUM_SAMPLES)
    assert make_trainer(tmp_path, dataset=stream).train_dataset is stream
