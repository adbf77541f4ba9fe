"""`hf-kakurenbo report`: one file, or one clear line."""

import pytest
import typer
from report_toy import pictures, read, trainer_of_pictures
from typer.testing import CliRunner

from hf_kakurenbo.cli.report import report
from hf_kakurenbo.reporting import report as page


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("finished")
    trainer_of_pictures(made, save_strategy="epoch", num_train_epochs=3).train()
    pictures().save_to_disk(made / "data")
    pictures(seed=4).save_to_disk(made / "other")
    return made


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setattr(page, "_charts", lambda *args: {})
    app = typer.Typer()
    app.command()(report)
    return lambda *options: CliRunner().invoke(app, [str(option) for option in options])


def test_into_the_folder_of_the_training(run, folder):
    done = run(folder)
    assert done.exit_code == 0, done.output
    assert "203 samples, 3 epochs, from " in done.output
    assert "Summary" in read(folder / "kakurenbo_report.html").titles


def test_with_its_dataset_to_another_file(run, folder, tmp_path):
    done = run(folder, "--dataset", folder / "data", "--out", tmp_path / "new" / "r.html", "--label-column", "labels")
    assert done.exit_code == 0, done.output
    assert "By class" in read(tmp_path / "new" / "r.html").titles


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["missing"], 1, "Error: missing is not there, so neither is its kakurenbo.safetensors. Give a checkpoint"),
        (["{folder}/data"], 1, "has no kakurenbo.safetensors"),
        pytest.param(
            ["{folder}", "--dataset", "no/such-dataset"],
            2,
            "Error: The dataset 'no/such-dataset' (split 'train') could",
            marks=pytest.mark.wide,  # it asks the network
        ),
        (["{folder}", "--dataset", "{folder}/other"], 2, "Error: The dataset has other rows than the training had"),
        (["{folder}", "--dataset", "{folder}/data", "--label-column", "x y"], 2, "has no column 'x y' with a class"),
    ],
    ids=["no folder", "no ledger", "no dataset", "another dataset", "no column"],
)
def test_one_clear_line(run, folder, options, code, message, tmp_path):
    done = run(*[option.replace("{folder}", str(folder)) for option in options], "--out", tmp_path / "report.html")
    assert done.exit_code == code
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "report.html").exists()
