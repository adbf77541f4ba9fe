"""`load_dataset("fdsl", …)`: built and streamed, told apart in the cache, known after the import of the package."""

import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import datasets
import numpy as np
import pytest

from abstract_members import left_to_subclasses
from fdsl_toy import CATEGORIES, INSTANCES, NAME, Toy, enter_into_catalog
from hf_kakurenbo.fdsl import catalog, list_fdsl, load_fdsl
from hf_kakurenbo.fdsl.loading import registration
from hf_kakurenbo.fdsl.loading.builder import FDSL, FDSLConfig
from hf_kakurenbo.fdsl.loading.information import estimate_bytes
from hf_kakurenbo.fdsl.loading.streaming import FDSLStream
from hf_kakurenbo.fdsl.parameters import write_parameters

COUNT = CATEGORIES * INSTANCES
SMALL = {"image_size": 8}


@pytest.fixture(autouse=True)
def toy_in_catalog(monkeypatch, tmp_path):
    enter_into_catalog(monkeypatch.setitem)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def as_bytes(examples):
    return [(example["sample_id"], example["label"], np.asarray(example["image"]).tobytes()) for example in examples]


def expected(split="train", **options):
    return as_bytes(load_fdsl(NAME, split, **SMALL, **options))


def load(split="train", streaming=False, **options):
    return datasets.load_dataset("fdsl", NAME, split=split, streaming=streaming, **{**SMALL, **options})


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("options", [{}, {"color": True}, {"mode": "L", "seed": 3, "categories": slice(1, 3)}])
def test_the_ordinary_call(split, streaming, options):
    loaded = load(split, streaming, **options)
    assert isinstance(loaded, datasets.IterableDataset if streaming else datasets.Dataset)
    assert as_bytes(loaded) == expected(split, **options)
    assert loaded.features == load_fdsl(NAME, **options).features
    assert loaded.info.splits[split].num_examples == len(load_fdsl(NAME, split, **options))
    assert loaded.split == split


def test_all_splits():
    for streaming in (False, True):
        loaded = datasets.load_dataset("fdsl", NAME, streaming=streaming, **SMALL)
        assert {name: as_bytes(split) for name, split in loaded.items()} == {
            "train": expected(),
            "validation": expected("validation"),
        }
        for both in ("train+validation", "all"):
            assert as_bytes(load(both, streaming)) == expected() + expected("validation")


def test_a_slice_of_what_is_built():
    assert as_bytes(load("train[:5]")) == expected()[:5]


def test_the_builder_itself():
    builder = FDSL(config_name=NAME, **SMALL)
    assert as_bytes(builder.as_streaming_dataset("train")) == expected()
    builder.download_and_prepare()
    assert as_bytes(builder.as_dataset("train")) == expected()
    assert datasets.load_dataset_builder("fdsl", NAME, **SMALL).cache_dir == builder.cache_dir


def test_sizes_before_and_after():
    builder = datasets.load_dataset_builder("fdsl", NAME, mode="L", **SMALL)
    splits = builder.info.splits
    assert {name: split.num_examples for name, split in splits.items()} == {"train": COUNT, "validation": CATEGORIES}
    assert (builder.info.download_size, builder.info.dataset_size) == (0, None), "not known before it is built"
    estimated = estimate_bytes(builder._images["train"])
    builder.download_and_prepare()
    written = builder.info.splits["train"].num_bytes
    assert written == builder.as_dataset("train").info.splits["train"].num_bytes
    assert 0.7 * written < estimated < written  # the rows have a label and a sample id too
    assert builder.info.dataset_size == sum(split.num_bytes for split in builder.info.splits.values())


def test_a_disk_without_room_is_said_before_it_is_full(monkeypatch):
    asked = []

    def no_room(needed, directory):
        asked.append(needed)
        return False

    monkeypatch.setattr(datasets.builder, "has_sufficient_disk_space", no_room)
    builder = FDSL(config_name=NAME, **SMALL)
    with pytest.raises(OSError, match="Not enough disk space"):
        builder.download_and_prepare()
    assert asked == [sum(map(estimate_bytes, builder._images.values()))]


@pytest.mark.parametrize("num_proc", [2, 3])
def test_by_several_processes(num_proc, tmp_path):
    loaded = load(num_proc=num_proc, cache_dir=str(tmp_path / "cache"))
    assert as_bytes(loaded) == expected()


