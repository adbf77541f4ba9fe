"""What hiding costs a device: its kernels, copies and synchronisations in each step and at the end of each epoch.

Each case is trained with Trainer and with hiding on the stand-in device, and with hiding on the CPU: per step the host
must not wait once more than with Trainer, and what is recorded must be what the CPU records.
"""

import tempfile
from functools import cache, partial

import pytest
import torch
from torch.nn import functional
from transformers import Trainer

import task_toy
from hf_kakurenbo.hiding.recorder import Recorder
from hf_kakurenbo.hiding.statistics import tokens
from standin_device import report
from standin_training import at_end, before_first_step, own, read_back, sent, steps, train_on_standin, waiting_for
from stream_toy import streamed
from toy import NUM_CLASSES, NUM_SAMPLES, LinearClassifier, make_trainer, samples

BATCH, COUNT = 8, 60
OPTIONS = {
    "num_train_epochs": 2,
    "per_device_train_batch_size": BATCH,
    "optim": "sgd",
    "accelerator_config": {"non_blocking": True},  # so that not even the batches are waited for
}
# Something is hidden from the first epoch on, by the loss alone, and refreshed at the end of the first of two.
HIDING = {"initial_pass": True, "hiding_warmup_epochs": 0, "move_back": False}
WEIGHING = {"initial_pass": True, "hiding_warmup_epochs": 0, "hiding_policy": "infobatch"}


class LinearModel(LinearClassifier):
    """Of any loss whose labels have as many entries as its logits."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss

    def forward(self, x, labels):
        logits = self.head(x)
        return {"loss": self.loss(logits, labels), "logits": logits}


def with_labels(chance):
    """The toy samples, each class with its chance."""
    classes = functional.one_hot(torch.stack([sample["labels"] for sample in samples(COUNT)]), NUM_CLASSES)
    labels = (1 - chance) / (NUM_CLASSES - 1) * (1 - classes) + chance * classes
    return [{**sample, "labels": label} for sample, label in zip(samples(COUNT), labels, strict=True)]


def toy(folder, plain, hiding=HIDING, **options):
    kind, more = ([Trainer], {}) if plain else ([], hiding)
    return make_trainer(folder, *kind, **{"model": LinearClassifier, "dataset": samples(COUNT), **options, **more})


def stream(folder, plain, **options):
    length = {"max_steps": 40} if plain else {"num_samples": NUM_SAMPLES}
    return toy(folder, plain, dataset=streamed(), **length, **options)


def pad_to_nine(rows):
    """One shape for all batches, so that the logits of several can wait for each other."""
    batch = task_toy.pad(rows)
    for name, column in batch.items():
        if column.ndim == 2:
            batch[name] = functional.pad(column, (0, 9 - column.shape[1]), value=-100 if name == "labels" else 0)
    return batch


def of_task(name, folder, plain, **options):
    made = task_toy.make(task_toy.CASES[name], folder, plain=plain, **({} if plain else HIDING), **options)
    made.data_collator = pad_to_nine
    return made


OF_TASKS = ["token classification", "causal language modelling", "question answering", "segmentation"]
TRAININGS = {
    "classification": toy,
    "soft labels": partial(toy, model=partial(LinearModel, functional.cross_entropy), dataset=with_labels(0.7)),
    "several labels": partial(
        toy, model=partial(LinearModel, functional.binary_cross_entropy_with_logits), dataset=with_labels(1.0)
    ),
    "regression": partial(toy, model=partial(LinearModel, functional.mse_loss), dataset=with_labels(2.0)),
    "weights": partial(toy, hiding=WEIGHING),
    "stream": stream,
    **{name: partial(of_task, name) for name in OF_TASKS},
}
# How many kernels more than Trainer's a training step may take: logits that wait are copied, those of spans put
# together before; weights make the loss, and its gradient, of each sample.
WAITING = {
    "classification": 1,
    "soft labels": 1,
    "several labels": 1,
    "regression": 1,
    "token classification": 1,
    "causal language modelling": 1,
    "question answering": 3,
    "weights": 22,
    "stream": 1,
}
# Logits of more than a megabyte do not wait: their statistics are computed in each step. Those of tokens come in four
# pieces here, those of images one by one, eight of them.
AT_ONCE = {"classification": 18, "token classification": 40, "segmentation": 130}
BOTH = [(name, True) for name in WAITING] + [(name, False) for name in AT_ONCE]


@pytest.fixture(autouse=True)
def compared_before_the_first_step(monkeypatch):
    """The first batches are compared with the model's loss, which waits: all within the pass over all samples."""
    monkeypatch.setattr("hf_kakurenbo.trainer.loss_check._BATCHES", 4)


