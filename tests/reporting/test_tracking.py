"""Histograms and samples of the ledger in the trackers: their own libraries where installed, and what may go wrong."""

import json
import random

import numpy as np
import pytest
import torch
from report_toy import collate, pictures
from transformers.integrations import TensorBoardCallback

from hf_kakurenbo import KakurenboConfig
from hf_kakurenbo.trainer import tracking
from processes import run_ranks
from toy import Classifier, losses, make_trainer

KINDS = {"never learnt", "hidden most often", "never hidden, with the highest loss"}
EPOCHS = 3


class Bare(Classifier):
    """Without a `config`, which the callbacks would ask to describe itself."""

    def __init__(self):
        super().__init__()
        del self.config


def train(folder, *trackers, callbacks=(), dataset=None, **options):
    options = {"log_hidden_samples": "epoch", "learning_rate": 0.05, "ledger_history": True, **options}
    given = {"data_collator": collate, "callbacks": list(callbacks)}
    trainer = make_trainer(
        folder / "out",
        model=Bare,
        dataset=pictures() if dataset is None else dataset,
        trainer_options=given,
        report_to=list(trackers),
        remove_unused_columns=False,
        num_train_epochs=EPOCHS,
        **options,
    )
    trainer.train()
    assert trainer._training.failed_trackers == set()
    return trainer


def assert_is_table(rows, columns, trainer):
    ledger = trainer.ledger
    assert list(columns) == tracking.COLUMNS
    assert {row[0] for row in rows} == KINDS
    for _, sample, loss, confidence, times, text in rows:
        assert loss == pytest.approx(float(ledger.loss[sample]))
        assert confidence == pytest.approx(float(ledger.confidence[sample]))
        assert times == int(ledger.times_hidden[sample])
        assert f"caption {sample} of 0" in text
    most = [row for row in rows if row[0] == "hidden most often"]
    assert most[0][4] == int(ledger.times_hidden.max())


# ---- The libraries ----


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    trainer = train(tmp_path, "tensorboard")
    [folder] = {path.parent for path in tmp_path.rglob("events.out.tfevents*")}
    found = EventAccumulator(str(folder), size_guidance={"histograms": 0, "images": 0, "tensors": 0}).Reload()
    for name in ("loss", "confidence"):
        events = found.Histograms(f"kakurenbo/{name}")
        assert len(events) == EPOCHS
        values = getattr(trainer.ledger, name).double()
        last = events[-1].histogram_value
        assert last.num == sum(last.bucket) == len(values)
        assert (last.min, last.max) == (values.min(), values.max())
        assert last.sum == pytest.approx(float(values.sum()))
    assert events[-1].step == trainer.state.global_step
    text = found.Tensors("kakurenbo/samples/text_summary")[-1].tensor_proto.string_val[0].decode()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert table[0] == tracking.COLUMNS
    assert {row[0] for row in table[2:]} == KINDS
    assert found.Images("kakurenbo/hidden_most_often")[-1].width == 6 * 96


def test_wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_SILENT", "true")
    trainer = train(tmp_path, "wandb")
    summary = dict(wandb.run.summary)
    wandb.finish()
    for name in ("loss", "confidence"):
        assert summary[f"kakurenbo/{name}"]["_type"] == "histogram"
    tables = sorted(tmp_path.rglob("kakurenbo/*.table.json"), key=lambda path: path.stat().st_mtime_ns)
    assert len(tables) == EPOCHS
    table = json.loads(tables[-1].read_text())
    assert_is_table(table["data"], table["columns"], trainer)
    assert len(list(tmp_path.rglob("kakurenbo/hidden_most_often*.png"))) == EPOCHS - 1  # nothing is hidden in the first


def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "mlruns").as_uri())
    trainer = train(tmp_path, "mlflow")
    [folder] = tmp_path.glob("mlruns/*/*/artifacts/kakurenbo")
    step = trainer.state.global_step
    assert len(list(folder.glob("samples-*.json"))) == EPOCHS
    table = json.loads((folder / f"samples-{step}.json").read_text())
    assert_is_table(table["data"], table["columns"], trainer)
    histogram = json.loads((folder / f"loss-{step}.json").read_text())
    assert sum(histogram["counts"]) == len(trainer.ledger)
    assert (folder / f"hidden_most_often-{step}.png").stat().st_size > 100