@pytest.mark.parametrize("name", ["fractaldb-test", "ofdb3d-test", "visualatom-test"])
def test_real_ones_by_several_processes(name, tmp_path):
    options = {"image_size": 32} if name == "visualatom-test" else {"image_size": 32, "points": 2000}
    loaded = datasets.load_dataset("fdsl", name, split="train", num_proc=2, cache_dir=str(tmp_path), **options)
    assert as_bytes(loaded) == as_bytes(load_fdsl(name, **options))


def test_names():
    assert datasets.get_dataset_config_names("fdsl") == list_fdsl()
    assert NAME in list_fdsl()
    assert datasets.get_dataset_split_names("fdsl", NAME) == ["train", "validation"]


DIFFERENT = [
    {"image_size": 9},
    {"draw_size": 9},
    {"color": True},
    {"mode": "L"},
    {"seed": 1},
    {"categories": 2},
    {"categories": slice(1, 3)},
    {"categories": range(0, 3, 2)},
    {"categories": [2, 0]},
    {"instances": 2},
    {"instances": slice(2, 4)},
]


def test_the_cache_tells_all_options_apart(monkeypatch, tmp_path):
    monkeypatch.setattr(Toy, "points", 100)
    tables = [np.array([[0.5, 0.5, 1.0]])]
    for name, shade in (("one", 0.25), ("other", 0.75)):
        write_parameters(tmp_path / name, catalog.find_family("toy"), [*tables, np.array([[0.5, shade, 1.0]])])
    of_points = [{"points": 50}, {"patches": False}]
    own = [{"parameters": str(tmp_path / name)} for name in ("one", "other")]
    folders = [FDSL(config_name=NAME, **{**SMALL, **o}).cache_dir for o in [{}, *of_points, *DIFFERENT, *own]]
    assert len(set(folders)) == len(folders)
    options = set(FDSLConfig.__dataclass_fields__) - set(datasets.BuilderConfig.__dataclass_fields__)
    assert options == {"parameters", "shards", *(name for o in [*of_points, *DIFFERENT] for name in o)}
    moved = (tmp_path / "one").rename(tmp_path / "moved")
    assert FDSL(config_name=NAME, **SMALL, parameters=str(moved)).cache_dir == folders[-2]


def test_what_is_built_twice_with_other_options_is_other():
    assert as_bytes(load()) == expected()
    assert as_bytes(load(seed=1)) == expected(seed=1)
    assert as_bytes(load(image_size=224, categories=1)) == as_bytes(load_fdsl(NAME, categories=1))
    assert as_bytes(datasets.load_dataset("fdsl", NAME, split="train")) == as_bytes(load_fdsl(NAME))


def test_a_new_formula_is_built_anew(monkeypatch):
    load()
    monkeypatch.setattr(Toy, "version", 2)
    monkeypatch.setattr(Toy, "render", lambda self, instance, drawing, key: np.full((8, 8), 77, np.uint8))
    builder = FDSL(config_name=NAME, **SMALL)
    assert str(builder.info.version) == "2.0.0"
    assert np.asarray(load()[0]["image"]).min() == 77


class OtherToy(Toy):
    """Of the same version, and of another name."""

    name = "othertoy"


def test_what_a_name_stands_for_is_told_apart(monkeypatch):
    """In another session a name may have been registered with other numbers, or for another family."""
    monkeypatch.setitem(catalog._REGISTERED, "othertoy", OtherToy)
    entries = [catalog.Entry(NAME, "toy", *numbers) for numbers in ((3, 7), (2, 7), (3, 6))]
    entries.append(catalog.Entry(NAME, "othertoy", 3, 7))
    folders = []
    for entry in entries:
        monkeypatch.setitem(catalog._CATALOG, NAME, entry)
        folders.append(FDSL(config_name=NAME, **SMALL).cache_dir)
        assert as_bytes(load()) == expected(), entry
    assert len(set(folders)) == len(entries)


def test_another_default_is_told_apart():
    @dataclasses.dataclass
    class OfAnotherRelease(FDSLConfig):
        image_size: int = 9

    before, after = FDSLConfig(name=NAME), OfAnotherRelease(name=NAME)
    assert before.create_config_id({}) != after.create_config_id({})
    assert FDSLConfig(name=NAME, image_size=9).create_config_id({}) == after.create_config_id({})