@cache
def steps_of_trainer(name):
    """What Trainer does in each step."""
    with tempfile.TemporaryDirectory() as folder:
        return steps(train_on_standin(TRAININGS[name], folder, plain=True, **OPTIONS)[1])


def kernels(events):
    return [event for event in events if event.kind == "kernel"]


@pytest.mark.parametrize(("name", "waiting"), BOTH, ids=lambda value: {True: "", False: "at once"}.get(value, value))
def test_a_step_waits_for_nothing_and_takes_few_kernels(tmp_path, monkeypatch, name, waiting):
    if not waiting:
        monkeypatch.setattr(Recorder, "_WAITING_ELEMENTS", 0)
        monkeypatch.setattr(tokens, "_PIECE", 64)
    trainer, device = train_on_standin(TRAININGS[name], tmp_path / "device", plain=False, **OPTIONS)
    plain, hiding = steps_of_trainer(name), steps(device)
    # In each step as much as Trainer, and beside it one small copy to the device: the ids, with the rest of the batch.
    (waits,) = {len(waiting_for(step)) for step in plain}
    (copies,) = {len(sent(step)) for step in plain}
    few = max(len(kernels(step)) for step in plain) + (WAITING if waiting else AT_ONCE)[name]
    for step in hiding:
        assert len(waiting_for(step)) == waits, report(waiting_for(step))
        assert len(sent(step)) == copies + 1, report(sent(step))
        assert len(kernels(step)) <= few, report(own(step))
    _require_that_only_statistics_are_read_back(trainer, device)
    _require_what_the_cpu_records(trainer, TRAININGS[name](tmp_path / "cpu", plain=False, **OPTIONS))


@pytest.mark.wide
@pytest.mark.parametrize(
    ("more_kernels", "more_copies", "options"),
    [(20, 1, {}), (29, 2, {"padding_free": True, "max_length": None})],
    ids=["padded", "end to end"],
)
def test_so_does_a_step_of_trl(tmp_path, more_kernels, more_copies, options):
    """Samples that lie end to end bring the sample of each token along, too."""
    test_trl = pytest.importorskip("test_trl")
    options = {**OPTIONS, **options}
    _, plain = train_on_standin(test_trl.make, tmp_path / "plain", plain=True, **options)
    trainer, hiding = train_on_standin(test_trl.make, tmp_path / "hiding", plain=False, **HIDING, **options)
    assert trainer.ledger.num_hidden
    (waits,), (copies,), (few,) = ({len(of(step)) for step in steps(plain)} for of in (waiting_for, sent, kernels))
    for step in steps(hiding):
        assert len(waiting_for(step)) == waits, report(waiting_for(step))
        assert len(sent(step)) == copies + more_copies, report(sent(step))
        assert len(kernels(step)) <= few + more_kernels, report(own(step))
    _require_that_only_statistics_are_read_back(trainer, hiding)


def _require_that_only_statistics_are_read_back(trainer, device):
    """Of each measured sample 12 bytes, in two copies after each pass: the ids as integers, and the statistics."""
    run = trainer._training.run
    before = own(read_back(before_first_step(device, 0)))  # the pass over all samples, whose first batch is looked at
    copies = [event for event in before if event.kind == "copy"]
    in_steps = [event for step in [*steps(device), before_first_step(device, 1)] for event in own(read_back(step))]
    assert not in_steps, report(in_steps)
    for epoch in (0, 1):
        at_its_end = own(read_back(at_end(device, epoch)))
        assert {event.kind for event in at_its_end} == {"copy"}, report(at_its_end)
        copies += at_its_end
    passes = 4 if run.refreshed_samples > len(run.ledger) else 3
    assert [event.dtype for event in copies] == [torch.int32, torch.float32] * passes, report(copies)
    measured = run.trained_samples + run.refreshed_samples
    assert [sum(event.nbytes for event in copies[first::2]) for first in (0, 1)] == [4 * measured, 8 * measured]


def _require_what_the_cpu_records(trainer, on_cpu):
    """The same statistics, by code that may be another, however late the copies to the device came."""
    on_cpu.train()
    assert torch.equal(trainer.ledger.times_hidden, on_cpu.ledger.times_hidden)
    assert on_cpu.ledger.num_hidden
    torch.testing.assert_close(trainer.ledger.loss, on_cpu.ledger.loss)
    torch.testing.assert_close(trainer.ledger.confidence, on_cpu.ledger.confidence)
    assert torch.equal(trainer.ledger.correct, on_cpu.ledger.correct)
