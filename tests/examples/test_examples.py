"""The example scripts, run as a user runs them: in processes of their own, without a network, reduced to seconds."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

EXAMPLES = Path(__file__).parents[2] / "examples"
IMAGES, TEXTS = "image_classification.py", "text_classification.py"
OUTPUT = {IMAGES: "outputs/digits", TEXTS: "outputs/python_source"}
CLASSES = {IMAGES: 10, TEXTS: 9}
AUTO_MODEL = {IMAGES: AutoModelForImageClassification, TEXTS: AutoModelForSequenceClassification}

# Without moving back, as many are hidden from the second epoch on as the schedule lets, whatever the model has learnt.
SMALL = ["--max_train_samples", "120", "--max_eval_samples", "40", "--move_back", "false"]
# Of 120 samples: 0 hidden (the warm-up), then 30 % × 0.8, then 30 % × 0.6.
THREE_EPOCHS = ["--num_train_epochs", "3"]
TRAINED, REFRESHED = 120 + (120 - 28) + (120 - 21), 28

PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
TITLES = f"{'with hiding':>42}{'without hiding':>18}"


def environment(folder, **more):
    """A machine with one thread, no GPU, no network and nothing in its caches."""
    proxies = dict.fromkeys(PROXIES, "http://127.0.0.1:9")
    own = {"HF_HOME": str(folder / "cache"), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    return {**os.environ, **proxies, **own, "HF_HUB_OFFLINE": "1", **more}


def command(script, *options, launcher=()):
    return [sys.executable, *map(str, launcher), str(EXAMPLES / script), *map(str, options)]


def call(arguments, folder, **more):
    return subprocess.run(arguments, cwd=folder, env=environment(folder, **more), capture_output=True, text=True)


def together(commands, folder, **more):
    """The finished processes, two of them running at a time."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda arguments: call(arguments, folder, **more), commands))


def table(output):
    """The final table: from the name of a row to its cells; and the line below it."""
    _, found, rest = output.partition(f"{TITLES}\n")
    assert found, "there is no table"
    assert TITLES not in rest, "there are two tables"
    rows = [re.split(r"\s{2,}", line) for line in rest.splitlines()[1:5]]
    return {name: cells for name, *cells in rows}, rest.splitlines()[6]


def results(folder, name="all_results.json"):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def steps_saved(folder):
    return sorted(int(state.parent.name.rpartition("-")[2]) for state in folder.glob("checkpoint-*/trainer_state.json"))


# ---- The jobs that run when nothing is said ----


@pytest.fixture(scope="module")
def builtin(tmp_path_factory):
    """Both built-in jobs, run once in one folder: from the script to what it said, and the folder."""
    folder = tmp_path_factory.mktemp("builtin")
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        proxies = dict.fromkeys(PROXIES, address)
        # Online, so that nothing but the scripts themselves keeps them from asking the network.
        commands = [command(script, *SMALL, *THREE_EPOCHS) for script in (IMAGES, TEXTS)]
        done = together(commands, folder, **proxies, HF_HUB_OFFLINE="0")
        proxy.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            proxy.accept()
            pytest.fail("a built-in job asked the network")
    for each in done:
        assert each.returncode == 0, each.stderr
    return dict(zip((IMAGES, TEXTS), done, strict=True)), folder


@pytest.mark.parametrize("script", [IMAGES, TEXTS])
def test_the_table_says_what_the_files_say(builtin, script):
    done, folder = builtin
    rows, saved = table(done[script].stdout)
    hiding, plain = results(folder / OUTPUT[script]), results(folder / OUTPUT[script] / "without_hiding")
    assert list(rows) == ["accuracy", "samples backpropagated", "samples forward-only", "wall time"]
    assert rows["accuracy"] == [f"{each['eval_accuracy']:.2%}" for each in (hiding, plain)]
    assert rows["samples backpropagated"] == [str(hiding["kakurenbo/trained_samples"]), "360"] == [str(TRAINED), "360"]
    assert rows["samples forward-only"] == [str(hiding["kakurenbo/refreshed_samples"]), "0"] == [str(REFRESHED), "0"]
    for cell, each in zip(rows["wall time"], (hiding, plain), strict=True):
        assert re.fullmatch(rf"{each['train_runtime']:.1f} s ± \d+%", cell)
    fewer = [1 - TRAINED / 360, 1 - (TRAINED + REFRESHED) / 360]
    assert saved == "{:.1%} fewer samples backpropagated, {:.1%} fewer forward passes.".format(*fewer)
    assert "kakurenbo/trained_samples" not in plain


