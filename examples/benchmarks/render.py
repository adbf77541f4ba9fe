"""How fast images are drawn from formulas, against what one would write oneself, and how near that is to a bound.

```
python examples/benchmarks/render.py                  # about six minutes on two cores
python examples/benchmarks/render.py --quick          # a smoke test, half a minute
python examples/benchmarks/render.py --device cuda    # only batches that are drawn at once on a GPU, a minute
```

Each family's images are drawn by the library, in one thread and in two; by NumPy and PIL, as one writes it first; and
by plain Numba loops that work out and store all points, or all corners, and then draw them. All of them draw the same
instances, patches, flips, viewpoints and centres included, but each with random numbers of its own. All take turns in
one run; a figure is the median over the rounds.

The bound is what the hardware needs for the least that such a drawing does. It is the sum of two loops, which take
their turns with the others and do nothing else:

- Writes: one for each that the drawing makes, to the same pixels in the same order, from a list of places (4 bytes a
  write) that was made beforehand. A fractal writes a pixel for every point within the image. A contour writes all
  pixels of all its lines that are within the image, however often a pixel was met before: `line_places` counts them,
  independently of how the library draws.
- Moves, of fractals only: for every point the 4 multiplications and 4 additions of a map in the plane, or the 9 and 9
  of one in space. They are a chain, since a move begins where the last one ended; as many points as in the library
  (five) move side by side, all by one map. So this takes as long as the chain's latency divided by five, or as the
  arithmetic of five points if the processor has to work longer on that.

The two add up, for a point's pixel is known only when the extent of all points is. What lies between the bound and the
time are choosing and looking up maps, keeping points and scaling them, and reading the image off the canvas; with
contours, the noise and finding the first pixel and the slope of each segment.

Then the datasets: `fractaldb-1k` map-style through a DataLoader with 0, 1 and 2 workers and as a stream, and the time
from `import hf_kakurenbo` to the first streamed example of `exfractaldb-21k`, in a new process.

With `--device` none of this is measured but batches: `Family.render_batch` of instances that were made beforehand, and
a dataset's `__getitems__`, which makes them. `--device cpu` tries the same code without a GPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _bound import move_only, store
from _drawings import Case, draw_subject, make_cases
from _report import processor, seconds, table, versions
from torch.utils.data import DataLoader, Subset

from hf_kakurenbo import load_fdsl
from hf_kakurenbo.fdsl.catalog import category_parameters
from hf_kakurenbo.fdsl.kernels.drawing import Drawing
from hf_kakurenbo.fdsl.kernels.iterated_functions import LANES

FAMILIES = ("fractaldb", "exfractaldb", "rcdb", "visualatom", "ofdb2d", "ofdb3d")
BATCH_SIZE_OF_IMAGES = 224
PACKAGES = ("hf-kakurenbo", "numba", "numpy", "pillow", "torch")

# ---- What is measured ----


def take_turns(turns: dict[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
    """The seconds of each call, (rounds,), after one that is not counted."""
    for turn in turns.values():
        turn()
    found: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            found[name].append(seconds(turn))
    return {name: np.array(times) for name, times in found.items()}


def measure(case: Case, rounds: int) -> dict[str, np.ndarray]:
    """The seconds of an image, (rounds,): of each way, of "two threads", and of the "writes" and "moves" alone."""
    library, images = case.ways["library"], len(case.subjects)
    pixels = np.zeros(case.size**2, dtype=case.written_as)
    halves = case.subjects[::2], case.subjects[1::2]
    with ThreadPoolExecutor(2) as pool:
        turns: dict[str, Callable[[], Any]] = {
            name: (lambda way=way: [way(subject) for subject in case.subjects]) for name, way in case.ways.items()
        }
        turns["two threads"] = lambda: list(pool.map(lambda half: [library(subject) for subject in half], halves))
        turns["writes"] = lambda: [store(pixels, places) for places in case.places]
        if case.dimensions:
            turns["moves"] = lambda: [move_only(case.units, case.dimensions) for _ in case.subjects]
        return {name: times / images for name, times in take_turns(turns, rounds).items()}


def speed_row(case: Case, found: dict[str, np.ndarray]) -> list[str]:
    """How fast the library is, and how much slower the others."""
    own, two = np.median(found["library"]), np.median(found["two threads"])
    low, high = np.percentile(found["library"], [25, 75]) * 1e3
    others = [np.median(found[way]) for way in ("NumPy", "Numba")]
    return [
        case.title,
        f"{own * 1e3:.2f} ms ({low:.2f} to {high:.2f})",
        f"{1 / own:,.0f}",
        f"{own / case.units * 1e9:.1f} ns",
        f"{1 / two:,.0f} ({own / two:.2f} ×)",
        *(f"{other * 1e3:.1f} ms ({other / own:.1f} ×)" for other in others),
    ]


def bound_row(case: Case, found: dict[str, np.ndarray]) -> list[str]:
    """The bound, and how close the library is to it."""
    own, writes = np.median(found["library"]), np.median(found["writes"])
    moves = np.median(found["moves"]) if "moves" in found else 0.0
    return [
        case.title,
        f"{np.mean([len(places) for places in case.places]):,.0f}",
        f"{writes * 1e3:.3f} ms",
        f"{moves * 1e3:.3f} ms" if moves else "–",
        f"{(writes + moves) * 1e3:.3f} ms",
        f"{own * 1e3:.3f} ms",
        f"{(writes + moves) / own:.0%}",
    ]


def measure_loading(rounds: int, images: int) -> list[list[str]]:
    """Images a second through a DataLoader and as a stream, each against the map-style dataset in this process."""
    options: dict[str, Any] = {"draw_size": 224, "points": 100_000, "as_tensor": True}
    dataset = load_fdsl("fractaldb-1k", **options)
    part = Subset(dataset, range(0, len(dataset), len(dataset) // images))
    stream = load_fdsl("fractaldb-1k", streaming=True, **options).shuffle(seed=0)
    shuffled = Subset(dataset, np.random.default_rng(0).permutation(len(dataset))[:images].tolist())
    names = {0: "DataLoader, no workers", 1: "DataLoader, 1 worker", 2: "DataLoader, 2 workers"}
    turns: dict[str, Callable[[], Any]] = {}
    for workers, name in names.items():
        loader = DataLoader(part, 25, num_workers=workers, persistent_workers=workers > 0)
        turns[name] = lambda loader=loader: [None for _ in loader]
    turns["map-style, at random"] = lambda: [shuffled[index] for index in range(images)]
    turns["stream, shuffled"] = lambda: list(islice(stream, images))
    found = take_turns(turns, rounds)
    against = {names[2]: names[1], "stream, shuffled": "map-style, at random"}
    rows = []
    for name, times in found.items():
        other = against.get(name)
        ratio = f"{np.median(found[other] / times):.2f} × {other}" if other else ""
        rows.append([name, f"{np.median(images / times):,.0f}", ratio])
    return rows


FIRST_EXAMPLE = """
import hf_kakurenbo, time
started = time.perf_counter()
next(iter(hf_kakurenbo.load_fdsl("exfractaldb-21k", streaming=True)))
print(time.perf_counter() - started)
"""


def first_examples(times: int) -> list[float]:
    """The seconds from the import to the first streamed example, each in a new process."""
    command = [sys.executable, "-c", FIRST_EXAMPLE]
    return [float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout) for _ in range(times)]


def measure_batches(name: str, device: torch.device, sizes: Sequence[int], rounds: int) -> list[list[str]]:
    """Images of a family a second, drawn at once on a device, for batches of several sizes; one row for each."""
    size = BATCH_SIZE_OF_IMAGES
    dataset = load_fdsl(f"{name}-1k", image_size=size, draw_size=size, as_tensor=True, device=device)
    family, drawing = dataset.family, Drawing(BATCH_SIZE_OF_IMAGES)
    chosen = np.random.default_rng(0).permutation(len(dataset))[: max(sizes)].tolist()
    subjects = []
    for index in chosen:
        category, instance = divmod(index, dataset.instances)
        subjects.append(draw_subject(family, category, category_parameters(family, 0, category), instance))
    synchronize = torch.get_device_module(device).synchronize

    def batch(size: int) -> None:
        instances, keys = zip(*subjects[:size], strict=True)
        family.render_batch(instances, drawing, keys, device)
        synchronize()

    def items(size: int) -> None:
        dataset.__getitems__(chosen[:size])
        synchronize()

    turns: dict[str, Callable[[], Any]] = {"CPU": lambda: [family.render(s.instance, drawing, s.key) for s in subjects]}
    for size in sizes:
        turns |= {f"batch of {size}": partial(batch, size), f"items, {size}": partial(items, size)}
    found = {turn: np.median(times) for turn, times in take_turns(turns, rounds).items()}
    on_cpu = len(subjects) / found["CPU"]
    rows = []
    for size in sizes:
        drawn, loaded = size / found[f"batch of {size}"], size / found[f"items, {size}"]
        rows.append(
            [
                name,
                f"{size}",
                f"{found[f'batch of {size}'] * 1e3:.2f} ms",
                f"{drawn:,.0f}",
                f"{loaded:,.0f}",
                f"{on_cpu:,.0f} ({drawn / on_cpu:.2f} ×)",
            ]
        )
    return rows


# ---- The report ----


def environment(device: torch.device | None) -> str:
    """The machine and the versions, as one sentence."""
    names = [f"{processor()}, {os.cpu_count()} CPU cores"]
    if device is not None and device.type == "cuda":
        names.insert(0, torch.cuda.get_device_name(device))
    return f"{'; '.join(names)}. {versions(PACKAGES)}."


def report_drawing(rounds: int, quick: bool) -> str:
    """Everything but batches on a device."""
    images = 4 if quick else 24
    speed, bounds = [], []
    for case in make_cases(images):
        print(case.title, flush=True)
        found = measure(case, rounds)
        speed.append(speed_row(case, found))
        bounds.append(bound_row(case, found))
    print("loading", flush=True)
    loading = measure_loading(rounds, 100 if quick else 1000)
    # The first one finds the files in no cache.
    starts = first_examples(1) if quick else first_examples(6)[1:]
    header = ["images", "one thread", "images/s", "a point or segment", "two threads, images/s"]
    bound_header = ["images", "writes", "writes alone", "moves alone", "bound", "one thread", "bound ÷ one thread"]
    parts = [
        f"Median of {rounds} rounds of {images} images (interquartile range).",
        table([*header, "NumPy and PIL", "plain Numba"], speed),
        "The bound: as many writes as the drawing makes, to the same pixels in the same order, the places known "
        f"beforehand; and, for fractals, the multiplications and additions of the points' moves, {LANES} points side "
        "by side, by one map that stays in registers. Moves come before writes: a point's pixel is known only when the "
        "extent of all points is. Both are measured in the same run.",
        table(bound_header, bounds),
        table(["`fractaldb-1k`, 224 px", "images/s", "against"], loading),
        f"First streamed example of `exfractaldb-21k`, after the import: {np.median(starts):.1f} s "
        f"({min(starts):.1f} to {max(starts):.1f}).",
    ]
    return "\n\n".join(parts)


def report_batches(device: torch.device, sizes: Sequence[int], rounds: int) -> str:
    """Batches on a device."""
    rows = []
    for name in FAMILIES:
        print(name, flush=True)
        rows += measure_batches(name, device, sizes, rounds)
    return "\n\n".join(
        [
            f"Median of {rounds} rounds; {BATCH_SIZE_OF_IMAGES} px, the families' own numbers of points.",
            table(
                [
                    "family",
                    "batch",
                    "a batch",
                    "`render_batch`, images/s",
                    "dataset, images/s",
                    "one CPU thread, images/s",
                ],
                rows,
            ),
        ]
    )


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure how fast images are drawn from formulas.")
    parser.add_argument("--quick", action="store_true", help="a smoke test: figures worth little")
    parser.add_argument("--rounds", type=int, help="how often each figure is measured; 9 by default, quick 1")
    parser.add_argument("--device", help="measure only batches that are drawn at once, on this device, such as cuda")
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", help="with --device; 64 and 256 by default, quick 2 and 4"
    )
    parser.add_argument("--output", type=Path, help="a file for the Markdown, beside printing it")
    args = parser.parse_args()
    if args.batch_sizes and not args.device:
        parser.error("--batch-sizes needs --device.")
    if args.device and torch.device(args.device).type == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device {args.device}: PyTorch finds no GPU; --device cpu tries the same code without one.")
    return args


def main() -> None:
    """Measure and print Markdown."""
    args = parse_arguments()
    rounds = args.rounds or (1 if args.quick else 9)
    device = None if args.device is None else torch.device(args.device)
    torch.set_num_threads(1)
    if device is None:
        measured = report_drawing(rounds, args.quick)
    else:
        measured = report_batches(device, args.batch_sizes or ((2, 4) if args.quick else (64, 256)), rounds)
    report = f"{environment(device)} {measured}"
    print("\n" + report)
    if args.output is not None:
        args.output.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
