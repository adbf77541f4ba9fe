"""What is measured in processes of their own: the tests that need a GPU, launched trainings, one that is killed."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from _gpu_stages import Result, Setting
from _gpu_worker import BATCH, KILLED

ROOT = Path(__file__).resolve().parents[2]
# By this name the tests that need a GPU mark themselves; see `tests/needs_gpu.py`.
_MARK = "NEEDS_GPU"
_SECONDS = 300

# ---- Tests ----


def run_tests(setting: Setting) -> Result:
    """Run the tests that need a GPU.

    Returns:
        How many `passed`, `failed` and were `skipped`, and the names of those that `failed`.

    Raises:
        RuntimeError: pytest did not run them.
    """
    files = [
        str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if _MARK in path.read_text(encoding="utf-8")
    ]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "-n0"]
        done = subprocess.run(
            [*command, f"--junitxml={report}", *files], cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS
        )
        if not report.exists():
            raise RuntimeError(f"pytest ended with {done.returncode}:\n{done.stdout[-800:]}{done.stderr[-400:]}")
        return _counts(ElementTree.parse(report).getroot())


def _counts(report: Any) -> Result:
    counts: Counter[str] = Counter()
    failed = []
    for case in report.iter("testcase"):
        kinds = {child.tag for child in case}
        kind = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        counts[kind] += 1
        if kind == "failed":
            failed.append(f"{case.get('classname')}::{case.get('name')}")
    return {kind: counts[kind] for kind in ("passed", "failed", "skipped")} | {"names": failed}


# ---- Trainings ----


def _train(rehearse: bool, folder: Path, processes: int | None = None, **options: Any) -> dict[str, Any] | None:
    """The outcome of a training; None of one that was killed.

    Args:
        rehearse: on the CPU.
        folder: for its files.
        processes: how many `torchrun` starts; None to start it without.
        options: of `_gpu_worker.Options`.

    Raises:
        RuntimeError: it failed.
    """
    given = {"folder": str(folder), "rehearse": rehearse, **options}
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes else []
    command = [sys.executable, *launcher, str(Path(__file__).with_name("_gpu_worker.py")), json.dumps(given)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if processes and processes > 1 and not rehearse:  # all on the one GPU
        environment |= {"ACCELERATE_TORCH_DEVICE": "cuda:0", "ACCELERATE_BYPASS_DEVICE_MAP": "true"}
    if options.get("deterministic"):
        environment["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_SECONDS)
    if options.get("killed_after") and done.returncode == KILLED:
        return None
    if done.returncode:
        raise RuntimeError(f"A training ended with {done.returncode}:\n{done.stdout[-400:]}{done.stderr[-1200:]}")
    outcome: dict[str, Any] = json.loads((folder / "outcome-0.json").read_text(encoding="utf-8"))
    return outcome


def _compared(alone: dict[str, Any], other: dict[str, Any]) -> Result:
    """How far two trainings of the same samples are apart."""
    loss, other_loss = np.array(alone["ledger_loss"]), np.array(other["ledger_loss"])
    hidden, other_hidden = np.array(alone["times_hidden"]), np.array(other["times_hidden"])
    return {
        **{name: other[name] for name in ("ranks", "kind", "wrapper", "device")},
        "refreshed": [alone["refreshed"], other["refreshed"]],
        "hidden_alike": float(np.mean(hidden == other_hidden)),
        "largest_difference": float(np.nanmax(np.abs(loss - other_loss))),
        "same_weights": alone["weights"] == other["weights"],
        "same_losses": alone["losses"] == other["losses"],
    }


def compare_one_rank(setting: Setting) -> Result:
    """A training with its refresh under DistributedDataParallel, of one rank, against the same without it.

    Returns:
        What the ranks are; `refreshed`, samples of forward-only passes of both; `hidden_alike`, the fraction of the
        samples that were hidden as often; `largest_difference` of a recorded loss; whether they are the same.
    """
    return _against_alone(setting, processes=1)


def compare_two_ranks(setting: Setting) -> Result:
    """The same on two ranks that share the device, each with half of each batch, over gloo: NCCL wants a GPU for each.

    Returns:
        As `compare_one_rank`.
    """
    return _against_alone(setting, processes=2, batch_size=BATCH // 2, backend="gloo")


def _against_alone(setting: Setting, **options: Any) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        ranks = _train(setting.rehearse, Path(folder), **options)
        assert ranks is not None
        return _compared(_alone(setting.rehearse), ranks)


@functools.cache
def _alone(rehearse: bool) -> dict[str, Any]:
    """The same training in one process, without a launcher."""
    with tempfile.TemporaryDirectory() as folder:
        outcome = _train(rehearse, Path(folder))
        assert outcome is not None
        return outcome


def compare_resumed(setting: Setting) -> Result:
    """A training that was killed within an epoch and resumed, by deterministic kernels, against one that was not.

    Returns:
        As `compare_one_rank`; `same_losses` is of the steps after the resumption.
    """
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = (Path(folder) / name for name in ("whole", "parts"))
        train = functools.partial(_train, setting.rehearse, deterministic=True)
        unbroken = train(whole)
        if train(parts, killed_after=50) is not None:
            raise RuntimeError("The training that was to be killed came to its end.")
        resumed = train(parts, resumes=True)
        assert unbroken is not None
        assert resumed is not None
        return _compared(unbroken, resumed)
