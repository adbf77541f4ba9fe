"""A comparison: interrupted and gone on with, in one process and in several, and what is refused before it begins."""

import dataclasses
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import psutil
import pytest
import torch

from compare_toy import BATCH, EPOCHS, NUM_TRAIN, SOLD_OUT, TOY, Toy, load, make_and_note
from hf_kakurenbo import KakurenboTrainer
from hf_kakurenbo.compare import METHODS, NO_HIDING, Method, Record, Task, compare
from hf_kakurenbo.compare import runs as runs_module
from hf_kakurenbo.compare.extra import require_extra
from hf_kakurenbo.compare.records import RecordFolder
from hf_kakurenbo.compare.runs import run
from hf_kakurenbo.compare.training import settings_of, train
from test_import import run_python

TESTS = Path(__file__).parents[1]
KAKURENBO, RANDOM, COIN, SHORTER = (METHODS[name] for name in ("kakurenbo", "random", "coin", "shorter-0.55"))
METHODS_OF_ALL_KINDS = [NO_HIDING, RANDOM, KAKURENBO, SHORTER]
SEEDS = (0, 1)


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path_factory, monkeypatch):
    """What a training leaves behind is seen, and no training leaves anything behind."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    # Where it cannot write into the home, matplotlib makes a folder for the whole process.
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path_factory.mktemp("matplotlib")))
    yield folder
    assert not list(folder.iterdir())


def accuracies(records):
    return {(record.task, record.method, record.seed): record.accuracy for record in records}


def without_times(record):
    return dataclasses.replace(record, seconds=0, processor_seconds=0)


@pytest.fixture(scope="module")
def never_interrupted(tmp_path_factory):
    """Records of all kinds of methods, and their folder, which is read only."""
    folder = tmp_path_factory.mktemp("never_interrupted")
    return run([TOY], METHODS_OF_ALL_KINDS, SEEDS, folder), folder


class Trained:
    """An `on_progress` that notes what is trained, and interrupts after so many."""

    def __init__(self, until=None, error=KeyboardInterrupt):
        self.until, self.error = until, error
        self.names, self.left = [], []

    def __call__(self, record, left):
        self.names.append((record.method, record.seed))
        self.left.append(left)
        if len(self.names) == self.until:
            raise self.error


# ---- What a training is ----


def test_a_record_says_what_was_done(never_interrupted):
    records = {(record.method, record.seed): record for record in never_interrupted[0]}
    assert len(records) == len(METHODS_OF_ALL_KINDS) * len(SEEDS)
    for (name, _), record in records.items():
        assert (record.task, record.full_samples) == ("toy", NUM_TRAIN * EPOCHS)
        assert record.seconds > 0
        assert record.processor_seconds > 0
        assert 1 / 4 < record.accuracy < 1, "the toy is learned"
        assert record.settings["num_train_epochs"] == pytest.approx(EPOCHS * METHODS[name].epochs)
    full, shorter, hiding = (records[name, 0] for name in ("no-hiding", "shorter-0.55", "kakurenbo"))
    assert (full.backpropagated, full.forward_only, full.updates) == (96, 0, EPOCHS * NUM_TRAIN // BATCH)
    assert (shorter.backpropagated, shorter.forward_only, shorter.updates) == (int(0.55 * 96), 0, 7)  # ⌈0.55 × 12⌉
    assert hiding.backpropagated < 96
    # What is hidden in the second epoch is looked at; nothing is after the last.
    assert 0 < hiding.forward_only < 96 - hiding.backpropagated


def test_random_hides_as_much_as_kakurenbo_did(never_interrupted):
    records = {(record.method, record.seed): record for record in never_interrupted[0]}
    for seed in SEEDS:
        hidden = {name: 96 - records[name, seed].backpropagated for name in ("random", "kakurenbo")}
        assert abs(hidden["random"] - hidden["kakurenbo"]) < EPOCHS  # less than a sample in an epoch
        assert hidden["random"] > 0


def test_the_share_of_a_longer_training_is_of_its_own_epochs(tmp_path):
    longer = dataclasses.replace(KAKURENBO, name="longer", epochs=2.0)
    records = run([TOY], [longer, dataclasses.replace(RANDOM, name="as-longer", share_of="longer")], [0], tmp_path)
    shares = {record.method: record for record in records}
    share = 1 - shares["longer"].backpropagated / (2 * 96)
    assert shares["as-longer"].settings["max_hidden_fraction"] == pytest.approx(share * EPOCHS / (EPOCHS - 1))


def test_with_one_seed_all_methods_begin_alike(tmp_path, monkeypatch):
    began = []

    class Watched(KakurenboTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            if not began or began[-1][0] is not self:
                weights = {name: value.clone() for name, value in model.state_dict().items()}
                began.append((self, weights, inputs["x"].clone()))
            return super().compute_loss(model, inputs, *args, **kwargs)

    monkeypatch.setattr("hf_kakurenbo.compare.training.KakurenboTrainer", Watched)
    run([TOY], [NO_HIDING, KAKURENBO, METHODS["infobatch"], METHODS["selective_backprop"]], [0], tmp_path / "0")
    run([TOY], [NO_HIDING], [1], tmp_path / "1")
    *same, (_, other_weights, other_batch) = began
    assert len(same) == 4
    for _, weights, batch in same:
        assert all(torch.equal(weights[name], same[0][1][name]) for name in weights)
        assert torch.equal(batch, same[0][2])
        assert not torch.equal(weights["head.weight"], other_weights["head.weight"])
        assert not torch.equal(batch, other_batch)


def test_a_method_twice_under_two_names_comes_to_the_same(tmp_path, never_interrupted):
    records = run([TOY], [KAKURENBO, dataclasses.replace(KAKURENBO, name="again")], [0], tmp_path)
    first, second = (dataclasses.replace(without_times(record), method="") for record in records)
    assert first == second
    # And whatever was trained before it in the same process.
    assert accuracies(never_interrupted[0])["toy", "kakurenbo", 0] == first.accuracy


def test_the_order_of_the_methods_is_the_seeds_own():
    def order(task, seed):
        methods = [*METHODS_OF_ALL_KINDS, *(METHODS[name] for name in ("coin", "infobatch", "importance"))]
        work = runs_module._Seed(task, methods, seed, Path())
        return [method.name for method in runs_module._in_order(work)]

    orders = [order(TOY, seed) for seed in range(8)] + [order(SOLD_OUT, 0)]
    assert len(set(map(tuple, orders))) == len(orders)
    assert {names[-1] for names in orders} == {"random"}, "what waits for another comes behind it"
    assert order(TOY, 3) == orders[3]


class Plain(Toy):
    def forward(self, x, labels):
        outputs = super().forward(x, labels)
        return {"loss": outputs["loss"], "logits": outputs["logits"]}


@pytest.mark.parametrize("model", [Toy, Plain], ids=["several outputs", "one output"])
def test_the_accuracy_is_that_of_the_trained_model_on_the_validation_samples(monkeypatch, model):
    trainers = []

    class Kept(KakurenboTrainer):
        def __init__(self, **options):
            super().__init__(**options)
            trainers.append(self)

    monkeypatch.setattr("hf_kakurenbo.compare.training.KakurenboTrainer", Kept)
    task = dataclasses.replace(TOY, make_model=model)
    record = train(task, NO_HIDING, 0, settings_of(task, NO_HIDING))
    x, labels = (load().validation.columns[name] for name in ("x", "labels"))
    with torch.no_grad():
        best = trainers[0].model.head(x).argmax(dim=1)
    assert record.accuracy == sum(best.tolist()[i] == labels.tolist()[i] for i in range(200)) / 200


# ---- Interrupted, and gone on with ----


@pytest.mark.parametrize(("until", "error"), [(1, KeyboardInterrupt), (5, OSError)])
def test_interrupted_it_trains_only_what_is_missing(tmp_path, never_interrupted, until, error):
    before, after = Trained(until, error), Trained()
    with pytest.raises(error):
        run([TOY], METHODS_OF_ALL_KINDS, SEEDS, tmp_path, on_progress=before)
    kept = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert len(kept) == until

    records = run([TOY], METHODS_OF_ALL_KINDS, SEEDS, tmp_path, on_progress=after)
    assert before.left == list(range(7, 7 - until, -1))
    assert after.left == list(range(7 - until, -1, -1))
    assert len({*before.names, *after.names}) == len(before.names) + len(after.names) == 8
    assert accuracies(records) == accuracies(never_interrupted[0])
    assert list(map(without_times, records)) == list(map(without_times, never_interrupted[0]))
    assert all(file.read_bytes() == content for file, content in kept.items())
    assert all(path.suffix == ".json" for path in tmp_path.rglob("*") if path.is_file())


def test_more_methods_and_seeds_train_only_these(tmp_path):
    run([TOY], [NO_HIDING, KAKURENBO], [0], tmp_path)
    progress = Trained()
    run([TOY], [NO_HIDING, KAKURENBO, RANDOM], [0], tmp_path, on_progress=progress)
    assert (progress.names, progress.left) == ([("random", 0)], [0])
    progress = Trained()
    run([TOY], [NO_HIDING, RANDOM, KAKURENBO], [2, 0], tmp_path, on_progress=progress)
    assert (sorted(progress.names), progress.left) == ([("kakurenbo", 2), ("no-hiding", 2), ("random", 2)], [2, 1, 0])
    progress = Trained()
    records = run([TOY], [NO_HIDING, KAKURENBO], [0], tmp_path, on_progress=progress)
    assert progress.names == []
    assert len(records) == 2, "what is not asked for is left out"


def test_a_training_killed_while_it_wrote_its_record(tmp_path, monkeypatch):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(json, "dumps", full_disk)
        with pytest.raises(OSError, match="No space left"):
            RecordFolder(tmp_path).add(Record("toy", "no-hiding", 0, 0.5, 1, 0, 1, 1, 1.0, 1.0))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    leftover = tmp_path / "toy" / "no-hiding" / f".0.json-{'0' * 32}"
    leftover.write_text('{"task": "to')
    assert not list(RecordFolder(tmp_path))
    run([TOY], [NO_HIDING], [0], tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["0.json"]


def test_what_it_writes(tmp_path, never_interrupted):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "records").symlink_to(never_interrupted[1])
    progress = Trained()
    comparison = compare([TOY], METHODS_OF_ALL_KINDS, SEEDS, tmp_path / "out", on_progress=progress)
    assert progress.names == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *(f"comparison.{kind}" for kind in ("csv", "md", "png")),
        "records",
        "trainings.csv",
    ]
    assert {summary.method.name for summary in comparison.summaries["toy"]} == {
        method.name for method in METHODS_OF_ALL_KINDS
    }
    assert accuracies(comparison.records) == accuracies(never_interrupted[0])
    markdown = (tmp_path / "out" / "comparison.md").read_text()
    assert markdown == comparison.markdown() + "\n"
    overview, _, table = markdown.partition("\n\n### toy\n\n")
    assert overview.startswith("| method | toy |\n|")
    assert table.startswith("|")
    assert comparison.table().startswith("toy (2 seeds)\n")


def test_one_seed_and_no_other_method_is_a_comparison_too(tmp_path):
    comparison = compare([TOY], [NO_HIDING], [0], tmp_path)
    assert [summary.to_no_hiding for summary in comparison.summaries["toy"]] == [None]
    assert "no-hiding" in comparison.table()


# ---- Several processes ----


@pytest.mark.wide
def test_two_processes_come_to_the_same_as_one(tmp_path, never_interrupted):
    progress = Trained()
    records = run([TOY], METHODS_OF_ALL_KINDS, SEEDS, tmp_path, 2, progress)
    assert progress.left == list(range(7, -1, -1))
    assert {without_times_or_order(record) for record in records} == {
        without_times_or_order(record) for record in never_interrupted[0]
    }
    assert list(RecordFolder(tmp_path)) == sorted(records, key=lambda record: (record.method, record.seed))
    assert not multiprocessing.active_children()


def without_times_or_order(record):
    return json.dumps(dataclasses.asdict(without_times(record)))


SOLD_OUT_MESSAGE = r"^sold-out, seed 0: no-hiding: LookupError: the toys are sold out$"


@pytest.mark.wide
def test_an_error_in_a_process_reaches_the_caller_at_once(tmp_path):
    # One process does: what is to be seen is that nothing behind the error is trained.
    work = [runs_module._Seed(task, [NO_HIDING], 0, tmp_path) for task in (SOLD_OUT, TOY)]
    with pytest.raises(RuntimeError, match=SOLD_OUT_MESSAGE) as raised:
        list(runs_module._in_processes(work, 1))
    assert "in load_nothing" in str(raised.value.__cause__), "where it happened"
    assert not multiprocessing.active_children()
    assert not list(RecordFolder(tmp_path))


def test_an_error_in_this_process_says_in_which_training(tmp_path):
    with pytest.raises(RuntimeError, match=SOLD_OUT_MESSAGE) as raised:
        run([SOLD_OUT, TOY], [NO_HIDING], [0], tmp_path)
    assert isinstance(raised.value.__cause__, LookupError)
    assert not list(RecordFolder(tmp_path))


@pytest.mark.wide
def test_a_process_keeps_what_a_task_has_in_a_cache(tmp_path):
    # As in a task of the package: the cache knows its key, a partial, by what it is and not by what it equals.
    note = tmp_path / "made"
    task = dataclasses.replace(TOY, make_model=partial(make_and_note, partial(Toy), str(note)))
    work = [runs_module._Seed(task, [NO_HIDING], seed, tmp_path) for seed in SEEDS]
    assert [record.seed for record, _ in runs_module._in_processes(work, 1)] == [0, 1]
    assert note.read_text() == "made\n"


def test_a_process_that_is_ended_from_outside():
    seed = runs_module._Seed(TOY, [NO_HIDING], 5, Path())
    message = r"^The process of toy, seed 5, was ended from outside \(exit code -9\), .*with fewer processes"
    with runs_module._workers(2) as workers:
        workers[0].begin(seed)
        for worker in workers:
            worker.process.kill()
        with pytest.raises(RuntimeError, match=message):
            workers[0].receive()
        workers[1].process.join()
        with pytest.raises(RuntimeError, match=message):
            workers[1].begin(seed)


def test_a_process_that_is_asked_to_end_is_ended_from_outside_too():
    assert runs_module._explain_exit(128 + signal.SIGTERM).startswith("was ended from outside (exit code 143)")


@pytest.mark.wide
def test_a_script_that_every_process_would_run_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from compare_toy import TOY\n"
        "from hf_kakurenbo.compare import NO_HIDING, compare\n"
        f"compare([TOY], [NO_HIDING], [0, 1], {str(tmp_path / 'out')!r}, processes=2)\n"
    )
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    assert "ended by itself (exit code 1): its error stands above." in last
    assert 'A script calls this under `if __name__ == "__main__":`' in last


def test_a_signal_that_was_kept_back_stays_so():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with runs_module._interrupts_kept_from_children():
            pass
        assert signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_on_a_system_without_signal_masks(monkeypatch):
    monkeypatch.delattr(signal, "pthread_sigmask")
    monkeypatch.setattr(runs_module, "resource_tracker", None)
    with runs_module._interrupts_kept_from_children():
        pass


def command(*args, **options):
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    line = [
        sys.executable,
        str(TESTS / "compare_toy.py"),
        "compare",
        "--seeds",
        "1",
        "--num-proc",
        "2",
        *map(str, args),
    ]
    return subprocess.Popen(
        line,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def goes_on(process, session):
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def require_ended(session):
    """That no process of a session continues; Python's own helper ends a moment after the one that it helped."""
    for _ in range(300):
        if not any(goes_on(process, session) for process in psutil.process_iter()):
            return
        time.sleep(0.1)
    raise AssertionError("a process continues")


