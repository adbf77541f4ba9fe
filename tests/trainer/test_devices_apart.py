"""Tensors that come from another device than expected, and what stays on the device: nothing mixes, nothing is lost."""

import weakref
from contextlib import nullcontext
from itertools import chain

import pytest
import torch
from test_policy_weights import CASES as WEIGHED
from test_policy_weights import LOGITS, WEIGHTS
from torch import nn
from torch._dynamo.utils import counters
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback

from hf_kakurenbo import SampleStatistics
from hf_kakurenbo.data.identity import IdentifiedDataset, IdentifiedExamples, IdentifyingCollator
from hf_kakurenbo.distributed import collectives
from hf_kakurenbo.distributed.data_parallel import DataParallelWorld
from hf_kakurenbo.hiding import HidingRun, InfoBatchPolicy
from hf_kakurenbo.hiding.pending import PendingMeasurements
from hf_kakurenbo.hiding.recorder import Recorder
from hf_kakurenbo.hiding.statistics import TASKS, Prediction, StatisticsMatcher
from hf_kakurenbo.hiding.weighting import weighed_loss
from hf_kakurenbo.integrations.base import returned_by
from measured_rules import RULES, SAMPLE_OF_TOKEN
from standin_device import DEVICE, OTHER_DEVICE, OnDevice, report
from standin_training import before_first_step, own, read_back, sent, standin, steps, train_on_standin
from toy import LinearClassifier, losses, make_trainer, samples, trained

FEW = {"dataset": samples(60), "num_train_epochs": 2, "per_device_train_batch_size": 8}
INITIAL_PASS = {"initial_pass": True, "hiding_warmup_epochs": 0}
HIDING = {**INITIAL_PASS, "move_back": False}
WEIGHING = {**INITIAL_PASS, "hiding_policy": "infobatch"}


@pytest.fixture
def device():
    with standin() as entered:
        yield entered


# ---- A training ----


