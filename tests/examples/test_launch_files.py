"""The files to launch with: Accelerate reads each of them, bash the others, and each is named where it is used."""

import subprocess
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "examples" / "accelerate_configs").glob("*.yaml"))
JOBS = sorted((ROOT / "examples" / "slurm").glob("*.sh"))


def comment(file):
    """The lines that say how to use a file, joined."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    return " ".join(line.lstrip("# ").rstrip("\\ ") for line in lines)


def test_there_is_one_for_each_engine():
    plain = {"single_gpu", "multi_gpu", "multi_node", "two_cpu_processes"}
    assert {file.stem for file in CONFIGS} == plain | {"fsdp2", "deepspeed_zero2", "deepspeed_zero3"}
    assert {file.stem for file in JOBS} == {"pretrain", "train"}


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_accelerate_reads_a_config(file):
    config = load_config_from_file(str(file))
    expected = {"fsdp2": "FSDP", "deepspeed_zero2": "DEEPSPEED", "deepspeed_zero3": "DEEPSPEED", "single_gpu": "NO"}
    assert config.distributed_type == expected.get(file.stem, "MULTI_GPU")
    if file.stem == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
    if file.stem.startswith("deepspeed"):
        assert config.deepspeed_config["zero_stage"] == int(file.stem[-1])


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_the_command_in_a_config_starts_an_example(file):
    text = comment(file)
    assert f"accelerate launch --config_file examples/accelerate_configs/{file.name}" in text
    words = text[text.index("accelerate launch") + len("accelerate launch") :].split()
    args = launch_command_parser().parse_args(words)
    assert args.config_file == f"examples/accelerate_configs/{file.name}"
    assert (ROOT / args.training_script).is_file()


@pytest.mark.parametrize("file", JOBS, ids=lambda file: file.stem)
def test_bash_reads_a_job(file):
    subprocess.run(["bash", "-n", str(file)], check=True)
    assert f"examples/slurm/{file.name}" in comment(file)


@pytest.mark.parametrize("file", [*CONFIGS, *JOBS], ids=lambda file: file.stem)
def test_each_is_named_in_the_documentation(file):
    pages = [page.read_text(encoding="utf-8") for page in (ROOT / "docs" / "howto").glob("*.md")]
    assert any(f"{file.parent.name}/{file.name}" in page for page in pages)
