"""Under a launcher: a killed worker, and the training continues with as many processes or others; an error ends all."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from toy import skip_where_ranks_cannot_resume

VISIBLE = list(range(60, 203))  # of 203, a share of 0.3 is hidden from the second epoch on


def launch(folder, processes, what, restarts=0, run="first"):
    """Start `launched.py` with `torchrun`; the exit code and what it wrote to the standard error."""
    tests = Path(__file__).parents[1]
    paths = [str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--nproc-per-node", str(processes)]
    command += ["--max-restarts", str(restarts), "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0"]
    command += ["--rdzv-id", run, "--monitor-interval", "1", str(tests / "launched.py"), str(folder), what]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "OMP_NUM_THREADS": "1"}
    # Else a restarted worker may read where those of the attempt before were to be found (PyTorch's issue 135712).
    environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    return done.returncode, done.stderr


def noted(folder, attempt, epoch):
    """From step to the ids of all ranks."""
    steps = {}
    for file in sorted(folder.glob(f"noted-{attempt}-*")):
        for note in map(json.loads, file.read_text().splitlines()):
            if note["epoch"] == epoch:
                steps.setdefault(note["step"], []).extend(note["ids"])
    return steps


def saved_after(processes):
    """The step of the last checkpoint before what happens: the second one of the second epoch."""
    return -(-203 // (8 * processes)) + 2


def assert_each_once(before, after, saved_at):
    """The ids up to the checkpoint and those after it: the visible ones once, but for what fills up the last batch."""
    kept = [sample for step, ids in before.items() if step < saved_at for sample in ids]
    assert kept, "nothing of the epoch was kept"
    *whole, last = after.values()
    counts = Counter(kept + [sample for ids in whole for sample in ids])
    assert set(counts.values()) == {1}
    assert sorted(set(counts) | set(last)) == VISIBLE


@pytest.mark.wide
def test_a_killed_worker_is_started_again_and_goes_on(tmp_path):
    skip_where_ranks_cannot_resume()
    code, errors = launch(tmp_path, 2, "killed", restarts=1)
    assert code == 0, errors
    assert (tmp_path / "done").read_text() == str(203 + 2 * len(VISIBLE))
    assert_each_once(noted(tmp_path, "first-0", 1), noted(tmp_path, "first-1", 1), saved_after(2))


@pytest.mark.wide
@pytest.mark.parametrize(("processes", "then"), [(2, 1), (2, 4), (4, 2), (3, 2)])
def test_a_killed_training_goes_on_with_other_processes(tmp_path, processes, then):
    if then > 1:
        skip_where_ranks_cannot_resume()
    code, _ = launch(tmp_path, processes, "killed")
    assert code != 0
    code, errors = launch(tmp_path, then, "continues", run="second")
    assert code == 0, errors
    assert (tmp_path / "done").read_text() == str(203 + 2 * len(VISIBLE))
    assert_each_once(noted(tmp_path, "first-0", 1), noted(tmp_path, "second-0", 1), saved_after(processes))


@pytest.mark.wide
def test_an_error_on_one_rank_ends_the_launcher(tmp_path):
    code, errors = launch(tmp_path, 2, "fails")
    assert code != 0
    assert "OSError: the disk is gone" in errors
    assert not (tmp_path / "done").exists()