def test_trackio(tmp_path, monkeypatch):
    pytest.importorskip("trackio")
    from trackio import utils
    from trackio.sqlite_storage import SQLiteStorage

    for module in ("trackio.utils", "trackio.sqlite_storage"):
        monkeypatch.setattr(f"{module}.TRACKIO_DIR", tmp_path / "trackio", raising=False)
    assert utils is not None
    trainer = train(tmp_path, "trackio", project="a_test", run_name="first")
    logs = SQLiteStorage.get_logs("a_test", "first")
    tables = [entry["kakurenbo/samples"] for entry in logs if "kakurenbo/samples" in entry]
    histograms = [entry["kakurenbo/loss"] for entry in logs if "kakurenbo/loss" in entry]
    assert len(tables) == len(histograms) == EPOCHS
    assert sum(histograms[-1]["values"]) == len(trainer.ledger)


# ---- Whatever the library ----


class Writer:
    """In the place of TensorBoard's: notes what it gets, or raises."""

    def __init__(self, fails=False):
        self.fails, self.noted = fails, []

    def __getattr__(self, name):
        def note(*args, **kwargs):
            if self.fails and name == "add_histogram_raw":
                raise OSError("the disk is full")
            self.noted.append(name)

        return note


class Callback(TensorBoardCallback):
    """With that writer, on every rank, whether TensorBoard is installed or not."""

    def __init__(self, fails=False):
        self._SummaryWriter, self.tb_writer, self.logging_dir = None, Writer(fails), None

    def on_train_end(self, args, state, control, **kwargs):
        pass


@pytest.mark.parametrize(("when", "times"), [("end", 1), ("epoch", EPOCHS), ("no", 0)])
def test_when_it_is_done(when, times, tmp_path):
    callback = Callback()
    train(tmp_path, callbacks=[callback], log_hidden_samples=when)
    assert callback.tb_writer.noted.count("add_histogram_raw") == 2 * times


def test_training_data_go_to_no_tracker_by_default():
    assert KakurenboConfig(output_dir="out").log_hidden_samples == "no"


def test_without_a_tracker_nothing_is_made(tmp_path, monkeypatch):
    def fail(*args):
        raise AssertionError("it was made for nobody")

    monkeypatch.setattr(tracking, "tracked_samples", fail)
    train(tmp_path)


def test_a_tracker_that_fails_is_reported_once_and_changes_nothing(tmp_path, caplog):
    plain = train(tmp_path / "plain", log_hidden_samples="no")
    trainer = make_trainer(
        tmp_path / "fails",
        model=Bare,
        dataset=pictures(),
        trainer_options={"data_collator": collate, "callbacks": [Callback(fails=True)]},
        remove_unused_columns=False,
        num_train_epochs=EPOCHS,
        learning_rate=0.05,
        ledger_history=True,
        log_hidden_samples="epoch",
    )
    trainer.train()
    told = [record.getMessage() for record in caplog.records if "could not log histograms" in record.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("TensorBoard could not log histograms and samples of the ledger (OSError: the disk is")
    assert losses(trainer) == losses(plain)


class Noisy(torch.utils.data.Dataset):
    """Rows that draw from every global generator when they are made."""

    def __init__(self):
        self.rows = pictures().with_format(None).to_list()

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        noise = random.random() + np.random.rand() + float(torch.rand(()))
        row = self.rows[index]
        return {**row, "x": [number + 0.1 * noise for number in row["x"]]}


def test_it_leaves_no_trace_in_the_random_generators(tmp_path):
    found = []
    for when in ("no", "epoch"):
        random.seed(0)
        np.random.seed(0)
        callback = Callback()
        found.append(losses(train(tmp_path / when, callbacks=[callback], dataset=Noisy(), log_hidden_samples=when)))
    assert "add_text" in callback.tb_writer.noted
    assert found[0] == found[1]


def train_on_a_rank(folder):
    from pathlib import Path

    callback = Callback()
    train(Path(folder), callbacks=[callback], log_hidden_samples="end")
    return callback.tb_writer.noted.count("add_histogram_raw")


@pytest.mark.wide
def test_the_first_rank_alone_logs(tmp_path):
    assert run_ranks(2, train_on_a_rank, str(tmp_path)) == [2, 0]


def test_another_value_is_refused():
    with pytest.raises(ValueError, match=r"log_hidden_samples='epochs' must be one of 'end', 'epoch', 'no'\. Did you"):
        KakurenboConfig(output_dir="out", log_hidden_samples="epochs")
