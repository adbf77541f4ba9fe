"""Families with other values than the published ones: a subclass sets them, and wrong ones are refused at once."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hf_kakurenbo.fdsl import catalog
from hf_kakurenbo.fdsl.catalog import accepted_attempts, find_family
from hf_kakurenbo.fdsl.families.exfractaldb import ExFractalDB
from hf_kakurenbo.fdsl.families.fractaldb import FractalDB
from hf_kakurenbo.fdsl.families.map_family import MapFamily, orbit_key, split
from hf_kakurenbo.fdsl.families.ranges import between, whole_between
from hf_kakurenbo.fdsl.families.rcdb import RCDB
from hf_kakurenbo.fdsl.kernels.drawing import Drawing
from hf_kakurenbo.fdsl.kernels.iterated_functions import play
from hf_kakurenbo.fdsl.kernels.plane import count_pixels

PAGE = (Path(__file__).parents[2] / "docs" / "fdsl.md").read_text(encoding="utf-8")
SECTION = PAGE.split("**A family with other values.**")[1].split("- **Pure**")[0]
unit = st.floats(0, 1, exclude_max=True)


class Wide(FractalDB):
    name = "wide"
    map_range = (3, 5)
    coefficient_range = (-0.5, 1.5)


class Rings(RCDB):
    name = "rings"
    vertex_range = (10, 300)
    line_range = (5, 9)
    noise_range = (1.0, 2.0)
    width_range = (0.5, 0.75)
    radius_range = (40, 60)
    ellipse_range = (1.0, 1.0)
    center_range = (-10, 10)


@given(u=unit, low=st.integers(-100, 100), more=st.integers(0, 100))
def test_between_the_ends(u, low, more):
    assert low <= whole_between(u, (low, low + more)) <= low + more
    assert low <= between(u, (low, low + more)) <= low + more


def test_maps_and_coefficients_are_from_the_ranges():
    drawn = [Wide().draw_parameters(np.uint64(number)) for number in range(300)]
    assert {len(table) for table in drawn} == {3, 4, 5}
    coefficients = np.concatenate(drawn)[:, :6]
    assert -0.5 <= coefficients.min() < -0.48
    assert 1.48 < coefficients.max() <= 1.5
    np.testing.assert_allclose([table[:, 6].sum() for table in drawn], 1)


def test_contours_are_from_the_ranges():
    family = Rings()
    tables = np.concatenate([family.draw_parameters(np.uint64(number)) for number in range(400)])
    vertices, lines, noise, width = tables.T
    assert (vertices.min(), vertices.max() > 250, vertices.max() <= 300) == (10, True, True)
    assert set(lines) == {5, 6, 7, 8, 9}
    assert 1 <= noise.min() < 1.02 < 1.98 < noise.max() <= 2
    assert 0.5 <= width.min() < 0.51 < 0.74 < width.max() <= 0.75
    instances = [family.draw_instance(tables[:1], 0, np.uint64(number)) for number in range(400)]
    assert {each.radius_x for each in instances} == set(range(40, 61))
    assert all(each.radius_x == each.radius_y for each in instances)
    assert {each.center_x for each in instances} <= {256 + half / 2 for half in range(-10, 11)}
    assert family.render(instances[0], Drawing(64), np.uint64(0)).shape == (64, 64)


def lit(family, key):
    """How many pixels of 512 × 512 the points of an attempt light; 0 if they go to infinity."""
    orbit = play(*split(family.draw_parameters(key)), 100_000, orbit_key(key))
    return 0 if orbit is None else count_pixels(np.empty(512**2, dtype=np.int32), orbit, 512)[0]


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.25])
def test_the_filling_rate_is_that_of_all_points_whatever_the_first_promise(rate, monkeypatch):
    family = FractalDB()
    keys = [family.parameter_key(0, 0, attempt) for attempt in range(300)]
    # Those that fill a fifth: some of them fill more.
    shipped = accepted_attempts("fractaldb")[:150].tolist()
    keys += [family.parameter_key(0, category, attempt) for category, attempt in enumerate(shipped)]
    monkeypatch.setattr(FractalDB, "least_lit", rate)
    accepted = [family.accepts(family.draw_parameters(key), key) for key in keys]
    assert accepted == [lit(family, key) >= rate * 512**2 for key in keys]
    assert sum(accepted) > 3


def test_the_variance_that_is_asked(monkeypatch):
    family = ExFractalDB()
    keys = [family.parameter_key(0, 0, attempt) for attempt in range(300)]
    counts = []
    for least in (0.02, 0.05):
        monkeypatch.setattr(ExFractalDB, "least_variance", least)
        counts.append(sum(family.accepts(family.draw_parameters(key), key) for key in keys))
    assert counts[0] > counts[1]


@pytest.mark.parametrize(
    ("base", "values", "message"),
    [
        (
            FractalDB,
            {"map_range": (3, 2)},
            r"map_range of Wrong must be \(low, high\) with 1 ≤ low ≤ high ≤ 21, got \(3, 2\)",
        ),
        (ExFractalDB, {"map_range": (2, 11)}, "1 ≤ low ≤ high ≤ 10, got"),
        (FractalDB, {"map_range": 4}, "map_range of Wrong must be .* got 4"),
        (FractalDB, {"coefficient_range": (0.0, 0.0)}, "low < high"),
        (FractalDB, {"least_lit": 1.5}, r"least_lit of Wrong must be in \(0, 0.3\], got 1.5"),
        (RCDB, {"vertex_range": (2, 200)}, "vertex_range of Wrong must be .* 3 ≤ low"),
        (RCDB, {"noise_range": (0.0, float("nan"))}, "noise_range of Wrong"),
        (RCDB, {"line_range": ("1", "2")}, "line_range of Wrong"),
    ],
)
def test_wrong_values_are_refused_where_the_class_is_defined(base, values, message):
    with pytest.raises(ValueError, match=message):
        type("Wrong", (base,), {"name": "wrong", **values})


def test_the_example_of_the_page(monkeypatch):
    for registry in ("_REGISTERED", "_CATALOG"):
        monkeypatch.setattr(catalog, registry, dict(getattr(catalog, registry)))
    names = {"__name__": "example"}
    exec(re.search(r"^```python\n(.*?)^```$", SECTION, re.MULTILINE | re.DOTALL).group(1), names)
    sparse = names["load_fdsl"]("sparse_fractals-1k", image_size=64, mode="L")
    assert np.asarray(sparse[0]["image"]).any()
    assert {sparse.family.draw_variation(number, np.uint64(0)).factor for number in range(25)} == {
        0.6,
        0.8,
        1,
        1.2,
        1.4,
    }
    few = names["load_fdsl"]("few_lines-1k")
    assert max(few._parameters(category)[0, 1] for category in range(100)) <= 50
    find_family.cache_clear()


def test_the_table_of_the_page_has_the_defaults():
    rows = re.findall(r"^\| (\w.*?) \| (`.*?) \| (.*?) \|", SECTION, re.MULTILINE)
    families = {"FractalDB": FractalDB, "ExFractalDB": ExFractalDB, "RCDB": RCDB}
    listed = {"factors", "points", "draw_size"}
    for cell, attributes, defaults in rows:
        named = re.findall(r"`(\w+)`", attributes)
        listed |= set(named)
        for attribute, default in zip(named, re.findall(r"`(.*?)`", defaults), strict=False):
            for family in cell.split(", "):
                assert repr(getattr(families[family], attribute)) == default
    own = {name for family in families.values() for name in vars(family) if name.endswith("_range") or "least" in name}
    assert listed >= own | {name for name in vars(MapFamily) if name.endswith("_range")}
