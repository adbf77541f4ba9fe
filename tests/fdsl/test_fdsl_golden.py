"""What is drawn is tied to the version: `datasets` keeps images by it, and would show old ones for a new formula."""

import hashlib
import json
from pathlib import Path

import pytest

from hf_kakurenbo.fdsl.catalog import category_parameters, find_entry, find_family, list_fdsl
from hf_kakurenbo.fdsl.kernels.drawing import Drawing

GOLDEN = json.loads(Path(__file__).with_name("fdsl_golden.json").read_text())
FAMILIES = sorted({find_entry(name).family for name in list_fdsl() if not name.startswith("toy")})

VALIDATION = 2**32
CASES = {
    "category 0, instance 0, 224 px": (0, 0, Drawing(224)),
    "category 1, instance 7, 64 px, color": (1, 7, Drawing(64, color=True)),
    "category 2, instance 1234, 97 px": (2, 1234, Drawing(97)),
    "category 59, first of validation, 32 px": (59, VALIDATION, Drawing(32)),
    "category 59, instance 3, 96 px, single pixels": (59, 3, Drawing(96, patches=False)),
}


def digests(family):
    drawn = {}
    for name, (category, instance, drawing) in CASES.items():
        key = family.instance_key(0, category, instance)
        varied = family.draw_instance(category_parameters(family, 0, category), instance, key)
        drawn[name] = hashlib.sha256(family.render(varied, drawing, key).tobytes()).hexdigest()
    return drawn


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_drawn_is_that_of_the_version(name):
    family = find_family(name)
    drawn = digests(family)
    versions = GOLDEN.get(name, {})
    assert str(family.version) in versions, (
        f"fdsl_golden.json has no images of version {family.version} of {name}. Add beside the others:\n"
        f'"{family.version}": {json.dumps(drawn, indent=1)}'
    )
    changed = [case for case, digest in versions[str(family.version)].items() if drawn.get(case) != digest]
    assert not changed, (
        f"{name} draws other images than version {family.version} did ({'; '.join(changed)}). If that is wanted, raise "
        f"`version` in the class to {max(map(int, versions)) + 1} and add an entry for it to fdsl_golden.json; never "
        "edit an entry: `datasets` would go on showing the old images."
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_the_version_is_the_latest(name):
    assert find_family(name).version == max(map(int, GOLDEN[name]))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_case_is_in_the_latest_version(name):
    assert set(GOLDEN[name][str(find_family(name).version)]) == set(CASES)
