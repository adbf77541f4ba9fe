"""The report: it is built from whatever a training leaves, fetches nothing, and says what it lacks."""

import json
import re
import shutil
import sys
from functools import partial

import datasets
import numpy as np
import pytest
import torch
from report_toy import NAMES, pictures, read, trainer_of_pictures
from torch import nn

from hf_kakurenbo import load_ledger
from hf_kakurenbo.data.labels import labels_of
from hf_kakurenbo.hiding.checkpoint import LEDGER_NAME
from hf_kakurenbo.hiding.saved_ledger import save_ledger
from hf_kakurenbo.reporting import read_run, report, write_report
from hf_kakurenbo.reporting.dataset_by_name import load_by_name
from hf_kakurenbo.reporting.examples import show
from hf_kakurenbo.trainer.predictions import predict
from processes import run_ranks
from stream_toy import streamed
from toy import NUM_FEATURES, NUM_SAMPLES, TextClassifier, make_trainer, pad, samples, texts, trained

ALL = ["Summary", "Warnings", "By epoch", "Is it safe?", "The samples", "By class"]
GALLERIES = ["Hidden most often", "Never hidden, with the highest loss"]


@pytest.fixture(autouse=True)
def quick(request, monkeypatch):
    """Charts take seconds to draw: only those tests have them that ask for the fixture `drawn`."""
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr(report, "_charts", lambda *args: {})


