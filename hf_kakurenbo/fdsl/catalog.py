"""The names: which family a dataset is of, how many categories it has and how many instances of each."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cache
from importlib import import_module, resources

import numpy as np
from numpy.typing import NDArray

from .family import Family, Parameters

# Where a family is found; importing one compiles nothing.
_FAMILIES = {
    "fractaldb": ("fractaldb", "FractalDB"),
    "exfractaldb": ("exfractaldb", "ExFractalDB"),
    "rcdb": ("rcdb", "RCDB"),
    "visualatom": ("visualatom", "VisualAtom"),
    "ofdb2d": ("ofdb", "OFDB2D"),
    "ofdb3d": ("ofdb", "OFDB3D"),
}

# Of which seed the accepted attempts are shipped.
SHIPPED_SEED = 0


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
    sizes |= {"10k": (10_000, 1000), "21k": (21_000, 1000)}
    offered = {
        "fractaldb": ("60", "1k", "3k", "10k"),
        "exfractaldb": ("1k", "21k"),
        "rcdb": ("1k", "21k"),
        "visualatom": ("1k", "21k"),
        "ofdb2d": ("1k", "21k"),
        "ofdb3d": ("1k", "21k"),
    }
    fixed = {"ofdb2d": 1, "ofdb3d": 12}
    entries = {}
    for family, labels in offered.items():
        for label in (*labels, "test"):
            categories, instances = sizes[label]
            name = f"{family}-{label}"
            entries[name] = Entry(name, family, categories, fixed.get(family, instances))
    return entries


_CATALOG = _entries()


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
    nearest = difflib.get_close_matches(str(name).lower(), _CATALOG, n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(map(repr, nearest))}?" if nearest else f"There are: {', '.join(_CATALOG)}."
    raise ValueError(f"There is no FDSL dataset {name!r}. {hint}")


@cache
def find_family(name: str) -> Family:
    """The family of that name, one object for all.

    Raises:
        ValueError: there is none; the message lists them.
    """
    if name not in _FAMILIES:
        raise ValueError(f"There is no FDSL family {name!r}. There are: {', '.join(_FAMILIES)}.")
    module, class_name = _FAMILIES[name]
    return getattr(import_module(f".{module}", __package__), class_name)()


@cache
def accepted_attempts(family: str) -> NDArray[np.uint16]:
    """Which attempt at each category was the first to be accepted, for the shipped seed; empty if all attempts are."""
    file = resources.files(__package__) / "accepted" / f"{family}.npy"
    if not file.is_file():
        return np.empty(0, dtype=np.uint16)
    with file.open("rb") as stream:
        return np.load(stream)


def category_parameters(family: Family, seed: int, category: int) -> Parameters:
    """The parameters of a category: the shipped attempt, or the first accepted one, searched for now.

    A search takes some tens of milliseconds for the fractal families, none for the others.
    """
    attempts = accepted_attempts(family.categories_of or family.name)
    if seed == SHIPPED_SEED and category < len(attempts):
        return family.draw_parameters(family.parameter_key(seed, category, int(attempts[category])))
    return next(parameters for parameters in family.attempts(seed, category) if parameters is not None)
