"""What the samples never learnt are taken for: of the right samples, the right classes; left out where nobody knows."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from report_toy import NAMES, collate, pictures, read, trainer_of_pictures
from test_report import assert_is_sound

from hf_kakurenbo.data.labels import Labels
from hf_kakurenbo.hiding import Measurements, create_ledger
from hf_kakurenbo.reporting import figures, read_run, report, write_report
from hf_kakurenbo.reporting.confusion import Predictions, ask, confusion_of, never_learnt
from processes import run_ranks
from stream_toy import streamed
from toy import NUM_SAMPLES, make_trainer, samples

TITLE = "What the samples never learnt are taken for"
WRONG = 24


def mislabelled():
    """The pictures, the first of them with the label after theirs."""
    table = pictures()
    labels = [(label + (place < WRONG)) % len(NAMES) for place, label in enumerate(table["labels"])]
    return table.remove_columns("labels").add_column("labels", labels, feature=table.features["labels"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    trainer = make_trainer(
        folder,
        dataset=mislabelled(),
        trainer_options={"data_collator": collate},
        learning_rate=0.02,
        num_train_epochs=6,
        ledger_history=True,
        remove_unused_columns=False,
        save_strategy="epoch",
        save_total_limit=1,
    )
    trainer.train()
    return trainer


@pytest.fixture
def without_other_charts(monkeypatch):
    def charts(run, epochs, classes, safety, confusion):
        return {} if confusion is None else {"confusion": figures.confusion(confusion)}

    monkeypatch.setattr(report, "_charts", charts)


def asked(trainer):
    """What the model itself says of the samples never learnt."""
    ids = np.flatnonzero(trainer.ledger.history.never_learnt())
    batch = collate([trainer.train_dataset[place] for place in ids.tolist()])
    trainer.model.eval()
    with torch.no_grad():
        predicted = trainer.model(batch["x"])["logits"].argmax(dim=1)
    trainer.model.train()
    return ids, batch["labels"].numpy(), predicted.numpy()


def test_the_model_at_hand_is_asked(finished, tmp_path, without_other_charts):
    states = [torch.get_rng_state(), {name: tensor.clone() for name, tensor in finished.model.state_dict().items()}]
    figures_before = finished.ledger.loss.clone()
    page = read(finished.hiding_report(tmp_path / "report.html"))
    assert_is_sound(page)
    assert TITLE in page.titles
    ids, labels, predicted = asked(finished)
    assert len(ids) >= WRONG / 2
    right = int((labels == predicted).sum())
    assert f"asked for {len(ids)} of the {len(ids)} samples of “Never learnt”" in page.text
    assert f"It predicts {right} of them correctly by now" in page.text
    wrong = labels != predicted
    pairs, counts = np.unique(np.stack([labels[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    label, taken_for = (NAMES[number] for number in pairs[counts.argmax()])
    [chart] = [image["alt"] for image in page.all("img") if image["alt"].startswith("Table of")]
    assert f"{label} taken for {taken_for} ({counts.max()} samples)" in chart
    assert "not recorded" not in page.text
    # It leaves no trace.
    assert torch.equal(torch.get_rng_state(), states[0])
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in finished.model.state_dict().items())
    assert torch.equal(finished.ledger.loss, figures_before)
    assert all(module.training for module in finished.model.modules())


def test_files_alone_have_no_model(finished, tmp_path, without_other_charts):
    page = read(write_report(read_run(finished.args.output_dir), tmp_path / "report.html", mislabelled()))
    assert TITLE not in page.titles
    assert "`trainer.hiding_report(path)` asks the one at hand" in page.text


def test_a_model_that_cannot_be_asked_leaves_the_section_out(
    finished, tmp_path, without_other_charts, monkeypatch, caplog
):
    def fail(*args, **kwargs):
        raise RuntimeError("the model was freed")

    monkeypatch.setattr(finished.model, "forward", fail)
    with caplog.at_level(logging.WARNING):
        page = read(finished.hiding_report(tmp_path / "report.html"))
    assert TITLE not in page.titles
    assert "predicts no single class of a sample" in page.text
    [told] = [text for text in caplog.messages if "could not be asked" in text]
    assert "RuntimeError: the model was freed" in told


def test_a_stream_is_not_sought_through(tmp_path, without_other_charts):
    trainer = make_trainer(tmp_path, dataset=streamed(), learning_rate=0.0, num_train_epochs=2, num_samples=NUM_SAMPLES)
    trainer.train()
    page = read(trainer.hiding_report(tmp_path / "report.html"))
    assert TITLE not in page.titles
    assert "was trained on a stream" in page.text


def test_another_task_has_no_confusion(tmp_path, without_other_charts):
    rows = [{"x": row["x"], "labels": torch.nn.functional.one_hot(row["labels"], 4).float()} for row in samples()]
    trainer = make_trainer(
        tmp_path, dataset=rows, model=SoftClassifier, num_train_epochs=2, statistics_fn="soft_label_classification"
    )
    trainer.train()
    page = read(trainer.hiding_report(tmp_path / "report.html"))
    assert TITLE not in page.titles
    assert "predicts no single class of a sample" in page.text


class SoftClassifier(torch.nn.Module):
    """Takes soft labels, and learns nothing of them."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 4)
        self.config = SimpleNamespace(problem_type=None)

    def forward(self, x, labels):
        logits = self.layer(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels) * 1.0, "logits": logits}