def test_batches_that_are_waited_for_bring_one_more_copy_along(tmp_path):
    """By default Trainer waits for every column of a batch; so it does for the ids, 8 bytes a sample."""
    options = {**FEW, "model": LinearClassifier}
    plain = steps(train_on_standin(make_trainer, tmp_path / "plain", Trainer, **options)[1])
    hiding = steps(train_on_standin(make_trainer, tmp_path / "hiding", **options, **HIDING)[1])
    (columns,) = {len(sent(step)) for step in plain}
    for step in hiding:
        copies = sent(step)
        assert len(copies) == columns + 1, report(copies)
        assert all(copy.waits for copy in copies)
        assert [copy.nbytes // 8 for copy in copies if copy.dtype == torch.int64] == [copies[0].nbytes // 64] * 2


def test_only_the_first_batches_are_compared_with_the_models_loss(tmp_path):
    """Eight of them, by reading two losses and one that explains it; then nothing is read before the epoch's end."""
    options = {**FEW, "dataset": samples(96)}
    _, device = train_on_standin(make_trainer, tmp_path, model=LinearClassifier, **options)
    read = [own(read_back(step)) for step in (before_first_step(device, 0), *steps(device))]
    assert [len(events) for events in read] == [3] * 8 + [0] * (len(read) - 8), report(chain(*read))


class NoisyClassifier(LinearClassifier):
    """Draws random numbers on the device, in evaluation mode too."""

    def forward(self, x, labels):
        return super().forward(x + 0.1 * torch.randn_like(x), labels)


def test_with_nothing_hidden_the_devices_random_numbers_are_trainers(tmp_path):
    options = {**FEW, "logging_steps": 1, "model": NoisyClassifier}
    plain, of_trainer = train_on_standin(make_trainer, tmp_path / "plain", Trainer, **options)
    looked, of_hiding = train_on_standin(
        make_trainer, tmp_path / "looked", max_hidden_fraction=0.0, **INITIAL_PASS, **options
    )
    assert looked._training.run.refreshed_samples == 60
    assert losses(plain) == losses(looked)
    assert torch.equal(of_trainer.rng_state, of_hiding.rng_state)


class HalfClassifier(LinearClassifier):
    """Returns what a model returns under autocast: logits of half precision, and a loss of single."""

    def forward(self, x, labels):
        logits = nn.functional.linear(x.bfloat16(), self.head.weight.bfloat16(), self.head.bias.bfloat16())
        return {"loss": nn.functional.cross_entropy(logits.float(), labels), "logits": logits}


@pytest.mark.parametrize("waiting", [True, False])
@pytest.mark.parametrize("options", [HIDING, WEIGHING], ids=["hidden", "weighed"])
def test_statistics_of_half_precision_are_of_single(tmp_path, monkeypatch, waiting, options):
    monkeypatch.setattr(Recorder, "_WAITING_ELEMENTS", Recorder._WAITING_ELEMENTS if waiting else 0)
    trainer, device = train_on_standin(make_trainer, tmp_path, model=HalfClassifier, **FEW, **options)
    copies = device.of("copy", direction="to host")
    assert {copy.dtype for copy in copies} == {torch.int32, torch.float32}, report(copies)
    loss = trainer.ledger.loss
    assert (loss != loss.bfloat16()).sum() > 50, "not rounded to half precision on the way"


class Keeping(LinearClassifier):
    """Notes when its logits are freed."""

    def __init__(self):
        super().__init__()
        self.alive = []

    def forward(self, x, labels):
        returned = super().forward(x, labels)
        self.alive.append(weakref.ref(returned["logits"].held if isinstance(x, OnDevice) else returned["logits"]))
        return returned


@pytest.mark.parametrize("waiting", [True, False])
def test_no_logits_outlive_their_step(tmp_path, monkeypatch, waiting):
    monkeypatch.setattr(Recorder, "_WAITING_ELEMENTS", Recorder._WAITING_ELEMENTS if waiting else 0)
    left = []

    class Look(TrainerCallback):
        def on_step_end(self, *args, model=None, **kwargs):
            left.append(sum(logits() is not None for logits in model.alive))

    train_on_standin(make_trainer, tmp_path, model=Keeping, trainer_options={"callbacks": [Look()]}, **FEW, **HIDING)
    assert len(left) > 10
    assert not any(left)


# ---- Batches ----


def on_device(collator):
    """A collator that puts its batch on the device by itself."""
    return lambda rows: {name: column.to(DEVICE) for name, column in collator(rows).items()}


def end_to_end(rows):
    words = torch.cat([torch.as_tensor(row["input_ids"]) for row in rows]).unsqueeze(0)
    return {"input_ids": words, "labels": words.clone()}


def test_a_collator_that_puts_its_batch_on_the_device(device, tmp_path):
    options = {"use_cpu": False, "optim": "sgd", "model": LinearClassifier, **FEW, **HIDING}
    made = make_trainer(tmp_path, **options)
    made.data_collator = on_device(made.data_collator)
    made.train()
    assert made.ledger.loss.isfinite().all()


def test_samples_laid_end_to_end_on_the_device(device):
    rows = [{"input_ids": [3, 4]}, {"input_ids": [5]}, {"input_ids": [6, 7, 8]}]
    stored = [{"input_ids": torch.tensor(row["input_ids"], device=DEVICE)} for row in rows]
    expected = [0, 0, 1, 2, 2, 2]
    for examples, collator in [(rows, on_device(end_to_end)), (stored, end_to_end)]:
        batch = IdentifyingCollator(collator, "sample_id", active=True)(IdentifiedExamples([7, 8, 9], examples))
        assert batch["sample_id_of_tokens"].tolist() == expected


@pytest.mark.parametrize("turned", [list, reversed])
def test_the_order_of_examples_on_the_device_is_compared(device, turned):
    examples = [{"x": row.to(DEVICE)} for row in torch.arange(6.0).reshape(3, 2).bfloat16()]
    collator = IdentifyingCollator(
        lambda rows: {"x": torch.stack([row["x"] for row in turned(rows)])}, "sample_id", active=True
    )
    with pytest.raises(ValueError, match="in another order") if turned is reversed else nullcontext():
        collator(IdentifiedExamples([7, 8, 9], examples))


@pytest.mark.parametrize("rows", [["x"], ["x", "y"], []], ids=str)
def test_ids_go_where_all_of_a_batch_is_and_are_not_waited_for(device, rows):
    """Else they would be the one copy in a step that blocks."""
    batch = {name: torch.ones(3, device=DEVICE if name == "x" else "cpu") for name in rows}
    device.events.clear()
    collated = IdentifyingCollator(lambda examples: batch, "sample_id", active=True)(
        IdentifiedExamples([7, 8, 2**24 + 1], [{}] * 3)
    )
    assert collated["sample_id"].device == (DEVICE if rows == ["x"] else torch.device("cpu"))
    assert collated["sample_id"].tolist() == [7, 8, 2**24 + 1]
    sent = device.of("copy", direction="to device")
    assert [event.waits for event in sent] == [False] * (rows == ["x"])


class DrawnOnDevice(Dataset):
    """Draws its examples at random on the device, a batch at a time."""

    def __len__(self):
        return 20

    def __getitem__(self, index):
        return self.__getitems__([index])[0]

    def __getitems__(self, indices):
        return [{"x": row} for row in torch.rand(len(indices), 2, device=DEVICE)]


def test_an_example_that_is_asked_for_once_more_leaves_the_devices_generator(device):
    before = torch.lazy.get_rng_state()
    DrawnOnDevice().__getitems__([5, 3, 9])
    after = torch.lazy.get_rng_state()
    torch.lazy.set_rng_state(before)
    IdentifiedDataset(DrawnOnDevice()).__getitems__([5, 3, 9])
    assert torch.equal(torch.lazy.get_rng_state(), after)


def test_of_long_examples_on_the_device_only_their_ends_are_compared(device):
    examples = [{"x": row} for row in torch.rand(4, 10_000).to(DEVICE)]
    device.events.clear()
    collator = IdentifyingCollator(
        lambda rows: {"x": torch.stack([row["x"] for row in rows])}, "sample_id", active=True
    )
    collator(IdentifiedExamples([1, 2, 3, 4], examples))
    copied = device.of("copy", direction="to host")
    assert 0 < sum(event.nbytes for event in copied) < 8_000, report(copied)


def test_ids_that_the_users_collator_keeps_on_the_device(device):
    collator = IdentifyingCollator(
        on_device(lambda rows: {"sample_id": torch.tensor([7, 8, 9])}), "sample_id", active=True
    )
    batch = collator(IdentifiedExamples([7, 8, 9], [{}] * 3))
    assert batch["sample_id"].tolist() == [7, 8, 9]
    with pytest.raises(ValueError, match="already has an entry"):
        collator(IdentifiedExamples([7, 8, 6], [{}] * 3))


# ---- Statistics ----


def gathered(recorder):
    measured = recorder.gathered()
    assert all(type(tensor) is torch.Tensor for tensor in measured), "on the CPU"
    return measured


SPLIT = ["one label", "soft labels", "several labels", "regression", "tokens", "pixels"]
PLACES = {"device": DEVICE, "CPU": torch.device("cpu"), "other device": OTHER_DEVICE}


@pytest.mark.parametrize("of_ids", PLACES)
@pytest.mark.parametrize("of_statistics", PLACES)
def test_statistics_and_ids_may_be_anywhere(device, of_ids, of_statistics):
    recorder = Recorder(DEVICE, 100)
    ids, loss = torch.tensor([5, 3]), torch.tensor([1.5, 2.5], dtype=torch.float64)
    correct, confidence = torch.tensor([True, False]), torch.tensor([0.5, 0.25], dtype=torch.bfloat16)
    fields = (field.to(PLACES[of_statistics]) for field in (loss, correct, confidence))
    recorder.add(ids.to(PLACES[of_ids]), SampleStatistics(*fields))
    measured = gathered(recorder)
    assert measured.ids.tolist() == [5, 3]
    assert measured.loss.tolist() == [1.5, 2.5]
    assert measured.correct.tolist() == [True, False]
    assert measured.confidence.tolist() == [0.5, 0.25]


@pytest.mark.parametrize("waiting", [True, False])
@pytest.mark.parametrize("of_labels", PLACES)
@pytest.mark.parametrize("name", SPLIT)
def test_labels_may_be_on_another_device_than_logits(device, monkeypatch, name, of_labels, waiting):
    """As those of a model that is split over several: its logits are where its last layer is."""
    monkeypatch.setattr(Recorder, "_WAITING_ELEMENTS", Recorder._WAITING_ELEMENTS if waiting else 0)
    rule, logits, labels = RULES[name]
    expected = rule(logits, labels).loss
    place = PLACES[of_labels]
    outputs = {"logits": logits.to(OTHER_DEVICE), "loss": expected.nanmean().to(place)}
    of_tokens = name == "tokens"  # in which a model shifts the labels, or the collator has
    batch = dict.fromkeys(["labels", "shift_labels"] if of_tokens else ["labels"], labels.to(place))
    matcher = StatisticsMatcher(["causal_language_modeling"] if of_tokens else tuple(TASKS))
    recorder = Recorder(DEVICE, 100)
    recorder.add_prediction(torch.arange(len(labels), device=DEVICE), matcher(outputs, batch))
    torch.testing.assert_close(gathered(recorder).loss, expected, equal_nan=True)


@pytest.mark.parametrize("of_labels", PLACES)
def test_labels_of_one_row_may_be_on_another_device_than_logits(device, of_labels):
    rule, logits, labels = RULES["tokens end to end"]
    batch = {"labels": labels.to(PLACES[of_labels])}
    matcher = StatisticsMatcher(["causal_language_modeling"])
    statistics = matcher(logits.to(OTHER_DEVICE), batch, 3, SAMPLE_OF_TOKEN.to(PLACES[of_labels]))
    torch.testing.assert_close(statistics.loss.cpu(), rule(logits, labels).loss, equal_nan=True)


@pytest.mark.parametrize("of_ids", PLACES)
def test_weights_are_where_the_ids_are(device, of_ids):
    run = HidingRun(4, InfoBatchPolicy(), DEVICE)
    run.epoch_finished, run.weights = False, torch.tensor([1.0, 2.0, 3.0, 4.0])
    for _ in range(3):
        given = run.weights_of(torch.tensor([3, 1]).to(PLACES[of_ids]))
        assert given.device == PLACES[of_ids]
        assert given.tolist() == [4.0, 2.0]
    assert len(sent(device.events)) <= 1 + 3
    assert all(type(tensor) is torch.Tensor for tensor in run.state()[0].values()), "on the CPU, to be saved"


@pytest.mark.parametrize("case", WEIGHED)
@pytest.mark.parametrize("of_labels", PLACES)
@pytest.mark.parametrize("of_loss", ["device", "other device"])
def test_a_weighed_loss_stays_where_the_loss_is(device, case, of_labels, of_loss):
    rule, labels, mean, _ = WEIGHED[case]
    expected = weighed_loss(mean(LOGITS, labels), Prediction(rule, LOGITS, labels), WEIGHTS)
    logits = LOGITS.to(DEVICE).requires_grad_()
    loss = mean(logits, labels.to(DEVICE)).to(PLACES[of_loss])
    weighed = weighed_loss(loss, Prediction(rule, logits, labels.to(PLACES[of_labels])), WEIGHTS.to(DEVICE))
    weighed.backward()
    assert weighed.device == loss.device
    assert isinstance(logits.grad, OnDevice)
    torch.testing.assert_close(weighed.detach().cpu(), expected)


@pytest.mark.parametrize("num_samples", [2**25, 2**40, None])
def test_ids_travel_as_integers(device, num_samples):
    """2²⁴ + 1 is no float32, and 2⁴⁰ − 1 no int32."""
    ids = [2**24 + 1, (num_samples or 2**40) - 1]
    pending = PendingMeasurements(DEVICE, num_samples, DataParallelWorld.of_all_ranks())
    pending.append(torch.tensor(ids, device=DEVICE), torch.zeros(2, 3, device=DEVICE))
    assert pending.gathered().ids.tolist() == ids


def test_many_small_batches_leave_few_tensors_on_the_device(device, monkeypatch):
    """Each takes half a kilobyte of a GPU at least, however small it is."""
    monkeypatch.setattr("hf_kakurenbo.hiding.pending._BLOCK_BATCHES", 100)
    pending = PendingMeasurements(DEVICE, 1000, DataParallelWorld.of_all_ranks())
    kept = []
    for place in range(450):
        batch = torch.tensor([place], device=DEVICE), torch.full((1, 3), float(place), device=DEVICE)
        kept += map(weakref.ref, batch)
        pending.append(*batch)
        del batch
        assert sum(tensor() is not None for tensor in kept) <= 2 * 100
    assert len(device.of("copy", direction="to host")) == 2 * 4
    assert pending.gathered().ids.tolist() == pending.gathered().loss.tolist() == list(range(450))


# ---- Several ranks, of a backend that takes tensors of the device alone, as NCCL does ----


@pytest.fixture
def twins(device, monkeypatch):
    """Two ranks, of which the other one has what this one has."""

    def all_gather(slots, rows):
        assert {rows.device, *(slot.device for slot in slots)} == {DEVICE}
        for slot in slots:
            slot.copy_(rows)

    monkeypatch.setattr(collectives, "world_size", lambda: 2)
    monkeypatch.setattr(collectives.dist, "all_gather", all_gather)


@pytest.mark.parametrize("blocks", [1, 3])
def test_ranks_exchange_what_they_measured(twins, blocks):
    pending = PendingMeasurements(DEVICE, 100, DataParallelWorld(size=2, rank=0))
    for block in range(blocks):
        rows = torch.arange(2 * block, 2 * block + 2, device=DEVICE)
        pending.append(rows, rows.float().unsqueeze(1).expand(2, 3))
        pending.gathered()  # as for a checkpoint within the epoch, after which it is on the CPU
    measured = pending.gathered()
    assert measured.ids.tolist() == measured.loss.tolist() == [row for row in range(2 * blocks) for _ in range(2)]
    assert {tensor.device.type for tensor in measured} == {"cpu"}


def test_ranks_compare_what_they_are_about_to_do(twins):
    assert [collectives.any_rank(flag, DEVICE) for flag in (True, False)] == [True, False]
    collectives.require_consistency({"batches": 2**40, "digest": -(2**63)}, DEVICE, "now")


# ---- Compiled models ----


def test_a_compiled_model_is_compiled_once_more_for_the_refresh(tmp_path):
    """Nothing of the recording is in the graph, or breaks it: one for training, one for evaluation mode."""
    torch._dynamo.reset()
    counters.clear()
    options = {"torch_compile": True, "torch_compile_backend": "eager", "dataloader_drop_last": True}
    made = trained(tmp_path, model=LinearClassifier, **{**FEW, "dataset": samples(64)}, **options, **HIDING)
    assert made._training.run.refreshed_samples > 64
    assert counters["stats"]["unique_graphs"] == 2
    assert not counters["graph_break"]


@pytest.mark.parametrize("updates", ["scaled", "constant"])
def test_batches_of_other_sizes_compile_no_more_from_epoch_to_epoch(tmp_path, updates):
    """Each pass has one graph of full batches, and one of any size: two of training, two of the refresh."""
    graphs = {}
    for epochs in (3, 7):
        torch._dynamo.reset()
        counters.clear()
        options = {"torch_compile": True, "torch_compile_backend": "eager", "num_train_epochs": epochs}
        options["hidden_epoch_updates"] = updates
        made = trained(tmp_path / str(epochs), model=LinearClassifier, dataset=samples(61), **options, **HIDING)
        sizes = {
            epoch["kakurenbo/visible_samples"] % 16 for epoch in made.state.log_history if "kakurenbo/lr_scale" in epoch
        }
        graphs[epochs] = counters["stats"]["unique_graphs"], len(sizes)
    assert graphs[3][0] == graphs[7][0] <= 4
    assert graphs[7][1] > 1, "the last batches have other sizes"


def test_measuring_what_a_compiled_model_returns_does_not_compile_it_anew():
    torch._dynamo.reset()
    counters.clear()
    model = torch.compile(nn.Linear(3, 3), backend="eager")
    for _ in range(4):
        with returned_by(model) as outputs:
            returned = model(torch.ones(2, 3))
        assert outputs[-1] is returned
    assert counters["stats"]["unique_graphs"] == 1
