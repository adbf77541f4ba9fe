"""The family of the documentation runs, and what may be registered as a family or a dataset."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fdsl_toy import Toy
from hf_kakurenbo.fdsl import catalog, list_fdsl, load_fdsl, register_dataset, register_family
from hf_kakurenbo.fdsl.catalog import find_family
from hf_kakurenbo.fdsl.families.rcdb import RCDB
from hf_kakurenbo.fdsl.family import Family
from hf_kakurenbo.fdsl.kernels.drawing import Drawing

PAGE = Path(__file__).parents[2] / "docs" / "fdsl.md"


@pytest.fixture(autouse=True)
def registries_of_their_own(monkeypatch):
    monkeypatch.setattr(catalog, "_REGISTERED", {})
    monkeypatch.setattr(catalog, "_FAMILIES", {name: it for name, it in catalog._FAMILIES.items() if name != "toy"})
    monkeypatch.setattr(catalog, "_CATALOG", dict(catalog._CATALOG))
    yield
    find_family.cache_clear()


def worked_example():
    section = PAGE.read_text(encoding="utf-8").split("## How to add a family")[1]
    return re.search(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL).group(1)


@pytest.fixture
def example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    exec(worked_example(), names)
    return names


def test_the_family_of_the_page_is_drawn_and_shown(example, tmp_path):
    train = example["train"]
    assert (train.categories, train.instances, len(train)) == (100, 1000, 100_000)
    grid = np.asarray(Image.open(tmp_path / "gratings.png"))
    assert grid.shape[:2] == (5 * 98 - 2, 8 * 98 - 2)
    first = np.asarray(train[3000]["image"])
    np.testing.assert_array_equal(grid[3 * 98 : 3 * 98 + 96, :96], first if grid.ndim == 3 else first[..., 0])
    assert len({train[index]["image"].tobytes() for index in range(0, 20_000, 500)}) == 40


def test_the_family_of_the_page_has_what_the_others_have(example):
    assert "gratings-100" in list_fdsl()
    options = {"image_size": 24, "color": True, "categories": 3, "instances": 5}
    images = load_fdsl("gratings-100", "validation", **options)
    streamed = list(load_fdsl("gratings-100", "validation", streaming=True, **options))
    assert len(streamed) == 15
    for example_ in streamed:
        expected = images[example_["sample_id"]]
        assert example_["label"] == expected["label"]
        np.testing.assert_array_equal(np.asarray(example_["image"]), np.asarray(expected["image"]))
    tensor = load_fdsl("gratings-100", as_tensor=True, **options)[7]["image"]
    assert (tensor.shape, tensor.dtype) == ((3, 24, 24), torch.uint8)
    assert tensor.float().std() > 5


def test_the_family_of_the_page_checks_parameters(example):
    with pytest.raises(ValueError, match="one row per grating"):
        example["Gratings"]().check_parameters(np.array([[1.0, np.nan]]))


def test_registering_twice_is_registering_once(example):
    register_dataset("gratings-100", "gratings", 100, 1000)
    exec(worked_example(), {"__name__": "example"})
    assert find_family("gratings") is not example["train"].family
    assert list_fdsl().count("gratings-100") == 1


def test_a_family_of_another_class_under_a_taken_name_is_refused():
    register_family(Toy)
    other = type("Other", (Toy,), {})
    with pytest.raises(ValueError, match="The family name 'toy' is taken by Toy; choose another"):
        register_family(other)
    with pytest.raises(ValueError, match="The family name 'rcdb' is taken by RCDB; choose another"):
        register_family(type("Mine", (RCDB,), {}))
    assert (
        find_family("toy").render(Toy().draw_instance(np.ones((1, 3)), 0, np.uint64(1)), Drawing(3), np.uint64(1)).any()
    )


@pytest.mark.parametrize("name", ["", "Toy", "a b", "../a", "a--b", "-a", 7, None])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ValueError, match="The name of a family must be small letters and digits"):
        register_family(type("Named", (Toy,), {"name": name}))
    with pytest.raises(ValueError, match="The name of a dataset must be small letters and digits"):
        register_dataset(name, "rcdb", 1)


@pytest.mark.parametrize("version", [0, -1, 1.5, True, "1"])
def test_a_version_that_is_none_is_refused(version):
    with pytest.raises(ValueError, match="version of the family 'toy' must be an integer ≥ 1"):
        register_family(type("Versioned", (Toy,), {"version": version}))


@pytest.mark.parametrize("columns", [(), "width"])
def test_columns_that_are_none_are_refused(columns):
    with pytest.raises(ValueError, match="columns of the family 'toy' must be a tuple of names"):
        register_family(type("Columned", (Toy,), {"columns": columns}))


@pytest.mark.parametrize("family", [7, dict, Toy()])
def test_what_is_no_family_is_refused(family):
    with pytest.raises(TypeError, match=r"A family is a subclass of hf_kakurenbo\.fdsl\.family\.Family, got"):
        register_family(family)


def test_a_family_with_parts_missing_is_refused():
    class Half(Family):
        name = "half"

        def check_parameters(self, parameters):
            pass

    with pytest.raises(TypeError, match="Half lacks version, columns, draw_instance, draw_parameters, render; define"):
        register_family(Half)


def test_a_dataset_with_a_taken_name_is_refused():
    with pytest.raises(ValueError, match=r"The dataset name 'rcdb-1k' is taken by Entry.*choose another"):
        register_dataset("rcdb-1k", "visualatom", 1000)


def test_a_dataset_of_no_family_is_refused():
    with pytest.raises(ValueError, match=r"There is no FDSL family 'rcbd'\. There are: fractaldb, "):
        register_dataset("mine", "rcbd", 10)
    assert "mine" not in list_fdsl()


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"categories": 0}, "categories of 'mine' must be an integer at least 1, got 0"),
        ({"categories": 2.5}, "categories of 'mine' must be an integer at least 1, got 2.5"),
        ({"categories": 1, "instances": 0}, r"instances of 'mine' must be an integer in 1\.\.4294967296, got 0"),
        ({"categories": 1, "instances": 2**32 + 1}, r"in 1\.\.4294967296, got 4294967297"),
    ],
)
def test_numbers_out_of_range_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        register_dataset("mine", "rcdb", **numbers)