def report_on_a_rank(folder):
    trainer = trainer_of_pictures(folder, num_train_epochs=2, learning_rate=0.001)
    trainer.train()
    path = trainer.hiding_report(f"{folder}/report.html")
    return None if path is None else TITLE in read(path).titles


@pytest.mark.wide
def test_with_several_ranks_the_first_asks(tmp_path):
    assert run_ranks(2, report_on_a_rank, str(tmp_path)) == [True, None]


# ---- The table ----


def predictions(pairs, names=None):
    labels, predicted = np.array(pairs, dtype=np.int64).T
    return Predictions(np.arange(len(pairs)), labels, predicted, names or {})


def test_the_pairs_are_counted_and_named():
    pairs = [(0, 1)] * 3 + [(1, 0)] * 2 + [(2, 0)] * 2 + [(2, 2)]
    found = confusion_of(predictions(pairs, {0: "cat", 1: "dog"}), 80, None)
    assert (found.of, found.asked, found.right) == (80, 8, 1)
    assert found.pairs == [("cat", "dog", 3), ("dog", "cat", 2), ("2", "cat", 2)]
    assert found.classes == ["cat", "dog", "2"]
    assert found.counts.tolist() == [[0, 3, 0], [2, 0, 0], [2, 0, 1]]


@pytest.mark.parametrize(("values", "named"), [([0, 1], "apple"), ([1, 0], "cat")])
def test_the_datasets_names_are_used_where_its_numbers_are_those_of_the_batches(values, named):
    labels = Labels(np.array(values), ["apple", "birch"], "labels")
    found = confusion_of(predictions([(0, 1), (1, 0)], {0: "cat", 1: "dog"}), 2, labels)
    assert found.classes[0] == named


def test_of_many_classes_the_rest_stands_together():
    pairs = [(number, (number + 1) % 30) for number in range(30) for _ in range(30 - number)]
    found = confusion_of(predictions(pairs), len(pairs), None)
    assert len(found.classes) == 13
    assert found.classes[-1] == "others"
    assert found.counts.sum() == len(pairs)
    assert found.counts[-1, -1] > 0


@pytest.mark.parametrize("history", [False, True])
def test_of_many_samples_some_are_drawn(history):
    ledger = create_ledger(5000, history=history)
    ids = torch.arange(5000)
    correct = ids % 2 == 0
    ledger.update(Measurements.of(ids.int(), torch.rand(5000), correct, torch.rand(5000)))
    if history:
        ledger.history.write(0, ledger, torch.ones(5000, dtype=torch.bool))
    some, of = never_learnt(ledger, 100)
    assert of == 2500
    assert len(set(some.tolist())) == 100
    assert (some % 2 == 1).all()
    assert np.array_equal(some, never_learnt(ledger, 100)[0])
    everything, _ = never_learnt(ledger, 2500)
    assert np.array_equal(everything, np.arange(1, 5000, 2))


def test_where_everything_is_learnt_there_is_nothing_to_say():
    ledger = create_ledger(3)
    ledger.update(Measurements.of(torch.arange(3).int(), torch.rand(3), torch.ones(3, dtype=torch.bool), torch.rand(3)))
    assert ask(ledger, None, None) == (None, "")


def test_the_chart_says_what_it_shows():
    pairs = [(0, 1)] * 3 + [(1, 0)]
    chart = figures.confusion(confusion_of(predictions(pairs, {0: "a" * 40, 1: "dog"}), 4, None))
    assert f"most often {'a' * 40} taken for dog (3 samples)" in chart.alt
    chart = figures.confusion(confusion_of(predictions([(0, 0)]), 1, None))
    assert "none is predicted wrongly" in chart.alt