@pytest.mark.wide
def test_the_processes_of_a_killed_command_end_too(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    running = command("--out", tmp_path / "out", "--task", "compare_toy:STUCK", "--method", "kakurenbo")
    running.stderr.readline()
    running.kill()
    running.communicate()
    require_ended(running.pid)


@pytest.mark.wide
def test_ctrl_c_ends_the_command_and_keeps_what_was_trained(tmp_path, monkeypatch, own_temporary_folder):
    monkeypatch.setenv("TMPDIR", str(own_temporary_folder))
    out = tmp_path / "out"
    running = command("--out", out, "--task", "compare_toy:STUCK", "--method", "kakurenbo", "--method", "coin")
    said = [running.stderr.readline() for _ in range(2)]
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the processes that it started too
    printed, rest = running.communicate()
    assert (running.returncode, printed) == (130, "")
    assert rest.splitlines()[-1] == "Interrupted. What was trained is kept; the same command continues."
    assert "Traceback" not in rest
    assert [line.rpartition(";")[2] for line in said] == [" 2 left\n", " 1 left\n"]
    require_ended(running.pid)

    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    kept = [(record.method, record.seed) for record in RecordFolder(out / "records")]
    assert len(kept) == 2
    assert files == [f"records/stuck/{method}/{seed}.json" for method, seed in kept]
    progress = Trained()
    compare([dataclasses.replace(TOY, name="stuck")], [NO_HIDING, KAKURENBO, COIN], [0], out, on_progress=progress)
    assert {*progress.names, *kept} == {(method.name, 0) for method in (NO_HIDING, KAKURENBO, COIN)}
    assert len(progress.names) == 1


# ---- What is refused ----


def refused(tmp_path, message, tasks=(TOY,), methods=(NO_HIDING,), seeds=(0,), processes=1):
    with pytest.raises(ValueError, match=message):
        compare(tasks, methods, seeds, tmp_path / "out", processes, on_progress=Trained(1, AssertionError))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": [TOY, TOY]}, "The task 'toy' is there 2 times: give it once."),
        ({"methods": [NO_HIDING, KAKURENBO, NO_HIDING]}, "The method 'no-hiding' is there 2 times: give it once."),
        ({"seeds": [3, 1, 3, 3]}, "The seed 3 is there 3 times: give it once."),
        ({"tasks": []}, "There is no task to compare with: give at least one."),
        ({"methods": []}, "There is no method to compare with"),
        ({"seeds": range(0)}, "There is no seed to compare with"),
        ({"seeds": [0, -1]}, "A seed must be 0 or more, got -1"),
        ({"processes": 0}, "processes must be at least 1, got 0"),
        (
            {"tasks": [dataclasses.replace(TOY, load=lambda: load())], "processes": 2},
            "load and make_model of the task 'toy' must be at the top level of a module",
        ),
        (
            {"methods": [NO_HIDING, RANDOM]},
            "'random' hides as much as 'kakurenbo', which is not among the methods: add",
        ),
        ({"methods": [Method("a", share_of="a")]}, "'a' hides as much as 'a', which itself hides as much as another"),
        (
            {"methods": [Method("a", share_of="random"), RANDOM, KAKURENBO]},
            "'a' hides as much as 'random', which itself hides as much as another: name that one",
        ),
        (
            {"methods": [Method("bold", {"max_hidden": 0.6})]},
            "The method 'bold' on the task 'toy': .*unexpected keyword argument 'max_hidden'",
        ),
        (
            {"methods": [Method("bold", {"max_hidden_fraction": 1.5})]},
            r"The method 'bold' on the task 'toy': max_hidden_fraction=1.5",
        ),
        (
            {"methods": [Method("bold", {"hiding_policy": "kakurembo"})]},
            "The method 'bold' on the task 'toy': .*'kakurembo'",
        ),
        (
            {"methods": [KAKURENBO, Method("late", {"hiding_warmup_epochs": 9}, share_of="kakurenbo")]},
            "The method 'late' on the task 'toy': hiding_warmup_epochs=9 leaves none of 3.0 epochs to hide in",
        ),
        (
            {"methods": [Method("own", {"statistics_fn": load})]},
            "The method 'own' on the task 'toy': Object of type function is not JSON serializable",
        ),
    ],
)
def test_what_cannot_be_compared_is_told_before_the_first_training(tmp_path, options, message):
    refused(tmp_path, message, **options)


