"""What the ends of an epoch cost with many samples and many ranks: seconds, bytes sent, memory.

```
python examples/benchmarks/scaling.py                                        # all parts at 1.3 and 14 million samples
python examples/benchmarks/scaling.py exchange --samples 300e6 --ranks 2     # 300 million; 12 GB of memory
python examples/benchmarks/scaling.py exchange --samples 300e6 --ranks 4 --precision compact
python examples/benchmarks/scaling.py --quick                                # a smoke test, under a minute
```

No model is trained: the figures of the samples are made up, everything else is what a training does between two epochs.

Parts:
    exchange: every rank has measured its fraction of the samples, in a random order; all ledgers are brought up to date
        by real collective calls, over gloo, between processes on this machine. Every case is a group of processes of
        its own. Bytes are what the loopback interface counts, if nothing else uses it.
    boundary: in one process, choosing what to hide, its digest, the order of the epoch, its digest, the ledger's file.

Memory is the rise of a process's largest resident size (`VmHWM`) during a call; in bytes a sample, of all N of them.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from _report import table

from hf_kakurenbo.hiding import HidingRun, KakurenboPolicy, Measurements, SampleLedger, SampleStatistics
from hf_kakurenbo.hiding.checkpoint import LEDGER_NAME, save_state

_BATCH = 2**16
_MOST_TO_COLLECT = 50_000_000


@dataclass(frozen=True)
class Case:
    """What one group of processes measures."""

    samples: int
    ranks: int
    precision: str
    repetitions: int


# ---- Between the ranks ----


def exchange(args: argparse.Namespace) -> str:
    """The ledgers of all ranks brought up to date."""
    cases = [Case(samples, ranks, args.precision, args.repetitions) for samples in args.samples for ranks in args.ranks]
    rows = []
    for case in cases:
        print(f"exchange, {case.samples:,} samples, {case.ranks} ranks", flush=True)
        rows.append(_exchange_row(case, _on_ranks(case)))
    header = ["samples", "ranks", "seconds", "sending", "writing", "sent by a rank", "ideal", "its rise", "held"]
    header += ["collecting", "its rise"]
    return f"## Exchange, {args.precision} ledger\n\n{table(header, rows)}"


def _exchange_row(case: Case, outcomes: list[dict[str, Any]]) -> list[str]:
    def middle(name: str) -> float:
        return float(np.median([max(outcome[name][i] for outcome in outcomes) for i in range(case.repetitions)]))

    ideal = 12 * case.samples * (case.ranks - 1) / case.ranks
    sent = np.median(outcomes[0]["interface"]) / case.ranks
    held = outcomes[0]["ledger"] + outcomes[0]["rows"]
    return [
        f"{case.samples:,}",
        str(case.ranks),
        f"{middle('seconds'):.3f} s",
        f"{middle('sending'):.3f} s",
        f"{middle('writing'):.3f} s",
        f"{sent / 1e6:,.1f} MB",
        f"{ideal / 1e6:,.1f} MB",
        f"{max(max(outcome['memory']) for outcome in outcomes) / 1e6:,.0f} MB",
        f"{outcomes[0]['ledger'] / case.samples:g} + {outcomes[0]['rows'] / case.samples:g} = "
        f"{held / case.samples:g} bytes a sample",
        *_collecting(case, middle("saving"), max(max(outcome["saving_memory"]) for outcome in outcomes)),
    ]


def _collecting(case: Case, seconds: float, memory: int) -> list[str]:
    return [f"{seconds:.3f} s", f"{memory / 1e6:,.0f} MB"] if case.samples < _MOST_TO_COLLECT else ["–", "–"]


def _on_ranks(case: Case) -> list[dict[str, Any]]:
    """What each rank measured."""
    context = get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        processes = [context.Process(target=_rank, args=(case, rank, folder)) for rank in range(case.ranks)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        if any(process.exitcode for process in processes):
            raise SystemExit(f"A process failed: exit codes {[process.exitcode for process in processes]}.")
        return [json.loads((Path(folder) / str(rank)).read_text()) for rank in range(case.ranks)]


def _rank(case: Case, rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=case.ranks)
    run = HidingRun(case.samples, KakurenboPolicy(), ledger_precision=case.precision)
    outcomes = [_exchange_once(case, rank, run) for _ in range(case.repetitions)]
    result = {name: [outcome[name] for outcome in outcomes] for name in outcomes[0]}
    result["ledger"] = run.ledger.nbytes
    result["rows"] = 12 * len(range(rank, case.samples, case.ranks))
    (Path(folder) / str(rank)).write_text(json.dumps(result))
    dist.barrier()
    os._exit(0)  # gloo may abort where Python tears it down


def _exchange_once(case: Case, rank: int, run: HidingRun) -> dict[str, float]:
    for ids in _shares(case, rank):
        run.recorder.add(ids, _statistics(ids))
    # For a checkpoint in the middle of an epoch each rank collects what all have measured.
    saving, saving_memory = measured(run.state) if case.samples < _MOST_TO_COLLECT else (0.0, 0)
    clock = {"sending": 0.0, "writing": 0.0}
    with _timed(dist, "all_gather", clock, "sending"), _timed(type(run.ledger), "update", clock, "writing"):
        dist.barrier()
        before = _sent_on_this_machine()
        dist.barrier()
        seconds, memory = measured(lambda: run.recorder.merge_into(run.ledger))
        dist.barrier()
    return {
        **clock,
        "seconds": seconds,
        "memory": memory,
        "interface": _sent_on_this_machine() - before,
        "saving": saving,
        "saving_memory": saving_memory,
    }


def _shares(case: Case, rank: int) -> Iterator[torch.Tensor]:
    """This rank's fraction of an epoch in which the samples come in an order that jumps through all of them."""
    step = int(0.618 * case.samples) | 1
    while np.gcd(step, case.samples) != 1:
        step += 2
    places = np.arange(rank, case.samples, case.ranks)
    for start in range(0, len(places), _BATCH):
        yield torch.from_numpy(places[start : start + _BATCH] * step % case.samples)