@pytest.fixture
def drawn():
    """With charts."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A training with everything, its checkpoint of the last epoch and its report."""
    trainer = trainer_of_pictures(tmp_path_factory.mktemp("finished"), save_strategy="epoch", save_total_limit=1)
    trainer.train()
    return trainer


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of its folder."""
    shutil.copytree(finished.args.output_dir, tmp_path / "out")
    return tmp_path / "out"


def assert_is_sound(page):
    """What holds for every report: nothing is fetched, everything is named, headings do not skip a level."""
    [html] = page.all("html")
    assert html["lang"] == "en"
    assert any(meta.get("name") == "viewport" for meta in page.all("meta"))
    names = {name for name, _ in page.elements}
    assert not names & {"script", "link", "iframe", "object", "embed", "form"}
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        assert all(attributes[name].startswith("data:image/") for name in ("src", "href") if name in attributes)
    assert all(len(image["alt"]) > 8 for image in page.all("img"))
    levels = [level for level, _ in page.headings]
    assert (levels[0], levels.count("h1")) == ("h1", 1)
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert {section["aria-labelledby"] for section in page.all("section")} == set(identifiers)
    assert all(heading.get("scope") in ("col", "row") for heading in page.all("th"))
    assert "What is not here" in page.titles
    assert not re.search(r"\bnan\b|\binf\b|None|\{\{|<function|object at 0x", page.text)


def test_a_finished_training(finished, tmp_path, drawn):
    page = read(finished.hiding_report(tmp_path / "report.html"))
    assert_is_sound(page)
    assert page.titles[1:7] == ALL
    assert set(GALLERIES) <= set(page.titles)
    charts = [image["alt"] for image in page.all("img") if image["src"].startswith("data:image/svg+xml")]
    assert len(charts) == 7
    assert any(f"over {len(finished.ledger.history)} epochs: the fraction of samples hidden" in alt for alt in charts)
    samples_shown = [image["alt"] for image in page.all("img") if image["src"].startswith("data:image/png")]
    assert len(samples_shown) >= 24
    assert all(re.fullmatch(r"Sample \d+, labelled \w+", alt) for alt in samples_shown)
    for name in NAMES:
        assert name in page.text
    trained_samples = finished._training.run.trained_samples
    assert f"Trained on {trained_samples:,} samples in the place of {6 * NUM_SAMPLES:,}" in page.text
    assert "it could not be checked" not in page.text.lower()


def test_what_a_dataset_says_is_text_and_no_markup(finished, tmp_path):
    page = read(finished.hiding_report(tmp_path / "report.html"))
    assert "<b>bold</b> & https://example.org/" in page.text
    assert "https://" not in re.sub(r"https://example\.org/\d+", "", (tmp_path / "report.html").read_text())


def test_what_it_left_in_its_folder_gives_the_same_report(finished, folder, drawn):
    run = read_run(folder)
    assert (run.epochs_done, run.finished, len(run.ledger.history)) == (6, True, 6)
    asks = partial(predict, finished, finished._training)  # which has no file of its own
    written = write_report(run, folder / "again.html", pictures(), predict=asks).read_text()
    direct = finished.hiding_report(folder / "direct.html").read_text()
    assert written == direct.replace(finished.args.output_dir, run.source)


def test_without_a_dataset(folder):
    page = read(write_report(read_run(folder), folder / "report.html"))
    assert_is_sound(page)
    assert "By class" not in page.titles
    assert set(GALLERIES) <= set(page.titles)
    assert "give the training dataset (--dataset)" in page.text


def test_a_saved_model_alone(finished, tmp_path):
    finished.save_model(tmp_path / "model")
    run = read_run(tmp_path / "model")
    assert run.ledger.num_hidden == finished.ledger.num_hidden
    page = read(write_report(run, tmp_path / "report.html"))
    assert_is_sound(page)
    assert "By epoch" in page.titles
    assert f"Trained on {finished._training.run.trained_samples:,} samples" in page.text


def test_a_model_that_was_saved_before_the_training_went_on(folder):
    earlier = read_run(folder).ledger
    earlier.hide(torch.zeros(NUM_SAMPLES, dtype=torch.bool))
    save_ledger(folder, earlier, {"epoch": 0, "trainer": {"step": 1}})
    assert "checkpoint-" in read_run(folder).source
    save_ledger(folder, earlier, {"epoch": 8, "trainer": {"step": 10_000}})
    assert read_run(folder).source == str(folder)


def test_a_training_that_was_killed_and_one_that_was_resumed(tmp_path):
    options = {"num_train_epochs": 6, "learning_rate": 0.05, "ledger_history": True}
    trained(tmp_path, save_strategy="steps", save_steps=5, **options)
    # What a kill in the middle of an epoch, while a checkpoint is written, leaves: that one has no state yet.
    for checkpoint in tmp_path.glob("checkpoint-*"):
        step = int(checkpoint.name.rpartition("-")[2])
        if step > 45:
            shutil.rmtree(checkpoint)
        elif step == 45:
            (checkpoint / "trainer_state.json").unlink()
    left = read_run(tmp_path)
    assert left.source.endswith("checkpoint-40")
    assert left.finished is False
    assert left.numbers["epoch_finished"] is False
    assert 0 < left.epochs_done < 6
    assert len(left.ledger.history) == left.epochs_done
    assert len(load_ledger(tmp_path).history) == left.epochs_done
    page = read(write_report(left, tmp_path / "killed.html", samples()))
    assert_is_sound(page)
    assert f"after {left.steps[0]} of {left.steps[1]} updates" in page.text
    resumed = make_trainer(tmp_path, **options)
    resumed.train(resume_from_checkpoint=True)
    page = read(resumed.hiding_report(tmp_path / "resumed.html"))
    assert_is_sound(page)
    assert page.titles[1:7] == ALL
    assert "is not finished" not in page.text
    assert f"in the place of {6 * NUM_SAMPLES:,}" in page.text


def test_before_the_first_epoch_ends(tmp_path):
    trainer = make_trainer(tmp_path, max_steps=3, save_strategy="steps", save_steps=2, ledger_history=True)
    trainer.train()
    run = read_run(tmp_path / "checkpoint-2")
    assert run.epochs_done == 0
    page = read(write_report(run, tmp_path / "report.html"))
    assert_is_sound(page)
    assert "203 samples have no finite loss" in page.text


def test_a_stream(tmp_path):
    trainer = trained(tmp_path, dataset=streamed(), num_samples=NUM_SAMPLES, learning_rate=0.05, ledger_history=True)
    page = read(trainer.hiding_report(tmp_path / "report.html"))
    assert_is_sound(page)
    assert "By class" not in page.titles
    assert "Those of a stream cannot be had by number" in page.text
    assert "column 'sample_id' of the training stream" in page.text


def test_texts(tmp_path):
    rows = datasets.Dataset.from_list(
        [{**{k: v.tolist() for k, v in row.items()}, "text": f"text {i}"} for i, row in enumerate(texts())]
    ).with_format("torch")
    trainer = trained(
        tmp_path,
        model=TextClassifier,
        dataset=rows,
        learning_rate=0.1,
        trainer_options={"data_collator": pad},
        confidence_threshold=0.0,
    )
    page = read(trainer.hiding_report(tmp_path / "report.html"))
    assert_is_sound(page)
    assert re.search(r"text\s*text \d+", page.text)
    assert "By class" in page.titles
    assert "Is it safe?" not in page.titles
    assert "train with ledger_history=True" in page.text


class Regressor(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(NUM_FEATURES, 1)

    def forward(self, x, labels):
        predicted = self.head(x)
        return {"loss": nn.functional.mse_loss(predicted.squeeze(-1), labels), "logits": predicted}


def test_a_regression(tmp_path):
    rows = [{"x": row["x"], "labels": row["x"].sum()} for row in samples()]
    options = {"model": Regressor, "dataset": rows, "statistics_fn": "regression", "ledger_history": True}
    trainer = trained(tmp_path, save_strategy="epoch", **options)
    assert trainer.ledger.times_hidden.any()
    trainer.hiding_report(tmp_path / "report.html")
    for page in (read(tmp_path / "report.html"), read(write_report(read_run(tmp_path), tmp_path / "b.html", rows))):
        assert_is_sound(page)
        assert not {"Is it safe?", "By class"} & set(page.titles)
        assert "a regression has none" in page.text
        assert "right when last measured" not in page.text
        assert "confidence" not in page.text.lower().replace("confidence_threshold", "")


def train_on_ranks(folder):
    trainer = trainer_of_pictures(folder, per_device_train_batch_size=8, save_strategy="epoch")
    trainer.train()
    written = trainer.hiding_report(f"{folder}/report.html")
    return None if written is None else str(written)


@pytest.mark.wide
def test_two_processes(tmp_path):
    assert run_ranks(2, train_on_ranks, str(tmp_path)) == [f"{tmp_path}/report.html", None]
    page = read(tmp_path / "report.html")
    assert_is_sound(page)
    assert page.titles[1:7] == ALL


# ---- One clear line ----


def test_nothing_was_trained(tmp_path):
    with pytest.raises(ValueError, match="There is nothing to report: the trainer has not trained with hiding yet"):
        make_trainer(tmp_path).hiding_report(tmp_path / "report.html")
    with pytest.raises(ValueError, match="There is nothing to report"):
        trained(tmp_path, hiding_policy="none", num_train_epochs=1).hiding_report(tmp_path / "report.html")
    assert not list(tmp_path.glob("*.html"))


def test_a_folder_without_a_ledger(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no kakurenbo.safetensors\. Give a checkpoint folder"):
        read_run(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"is not there"):
        read_run(tmp_path / "missing")


def test_a_damaged_ledger(folder):
    [file] = folder.glob(f"checkpoint-*/{LEDGER_NAME}")
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match="is damaged"):
        read_run(folder)


def test_a_log_that_is_gone_or_damaged(folder):
    [state] = folder.glob("checkpoint-*/trainer_state.json")
    for content in ("{", None):
        state.unlink() if content is None else state.write_text(content)
        page = read(write_report(read_run(folder), folder / "report.html"))
        assert_is_sound(page)
        assert "By epoch" not in page.titles
        assert "There is no log of the epochs" in page.text


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (pictures(100), r"The dataset has 100 rows and the ledger is of 203 samples\. A sample's id is the index"),
        (pictures(seed=7), r"The dataset has other rows than the training had, or .*'x'.*Give the dataset that was"),
        (pictures().shuffle(seed=0), r"or the same in another order"),
    ],
    ids=["another length", "other rows", "another order"],
)
def test_another_dataset(folder, dataset, message):
    with pytest.raises(ValueError, match=message):
        write_report(read_run(folder), folder / "new.html", dataset)
    assert not (folder / "new.html").exists()


def test_a_dataset_that_cannot_be_compared(folder):
    other = datasets.Dataset.from_dict({"file": [f"{place}.png" for place in range(NUM_SAMPLES)]})
    page = read(write_report(read_run(folder), folder / "report.html", other))
    assert_is_sound(page)
    assert "It could not be checked that the dataset given is the one" in page.text
    assert "the dataset has no column with classes" in page.text


def test_a_label_column_that_is_not_there(folder):
    with pytest.raises(ValueError, match="has no column 'kind' with a class for each sample"):
        write_report(read_run(folder), folder / "new.html", pictures(), "kind")


def test_a_page_that_cannot_be_written_leaves_what_was_there(folder, monkeypatch):
    (folder / "report.html").write_text("earlier")
    monkeypatch.setattr(report, "_render", lambda **contents: "\ud800")
    with pytest.raises(UnicodeEncodeError):
        write_report(read_run(folder), folder / "report.html")
    assert (folder / "report.html").read_text() == "earlier"
    assert not list(folder.glob(".*"))


def test_without_matplotlib(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(RuntimeError, match=r'A report needs matplotlib: pip install "hf-kakurenbo\[report\]"'):
        write_report(read_run(folder), folder / "new.html")


# ---- Datasets by name, labels, examples ----


def test_a_dataset_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = datasets.Dataset.from_dict({"a": [3, 1, 2]})
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(tmp_path / "several")
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.to_csv(tmp_path / "rows.csv")
    rows.to_json(tmp_path / "rows.jsonl")
    for name in ("one", "several", "rows.parquet", "rows.csv", "rows.jsonl"):
        assert load_by_name(str(tmp_path / name))["a"][:] == [3, 1, 2], name
    assert len(load_by_name(str(tmp_path / "several"), "test")) == 1
    assert type(load_by_name("fractaldb-test")).__name__ == "FDSLDataset"


@pytest.mark.wide
@pytest.mark.parametrize("name", ["no/such-dataset", "rows.txt", "several"])
def test_a_dataset_that_is_not_there(tmp_path, name):
    (tmp_path / "rows.txt").write_text("a")
    rows = datasets.Dataset.from_dict({"a": [3]})
    datasets.DatasetDict({"train": rows}).save_to_disk(tmp_path / "several")
    given = name if name.startswith("no/") else str(tmp_path / name)
    with pytest.raises(ValueError, match=r"The dataset '.*' \(split 'dev'\) could not be loaded: .+") as raised:
        load_by_name(given, "dev")
    assert "\n" not in str(raised.value)


def labels(dataset, column=None):
    found = labels_of(dataset, column)
    return None if found is None else [found.names[place] for place in found.values]


def test_labels():
    table = pictures(20)
    truth = [NAMES[label] for label in table["labels"]]
    assert labels(table) == truth
    assert labels(table.select(range(19, -1, -1))) == truth[::-1]
    numbers = [str(NAMES.index(name)) for name in truth]
    assert labels(samples(20)) == numbers
    # Several for each sample are no class.
    assert labels([{"labels": torch.tensor([0.5, 0.5])}] * 4) is None
    assert labels(datasets.Dataset.from_dict({"labels": [[1, 2], [3]]})) is None
    assert labels(torch.utils.data.Subset(samples(20), [3, 1])) == [numbers[3], numbers[1]]
    joined = torch.utils.data.ConcatDataset([samples(20), torch.utils.data.Subset(samples(20), [5, 0])])
    assert labels(joined) == [*numbers, numbers[5], numbers[0]]
    places = torch.tensor([int(sample["labels"]) for sample in samples(20)])
    assert labels(torch.utils.data.TensorDataset(torch.zeros(20, 3), places)) == numbers
    words = datasets.Dataset.from_dict({"kind": ["a", "b", "a", "b"], "label": [0.5, 1.5, 2.5, 3.5]})
    assert labels(words, "kind") == ["a", "b", "a", "b"]
    assert labels(words) is None, "numbers of a regression are no classes"
    assert labels(datasets.Dataset.from_dict({"label": list(range(10))})) is None, "nor are ids"
    assert labels([object()] * 4) is None


def test_a_masked_label_is_no_class():
    features = datasets.Features({"label": datasets.ClassLabel(names=["a", "b"])})
    found = labels_of(datasets.Dataset.from_dict({"label": [0, 1, -1]}, features=features))
    assert found.values.tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("row", "has_image", "fields"),
    [
        ({"pixel_values": torch.rand(3, 8, 8), "labels": torch.tensor(2)}, True, [("labels", "2")]),
        ((np.zeros((28, 28), np.uint8), 7), True, [("1", "7")]),
        ({"x": np.arange(3.0), "y": 0.123456789}, False, [("x", "0, 1, 2"), ("y", "0.123457")]),
        ({"a": "x" * 400}, False, [("a", "x" * 279 + "…")]),
        (
            {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
            False,
            [("messages", "user: hi\nassistant: ho")],
        ),
        ({"input_ids": list(range(5))}, False, [("input_ids", "0, 1, 2, 3, 4")]),
        ({"embedding": torch.zeros(4, 100, 100, 3)}, False, [("embedding", "(4, 100, 100, 3) torch.float32")]),
        ("a text", False, [("value", "a text")]),
        ({"missing": None}, False, [("missing", "None")]),
    ],
    ids=["pixels", "tuple", "numbers", "long text", "chat", "tokens", "tensor", "bare", "none"],
)
def test_what_is_shown_of_a_row(row, has_image, fields):
    shown = show([row], 0)
    assert (shown.image is not None) == has_image
    assert shown.fields == fields


def test_a_row_that_cannot_be_read_is_no_end():
    class Broken:
        def __getitem__(self, index):
            raise OSError("no such file")

    assert show(Broken(), 3).fields == [("not shown", "OSError: no such file")]


def test_a_transform_is_passed_by():
    table = pictures(3).with_transform(lambda rows: {"nothing": [0] * len(rows["labels"])})
    shown = show(table, 1)
    assert shown.image is not None
    assert ("labels", f"{NAMES[pictures(3)['labels'][1]]} ({pictures(3)['labels'][1]})") in shown.fields


def test_the_log_of_a_checkpoint_is_trainers(folder):
    [state] = folder.glob("checkpoint-*/trainer_state.json")
    assert read_run(folder).log == json.loads(state.read_text())["log_history"]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.04, "0.0 s"), (59.94, "59.9 s"), (-75, "−1 min"), (3599, "1 h 0 min"), (7320, "2 h 2 min")],
)
def test_a_duration_is_read_at_a_glance(seconds, expected):
    assert report._duration(seconds) == expected


@pytest.mark.parametrize(
    ("loss", "expected"), [(-0.0, "< 0.0001"), (1.2e-7, "< 0.0001"), (0.00123456, "0.00123"), (13.27, "13.3")]
)
def test_a_loss_is_short(loss, expected):
    assert report._loss(np.float32(loss)) == expected