def test_a_record_with_other_settings_is_told_before_the_first_training(tmp_path):
    run([TOY], [NO_HIDING], [1], tmp_path)
    slower = Task("toy", load, Toy, {**TOY.arguments, "learning_rate": 0.01, "weight_decay": 0.1})
    changes = r"learning_rate=0\.05, now 0\.01; weight_decay not set, now 0\.1\."
    with pytest.raises(ValueError, match=rf"no-hiding/1\.json was made with other settings: {changes}"):
        run([slower], [NO_HIDING], SEEDS, tmp_path, on_progress=Trained(1, AssertionError))
    changed = dataclasses.replace(NO_HIDING, options={"hiding_policy": "none", "weight_decay": 0.1})
    with pytest.raises(ValueError, match=r"now 0\.1\. Give another output folder, or remove the file"):
        run([TOY], [changed], SEEDS, tmp_path, on_progress=Trained(1, AssertionError))


def test_a_share_that_changed_is_another_setting(tmp_path):
    run([TOY], [KAKURENBO, RANDOM], [0], tmp_path)
    file = tmp_path / "toy" / "kakurenbo" / "0.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "backpropagated": record["backpropagated"] - 9}))
    changes = r"max_hidden_fraction=0\.\d+, now 0\.\d+\."
    with pytest.raises(ValueError, match=rf"random/0\.json was made with other settings: {changes}"):
        run([TOY], [KAKURENBO, RANDOM, COIN], [0], tmp_path, on_progress=Trained(1, AssertionError))


