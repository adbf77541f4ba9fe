"""What the ledger's tables, its history and the report cost with many samples: seconds and memory.

```
python examples/benchmarks/reporting.py                 # 1.3 and 14 million samples; 3 GB of memory
python examples/benchmarks/reporting.py --quick         # a smoke test, under a minute
```

No model is trained: the statistics of the samples are made up. The report is of a training of 20 epochs with 1,000
classes; its samples are rows of a table.

Memory is the rise of the process's largest resident size (`VmHWM`) during a call. Each is measured in a process of its
own. Of the report the whole size is given too, with what Python and PyTorch take.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from _report import table

from hf_kakurenbo.hiding import LedgerHistory, SampleLedger
from hf_kakurenbo.hiding.saved_ledger import save_ledger
from hf_kakurenbo.reporting import read_run, write_report

_CLASSES = 1000
_STATUS = Path("/proc/self/status")  # of Linux; elsewhere memory is shown as 0


def made_up(samples: int, epochs: int = 0) -> SampleLedger:
    """A ledger, with a history if it is to have epochs."""
    random = np.random.default_rng(0)
    ledger = SampleLedger(samples)
    ledger.history = LedgerHistory(samples) if epochs else None
    for epoch in range(max(epochs, 1)):
        loss = random.exponential(2.0 / (epoch + 1), samples).astype(np.float32)
        confidence = np.exp(-loss) * np.where(random.random(samples) < 0.1, -1, 1)
        ledger._write(slice(None), loss, confidence.astype(np.float32))
        ledger.hide(torch.from_numpy((loss < 0.1) & (epoch > 0)))
        if ledger.history is not None:
            ledger.history.write(epoch, ledger, torch.ones(samples, dtype=torch.bool))
    return ledger


def measured(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds that a call takes, and by how many megabytes the process grew."""
    if _STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")  # the largest size so far is forgotten
    before, started = _largest_size(), time.perf_counter()
    call()
    return time.perf_counter() - started, (_largest_size() - before) / 1e6


def _largest_size() -> float:
    lines = _STATUS.read_text().splitlines() if _STATUS.exists() else []
    return next((int(line.split()[1]) * 1024.0 for line in lines if line.startswith("VmHWM")), 0.0)


def export(kind: str, samples: int) -> tuple[float, float, float]:
    """Seconds, megabytes and the size of the file of one export."""
    ledger = made_up(samples)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.parquet"
        calls: dict[str, Callable[[], Any]] = {
            "to_pandas": ledger.to_pandas,
            "to_dataset": ledger.to_dataset,
            "to_parquet": lambda: ledger.to_parquet(path),
            "repr": lambda: repr(ledger),
        }
        seconds, size = measured(calls[kind])
        return seconds, size, path.stat().st_size / 1e6 if path.exists() else 0.0


def history(kind: str, samples: int, epochs: int) -> tuple[float, float, float]:
    """Seconds, megabytes and bytes a sample and epoch of what a history is asked for."""
    ledger = made_up(samples, epochs)
    kept = ledger.history
    assert kept is not None
    with tempfile.TemporaryDirectory() as folder:
        calls: dict[str, Callable[[], Any]] = {
            "an epoch added": lambda: kept.write(epochs, ledger, torch.ones(samples, dtype=torch.bool)),
            "data_map": kept.data_map,
            "forgetting_events": kept.forgetting_events,
            "never_learnt": kept.never_learnt,
            "saved with a checkpoint": lambda: save_ledger(folder, ledger, {}),
        }
        seconds, size = measured(calls[kind])
    return seconds, size, kept.nbytes / (samples * len(kept))


def report(samples: int, epochs: int) -> tuple[float, float, float, float]:
    """Seconds, megabytes, those of the whole process and of the page, from the files of a training to the page."""
    labels = np.random.default_rng(1).integers(0, _CLASSES, samples)
    dataset = datasets.Dataset.from_dict({"label": labels, "value": np.arange(samples)})
    log = [
        {
            "epoch": epoch + 1.0,
            "learning_rate": 0.1,
            "kakurenbo/hidden_fraction": 0.2,
            "kakurenbo/candidates": samples // 4,
            "kakurenbo/moved_back": samples // 20,
            "kakurenbo/visible_samples": samples * 4 // 5,
            "kakurenbo/lr_scale": 1.25,
            "kakurenbo/time_saved": float(epoch),
        }
        for epoch in range(epochs)
    ]
    with tempfile.TemporaryDirectory() as folder:
        numbers = {"epoch": epochs - 1, "epoch_finished": True, "trained_samples": samples * epochs * 4 // 5}
        save_ledger(folder, made_up(samples, epochs), {**numbers, "trainer": {"epochs": log}})
        target = Path(folder) / "report.html"
        seconds, size = measured(lambda: write_report(read_run(folder), target, dataset))
        return seconds, size, _largest_size() / 1e6, target.stat().st_size / 1e6


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a process of its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(function, args)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=float, nargs="+", default=[1.3e6, 14e6], help="Of the exports.")
    parser.add_argument("--epochs", type=int, default=20, help="Of the history and the report.")
    parser.add_argument("--quick", action="store_true", help="Few samples.")
    args = parser.parse_args()
    sizes = [20_000] if args.quick else [int(size) for size in args.samples]
    rows = [
        [f"{size:,}", kind, f"{seconds:.2f} s", f"{grown:,.0f} MB", f"{file:,.1f} MB" if file else "–"]
        for size in sizes
        for kind in ("repr", "to_pandas", "to_dataset", "to_parquet")
        for seconds, grown, file in [alone(export, kind, size)]
    ]
    print(table(["samples", "export", "time", "memory", "file"], rows), end="\n\n")
    first = sizes[0]
    kinds = ("an epoch added", "data_map", "forgetting_events", "never_learnt", "saved with a checkpoint")
    rows = [
        [f"{first:,}", str(args.epochs), kind, f"{seconds:.2f} s", f"{grown:,.0f} MB", f"{bytes_each:.2f}"]
        for kind in kinds
        for seconds, grown, bytes_each in [alone(history, kind, first, args.epochs)]
    ]
    print(table(["samples", "epochs", "history", "time", "memory", "bytes a sample and epoch"], rows), end="\n\n")
    seconds, grown, whole, file = alone(report, first, args.epochs)
    row = [f"{first:,}", str(args.epochs), f"{seconds:.1f} s", *(f"{size:,.0f} MB" for size in (grown, whole))]
    print(table(["samples", "epochs", "report", "memory", "whole process", "file"], [[*row, f"{file:.1f} MB"]]))


if __name__ == "__main__":
    main()