def test_versions_are_those_of_the_families():
    for name, config in FDSL.builder_configs.items():
        family = catalog.find_family(catalog.find_entry(name).family)
        assert str(config.version).split(".")[0] == str(family.version)


def test_parameters_of_ones_own(tmp_path):
    write_parameters(tmp_path / "own", catalog.find_family("toy"), [np.array([[0.5, 0.5, 1.0]])] * 2)
    for streaming in (False, True):
        loaded = load(streaming=streaming, parameters=str(tmp_path / "own"))
        assert as_bytes(loaded) == expected(parameters=tmp_path / "own")
        assert loaded.features["label"].num_classes == 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "fractaldb-61"}, ValueError, "no FDSL dataset 'fractaldb-61'. Did you mean 'fractaldb-60'"),
        ({"name": None}, ValueError, r'Name a dataset: load_dataset\("fdsl", NAME\). There are: fractaldb-60, '),
        ({"data_files": "x.png"}, ValueError, "have no files; leave data_files and data_dir out"),
        ({"data_dir": "."}, ValueError, "have no files; leave data_files and data_dir out"),
        ({"image_size": -1}, ValueError, r"image_size must be in 1\.\.32766, got -1"),
        ({"shards": 0}, ValueError, "shards must be at least 1, got 0"),
        ({"shards": 1.5}, TypeError, r"shards must be an integer, got 1\.5"),
        ({"mode": "L", "color": True}, ValueError, "color=True needs three channels"),
        ({"points": 5}, ValueError, "toy-test is not drawn with points"),
        ({"instances": 0}, ValueError, r"instances must be in 1\.\.\d+, got 0"),
        ({"transform": len}, ValueError, "doesn't have a 'transform' key"),
        ({"split": "test", "streaming": True}, ValueError, "split must be 'train' or 'validation', got 'test'"),
        ({"split": "train[:5]", "streaming": True}, ValueError, "For a part of a stream use categories="),
        ({"split": "test"}, ValueError, 'Unknown split "test"'),
    ],
)
def test_bad_values(options, error, message):
    with pytest.raises(error, match=message):
        datasets.load_dataset("fdsl", **{"name": NAME, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transform": len}, r"takes no transform; use load_fdsl\(…, streaming=True\).map\(function\) instead"),
        ({"split": "test"}, "split must be 'train' or 'validation', got 'test'"),
        ({"name": "toy-tset"}, "no FDSL dataset 'toy-tset'. Did you mean 'toy-test'"),
    ],
)
def test_bad_values_of_a_stream(options, message):
    with pytest.raises(ValueError, match=message):
        load_fdsl(**{"name": NAME, "streaming": True, **options})


@pytest.mark.parametrize("name", [name for name in list_fdsl() if name.endswith("-test")])
def test_the_real_ones(name):
    streamed = list(datasets.load_dataset("fdsl", name, split="train", streaming=True, image_size=32))
    built = datasets.load_dataset("fdsl", name, split="train", image_size=32)
    assert as_bytes(streamed) == as_bytes(built) == as_bytes(load_fdsl(name, image_size=32))


@pytest.mark.parametrize("name", list_fdsl())
def test_every_name_streams(name):
    example = next(iter(datasets.load_dataset("fdsl", name, split="train", streaming=True, image_size=16)))
    assert (example["label"], example["sample_id"], example["image"].size) == (0, 0, (16, 16))


def run_python(code, folder):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.wide
def test_looking_for_the_module_and_loading_it_again(tmp_path):
    code = """
import importlib, importlib.util
import hf_kakurenbo
importlib.util.find_spec("datasets.load")
import datasets
importlib.reload(datasets.load)
print(datasets.load.load_dataset_builder("fdsl", "rcdb-test").info.splits["train"].num_examples)
print(datasets.load.__spec__.loader.__class__.__name__)
"""
    assert run_python(code, tmp_path) == "32\nSourceFileLoader\n"


STREAM = """
import socket
def refuse(*args, **kwargs):
    raise AssertionError("the network was asked for")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
{imports}
print(next(iter(load_dataset("fdsl", "rcdb-test", split="train", streaming=True)))["image"].size)
"""


