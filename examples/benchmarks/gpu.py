"""Everything that is to be measured on a GPU, by one command that can be ended anywhere and called again.

```
python examples/benchmarks/gpu.py --list                       # stages, and what is missing on this machine
python examples/benchmarks/gpu.py                              # eight minutes of what is left, most telling first
python examples/benchmarks/gpu.py --stage steps tokens         # some stages
python examples/benchmarks/gpu.py --budget-seconds 240         # in less time
python examples/benchmarks/gpu.py --wheels wheels              # with packages from a folder, without a network
python examples/benchmarks/gpu.py --page docs/gpu.md           # nothing is measured: the page from what was
python examples/benchmarks/gpu.py --rehearse                   # all of it on the CPU, small: figures worth nothing
```

A stage is measured in pieces, in a process of its own. Each piece is written into the stage's record, a JSON file, as
soon as it is known, so a call that is ended loses one piece at most; the next call measures what is left. A piece that
failed is tried again; one that ended its process twice is passed over until `--again`. A piece is begun only if the
budget has the time that it is expected to take.

Nothing is downloaded, and nothing needs to be installed but what `--list` finds missing.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from _gpu_packages import install_wheels, missing_text
from _gpu_page import make_page
from _gpu_records import Record, measure_stage
from _gpu_stages import STAGES, Setting, Stage

ROOT = Path(__file__).resolve().parents[2]
RECORDS, REHEARSED = ROOT / "docs" / "gpu", Path("outputs/gpu_rehearsal")
BUDGET = 8 * 60
# A process is ended so long after its budget: the last piece may take longer than it was expected to.
_GRACE = 60


def list_stages(records: Path) -> str:
    """The stages, and how far each is."""
    lines = []
    for stage in STAGES.values():
        done, expected = Record(records, stage).results, f"{stage.seconds // 60}:{stage.seconds % 60:02d}"
        lines.append(
            f"{stage.name:<10} {expected:>5} min  {len(done):>2} of {len(stage.pieces):>2} done  {stage.title}"
        )
        lines += [f"{'':>10} {'x' if piece.name in done else '-'} {piece.name}" for piece in stage.pieces]
    return "\n".join([*lines, *missing_text()])


def environment_of_children(site: str) -> dict[str, str]:
    """The environment of the processes that measure: the repository and a folder of packages can be imported."""
    before = os.environ.get("PYTHONPATH")
    paths = [str(ROOT), site, *([before] if before else [])]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }


def run_stage(stage: Stage, args: argparse.Namespace, budget: float, environment: dict[str, str]) -> bool:
    """Measure a stage in a process of its own; whether the process ended by itself."""
    command = [sys.executable, str(Path(__file__).resolve()), "--inside", "--stage", stage.name]
    command += ["--budget-seconds", str(round(budget)), "--records", str(args.records)]
    command += ["--rehearse"] if args.rehearse else []
    command += ["--data", str(args.data)] if args.data else []
    try:
        done = subprocess.run(command, env=environment, timeout=budget + _GRACE, check=False)
    except subprocess.TimeoutExpired:
        print(f"{stage.name}: ended, {_GRACE} s after its time was up.")
        return False
    if done.returncode:
        print(f"{stage.name}: the process ended with {done.returncode}; the next call measures what is left.")
    return done.returncode == 0


def measure_inside(stage: Stage, args: argparse.Namespace) -> None:
    """Measure a stage in this process."""
    from _gpu_environment import environment

    record = Record(args.records, stage)
    found = environment(args.rehearse)
    try:
        record.require_environment(found)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    left = measure_stage(record, Setting(args.rehearse, args.data), args.budget_seconds)
    if left:
        names = ", ".join(piece.name for piece in left)
        print(f"{stage.name}: no time left for {names}; the next call measures them.", flush=True)


def measure(args: argparse.Namespace) -> bool:
    """Measure what is left of the stages, as far as the budget goes; whether nothing was ended or failed."""
    until = time.monotonic() + args.budget_seconds
    with tempfile.TemporaryDirectory() as site:
        if args.wheels:
            install_wheels(args.wheels, Path(site))
        return measure_stages(args, until, environment_of_children(site))


def measure_stages(args: argparse.Namespace, until: float, environment: dict[str, str]) -> bool:
    """Measure what is left of the stages until a time; whether nothing was ended or failed."""
    well = True
    for stage in [STAGES[name] for name in args.stage or STAGES]:
        if args.again:
            Record(args.records, stage).path.unlink(missing_ok=True)
        if not Record(args.records, stage).left:
            continue
        left = until - time.monotonic()
        if left <= 0:
            print(f"{stage.name}: no time left; the next call measures it.")
            continue
        well = run_stage(stage, args, left, environment) and well
        well = well and not any("error" in piece for piece in Record(args.records, stage).pieces.values())
    return well


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure on a GPU what was only measured on CPUs; or rehearse it.")
    parser.add_argument("--list", action="store_true", help="the stages, how far each is, and what is missing here")
    parser.add_argument(
        "--stage", nargs="+", metavar="STAGE", help=f"one or more of: {', '.join(STAGES)}; all by default"
    )
    parser.add_argument(
        "--budget-seconds", type=float, default=BUDGET, help="how long this call may take; 480 by default"
    )
    parser.add_argument("--records", type=Path, help="the folder of the records; docs/gpu by default")
    parser.add_argument("--page", type=Path, help="a file for the Markdown page from the records; nothing is measured")
    parser.add_argument("--data", type=Path, help="a folder with the files of Fashion-MNIST; else images from formulas")
    parser.add_argument("--wheels", type=Path, help="a folder with wheels to use, for a machine without a network")
    parser.add_argument("--again", action="store_true", help="forget what was recorded of the stages that are measured")
    parser.add_argument(
        "--rehearse", action="store_true", help="on the CPU, small; into outputs/gpu_rehearsal by default"
    )
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)  # the process of a stage
    args = parser.parse_args()
    unknown = [name for name in args.stage or () if name not in STAGES]
    if unknown:
        parser.error(f"unknown stage {unknown[0]!r}; there are: {', '.join(STAGES)}")
    if args.budget_seconds <= 0:
        parser.error(f"--budget-seconds {args.budget_seconds:g}: some time is needed, 480 by default.")
    for name in ("data", "wheels"):
        folder = getattr(args, name)
        if folder is not None and not folder.is_dir():
            parser.error(f"--{name} {folder}: there is no such folder.")
    args.records = (args.records or (REHEARSED if args.rehearse else RECORDS)).resolve()
    return args


def main() -> NoReturn:
    """List, measure, or write the page."""
    args = parse_arguments()
    well = True
    try:
        if args.list:
            print(list_stages(args.records))
        elif args.page:
            args.page.write_text(make_page(args.records), encoding="utf-8")
        elif args.inside:
            measure_inside(STAGES[args.stage[0]], args)
        else:
            well = measure(args)
    except ValueError as error:  # a file that is no record
        sys.exit(str(error))
    sys.exit(not well)


if __name__ == "__main__":
    main()
