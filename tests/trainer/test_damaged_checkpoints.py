"""A checkpoint that a kill or a loss of power left incomplete is passed over; what is written reaches the disk."""

import errno
import json
import os
import shutil
import time
import zipfile
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as sharded
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerState

from hf_kakurenbo import KakurenboTrainer
from hf_kakurenbo.hiding.checkpoint import LEDGER_NAME, save_state
from hf_kakurenbo.trainer.checkpoints import last_complete_checkpoint
from hf_kakurenbo.trainer.completeness import damage_of
from hf_kakurenbo.utils import durable
from processes import run_ranks
from toy import (
    LinearClassifier,
    make_trainer,
    same_tensors,
    same_weights,
    skip_where_ranks_cannot_resume,
    trained,
)

# 7 updates in the first epoch, 5 in each of the two others: saved after 5, 10, 15 and 17 of them.
OPTIONS = {
    "model": LinearClassifier,
    "num_train_epochs": 3,
    "per_device_train_batch_size": 32,
    "hiding_policy": "first_ids",
    "max_hidden_fraction": 0.3,
}
SAVING = {**OPTIONS, "save_strategy": "steps", "save_steps": 5}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A training with its checkpoints, of which the last one is that of the last step."""
    folder = tmp_path_factory.mktemp("whole")
    return trained(folder, **SAVING)


@pytest.fixture
def folder(whole, tmp_path):
    """A copy of its folder."""
    copy = tmp_path / "out"
    shutil.copytree(whole.args.output_dir, copy)
    return copy


def newest(folder):
    return max(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))


# ---- What a resumption finds out ----


def cut(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def last_byte(file):
    file.write_bytes(file.read_bytes()[:-1])


def empty(file):
    file.write_bytes(b"")


def zeros(file):
    file.write_bytes(bytes(file.stat().st_size))


DAMAGES = [cut, last_byte, empty, zeros]
FILES = [LEDGER_NAME, "model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named(folder, name, damage):
    checkpoint = newest(folder)
    assert damage_of(checkpoint) == ""
    damage(checkpoint / name)
    assert damage_of(checkpoint).startswith(f"{name} is ")


@pytest.mark.parametrize("damage", [cut, empty])
@pytest.mark.parametrize("name", [LEDGER_NAME, "model.safetensors", "optimizer.pt"])
def test_a_training_resumes_from_the_checkpoint_before(whole, folder, caplog, name, damage):
    checkpoint = newest(folder)
    damage(checkpoint / name)
    for wanted in (True, str(checkpoint), checkpoint):
        again = make_trainer(folder, **OPTIONS)
        again.train(resume_from_checkpoint=wanted)
        [message] = [record.getMessage() for record in caplog.records if record.name.startswith("hf_kakurenbo")]
        assert message.startswith(f"{checkpoint} was not written to its end ({name} is ")
        assert message.endswith(f"). Resuming from {folder / 'checkpoint-15'}.")
        assert len(again.watch.rates) == 2
        assert same_weights(again, whole)
        assert same_tensors(again.ledger.state_dict(), whole.ledger.state_dict())
        caplog.clear()


STATES = {
    "cut short": (b'{"epoch": 3', "cannot be read: Expecting"),
    "empty": (b"", "cannot be read: Expecting value"),
    "no UTF-8": (b'{"epoch": \xff\xff', "cannot be read: 'utf-8' codec"),
    "zeros": (bytes(100), "cannot be read: "),
    "null": (b"null", "has no `global_step`"),
    "a list": (b"[]", "has no `global_step`"),
    "a number": (b"3", "has no `global_step`"),
    "no entries": (b"{}", "has no `global_step`"),
    "another entry": (b'{"epoch": 3}', "has no `global_step`"),
    "a text as a step": (b'{"global_step": "10"}', "has no `global_step`"),
    "no step": (b'{"global_step": null}', "has no `global_step`"),
}


@pytest.mark.parametrize("kind", STATES)
def test_a_damaged_state(folder, caplog, kind):
    content, reason = STATES[kind]
    checkpoint = newest(folder)
    (checkpoint / "trainer_state.json").write_bytes(content)
    assert f"its trainer_state.json {reason}" in damage_of(checkpoint)
    assert last_complete_checkpoint(True, str(folder)) == str(folder / "checkpoint-15")
    assert last_complete_checkpoint(checkpoint, "elsewhere") == str(folder / "checkpoint-15")
    assert f"{checkpoint} was not written to its end (its trainer_state.json {reason}" in caplog.text


def test_a_damaged_state_ends_no_resumption(whole, folder):
    (newest(folder) / "trainer_state.json").write_bytes(b"null")
    again = make_trainer(folder, **OPTIONS)
    again.train(resume_from_checkpoint=True)
    assert same_weights(again, whole)


def test_a_missing_state_or_ledger(folder):
    (newest(folder) / "trainer_state.json").unlink()
    assert damage_of(newest(folder)) == "it has no trainer_state.json, which is written last"
    (folder / "checkpoint-15" / LEDGER_NAME).unlink()
    assert damage_of(folder / "checkpoint-15") == f"its ledger, {LEDGER_NAME}, is missing"
    assert last_complete_checkpoint(True, str(folder)) == str(folder / "checkpoint-10")


def test_the_checkpoint_asked_for_is_not_passed_over_for_a_later_one(folder):
    cut(folder / "checkpoint-10" / "optimizer.pt")
    assert last_complete_checkpoint(str(folder / "checkpoint-10"), "elsewhere") == str(folder / "checkpoint-5")
    assert last_complete_checkpoint(True, str(folder)) == str(newest(folder))


@pytest.mark.parametrize("named", [True, False])
def test_nothing_that_is_whole(folder, named):
    for checkpoint in folder.glob("checkpoint-*"):
        cut(checkpoint / "model.safetensors")
    wanted = newest(folder)
    if named:
        wanted = wanted.rename(folder / "mine")
    with pytest.raises(
        ValueError, match=r"was not written to its end \(model.safetensors is cut off: .*\), and no"
    ) as error:
        make_trainer(folder, **OPTIONS).train(resume_from_checkpoint=str(wanted) if named else True)
    assert str(wanted) in str(error.value)
    assert "Start the training without `resume_from_checkpoint`" in str(error.value)


def test_a_folder_that_is_no_checkpoint_of_a_training(whole, tmp_path):
    whole.save_model(str(tmp_path / "model"))
    with pytest.raises(ValueError, match=r"model was not written to its end \(it has no trainer_state.json, which"):
        make_trainer(tmp_path, **OPTIONS).train(resume_from_checkpoint=str(tmp_path / "model"))


@pytest.mark.parametrize("wanted", [None, False, True, "missing", Path("missing")])
def test_where_there_is_nothing_to_choose_from(tmp_path, wanted):
    chosen = last_complete_checkpoint(wanted, str(tmp_path))
    assert chosen == (os.fspath(wanted) if isinstance(wanted, Path) else wanted)


def test_folders_that_are_none_of_trainers_are_not_chosen(folder):
    last = newest(folder)
    shutil.copytree(last, folder / "checkpoint-best")
    (folder / "checkpoint-99.zip").write_bytes(b"")
    (folder / "checkpoint-98").write_bytes(b"")
    assert last_complete_checkpoint(True, str(folder)) == str(last)


# ---- Checkpoints with other files ----


@pytest.fixture
def bare(tmp_path):
    """A checkpoint with nothing but a state, as of a trainer that saves the rest in its own way."""
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    (checkpoint / "trainer_state.json").write_text('{"global_step": 3, "stateful_callbacks": {}}')
    return checkpoint


WEIGHTS = {"a": torch.randn(40), "b": torch.randn(40)}


def test_a_checkpoint_without_weights_of_the_usual_names_is_not_judged(bare):
    assert damage_of(bare) == ""
    for name in ("mine.pt", "user_content.pt", "training_args.bin", "notes.bin", "__0_0.distcp", "latest"):
        (bare / name).write_bytes(b"")
    assert damage_of(bare) == ""
    pickled = bare / "pytorch_model.bin"
    torch.save(WEIGHTS, pickled, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(pickled)
    assert damage_of(bare) == ""


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_weights_in_several_files(bare, safe):
    name, write = ("model-{}.safetensors", save_file) if safe else ("pytorch_model-{}.bin", torch.save)
    for key in WEIGHTS:
        write({key: WEIGHTS[key]}, bare / name.format(key))
    index = bare / ("model.safetensors.index.json" if safe else "pytorch_model.bin.index.json")
    index.write_text(json.dumps({"weight_map": {key: name.format(key) for key in WEIGHTS}}))
    assert damage_of(bare) == ""
    shard = bare / name.format("b")
    content = shard.read_bytes()
    cut(shard)
    assert damage_of(bare).startswith(f"{shard.name} is cut off")
    shard.unlink()
    assert damage_of(bare) == f"{index.name} names {shard.name}, which is missing"
    write(WEIGHTS, bare / index.name.removesuffix(".index.json"))
    assert damage_of(bare) == "", "the one file is what is read"
    shard.write_bytes(content)
    for damage in ("{", "[]", "{}"):
        index.write_text(damage)
        assert damage_of(bare).startswith(f"{index.name} cannot be read")


def test_a_model_of_several_files_resumes_and_is_passed_over(tmp_path, caplog):
    def train(resume_from_checkpoint=None):
        config = BertConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=50
        )
        made = make_trainer(
            tmp_path,
            model=lambda: BertForSequenceClassification(config),
            dataset=[{"input_ids": torch.tensor([row % 50] * 6), "labels": row % 2} for row in range(32)],
            num_train_epochs=3,
            save_strategy="epoch",
        )
        save = made.model.save_pretrained
        made.model.save_pretrained = lambda *args, **options: save(*args, max_shard_size="1KB", **options)
        made.train(resume_from_checkpoint)
        return made

    whole = train()
    shards = sorted((tmp_path / "checkpoint-6").glob("model-*.safetensors"))
    assert len(shards) > 2
    assert damage_of(tmp_path / "checkpoint-6") == ""
    cut(shards[1])
    assert same_weights(train(True), whole)
    assert f"checkpoint-6 was not written to its end ({shards[1].name} is cut off" in caplog.text


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "second/adapter_model.safetensors", "adapter_model.bin"])
def test_adapters(bare, name):
    (bare / name).parent.mkdir(exist_ok=True)
    (save_file if name.endswith("safetensors") else torch.save)(WEIGHTS, bare / name)
    assert damage_of(bare) == ""
    cut(bare / name)
    assert damage_of(bare).startswith(f"{name} is cut off")


@pytest.mark.parametrize("name", ["mp_rank_00_model_states.pt", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"])
def test_states_of_deepspeed(bare, name):
    states = bare / "global_step3"
    states.mkdir()
    (bare / "latest").write_text("global_step3")
    torch.save(WEIGHTS, states / name)
    assert damage_of(bare) == ""
    cut(states / name)
    assert damage_of(bare).startswith(f"global_step3/{name} is cut off")


def test_shards_of_pytorch(bare):
    shards = bare / "pytorch_model_fsdp_0"
    sharded.save(WEIGHTS, checkpoint_id=str(shards), no_dist=True)
    [shard] = shards.glob("*.distcp")
    assert damage_of(bare) == ""
    content = shard.read_bytes()
    last_byte(shard)
    assert damage_of(bare) == f"pytorch_model_fsdp_0/.metadata says that {shard.name} is longer than it is"
    shard.unlink()
    assert damage_of(bare) == "", "it may be on the disk of another node"
    shard.write_bytes(content)
    for damage in (cut, empty):
        damage(shards / ".metadata")
        assert damage_of(bare).startswith("pytorch_model_fsdp_0/.metadata cannot be read")


def test_a_file_that_cannot_be_opened_is_damage(folder, monkeypatch):
    checkpoint = newest(folder)

    def unreadable(*args, **kwargs):
        raise OSError(errno.EIO, "Input/output error", str(checkpoint / "optimizer.pt"))

    monkeypatch.setattr(zipfile, "ZipFile", unreadable)
    assert "Input/output error" in damage_of(checkpoint)


def test_weights_are_not_read_for_it(bare, monkeypatch):
    file = bare / "model.safetensors"
    save_file(WEIGHTS, file)
    with file.open("r+b") as opened:  # a file of 1 TB with nothing in it
        header = json.dumps({"w": {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]}}).encode()
        opened.write(len(header).to_bytes(8, "little") + header)
        opened.truncate(8 + len(header) + 2**40)
    assert damage_of(bare) == ""
    os.truncate(file, 2**40)
    assert damage_of(bare).startswith("model.safetensors is cut off")


# ---- What is written reaches the disk ----


class Disk:
    """Which files would be there after a loss of power, and how much of them: what `os.fsync` has been called for."""

    def __init__(self, monkeypatch):
        self.sizes, self.events = {}, []
        fsync = os.fsync

        def watched(descriptor):
            fsync(descriptor)
            file = os.fstat(descriptor)
            self.sizes[file.st_ino] = file.st_size

        monkeypatch.setattr(os, "fsync", watched)

    def has(self, path):
        file = path.stat()
        return file.st_ino in self.sizes and (path.is_dir() or self.sizes[file.st_ino] == file.st_size)

    def lacks(self, folder):
        return [path.name for path in [folder, *folder.rglob("*")] if not self.has(path)]


@pytest.mark.parametrize("options", [{}, {"save_only_model": True}], ids=str)
def test_everything_is_on_the_disk_before_the_state_and_the_state_before_older_ones_go(tmp_path, monkeypatch, options):
    disk, moments = Disk(monkeypatch), []
    save_to_json, rmtree = TrainerState.save_to_json, shutil.rmtree

    def watched_save(state, path):
        moments.append(("state", Path(path).parent.name, disk.lacks(Path(path).parent)))
        save_to_json(state, path)

    def watched_rmtree(path, *args, **kwargs):
        moments.append(("removal", Path(path).name, disk.lacks(newest(tmp_path))))
        rmtree(path, *args, **kwargs)

    monkeypatch.setattr(TrainerState, "save_to_json", watched_save)
    monkeypatch.setattr(shutil, "rmtree", watched_rmtree)
    trainer = trained(tmp_path, save_total_limit=1, **SAVING, **options)
    saved_and_removed = [("checkpoint-10", "checkpoint-5"), ("checkpoint-15", "checkpoint-10")]
    saved_and_removed.append(("checkpoint-17", "checkpoint-15"))
    assert [moment[:2] for moment in moments] == [
        ("state", "checkpoint-5"),
        *[moment for new, old in saved_and_removed for moment in (("state", new), ("removal", old))],
    ]
    assert [moment[2] for moment in moments] == [[]] * 7
    assert len(list(newest(tmp_path).iterdir())) >= 4
    assert "save_to_json" not in vars(trainer.state)


def test_the_ledger_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    disk, replace = Disk(monkeypatch), Path.replace
    moments = []

    def watched(path, target):
        moments.append(disk.has(path))
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    save_state(tmp_path, {"a": torch.zeros(3)}, {})
    assert moments == [True]
    assert disk.lacks(tmp_path) == []


def test_a_file_system_that_cannot_flush_is_no_error(tmp_path, monkeypatch):
    def refuses(descriptor):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", refuses)
    trainer = trained(tmp_path, **SAVING)
    assert damage_of(newest(tmp_path)) == ""
    assert trainer.state.epoch == 3
    durable.flush(tmp_path / "missing")


def test_without_hiding_nothing_is_flushed(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", calls.append)
    plain = {name: value for name, value in SAVING.items() if name not in ("hiding_policy", "max_hidden_fraction")}
    trained(tmp_path / "plain", Trainer, **plain)
    trained(tmp_path / "none", hiding_policy="none", **plain)
    assert damage_of(newest(tmp_path / "none")) == ""
    assert calls == []


# ---- Several ranks ----


def resumed_on_ranks(folder, damaged_on):
    """Resume where each rank has a folder of its own, in which some checkpoints are damaged."""
    own = folder / f"rank-{os.environ['RANK']}"
    for name in damaged_on.get(int(os.environ["RANK"]), []):
        cut(own / name)
    made = make_trainer(own, **{**OPTIONS, "per_device_train_batch_size": 16})
    made.train(resume_from_checkpoint=True)
    return {"updates": len(made.watch.rates), "ledger": made.ledger.state_dict(), "weights": made.model.state_dict()}


@pytest.mark.wide
@pytest.mark.parametrize(
    ("damaged_on", "updates"),
    [
        ({}, 0),
        ({1: ["checkpoint-17/model.safetensors"]}, 2),
        ({0: ["checkpoint-17/optimizer.pt"], 1: ["checkpoint-15/kakurenbo.safetensors"]}, 7),
    ],
    ids=["none", "on one rank", "another one on each"],
)
def test_ranks_resume_from_the_newest_checkpoint_that_all_of_them_find_whole(whole, tmp_path, damaged_on, updates):
    skip_where_ranks_cannot_resume()
    assert whole.state.global_step == 17
    for rank in range(2):
        shutil.copytree(whole.args.output_dir, tmp_path / f"rank-{rank}")
    first, second = run_ranks(2, resumed_on_ranks, tmp_path, damaged_on)
    assert first["updates"] == second["updates"] == updates
    assert same_tensors(first["ledger"], second["ledger"])
    assert same_tensors(first["weights"], second["weights"])


class Slow(KakurenboTrainer):
    """Its second rank is late with its file."""

    def _save_rng_state(self, output_dir):
        if os.environ["RANK"] == "1":
            time.sleep(1)
        super()._save_rng_state(output_dir)


def files_at_the_state(folder):
    """The files of each checkpoint when its state is written, and those that this rank has brought to the disk."""
    with pytest.MonkeyPatch.context() as patch:
        disk, found = Disk(patch), []
        save_to_json = TrainerState.save_to_json

        def watched(state, path):
            found.append({file.name: damage_of_file(file) for file in Path(path).parent.iterdir()})
            save_to_json(state, path)

        patch.setattr(TrainerState, "save_to_json", watched)
        trained(folder, Slow, **{**SAVING, "per_device_train_batch_size": 16})
        own = newest(folder) / f"rng_state_{os.environ['RANK']}.pth"
        return found, disk.has(own)


def damage_of_file(file):
    return "" if file.suffix != ".pth" or zipfile.is_zipfile(file) else "cut"


@pytest.mark.wide
def test_the_state_waits_for_the_files_of_every_rank(tmp_path):
    (first, flushed), (second, flushed_too) = run_ranks(2, files_at_the_state, tmp_path)
    assert len(first) == 4
    assert second == [], "only the first rank writes the state"
    assert flushed
    assert flushed_too
    for files in first:
        assert {"rng_state_0.pth", "rng_state_1.pth", "model.safetensors", "optimizer.pt", LEDGER_NAME} <= set(files)
        assert not any(files.values())


def error_of_a_full_disk(folder):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        if os.environ["RANK"] == "0":
            patch.setattr(torch, "save", full)
        with pytest.raises((OSError, RuntimeError)) as error:
            trained(folder, **{**SAVING, "per_device_train_batch_size": 16})
    return str(error.value)


@pytest.mark.wide
def test_a_rank_that_cannot_write_ends_the_others(tmp_path):
    first, second = run_ranks(2, error_of_a_full_disk, tmp_path)
    assert "No space left on device" in first
    assert "rank 0 has left the training: OSError" in second or "Broken pipe" in second or "Connection" in second
    assert damage_of(tmp_path / "checkpoint-5") == "it has no trainer_state.json, which is written last"
