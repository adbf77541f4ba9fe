"""How fast images are drawn from formulas, against two ways in which one would write it oneself.

```
python examples/benchmarks/render.py               # about three minutes on two cores
python examples/benchmarks/render.py --quick       # a smoke test, half a minute
```

Each family's images are drawn by the library, in one thread and in two; by NumPy and PIL, as one writes it first; and,
for fractals, by a plain Numba loop that stores all points and then draws them. All take turns in one run; a figure is
the median over the rounds. "Stores alone" is a bound: as many writes into an image as the drawing makes, to places that
were worked out beforehand.

Then the datasets: `fractaldb-1k` map-style through a DataLoader with 0, 1 and 2 workers and as a stream, and the time
from `import hf_kakurenbo` to the first streamed example of `exfractaldb-21k`, in a new process.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader, Subset

from hf_kakurenbo import load_fdsl
from hf_kakurenbo.fdsl.catalog import category_parameters, find_family
from hf_kakurenbo.fdsl.family import Drawing, Family, Parameters

# ---- As one would write it oneself ----


def ifs_in_numpy(maps: np.ndarray, probabilities: np.ndarray, count: int) -> np.ndarray:
    """The chaos game in the plane, a Python loop: (count, 2)."""
    chosen = np.random.default_rng(0).choice(len(maps), count, p=probabilities)
    points = np.empty((count, 2))
    x = y = 0.0
    rows = maps.tolist()
    for number, index in enumerate(chosen.tolist()):
        a, b, c, d, e, f = rows[index]
        x, y = a * x + b * y + e, c * x + d * y + f
        points[number] = x, y
    return points


@njit(cache=True)
def ifs_in_numba(maps: np.ndarray, cumulative: np.ndarray, count: int) -> np.ndarray:
    """The chaos game in two or three dimensions, a plain loop that stores all points: (count, dimensions)."""
    dimensions = 2 if maps.shape[1] == 6 else 3
    points = np.empty((count, dimensions))
    place, moved = np.zeros(dimensions), np.zeros(dimensions)
    for number in range(count):
        index = min(np.searchsorted(cumulative, np.random.random()), len(cumulative) - 1)
        for row in range(dimensions):
            moved[row] = maps[index, dimensions * dimensions + row]
            for column in range(dimensions):
                moved[row] += maps[index, dimensions * row + column] * place[column]
        place[:] = moved
        points[number] = place
    return points


def draw_plane(points: np.ndarray, size: int) -> np.ndarray:
    """Points scaled to the image, gray on black."""
    low, high = points.min(0), points.max(0)
    places = ((points - low) / (high - low) * (size - 13) + 6).astype(np.int64)
    image = np.zeros((size, size), dtype=np.uint8)
    image[size - 1 - places[:, 1], places[:, 0]] = 127
    return image


def draw_space(points: np.ndarray, size: int) -> np.ndarray:
    """Points in perspective, seen along the z axis, white on black."""
    points = 2 * (points - points.min()) / (points.max() - points.min()) - 1
    points = points - points.mean(0)
    scale = (1 + 2**0.5) * size / 2 / (4 - points[:, 2])
    columns, rows = (size / 2 + points[:, 0] * scale).astype(int), (size / 2 - points[:, 1] * scale).astype(int)
    inside = (columns >= 0) & (columns < size) & (rows >= 0) & (rows < size)
    image = np.zeros((size, size), dtype=np.uint8)
    image[rows[inside], columns[inside]] = 255
    return image


def ifs_in_numpy_3d(maps: np.ndarray, probabilities: np.ndarray, count: int) -> np.ndarray:
    """The chaos game in space, a Python loop over NumPy's matrix products: (count, 3)."""
    chosen = np.random.default_rng(0).choice(len(maps), count, p=probabilities)
    matrices, shifts = maps[:, :9].reshape(-1, 3, 3), maps[:, 9:]
    points, place = np.empty((count, 3)), np.zeros(3)
    for number, index in enumerate(chosen.tolist()):
        place = matrices[index] @ place + shifts[index]
        points[number] = place
    return points


def perlin(positions: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Perlin's noise in one dimension."""
    cells = np.floor(positions).astype(int)
    here = positions - cells
    fade = here**3 * (here * (here * 6 - 15) + 10)
    left, right = slopes[cells % 256] * here, slopes[(cells + 1) % 256] * (here - 1)
    return 0.4 * (left + fade * (right - left))


def contours_in_numpy(instance: Any, size: int) -> np.ndarray:
    """Contours by NumPy, a polygon of PIL's for each line."""
    generator = np.random.default_rng(0)
    slopes = generator.choice([-1.0, *range(1, 9)], 256)
    angles = 2 * np.pi * np.arange(instance.vertices) / instance.vertices
    x = instance.center_x + instance.radius_x * np.cos(angles)
    y = instance.center_y + instance.radius_y * np.sin(angles)
    outward = instance.outward + sum(0.5 * np.sin(frequency * angles) for frequency in instance.frequencies)
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)
    for _ in range(instance.lines):
        noise = perlin(generator.uniform(0, 10_000, (2, instance.vertices)), slopes)
        x = x + np.cos(angles) * (outward - instance.noise_gain * noise[0])
        y = y + np.sin(angles) * (outward - instance.noise_gain * noise[1])
        corners = list(zip((x * size / 512).tolist(), (y * size / 512).tolist(), strict=True))
        draw.line([*corners, corners[0]], fill=int(generator.integers(256)))
    return np.asarray(image)


