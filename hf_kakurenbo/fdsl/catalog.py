"""The names: which family a dataset is of, how many categories it has and how many instances of each."""

from __future__ import annotations

import difflib
import inspect
import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module, resources
from itertools import islice
from numbers import Integral
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .family import Family, Parameters

# Where a family is found; importing one compiles nothing.
_FAMILIES = {
    "fractaldb": ("families.fractaldb", "FractalDB"),
    "exfractaldb": ("families.exfractaldb", "ExFractalDB"),
    "rcdb": ("families.rcdb", "RCDB"),
    "visualatom": ("families.visualatom", "VisualAtom"),
    "visualatom_best": ("families.visualatom", "VisualAtomBest"),
    "ofdb2d": ("families.ofdb", "OFDB2D"),
    "ofdb3d": ("families.ofdb", "OFDB3D"),
    "1pfrac": ("families.one_parameter", "OnePFrac"),
    "sigma_ifs": ("families.sigma_ifs", "SigmaIFS"),
    "segrcdb": ("families.segrcdb", "SegRCDB"),
}

# Those that a user added.
_REGISTERED: dict[str, type[Family]] = {}

FamilyClass = TypeVar("FamilyClass", bound=type[Family])

# Names end up in the names of files and of `datasets` configurations.
_NAME = re.compile(r"[a-z0-9]+([_-][a-z0-9]+)*")

# As many instances as a split has numbers for.
_MOST_INSTANCES = 2**32

# Of which seed the accepted attempts are shipped.
SHIPPED_SEED = 0

# As many as the files of accepted attempts have numbers for.
_MOST_ATTEMPTS = 2**16


@dataclass(frozen=True)
class Entry:
    """A named dataset.

    Args:
        name: as `load_fdsl` takes it.
        family: the name of its family.
        categories: how many there are.
        instances: how many training images each category has by default.
    """

    name: str
    family: str
    categories: int
    instances: int


def _entries() -> dict[str, Entry]:
    sizes = {"test": (4, 8), "60": (60, 1000), "1k": (1_000, 1000), "3k": (3_000, 1000)}
    sizes |= {"10k": (10_000, 1000), "21k": (21_000, 1000), "50k": (50_000, 1000)}
    offered = {
        "fractaldb": ("60", "1k", "3k", "10k"),
        "exfractaldb": ("1k", "21k", "50k"),
        "rcdb": ("1k", "21k", "50k"),
        "visualatom": ("1k", "21k"),
        "visualatom_best": ("1k", "21k"),
        "ofdb2d": ("1k", "21k"),
        "ofdb3d": ("1k", "21k"),
        "1pfrac": ("1k", "21k"),
        "sigma_ifs": ("1k", "10k"),
    }
    fixed = {"ofdb2d": 1, "ofdb3d": 12, "1pfrac": 1}
    entries = {}
    for family, labels in offered.items():
        for label in (*labels, "test"):
            categories, instances = sizes[label]
            name = f"{family}-{label}"
            entries[name] = Entry(name, family, categories, fixed.get(family, instances))
    return entries


_CATALOG = _entries()

# Training images of those that have masks instead of labels. 20,000 is in the script of SegRCDB (arXiv 2309.17083),
# 118,000 is COCO-Stuff's number, rounded, with which the paper compares it at the same number of images.
_SEGMENTATION = {"segrcdb-20k": 20_000, "segrcdb-118k": 118_000, "segrcdb-test": 8}


def list_fdsl() -> list[str]:
    """The names that `load_fdsl` and `load_dataset("fdsl", name)` take, in order of family and size."""
    return list(_CATALOG)


def find_entry(name: str) -> Entry:
    """The dataset of that name.

    Raises:
        ValueError: there is none; the message has the nearest names.
    """
    if name in _CATALOG:
        return _CATALOG[name]
    if name in _SEGMENTATION:
        raise ValueError(
            f"{name!r} has masks instead of labels: load it with hf_kakurenbo.fdsl.load_fdsl_segmentation({name!r})."
        )
    nearest = difflib.get_close_matches(str(name).lower(), _CATALOG, n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(map(repr, nearest))}?" if nearest else f"There are: {', '.join(_CATALOG)}."
    raise ValueError(f"There is no FDSL dataset {name!r}. {hint}")


def segmentation_images(name: str) -> int:
    """How many training images a dataset of images and masks has.

    Raises:
        ValueError: there is none of that name; the message lists them.
    """
    if name in _SEGMENTATION:
        return _SEGMENTATION[name]
    hint = " It has labels instead of masks: use load_fdsl." if name in _CATALOG else ""
    raise ValueError(f"There is no FDSL dataset with masks {name!r}.{hint} There are: {', '.join(_SEGMENTATION)}.")


