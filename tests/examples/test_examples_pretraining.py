"""Pre-training on formulas and fine-tuning, run as a user runs it: in processes of its own, reduced to seconds."""

import re
import socket
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from test_examples import EXAMPLES, IMAGES, call, command, results, together
from transformers import AutoModelForImageClassification, ViTConfig

PRETRAIN = "pretrain_fdsl.py"
# Of 48 images, without moving back: 0 hidden (the warm-up), then 30 % × 0.8, then 30 % × 0.6.
SMALL = ["--categories", "6", "--instances", "8", "--per_device_train_batch_size", "8", "--move_back", "false"]
THREE_EPOCHS = ["--num_train_epochs", "3"]
FEW = ["--finetune_epochs", "2", "--finetune_seeds", "2", "--labels_per_digit", "3"]
TRAINED, REFRESHED = 48 + (48 - 11) + (48 - 8), 11
PRESETS = (
    *("deit-tiny-fractaldb-1k", "vit-base-rcdb-1k", "deit-tiny-visualatom-1k"),
    *("vit-base-exfractaldb-21k", "vit-base-visualatom-21k", "vit-tiny-ofdb2d-1k"),
)
PRESET = [
    *("--image_size", "32", "--max_steps", "2", "--bf16", "false", "--save_strategy", "no"),
    *("--dataloader_num_workers", "0", "--dataloader_persistent_workers", "false", "--logging_steps", "1"),
]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The job without arguments, and where it ran."""
    folder = tmp_path_factory.mktemp("tiny")
    done = call(command(PRETRAIN, *SMALL, *THREE_EPOCHS, *FEW), folder)
    assert done.returncode == 0, done.stderr
    return done.stdout, folder / "outputs" / "pretrain"


@pytest.mark.wide
def test_the_table_says_what_was_measured(tiny):
    output, folder = tiny
    hiding, found = results(folder, "train_results.json"), results(folder, "few_labels.json")
    assert list(found) == ["from scratch", "with hiding", "without hiding"]
    assert all(len(accuracies) == 2 for accuracies in found.values())
    rows = dict(re.findall(r"^(from scratch|with hiding|without hiding) +(\d.*)$", output, re.MULTILINE))
    cells = {title: re.split(r"\s{2,}", row) for title, row in rows.items()}
    for title, accuracies in found.items():
        assert cells[title][0].startswith(f"{sum(accuracies) / 2:.2%} ± ")
    assert cells["from scratch"][1:] == ["-", "-", "-"]
    assert cells["with hiding"][1:3] == [str(hiding["kakurenbo/trained_samples"]), str(TRAINED + REFRESHED)]
    assert cells["without hiding"][1:3] == ["144", "144"]
    assert hiding["kakurenbo/trained_samples"] == TRAINED
    assert hiding["kakurenbo/refreshed_samples"] == REFRESHED


@pytest.mark.wide
def test_it_fits_80_columns_and_draws_its_curves(tiny):
    output, folder = tiny
    assert [line for line in output.splitlines() if len(line) > 80] == []
    assert output.rstrip().endswith("The curves: outputs/pretrain/pretraining.png")
    with Image.open(folder / "pretraining.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 2 * picture.height > 500


@pytest.mark.wide
def test_another_script_goes_on_from_the_model(tiny, tmp_path):
    _, folder = tiny
    options = ["--model_name_or_path", folder, "--max_train_samples", "40", "--max_eval_samples", "20"]
    done = call(command(IMAGES, *options, "--num_train_epochs", "1", "--compare", "false"), tmp_path)
    assert done.returncode == 0, done.stderr
    model = AutoModelForImageClassification.from_pretrained(tmp_path / "outputs" / "digits")
    assert model.config.num_labels == 10
    before = AutoModelForImageClassification.from_pretrained(folder)
    assert before.config.num_labels == 6
    assert model.timm_model.pos_embed.shape == before.timm_model.pos_embed.shape


@pytest.mark.wide
def test_presets_models_and_augmentation(tmp_path):
    ViTConfig(image_size=32, patch_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2).save_pretrained(
        tmp_path / "vit"
    )
    commands = [
        command(PRETRAIN, "--preset", preset, "--output_dir", preset, *SMALL, *PRESET, "--timm_model", "test_vit")
        for preset in PRESETS
    ]
    plain = ["--fdsl", "rcdb-1k", "--image_size", "32", *SMALL, "--max_steps", "2", "--save_strategy", "no"]
    commands += [
        command(PRETRAIN, *plain, "--config_name", "vit", "--output_dir", "vit-out", "--streaming", "false"),
        command(PRETRAIN, *plain, "--timm_model", "test_resnet", "--augment", "true", "--output_dir", "augmented"),
    ]
    drawn = ["--streaming", "false", "--draw_device", "cpu"]
    augmented = [*plain, "--timm_model", "test_vit", "--augment", "true"]
    commands += [
        command(PRETRAIN, *augmented, "--augment_with", "pil", "--mixup", "0.8", "--output_dir", "pil"),
        command(PRETRAIN, *augmented, "--color", "true", *drawn, "--output_dir", "drawn"),
    ]
    for done in together(commands, tmp_path):
        assert done.returncode == 0, done.stderr
    for folder in (*PRESETS, "vit-out", "augmented", "pil", "drawn"):
        assert results(tmp_path / folder, "trainer_state.json")["global_step"] == 2
        assert AutoModelForImageClassification.from_pretrained(tmp_path / folder).config.num_labels == 6


@pytest.mark.wide
def test_two_processes_share_the_stream(tmp_path):
    config = EXAMPLES / "accelerate_configs" / "two_cpu_processes.yaml"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    launcher = ["-m", "accelerate.commands.launch", "--config_file", config, "--main_process_port", port]
    done = call(command(PRETRAIN, *SMALL, *THREE_EPOCHS, "--finetune", "false", launcher=launcher), tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"^World size (\d+) \| .* \| global batch (\d+) ", done.stdout, re.MULTILINE) == [("2", "16")]
    assert results(tmp_path / "outputs" / "pretrain")["kakurenbo/trained_samples"] == TRAINED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--preset", "deit-tiny"],
            "There is no preset 'deit-tiny'; there are: deit-tiny-fractaldb-1k, vit-base-rcdb-1k, "
            "deit-tiny-visualatom-1k, vit-base-exfractaldb-21k, vit-base-visualatom-21k, vit-tiny-ofdb2d-1k.",
        ),
        (
            ["--fdsl", "rcdb-2k", "--timm_model", "test_vit"],
            "There is no FDSL dataset 'rcdb-2k'. Did you mean 'rcdb-21k', 'rcdb-1k'",
        ),
        (["--fdsl", "rcdb-1k"], "Name one model: --timm_model or --config_name (or a --preset)."),
        (["--model_options", "{patch"], "--model_options '{patch' is no JSON object"),
        (["--random_erasing", "2"], "random_erasing=2.0 is not in [0, 1]"),
        (["--pixel_mean", "0.5", "0.5"], "pixel_mean=[0.5, 0.5] must be one number, or one for each of 3 channels."),
        (["--pixel_std", "0"], "pixel_std=[0.0] must be above 0."),
        (["--repeated_augmentation", "0"], "repeated_augmentation=0 must be at least 1."),
        (["--warmup_learning_rate", "-1"], "warmup_learning_rate=-1.0 must be 0 or more."),
        (["--repeated_augmentation", "3"], "--repeated_augmentation 3 takes images by number: add --streaming false."),
        (["--draw_device", "cuda"], "--draw_device cuda draws the map-style dataset: add --streaming false."),
        (
            ["--draw_device", "nowhere", "--streaming", "false", "--use_cpu", "true"],
            "--draw_device nowhere is no device that there is here (",
        ),
        (
            ["--draw_device", "cpu", "--streaming", "false", "--augment", "true", "--augment_with", "pil"],
            "--draw_device cpu draws tensors: leave --augment_with pil out.",
        ),
        (["--augment", "true", "--rand_augment", "v0"], "rand_augment='v0' is no RandAugment policy of timm"),
    ],
)
def test_wrong_arguments_end_with_a_message(options, message, last_words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in last_words(PRETRAIN, *options)
    assert not (tmp_path / "out").exists()


@pytest.mark.wide
def test_of_an_error_there_is_one_message_and_no_traceback(tmp_path):
    done = call(command(PRETRAIN, "--fdsl", "rcdb-2k", "--timm_model", "test_vit", "--output_dir", "out"), tmp_path)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert "There is no FDSL dataset 'rcdb-2k'" in done.stderr.splitlines()[-1], done.stderr
    assert not (tmp_path / "out").exists()


def test_the_job_for_slurm_is_a_script():
    script = Path(EXAMPLES / "slurm" / "pretrain.sh")
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert "--resume_from_checkpoint last" in script.read_text(encoding="utf-8")