@njit(cache=True)
def store(pixels: np.ndarray, places: np.ndarray) -> None:
    """Nothing but the writes."""
    for place in places:
        pixels[np.uint64(place)] = 1


# ---- What is measured ----


@dataclass(frozen=True)
class Case:
    """Images of a family of one size, and the ways in which they are drawn.

    Attributes:
        title: of its row.
        units: the points or line segments of an image, for the time of one.
        stores: writes into an image.
        size: of an image in pixels.
        ways: of each way a function from a number to an image.
    """

    title: str
    units: int
    stores: int
    size: int
    ways: dict[str, Callable[[int], Any]]


def by_library(family: Family, parameters: Sequence[Parameters], drawing: Drawing) -> Callable[[int], Any]:
    """Instances of categories in turn, a thousand apart from image to image."""
    prepared = []
    for number in range(24):
        key = family.instance_key(0, number % len(parameters), number)
        prepared.append((family.draw_instance(parameters[number % len(parameters)], number, key), key))

    def draw(number: int) -> Any:
        instance, key = prepared[number % len(prepared)]
        return family.render(instance, drawing, key)

    return draw


def fractal_case(name: str, size: int) -> Case:
    """Eight categories of a fractal family with its own number of points."""
    family = find_family(name)
    points = family.points or 0
    categories = [category_parameters(family, 0, category) for category in range(8)]
    by_hand, draw = (ifs_in_numpy, draw_plane) if name == "fractaldb" else (ifs_in_numpy_3d, draw_space)

    def numpy_and_pil(number: int) -> Any:
        maps = categories[number % 8]
        return Image.fromarray(draw(by_hand(maps[:, :-1], maps[:, -1], points), size))

    def plain_numba(number: int) -> Any:
        maps = categories[number % 8]
        return draw(ifs_in_numba(maps[:, :-1].copy(), np.cumsum(maps[:, -1]), points), size)

    ways = {"library": by_library(family, categories, Drawing(size)), "NumPy": numpy_and_pil, "Numba": plain_numba}
    return Case(f"{family.name}, {points:,} points, {size} px", points, points, size, ways)


def contour_case(title: str, name: str, size: int, parameters: Sequence[Parameters]) -> Case:
    """Some categories of a contour family."""
    family = find_family(name)
    instances = []
    for number, table in enumerate(parameters):
        key = family.instance_key(0, number, number)
        instances.append(family.draw_instance(table, number, key))
    segments = int(np.mean([instance.vertices * instance.lines for instance in instances]))
    ways = {
        "library": by_library(family, parameters, Drawing(size)),
        "NumPy": lambda number: contours_in_numpy(instances[number % len(instances)], size),
    }
    return Case(f"{title}, {size} px", segments, segments, size, ways)


def make_cases() -> list[Case]:
    """What the tables show."""
    atom = np.array([[600.0, 100.0, 25.0, 4.0, 0.005, 1.5, 1.5, 3.0, 7.0]])
    rcdb = [category_parameters(find_family("rcdb"), 0, category) for category in range(24)]
    atoms = [category_parameters(find_family("visualatom"), 0, category) for category in range(24)]
    return [
        fractal_case("fractaldb", 224),
        fractal_case("fractaldb", 512),
        fractal_case("exfractaldb", 224),
        contour_case("rcdb, 24 categories", "rcdb", 512, rcdb),
        contour_case("visualatom, 24 categories", "visualatom", 512, atoms),
        contour_case("visualatom, 600 vertices × 100 lines", "visualatom", 512, [atom]),
    ]


