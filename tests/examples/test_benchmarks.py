"""The benchmarks, run as a user runs them but in seconds: what they print, and that they compare like with like.

No figure of time is judged here, only that there is one.
"""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"
NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


def run(script, *options):
    """What a script prints, in a process with one thread, without a GPU and a network."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *options],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def tables(report):
    """Of each Markdown table in a report: its header, and its rows."""
    found = []
    for block in report.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        if lines:
            cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
            assert all(re.fullmatch(":?-+:?", cell) for cell in cells[1])
            assert {len(row) for row in cells} == {len(cells[0])}, "a row has other columns than its table"
            found.append((cells[0], cells[2:]))
    return found


def numbers(cell):
    """The figures in a cell."""
    return [float(figure.replace(",", "")) for figure in NUMBER.findall(cell)]


def assert_figures(rows, but_columns=(0,), signed=False):
    """Every cell has figures, none of them negative or nothing at all; a dash stands for what there is none of."""
    for row in rows:
        for column, cell in enumerate(row):
            if column not in but_columns and cell not in ("", "–"):
                assert numbers(cell), f"no figure in {cell!r} of {row}"
                assert signed or (numbers(cell)[0] > 0 and min(numbers(cell)) >= 0), f"{cell!r} of {row}"


@pytest.fixture(scope="module")
def render():
    """`render.py` as a module."""
    # Under the name by which Numba's cache of its functions finds it again.
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("render")
    sys.modules.pop("render", None)


@pytest.mark.wide
def test_render_prints_speed_bounds_and_loading(tmp_path):
    report = run("render.py", "--quick", "--output", str(tmp_path / "report.md"))
    (speed_header, speed), (bound_header, bounds), (_, loading) = tables(report)
    assert speed_header[-2:] == ["NumPy and PIL", "plain Numba"]
    assert bound_header[-1] == "bound ÷ one thread"
    for family in ("fractaldb", "ofdb2d", "exfractaldb", "ofdb3d", "rcdb", "visualatom"):
        assert any(row[0].startswith(f"{family}, ") for row in speed)
    assert [row[0] for row in bounds] == [row[0] for row in speed]
    assert_figures(speed)
    assert_figures(bounds)
    assert not any("–" in row for row in speed)
    assert [row[0].split(",")[0] for row in bounds if row[3] == "–"] == ["rcdb", "visualatom", "visualatom"]
    for row in bounds:
        writes, moves = (numbers(cell) or [0.0] for cell in row[2:4])
        assert numbers(row[4])[0] == pytest.approx(writes[0] + moves[0], abs=2e-3)
    assert len(loading) == 5
    assert_figures(loading)
    assert (tmp_path / "report.md").read_text(encoding="utf-8") in report


@pytest.mark.wide
def test_render_measures_batches_on_a_device():
    report = run("render.py", "--quick", "--device", "cpu", "--batch-sizes", "1", "3")
    [(header, rows)] = tables(report)
    assert header[:2] == ["family", "batch"]
    families = ("fractaldb", "exfractaldb", "rcdb", "visualatom", "ofdb2d", "ofdb3d")
    assert [row[:2] for row in rows] == [[family, size] for family in families for size in ("1", "3")]
    assert_figures(rows)


def test_all_ways_of_render_draw_the_same(render):
    for case in render.make_cases(4):
        background = 255 if case.title.startswith("rcdb") else 0
        lit = {way: [] for way in case.ways}
        for subject in case.subjects:
            for way, draw in case.ways.items():
                image = np.asarray(draw(subject))
                assert image.shape == (case.size, case.size)
                assert image.dtype == np.uint8
                assert set(np.unique(image)) <= ({0, 127} if "fractaldb" in case.title[:9] else set(range(256)))
                lit[way].append(np.mean(image != background))
        # Other random numbers: an outlier among the points can make a fractal a third smaller.
        for way in ("NumPy", "Numba"):
            assert np.median(np.divide(lit[way], lit["library"])) == pytest.approx(1, abs=0.1), (case.title, way)


def test_as_many_writes_are_counted_as_lines_have_pixels(render):
    *_, rcdb, atoms, atom = render.make_cases(8)
    for case in (rcdb, atoms, atom):
        for subject, places in zip(case.subjects, case.places, strict=True):
            image = case.ways["library"](subject).ravel()
            written = np.zeros(case.size**2, dtype=bool)
            written[places] = True
            inked = image != (255 if case is rcdb else 0)
            # A vertex that rounding puts into another pixel moves a line by one; one ink in 256 is the background's.
            assert np.sum(inked & ~written) <= 0.001 * case.size**2
            assert np.sum(written & ~inked) <= 0.03 * case.size**2
            assert len(places) > written.sum()


@pytest.mark.wide
def test_a_network_learns_the_categories_and_its_features_read_digits():
    report = run("learning.py", "--quick")
    told, chance = (float(share) for share in re.search(r": ([\d.]+)% ± .*\(chance ([\d.]+)%\)", report).groups())
    assert told > 10 * chance
    [(header, rows)] = tables(report)
    assert header == ["digits read from", "2 labels a digit", "5 labels a digit", "20 labels a digit"]
    assert [row[0] for row in rows] == [
        "third convolution, random weights",
        "third convolution, trained on fractaldb-60",
        "last convolution, random weights",
        "last convolution, trained on fractaldb-60",
        "the pixels themselves",
    ]
    assert_figures(rows)
    # Whether trained features are the better ones shows over more seeds and longer trainings than these.
    for row in rows:
        few, some, many = (numbers(cell)[0] for cell in row[1:])
        assert 30 < few < some < many < 100
    assert re.search(r"paired by seed: -?[\d.]+% ± [\d.]+%", report)


@pytest.mark.wide
def test_overhead_prints_its_parts():
    (_, nothing_hidden), (_, hiding), (_, parts), (_, selection) = tables(
        run("overhead.py", "--quick", "--rounds", "1")
    )
    assert len(nothing_hidden) == 6
    assert_figures(nothing_hidden, but_columns=(0, 1), signed=True)
    assert all(numbers(row[2])[0] > 0 for row in nothing_hidden)
    assert len(hiding) == len(parts) == 3
    assert_figures([row[:4] for row in hiding])
    assert_figures(hiding + parts, signed=True)
    assert [numbers(row[0]) for row in selection] == [[130_000.0], [1_300_000.0]]
    assert all(numbers(cell) or cell == "–" for row in selection for cell in row)


@pytest.mark.wide
def test_scaling_prints_what_was_sent_and_held():
    (_, [exchange]), (_, boundary) = tables(run("scaling.py", "--quick", "--ranks", "2"))
    assert [numbers(cell) for cell in exchange[:2]] == [[200_000.0], [2.0]]
    sent, ideal = (numbers(cell)[0] for cell in exchange[5:7])
    assert ideal == 1.2, "half of 12 bytes a sample"
    assert sent == 0 or sent >= ideal, "the ranks exchanged less than they measured"
    assert "12 + 6 = 18 bytes a sample" in exchange[8]
    assert [row[1] for row in boundary] == ["full, 12 bytes a sample", "compact, 6 bytes a sample"]
    assert [row[8] for row in boundary] == ["12.0 MB a million", "6.0 MB a million"]
    assert all(numbers(cell) for row in boundary for cell in row[2:])


def test_tokens_prints_memory_and_time():
    report = run("tokens.py", "--quick")
    assert re.search(r"Memory, 4 x 512 tokens, 4,096 words: logits 34 MB, statistics [\d.,-]+ MB", report)
    assert re.search(r"Time, 64 tokens, 4,096 words, width 64: [\d.]+% \([\d.]+%\.\.[\d.]+%\)", report)


@pytest.mark.wide
def test_reporting_prints_exports_history_and_report():
    (header, exports), (_, history), (_, [report]) = tables(run("reporting.py", "--quick", "--epochs", "3"))
    assert header == ["samples", "export", "time", "memory", "file"]
    assert [row[1] for row in exports] == ["repr", "to_pandas", "to_dataset", "to_parquet"]
    assert {row[0] for row in exports} == {"20,000"}
    assert all(row[-1] == "2.25" for row in history)
    assert len(history) == 5
    assert report[:2] == ["20,000", "3"]
    assert all(numbers(cell) for cell in report)


def test_what_comes_back_from_its_rest():
    report = run("returning.py", "digits", "--quick")
    ((header, rows),) = tables(report)
    assert header == ["interval", "epochs of rest", "came back", "known", "correct", "mean loss"]
    pauses = {(int(row[0]), int(row[1])) for row in rows}
    assert {(2, 0), (2, 1), (4, 1), (4, 2), (4, 3)} <= pauses
    assert all(interval // 2 <= rest + 1 <= interval for interval, rest in pauses)
    assert_figures(rows, but_columns=(0, 1))


def test_data_path_compares_the_two_ways():
    (header, rows), *others = tables(run("data_path.py", "--quick"))
    assert others == []
    assert header[-2:] == ["images/s a worker", "with finishing"]
    assert [row[1] for row in rows] == ["pil", "tensors", "times as fast"]
    assert_figures(rows, but_columns=(0, 1))