@pytest.mark.parametrize("text", ["", '{"task": "toy"', "[1]", "null", '{"task": "toy"}', "\x80", "LIST"])
def test_a_broken_record(tmp_path, text):
    run([TOY], [NO_HIDING], [1], tmp_path)
    file = tmp_path / "toy" / "no-hiding" / "1.json"
    if text == "LIST":
        text = json.dumps({**json.loads(file.read_text()), "settings": ["kakurenbo"]})
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"no-hiding/1\.json is no record of a comparison \(.+\); remove it"):
        run([TOY], [NO_HIDING], SEEDS, tmp_path, on_progress=Trained(1, AssertionError))
    with pytest.raises(ValueError, match="is no record of a comparison"):
        list(RecordFolder(tmp_path))


def test_a_folder_that_is_a_file_is_told_before_the_first_training(tmp_path):
    (tmp_path / "out").write_text("years of work")
    with pytest.raises(OSError, match="out"):
        compare([TOY], [NO_HIDING], [0], tmp_path / "out", on_progress=Trained(1, AssertionError))
    assert (tmp_path / "out").read_text() == "years of work"


@pytest.mark.parametrize("package", ["matplotlib", "scipy", "sklearn"])
def test_a_missing_package_is_told_before_the_first_training(tmp_path, monkeypatch, package):
    real = importlib.import_module

    def without(name, *args):
        if name == package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args)

    monkeypatch.setattr(importlib, "import_module", without)
    message = rf'A comparison needs {package}: pip install "hf-kakurenbo\[compare\]" brings what it needs\.'
    with pytest.raises(RuntimeError, match=message):
        compare([TOY], [NO_HIDING], [0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_package_does_not_import_its_comparison():
    code = """
import sys
import hf_kakurenbo.cli
needless = {"scipy", "sklearn", "matplotlib"} & set(sys.modules)
assert not needless, needless
assert not [name for name in sys.modules if name.startswith("hf_kakurenbo.compare")]
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_with_all_packages_nothing_is_told():
    require_extra()