@pytest.mark.parametrize("script", [IMAGES, TEXTS])
def test_the_log_says_what_the_table_says(builtin, script):
    done, folder = builtin
    hidden = {}
    for title in (".", "without_hiding"):
        state = results(folder / OUTPUT[script] / title, "trainer_state.json")
        shares = [entry.get("kakurenbo/visible_samples") for entry in state["log_history"] if "loss" in entry]
        hidden[title] = [entry for entry in state["log_history"] if "kakurenbo/visible_samples" in entry]
        assert state["epoch"] == 3
        assert len(shares) == 3
    assert sum(entry["kakurenbo/visible_samples"] for entry in hidden["."]) == TRAINED
    assert hidden["without_hiding"] == []
    assert re.findall(r"hidden +([\d.]+)%", done[script].stdout) == ["0.0", "23.3", "17.5"]


@pytest.mark.parametrize("script", [IMAGES, TEXTS])
def test_the_output_is_quiet_and_fits_80_columns(builtin, script):
    done, _ = builtin
    assert [line for line in done[script].stdout.splitlines() if len(line) > 80] == []
    assert done[script].stdout.startswith("World size 1 | F = 0.3 | global batch 32 | seed 42 | cpu\n")
    assert "it/s" not in done[script].stderr
    assert "examples/s" not in done[script].stderr


@pytest.mark.parametrize("script", [IMAGES, TEXTS])
def test_what_is_saved_is_what_example_scripts_save_and_loads_back(builtin, script):
    _, folder = builtin
    for saved in (folder / OUTPUT[script], folder / OUTPUT[script] / "without_hiding"):
        for name in ("train_results.json", "eval_results.json", "trainer_state.json", "model.safetensors"):
            assert (saved / name).is_file()
        parts = {**results(saved, "train_results.json"), **results(saved, "eval_results.json")}
        assert {**results(saved), "total_flos": 0} == {**parts, "total_flos": 0}
        model, loading = AUTO_MODEL[script].from_pretrained(saved, output_loading_info=True)
        assert model.config.num_labels == CLASSES[script] == len(model.config.label2id)
        assert not loading["missing_keys"]
        assert not loading["unexpected_keys"]
        assert not loading["mismatched_keys"]
    if script == TEXTS:
        tokens = AutoTokenizer.from_pretrained(saved)("import logging")["input_ids"]
        assert len(tokens) >= 4
        assert max(tokens) < model.config.vocab_size


# ---- Interrupted ----


@pytest.mark.wide
def test_interrupted_and_said_again(tmp_path):
    saving = ["--save_strategy", "epoch", "--save_total_limit", "2", "--resume_from_checkpoint", "last"]
    said = command(IMAGES, *SMALL, *saving, "--num_train_epochs", 20, "--output_dir", "out", "--compare", "false")
    process = subprocess.Popen(
        said,
        cwd=tmp_path,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background of a shell have it switched off, and their children with them.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 200
    while len(steps_saved(tmp_path / "out")) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode == -signal.SIGINT, errors
    assert "KeyboardInterrupt" in errors
    assert "out holds no checkpoint yet: the training starts at its beginning." in output
    assert "accuracy" not in output

    steps = steps_saved(tmp_path / "out")[-1]
    epochs_done = results(tmp_path / "out" / f"checkpoint-{steps}", "trainer_state.json")["epoch"]
    # As if it had been interrupted while it saved: Trainer writes the state last.
    (tmp_path / "out" / f"checkpoint-{steps + 1}").mkdir(exist_ok=True)
    done = call(said, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Training with hiding, from out/checkpoint-{steps}\n" in done.stdout
    epochs = [float(epoch) for epoch in re.findall(r"^epoch +([\d.]+) of 20 ", done.stdout, re.MULTILINE)]
    assert epochs == list(range(int(epochs_done) + 1, 21))
    found = results(tmp_path / "out")
    # 20 epochs: 0 hidden in 1 of them, then 36 in 5, 28 in 6, 21 in 4, 14 in 4; those of the last are not refreshed.
    assert found["kakurenbo/trained_samples"] == 20 * 120 - 5 * 36 - 6 * 28 - 4 * 21 - 4 * 14
    assert found["kakurenbo/refreshed_samples"] == 5 * 36 + 6 * 28 + 4 * 21 + 3 * 14
    assert re.search(r"^samples backpropagated +1,912$", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1].startswith("The training with hiding was resumed: its wall time is ")


# ---- Data and models of one's own ----


def make_image_folder(folder):
    """Handwritten digits in two folders: even and odd."""
    pixels, labels = load_digits(return_X_y=True)
    for name in ("even", "odd"):
        (folder / name).mkdir(parents=True)
    for index, (picture, label) in enumerate(zip(pixels[:60].reshape(-1, 8, 8), labels, strict=False)):
        Image.fromarray((picture * 15).astype(np.uint8)).save(folder / ("even", "odd")[label % 2] / f"{index}.png")
    return folder


def make_vision_transformer(folder):
    """A model and an image processor of Transformers' own, with another number of classes than the data have."""
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=12,
        patch_size=4,
        num_labels=5,
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 12, "width": 12}).save_pretrained(folder)
    return folder