@pytest.mark.parametrize(
    "imports",
    [
        "import hf_kakurenbo\nfrom datasets import load_dataset",
        "from datasets import load_dataset\nimport hf_kakurenbo",
    ],
)
def test_in_a_new_process_in_an_empty_folder(imports, tmp_path):
    """Whichever is imported first; and nothing is asked of the network."""
    assert run_python(STREAM.format(imports=imports), tmp_path) == "(224, 224)\n"


def test_registering_imports_nothing_heavy(tmp_path):
    code = """
import sys
sys.path.insert(0, {root!r})
import types
package = types.ModuleType("hf_kakurenbo")
package.__path__ = [{root!r} + "/hf_kakurenbo"]
sys.modules["hf_kakurenbo"] = package
from hf_kakurenbo.fdsl.loading.registration import register
register()
register()
print(sorted({{"torch", "numba", "numpy", "datasets", "PIL"}} & set(sys.modules)), len(sys.meta_path))
"""
    root = str(importlib.import_module("hf_kakurenbo").__path__[0]).removesuffix("/hf_kakurenbo")
    before = run_python("import sys; print(len(sys.meta_path))", tmp_path)
    assert run_python(code.format(root=root), tmp_path) == f"[] {int(before) + 1}\n"


def fake_load(**attributes):
    module = ModuleType("datasets.load")
    vars(module).update(attributes)
    return module


def test_a_release_that_moved_the_place(monkeypatch):
    """The import continues, with a warning that names the way out."""
    for attributes in ({}, {"dataset_module_factory": len}, {"DatasetModule": tuple}):
        monkeypatch.setitem(sys.modules, "datasets.load", fake_load(**attributes))
        with pytest.warns(UserWarning, match=r"does not work with the installed release.*Use hf_kakurenbo\.load_fdsl"):
            registration.register()
    monkeypatch.undo()
    code = """
import warnings
warnings.simplefilter("ignore")
import datasets.load
del datasets.load.dataset_module_factory
import hf_kakurenbo
print(next(iter(hf_kakurenbo.load_fdsl("rcdb-test", streaming=True)))["label"])
"""
    assert run_python(code, None) == "0\n"


def test_a_release_that_changed_what_is_answered(monkeypatch):
    load = fake_load(dataset_module_factory=lambda path, **options: path, DatasetModule=lambda path: path)
    monkeypatch.setitem(sys.modules, "datasets.load", load)
    registration.register()
    assert load.dataset_module_factory("imdb", revision=None) == "imdb"
    with pytest.raises(RuntimeError, match=r"does not work with the installed release.*load_fdsl"):
        load.dataset_module_factory("fdsl")


def test_it_is_registered_once(monkeypatch):
    factory = datasets.load.dataset_module_factory
    assert factory.knows_fdsl
    registration.register()
    assert datasets.load.dataset_module_factory is datasets.inspect.dataset_module_factory is factory


def test_what_is_used_of_datasets():
    """Loud when a release moves what the stream and the registration rest on."""
    from datasets.iterable_dataset import _BaseExamplesIterable

    from hf_kakurenbo.fdsl.loading.streaming import _Images

    assert {
        "__iter__",
        "features",
        "is_typed",
        "num_shards",
        "shuffle_data_sources",
        "shard_data_sources",
        "split_shard_indices_by_worker",
        "_init_state_dict",
        "load_state_dict",
    } <= set(dir(_BaseExamplesIterable))
    missing = left_to_subclasses(_BaseExamplesIterable) - set(vars(_Images))
    assert not missing, f"not written for this release of datasets: {missing}"
    assert isinstance(load(streaming=True), FDSLStream)
    assert load(streaming=True)._ex_iterable.is_typed


WITHOUT_IMPORT = """
from datasets import load_dataset
try:
    load_dataset("fdsl", "rcdb-test", split="train", streaming=True)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_the_import_the_error_is_that_of_the_documentation(tmp_path):
    """`datasets` has no entry point that would import the package for it; the name is looked for on the Hub."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", WITHOUT_IMPORT], capture_output=True, text=True, env=environment)
    assert done.stdout.startswith("ConnectionError Couldn't reach 'fdsl' on the Hub"), done.stderr
    page = (Path(__file__).parents[2] / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    section = page.split('### `load_dataset("fdsl")` does not work')[1].split("\n## ")[0]
    assert "`Couldn't reach 'fdsl' on the Hub`" in section
    assert "`Dataset 'fdsl' doesn't exist on the Hub or cannot be accessed`" in " ".join(section.split())
