"""The names, and what each stands for."""

import pytest

import fdsl_toy
from hf_kakurenbo.fdsl import list_fdsl, load_fdsl
from hf_kakurenbo.fdsl.catalog import find_entry

# Family, number of categories, and number of training images of each.
NAMES = {
    "fractaldb-60": ("fractaldb", 60, 1000),
    "fractaldb-1k": ("fractaldb", 1_000, 1000),
    "fractaldb-3k": ("fractaldb", 3_000, 1000),
    "fractaldb-10k": ("fractaldb", 10_000, 1000),
    "fractaldb-test": ("fractaldb", 4, 8),
    "exfractaldb-1k": ("exfractaldb", 1_000, 1000),
    "exfractaldb-21k": ("exfractaldb", 21_000, 1000),
    "exfractaldb-50k": ("exfractaldb", 50_000, 1000),
    "exfractaldb-test": ("exfractaldb", 4, 8),
    "rcdb-1k": ("rcdb", 1_000, 1000),
    "rcdb-21k": ("rcdb", 21_000, 1000),
    "rcdb-50k": ("rcdb", 50_000, 1000),
    "rcdb-test": ("rcdb", 4, 8),
    "visualatom-1k": ("visualatom", 1_000, 1000),
    "visualatom-21k": ("visualatom", 21_000, 1000),
    "visualatom-test": ("visualatom", 4, 8),
    "visualatom_best-1k": ("visualatom_best", 1_000, 1000),
    "visualatom_best-21k": ("visualatom_best", 21_000, 1000),
    "visualatom_best-test": ("visualatom_best", 4, 8),
    "ofdb2d-1k": ("ofdb2d", 1_000, 1),
    "ofdb2d-21k": ("ofdb2d", 21_000, 1),
    "ofdb2d-test": ("ofdb2d", 4, 1),
    "ofdb3d-1k": ("ofdb3d", 1_000, 12),
    "ofdb3d-21k": ("ofdb3d", 21_000, 12),
    "ofdb3d-test": ("ofdb3d", 4, 12),
    "1pfrac-1k": ("1pfrac", 1_000, 1),
    "1pfrac-21k": ("1pfrac", 21_000, 1),
    "1pfrac-test": ("1pfrac", 4, 1),
    "sigma_ifs-1k": ("sigma_ifs", 1_000, 1000),
    "sigma_ifs-10k": ("sigma_ifs", 10_000, 1000),
    "sigma_ifs-test": ("sigma_ifs", 4, 8),
}


def test_the_names():
    # Another test in this process may have entered the toy's.
    assert [name for name in list_fdsl() if name != fdsl_toy.NAME] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_name_stands_for(name):
    entry = find_entry(name)
    assert (entry.name, entry.family, entry.categories, entry.instances) == (name, *NAMES[name])
    family, categories, instances = NAMES[name]
    for split, count in (("train", instances), ("validation", max(1, instances // 10))):
        images = load_fdsl(name, split)
        assert images.family.name == family
        assert (images.categories, images.instances, len(images)) == (categories, count, categories * count)