def make_table_folder(folder):
    """Reviews in two .csv files, as `load_dataset` reads a folder."""
    folder.mkdir()
    for split, count in {"train": 40, "test": 10}.items():
        rows = [f"{'good' if index % 2 else 'bad'} number {index},{1 + 4 * (index % 2)}" for index in range(count)]
        (folder / f"{split}.csv").write_text("review,stars\n" + "\n".join(rows), encoding="utf-8")
    return folder


@pytest.mark.wide
def test_data_and_models_in_folders(builtin, tmp_path):
    _, jobs = builtin
    options = {
        "dataset_name": str(make_table_folder(tmp_path / "reviews")),
        "text_column_name": "review",
        "label_column_name": "stars",
        "model_name_or_path": str(jobs / OUTPUT[TEXTS]),
        "max_seq_length": 16,
        "output_dir": "texts",
        "num_train_epochs": 2,
        "move_back": False,
        "report_to": "none",
    }
    (tmp_path / "options.json").write_text(json.dumps(options), encoding="utf-8")
    images = [
        *("--train_dir", make_image_folder(tmp_path / "pictures")),
        *("--model_name_or_path", make_vision_transformer(tmp_path / "model")),
        *("--output_dir", "images", "--num_train_epochs", 2, "--move_back", "false", "--report_to", "none"),
    ]
    done = together([command(IMAGES, *images), command(TEXTS, "options.json")], tmp_path)
    for each in done:
        assert each.returncode == 0, each.stderr
        assert "with hiding\n-----" in each.stdout
        assert "without hiding" not in each.stdout

    pictures, reviews = results(tmp_path / "images"), results(tmp_path / "texts")
    # Nine of the 60 pictures were split off for validation; the reviews have a split for that.
    assert pictures["kakurenbo/trained_samples"] == 51 + (51 - 12)
    assert pictures["eval_accuracy"] * 9 == pytest.approx(round(pictures["eval_accuracy"] * 9))
    assert reviews["kakurenbo/trained_samples"] == 40 + (40 - 9)
    assert reviews["eval_accuracy"] * 10 == pytest.approx(round(reviews["eval_accuracy"] * 10))
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "images")
    assert model.config.id2label == {0: "even", 1: "odd"}
    assert model.config.image_size == 12
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "texts").config.id2label == {0: "1", 1: "5"}


# ---- Two processes ----


@pytest.mark.wide
def test_two_processes_train_together(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = EXAMPLES / "accelerate_configs" / "two_cpu_processes.yaml"
    launcher = ["-m", "accelerate.commands.launch", "--config_file", config, "--main_process_port", port]
    done = call(command(IMAGES, *SMALL, *THREE_EPOCHS, launcher=launcher), tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^World size (\d+) \| .* \| global batch (\d+) ", done.stdout, re.MULTILINE) == [("2", "64")]
    rows, _ = table(done.stdout)
    assert rows["samples backpropagated"] == [str(TRAINED), "360"]
    assert rows["samples forward-only"] == [str(REFRESHED), "0"]
    assert rows["accuracy"][0] == f"{results(tmp_path / OUTPUT[IMAGES])['eval_accuracy']:.2%}"
    # Two batches of 64 in each epoch, however many of the 120 are visible: more than 64 always are.
    assert results(tmp_path / OUTPUT[IMAGES], "trainer_state.json")["global_step"] == 6


# ---- What is wrong is said ----


WRONG = {
    "max_hidden_fraction=1.5 is not in [0, 1)": [IMAGES, "--max_hidden_fraction", "1.5"],
    "timm has no network 'test_resnets'; the nearest: test_resnet": [IMAGES, "--timm_model", "test_resnets"],
    "No model is named: give --model_name_or_path or --timm_model.": [IMAGES, "--train_dir", "empty"],
    "'empty' is no folder with images": [IMAGES, "--train_dir", "empty", "--timm_model", "test_resnet"],
    "The data has no column 'text'; it has: review, label. Name the right one with --text_column_name.": [
        *(TEXTS, "--train_file", "texts.csv")
    ],
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_arguments_end_with_a_message(message, last_words, tmp_path, monkeypatch):
    (tmp_path / "texts.csv").write_text("review,label\n" + "good,1\nbad,0\n" * 10, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    said = last_words(*WRONG[message])
    assert ": error: " in said
    assert message in said
    assert not (tmp_path / "out").exists()


@pytest.mark.wide
def test_of_an_error_there_is_one_message_and_no_traceback(tmp_path):
    wrong = dict(list(WRONG.items())[:2])
    commands = [command(script, *options, "--output_dir", "out") for script, *options in wrong.values()]
    for message, done in zip(wrong, together(commands, tmp_path), strict=True):
        assert done.returncode not in (0, -signal.SIGINT)
        assert "Traceback" not in done.stderr
        assert message in done.stderr.splitlines()[-1], done.stderr
        assert ": error: " in done.stderr.splitlines()[-1]
        assert done.stdout == ""
    assert not (tmp_path / "out").exists()