def _statistics(ids: torch.Tensor) -> SampleStatistics:
    loss = (ids % 9973).float() / 1000
    return SampleStatistics(loss, loss < 8, torch.exp(-loss))


@contextmanager
def _timed(owner: Any, name: str, clock: dict[str, float], entry: str) -> Iterator[None]:
    """Add up what the calls of a function take."""
    function = getattr(owner, name)

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = function(*args, **kwargs)
        clock[entry] += time.perf_counter() - started
        return result

    setattr(owner, name, timed)
    try:
        yield
    finally:
        setattr(owner, name, function)


def _sent_on_this_machine() -> int:
    """Bytes that the loopback interface has sent; 0 where Linux does not say."""
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split(":")[1].split()[8]) for line in lines if line.strip().startswith("lo:")), 0)


# ---- In one process ----


def boundary(args: argparse.Namespace) -> str:
    """What a rank does by itself between two epochs."""
    rows = []
    for samples in args.samples:
        for precision in ("full", "compact"):
            print(f"boundary, {samples:,} samples, {precision}", flush=True)
            rows.append(_boundary_row(samples, precision, args.repetitions))
    header = ["samples", "ledger", "choosing", "its rise", "digest", "order", "its rise", "its digest"]
    header += ["file", "saving"]
    return f"## Between two epochs\n\n{table(header, rows)}"


def _boundary_row(samples: int, precision: str, repetitions: int) -> list[str]:
    # The processes of `exchange` import this file anew, and need not wait for these.
    from accelerate.data_loader import SeedableRandomSampler

    from hf_kakurenbo.data import VisibleSampler

    run = HidingRun(samples, KakurenboPolicy(hiding_warmup_epochs=0), ledger_precision=precision)
    _fill(run.ledger)
    sampler = VisibleSampler(SeedableRandomSampler(range(samples), data_seed=0))
    choosing, choosing_memory = _best(lambda: run.begin_epoch(1, 0.0), repetitions)
    digest, _ = _best(run.ledger.digest, repetitions)
    order, order_memory = measured(lambda: sampler.begin_epoch(1, run.ledger.hidden))
    order_digest, _ = _best(sampler.digest, repetitions)
    with tempfile.TemporaryDirectory() as folder:
        saving, _ = _best(lambda: save_state(folder, *run.state()), 1)
        size = (Path(folder) / LEDGER_NAME).stat().st_size
    return [
        f"{samples:,}",
        f"{precision}, {run.ledger.nbytes / samples:g} bytes a sample",
        f"{choosing:.3f} s",
        f"{choosing_memory / samples:.1f} bytes a sample",
        f"{digest:.3f} s",
        f"{order:.2f} s",
        f"{order_memory / samples:.1f} bytes a sample",
        f"{order_digest:.3f} s",
        f"{size / samples:.1f} MB a million",
        f"{saving:.2f} s",
    ]


def _fill(ledger: SampleLedger) -> None:
    """Losses as late in a training: log-normal; 80 % of the samples right, most of them with confidence."""
    generator = np.random.default_rng(0)
    for part in ledger.parts():
        count = part.stop - part.start
        loss = np.exp(1.5 * generator.standard_normal(count, dtype=np.float32) - 1)
        correct = generator.random(count, dtype=np.float32) < 0.8
        confidence = np.sqrt(generator.random(count, dtype=np.float32))
        ids = torch.arange(part.start, part.stop)
        ledger.update(Measurements.of(ids, *map(torch.from_numpy, (loss, correct, confidence))))


# ---- Figures ----


def _best(function: Callable[[], Any], times: int) -> tuple[float, int]:
    """Median seconds and largest rise of memory."""
    outcomes = [measured(function) for _ in range(times)]
    return float(np.median([seconds for seconds, _ in outcomes])), max(memory for _, memory in outcomes)


def measured(function: Callable[[], Any]) -> tuple[float, int]:
    """How long a call takes, and by how many bytes the process grows, at most; 0 where Linux does not say."""
    before = _reset_peak()
    started = time.perf_counter()
    function()
    seconds = time.perf_counter() - started
    return seconds, max(0, _status_bytes("VmHWM") - before)


def _reset_peak() -> int:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 0
    return _status_bytes("VmRSS")


def _status_bytes(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


PARTS: dict[str, Callable[[argparse.Namespace], str]] = {"exchange": exchange, "boundary": boundary}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure what the ends of an epoch cost with many samples and ranks.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"one or more of: {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a smoke test of all parts with 200,000 samples")
    parser.add_argument("--samples", type=float, nargs="+", help="how many; 1.3 and 14 million by default")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4], help="processes in `exchange`; 2 and 4")
    parser.add_argument("--precision", choices=["full", "compact"], default="full", help="the ledger in `exchange`")
    parser.add_argument("--repetitions", type=int, help="how often each figure is measured; 5 by default, quick 2")
    args = parser.parse_args()
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; there are: {', '.join(PARTS)}")
    args.samples = [int(samples) for samples in args.samples or ([2e5] if args.quick else [1.3e6, 14e6])]
    args.repetitions = args.repetitions or (2 if args.quick else 5)
    return args


def main() -> None:
    """Measure the parts asked for and print their tables."""
    args = parse_arguments()
    torch.set_num_threads(1)
    print("\n" + "\n\n".join(PARTS[part](args) for part in args.parts or PARTS))


if __name__ == "__main__":
    main()
