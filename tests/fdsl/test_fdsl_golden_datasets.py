"""What is loaded and what is built is tied to the version of the builder: `datasets` keeps images by it."""

import dataclasses
import hashlib
import inspect
import io
import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from hf_kakurenbo.fdsl import load_fdsl
from hf_kakurenbo.fdsl.catalog import accepted_attempts
from hf_kakurenbo.fdsl.loading.builder import FDSL, FDSLConfig

GOLDEN = json.loads(Path(__file__).with_name("fdsl_golden_datasets.json").read_text())
FAMILIES = ["1pfrac", "exfractaldb", "fractaldb", "ofdb2d", "ofdb3d", "rcdb", "sigma_ifs", "visualatom"]
FAMILIES += ["visualatom_best"]
LOADED = {
    "train": {},
    "train, L, 40 px": {"mode": "L", "image_size": 40},
    "train, drawn at 40 px": {"image_size": 40, "draw_size": 40},
    "train, color, 40 px": {"color": True, "image_size": 40},
    "validation, 40 px": {"split": "validation", "image_size": 40},
    "train, of seed 1, 40 px": {"seed": 1, "image_size": 40},
    "train, of two categories, 40 px": {"categories": slice(1, 3), "image_size": 40},
}
# sha256 of the first accepted attempts at so many categories, which make the categories of the fractal families.
ACCEPTED = {
    ("exfractaldb", 21_000): "59d1d0e25293bdbbffd9b3402b930102973026bdf902bb87b58a905d7f10bf3a",
    ("exfractaldb", 50_000): "890edc7363794f39d6c89536ed5a876f266e548e74548bfe4af6442fece44d0f",
    ("fractaldb", 21_000): "1d117c23238d677a508b64ab643f8ef5a48efb5adb853d6ab3aa17df882ae0a5",
}


def digest(image, label, sample_id):
    pixels = np.asarray(image)
    described = f"{pixels.shape} {pixels.dtype} {label} {sample_id} ".encode()
    return hashlib.sha256(described + pixels.tobytes()).hexdigest()


def loaded(name, options):
    images = load_fdsl(name, **options)
    return digest(**images[len(images) // 2])


def built(name):
    """A row as the builder stores it: its pixels, since the bytes of a PNG are those of a release of zlib."""
    builder = FDSL(config_name=name, image_size=40)
    images = builder.config.load()["train"]
    ((_, row),) = builder._generate_examples(images, [range(len(images) // 2, len(images) // 2 + 1)])
    return digest(**{**row, "image": Image.open(io.BytesIO(row["image"]["bytes"]))})


@pytest.fixture(autouse=True)
def cache_of_its_own(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_loaded_and_built_is_that_of_the_version(family):
    name = f"{family}-test"
    found = {case: loaded(name, options) for case, options in LOADED.items()} | {"built, 40 px": built(name)}
    version = str(FDSLConfig(name=name).version)
    versions = GOLDEN.get(family, {})
    assert version in versions, (
        f"fdsl_golden_datasets.json has nothing of version {version} of {family}. Add beside the others:\n"
        f'"{version}": {json.dumps(found, indent=1)}'
    )
    changed = [case for case in {**versions[version], **found} if versions[version].get(case) != found.get(case)]
    assert not changed, (
        f"{name} gives other examples than version {version} did ({'; '.join(changed)}). If that is wanted, raise "
        "`version` of the families, or `_REVISION` of the builder if only what is built is another, and add an entry "
        "to fdsl_golden_datasets.json; never edit an entry: `datasets` would go on showing the old images."
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_version_is_the_latest(family):
    latest = max(GOLDEN[family], key=datasets.Version)
    assert str(FDSLConfig(name=f"{family}-test").version) == latest


@pytest.mark.parametrize(("family", "categories"), ACCEPTED)
def test_the_accepted_attempts_are_those_of_the_version(family, categories):
    content = accepted_attempts(family)[:categories].tobytes()
    assert hashlib.sha256(content).hexdigest() == ACCEPTED[family, categories], (
        f"The categories of {family} are others. If that is wanted, raise `version` of it and of the OFDB family that "
        "has its categories."
    )


def test_the_defaults_are_those_of_the_version():
    """Images that were shown without an option are expected again without one."""
    expected = {
        "image_size": 224,
        "draw_size": None,
        "color": False,
        "mode": "RGB",
        "seed": 0,
        "points": None,
        "patches": True,
        "categories": None,
        "instances": None,
        "shards": 1024,
        "parameters": None,
    }
    own = {field.name for field in dataclasses.fields(FDSLConfig)}
    own -= {field.name for field in dataclasses.fields(datasets.BuilderConfig)}
    config = FDSLConfig(name="rcdb-test")
    assert {name: getattr(config, name) for name in own} == expected
    of_load = {name: parameter.default for name, parameter in inspect.signature(load_fdsl).parameters.items()}
    assert {name: of_load[name] for name in expected} == expected