@cache
def find_family(name: str) -> Family:
    """The family of that name, one object for all.

    Raises:
        ValueError: there is none; the message lists them.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]()
    if name not in _FAMILIES:
        raise ValueError(f"There is no FDSL family {name!r}. There are: {', '.join([*_FAMILIES, *_REGISTERED])}.")
    module, class_name = _FAMILIES[name]
    return getattr(import_module(f".{module}", __package__), class_name)()


def register_family(family: FamilyClass) -> FamilyClass:
    """Make a family of your own known under its `name`; usable as a class decorator.

    Do it in the module that defines the class, so that worker processes, which import that module, know it too.
    Registering a class anew, as a notebook does, replaces it for the datasets loaded from then on.

    Args:
        family: a subclass of `hf_kakurenbo.fdsl.family.Family` whose constructor takes no arguments.

    Returns:
        The class.

    Raises:
        ValueError: the name is taken or not a name, or `version` or `columns` is not what it must be.
        TypeError: it is not a subclass of Family, or lacks something that a family must have.
    """
    if not (inspect.isclass(family) and issubclass(family, Family)):
        raise TypeError(f"A family is a subclass of hf_kakurenbo.fdsl.family.Family, got {family!r}.")
    missing = [name for name in ("name", "version", "columns") if not hasattr(family, name)]
    missing += sorted(family.__abstractmethods__)
    if missing:
        raise TypeError(f"The family {family.__qualname__} lacks {', '.join(missing)}; define them in the class.")
    _check_name("family", family.name)
    if not _is_positive(family.version):
        raise ValueError(f"version of the family {family.name!r} must be an integer ≥ 1, got {family.version!r}.")
    if not family.columns or isinstance(family.columns, str):
        raise ValueError(f"columns of the family {family.name!r} must be a tuple of names, got {family.columns!r}.")
    before = _REGISTERED.get(family.name)
    if family.name in _FAMILIES or (before is not None and not _is_same(before, family)):
        taken_by = _FAMILIES[family.name][1] if before is None else before.__qualname__
        raise ValueError(f"The family name {family.name!r} is taken by {taken_by}; choose another.")
    _REGISTERED[family.name] = family
    find_family.cache_clear()
    return family


def register_dataset(name: str, family: str, categories: int, instances: int = 1000) -> None:
    """Make a dataset of your own known under a name, for `load_fdsl` and the command.

    Args:
        name: small letters and digits, with - or _ between them.
        family: the name of a family, of this package or registered.
        categories: how many there are, at least 1.
        instances: how many training images each category has by default, in 1..2**32.

    Raises:
        ValueError: the name is taken or not a name, there is no such family, or a number is out of range.
    """
    _check_name("dataset", name)
    find_family(family)
    for what, value, most in (("categories", categories, None), ("instances", instances, _MOST_INSTANCES)):
        if not _is_positive(value) or (most is not None and value > most):
            expected = "at least 1" if most is None else f"in 1..{most}"
            raise ValueError(f"{what} of {name!r} must be an integer {expected}, got {value!r}.")
    entry = Entry(name, family, int(categories), int(instances))
    if _CATALOG.get(name, entry) != entry:
        raise ValueError(f"The dataset name {name!r} is taken by {_CATALOG[name]}; choose another.")
    _CATALOG[name] = entry


def _check_name(what: str, name: Any) -> None:
    if not (isinstance(name, str) and _NAME.fullmatch(name)):
        raise ValueError(
            f"The name of a {what} must be small letters and digits, with - or _ between them, got {name!r}."
        )


def _is_positive(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1


def _is_same(one: type, other: type) -> bool:
    return (one.__module__, one.__qualname__) == (other.__module__, other.__qualname__)


@cache
def accepted_attempts(family: str) -> NDArray[np.uint16]:
    """Which attempt at each category was the first to be accepted, for the shipped seed; empty if all attempts are."""
    file = resources.files(__package__) / "accepted" / f"{family}.npy"
    if not file.is_file():
        return np.empty(0, dtype=np.uint16)
    with file.open("rb") as stream:
        return np.load(stream)


def find_accepted(family: Family, seed: int, category: int) -> tuple[int, Parameters]:
    """The first accepted attempt at a category: its number and its parameters.

    Raises:
        RuntimeError: none of 65,536 attempts is accepted.
    """
    for attempt, parameters in enumerate(islice(family.attempts(seed, category), _MOST_ATTEMPTS)):
        if parameters is not None:
            return attempt, parameters
    raise RuntimeError(
        f"None of {_MOST_ATTEMPTS:,} attempts at category {category} of {family.name} is accepted. Its `accepts` is "
        "too strict."
    )


def category_parameters(family: Family, seed: int, category: int) -> Parameters:
    """The parameters of a category: the shipped attempt, or the first accepted one, searched for now.

    A search takes some tens of milliseconds for the fractal families, none for the others.

    Raises:
        RuntimeError: no attempt is accepted.
    """
    attempts = accepted_attempts(family.categories_of or family.name)
    if seed == SHIPPED_SEED and category < len(attempts):
        return family.draw_parameters(family.parameter_key(seed, category, int(attempts[category])))
    return find_accepted(family, seed, category)[1]