def seconds(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def measure(case: Case, rounds: int) -> list[str]:
    """A row of the table."""
    library, images = case.ways["library"], 24
    places = np.random.default_rng(0).integers(0, case.size**2, case.stores)
    pixels = np.zeros(case.size**2, dtype=np.int32)
    with ThreadPoolExecutor(2) as pool:
        halves = [range(0, images, 2), range(1, images, 2)]

        def in_two_threads() -> None:
            list(pool.map(lambda half: [library(number) for number in half], halves))

        turns: dict[str, Callable[[], Any]] = {
            "library": lambda: [library(number) for number in range(images)],
            "two threads": in_two_threads,
            "stores": lambda: [store(pixels, places) for _ in range(images)],
        }
        turns |= {
            way: (lambda draw=draw: [draw(number) for number in range(2)])
            for way, draw in case.ways.items()
            if way != "library"
        }
        for turn in turns.values():
            turn()
        found: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(rounds):
            for name, turn in turns.items():
                found[name].append(seconds(turn) / (2 if name in ("NumPy", "Numba") else images))
    typical = {name: float(np.median(times)) for name, times in found.items()}
    own = typical["library"]
    spread = np.percentile(found["library"], [25, 75]) * 1e3
    return [
        case.title,
        f"{own * 1e3:.2f} ms ({spread[0]:.2f} to {spread[1]:.2f})",
        f"{1 / own:,.0f}",
        f"{own / case.units * 1e9:.1f} ns",
        f"{own / typical['two threads']:.2f} ×",
        f"{typical['stores'] * 1e3:.2f} ms",
        f"{typical['NumPy'] * 1e3:,.0f} ms ({typical['NumPy'] / own:,.0f} ×)",
        f"{typical['Numba'] * 1e3:.1f} ms ({typical['Numba'] / own:.1f} ×)" if "Numba" in typical else "–",
    ]


def measure_loading(rounds: int, images: int) -> list[list[str]]:
    """Images a second through a DataLoader and as a stream, each against the map-style dataset in this process."""
    dataset = load_fdsl("fractaldb-1k", as_tensor=True)
    part = Subset(dataset, range(0, len(dataset), len(dataset) // images))
    stream = load_fdsl("fractaldb-1k", streaming=True, as_tensor=True).shuffle(seed=0)
    shuffled = Subset(dataset, np.random.default_rng(0).permutation(len(dataset))[:images].tolist())
    loaders = {count: DataLoader(part, 25, num_workers=count, persistent_workers=count > 0) for count in (0, 1, 2)}
    turns: dict[str, Callable[[], Any]] = {
        f"DataLoader, {count} workers": (lambda loader=loader: [None for _ in loader])
        for count, loader in loaders.items()
    }
    turns["map-style, at random"] = lambda: [shuffled[index] for index in range(images)]
    turns["stream, shuffled"] = lambda: list(islice(stream, images))
    found: dict[str, list[float]] = {name: [] for name in turns}
    for turn in turns.values():
        turn()
    for _ in range(rounds):
        for name, turn in turns.items():
            found[name].append(images / seconds(turn))
    rows = []
    against = {"DataLoader, 2 workers": "DataLoader, 1 workers", "stream, shuffled": "map-style, at random"}
    for name, rates in found.items():
        other = against.get(name)
        ratio = f"{np.median(np.array(rates) / np.array(found[other])):.2f} × {other}" if other else ""
        rows.append([name.replace("1 workers", "1 worker"), f"{np.median(rates):,.0f}", ratio])
    return rows


FIRST_EXAMPLE = """
import hf_kakurenbo, time
started = time.perf_counter()
next(iter(hf_kakurenbo.load_fdsl("exfractaldb-21k", streaming=True)))
print(time.perf_counter() - started)
"""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, ["---"] * len(header), *rows])


def main() -> None:
    """Measure and print Markdown."""
    parser = argparse.ArgumentParser(description="Measure how fast images are drawn from formulas.")
    parser.add_argument("--quick", action="store_true", help="a smoke test: figures worth little")
    parser.add_argument("--rounds", type=int, help="how often each figure is measured; 9 by default, quick 2")
    parser.add_argument("--output", type=Path, help="a file for the Markdown, beside printing it")
    args = parser.parse_args()
    rounds = args.rounds or (2 if args.quick else 9)
    torch.set_num_threads(1)
    rows = []
    for case in make_cases():
        print(case.title, flush=True)
        rows.append(measure(case, rounds))
    print("loading", flush=True)
    loading = measure_loading(rounds, 200 if args.quick else 1000)
    starts = [
        float(subprocess.run([sys.executable, "-c", FIRST_EXAMPLE], capture_output=True, text=True, check=True).stdout)
        for _ in range(1 + min(rounds, 5))
    ][1:]
    header = ["images", "one thread", "images/s", "a point or segment", "two threads", "stores alone"]
    report = "\n\n".join(
        [
            table([*header, "NumPy and PIL", "plain Numba"], rows),
            table(["`fractaldb-1k`, 224 px", "images/s", ""], loading),
            f"First streamed example of `exfractaldb-21k`, after the import: {np.median(starts):.1f} s "
            f"({min(starts):.1f} to {max(starts):.1f}).",
        ]
    )
    print("\n" + report)
    if args.output is not None:
        args.output.write_text(report + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
