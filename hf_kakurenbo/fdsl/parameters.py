"""The parameters of categories as CSV files: written, and read back, also those that the published programs write."""

from __future__ import annotations

import csv
import math
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..utils.files import full_disk_explained, name_beside, remove_leftovers, require_new_or_empty
from .family import Family, Parameters

# The published files have 19 digits, which the sum of a few roundings cannot come near.
_PROBABILITY_TOLERANCE = 1e-6


def write_parameters(folder: str | os.PathLike[str], family: Family, categories: Iterable[Parameters]) -> int:
    """Write one CSV file per category, `00000.csv`, `00001.csv`, …, with a row of column names.

    The numbers are written so that `read_parameters` gives back the same float64, bit for bit. The folder appears
    complete or not at all.

    Args:
        folder: a new or empty folder.
        family: the family, which names the columns.
        categories: the parameters of each category, float64, (rows, len(family.columns)).

    Returns:
        How many files were written.

    Raises:
        ValueError: the folder holds something, or parameters do not have the family's columns.
    """
    target = Path(folder).absolute()
    require_new_or_empty(target, "parameters")
    beside = target.with_name(name_beside(f"{target.name}-"))
    try:
        with full_disk_explained(target, "Nothing is written: make room, or give a folder on another disk"):
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(target.parent, f"{target.name}-")
            beside.mkdir()
            count = 0
            for count, parameters in enumerate(categories, start=1):
                _write_category(beside / f"{count - 1:05d}.csv", family, parameters)
            beside.replace(target)
            return count
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write_category(path: Path, family: Family, parameters: Parameters) -> None:
    if parameters.ndim != 2 or parameters.shape[1] != len(family.columns):
        raise ValueError(
            f"The parameters of {family.name} have shape (rows, {len(family.columns)}), got {parameters.shape} for "
            f"{path.name}."
        )
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(family.columns)
        writer.writerows([repr(float(number)) for number in row] for row in parameters)


def read_parameters(folder: str | os.PathLike[str], family: Family) -> list[Parameters]:
    """Read the CSV files of a folder, one per category, in the order of the numbers that are their names.

    The numbers need not follow on one another, and the files may lie in folders below, as in the FractalDB-1k that
    was published with "Pre-training without Natural Images" (Kataoka et al., ACCV 2020). Those files have rows of
    a, b, c, d, e, f and probability, without a row of names; either way of writing is read. So are, with the family
    rcdb, the files of RCDB's and SegRCDB's programs, which have a parameter in each row: `Vertex,57`. SegRCDB's are
    read with the family segrcdb too.

    Args:
        folder: the folder.
        family: the family, which knows the columns.

    Returns:
        For each category float64, (rows, len(family.columns)).

    Raises:
        FileNotFoundError: there is no such folder, or no CSV file in it.
        ValueError: a file is damaged, or contradicts the family or another file; the message has file and row.
    """
    paths = _find_files(Path(folder))
    tables = [_from_keys(path, _read_rows(path), family) for path in paths]
    named = [_has_names(path, rows, family) for path, rows in zip(paths, tables, strict=True)]
    if len(set(named)) > 1:
        with_names, without = paths[named.index(True)], paths[named.index(False)]
        raise ValueError(
            f"{with_names} begins with a row of column names, {without} does not: the files of a folder must come "
            "from one source. Keep those of one kind."
        )
    return [
        _to_parameters(path, rows[names:], family, first_row=1 + names)
        for path, rows, names in zip(paths, tables, named, strict=True)
    ]


def check_categories(family: Family, categories: Iterable[Parameters]) -> list[Parameters]:
    """Parameters that come from elsewhere than a file, checked as those of `read_parameters` are.

    Args:
        family: the family.
        categories: for each category a table of numbers, (rows, len(family.columns)).

    Returns:
        Copies, float64.

    Raises:
        ValueError: something else is among them, or numbers that the family cannot draw.
    """
    return [_check_table(f"parameters of category {number}", family, table) for number, table in enumerate(categories)]


def _check_table(place: str, family: Family, given: Parameters) -> Parameters:
    try:
        table = np.array(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: they must be a table of numbers, got {given!r} ({error}).") from error
    if table.ndim != 2 or table.shape[1] != len(family.columns) or not len(table):
        raise ValueError(
            f"{place}: those of {family.name} have shape (rows, {len(family.columns)}), with the columns "
            f"{', '.join(family.columns)}; got shape {table.shape}."
        )
    if not np.isfinite(table).all():
        row, column = np.argwhere(~np.isfinite(table))[0]
        raise ValueError(f"{place}: {family.columns[column]} in row {row} must be finite, got {table[row, column]}.")
    _check_by_family(place, table, family)
    return table


def _check_by_family(place: str, table: Parameters, family: Family) -> None:
    if "probability" in family.columns:
        _check_probabilities(place, table[:, family.columns.index("probability")])
    try:
        family.check_parameters(table)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _find_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Give the folder that holds 00000.csv, 00001.csv, ….")
    by_number: dict[int, Path] = {}
    for path in sorted(folder.rglob("*.csv")):
        if not path.stem.isdecimal():
            raise ValueError(
                f"{path} is not named by a number, as 00000.csv is: the number is the order of the categories. "
                "Rename it, or take it out of the folder."
            )
        other = by_number.setdefault(int(path.stem), path)
        if other != path:
            raise ValueError(f"{other} and {path} have the same number. Keep one of them.")
    if not by_number:
        raise FileNotFoundError(f"{folder} has no CSV file in it. Give the folder that holds 00000.csv, 00001.csv, ….")
    return [by_number[number] for number in sorted(by_number)]


def _read_rows(path: Path) -> list[list[str]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [[cell.strip() for cell in row] for row in csv.reader(stream, strict=True) if row]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV file ({error}). Write or copy it anew.") from error
    if not rows:
        raise ValueError(f"{path} is empty; it must have a row for each map or shape. Write or copy it anew.")
    return rows


def _from_keys(path: Path, rows: list[list[str]], family: Family) -> list[list[str]]:
    """Rows of `key,value`, as some published programs write them, as the one row of the family's columns."""
    keys = [row[0] for row in rows]
    if not any(key in family.published_keys for key in keys):
        return rows
    strange = [key for key in keys if key not in family.published_keys]
    missing = [key for key, column in family.published_keys.items() if column is not None and key not in keys]
    if strange or missing or len(set(keys)) < len(keys) or any(len(row) != 2 for row in rows):
        raise ValueError(
            f"{path} is no published file of {family.name}, with one row `key,value` for each parameter: missing "
            f"{', '.join(missing) or 'none'}, unknown {', '.join(strange) or 'none'}. Copy it anew, or read it with "
            "the family that it was written for."
        )
    values = {family.published_keys[key]: value for key, value in rows}
    return [[values[column] for column in family.columns]]


def _has_names(path: Path, rows: Sequence[list[str]], family: Family) -> bool:
    names = rows[0]
    if any(map(_is_number, names)):
        return False
    if tuple(names) != family.columns:
        raise ValueError(
            f"{path} has the columns {', '.join(names)}; those of {family.name} are {', '.join(family.columns)}. Read "
            "it with the family that it was written for."
        )
    if len(rows) == 1:
        raise ValueError(f"{path} has column names and no row below them. Write or copy it anew.")
    return True


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _to_parameters(path: Path, rows: Sequence[list[str]], family: Family, first_row: int) -> Parameters:
    for number, row in enumerate(rows, start=first_row):
        _check_row(f"{path}, row {number}", row, family)
    parameters = np.array([[float(cell) for cell in row] for row in rows], dtype=np.float64)
    _check_by_family(str(path), parameters, family)
    return parameters


def _check_row(place: str, row: Sequence[str], family: Family) -> None:
    if len(row) != len(family.columns):
        raise ValueError(
            f"{place} has {len(row)} columns; {family.name} has {len(family.columns)}: {', '.join(family.columns)}. "
            "Correct the file, or read it with the family that it was written for."
        )
    for column, cell in zip(family.columns, row, strict=True):
        if not _is_number(cell):
            raise ValueError(f"{place}, column {column}: {cell!r} is not a number. Correct or copy the file anew.")
        if not math.isfinite(float(cell)):
            raise ValueError(f"{place}, column {column}: {cell} is not finite. Correct or copy the file anew.")


def _check_probabilities(place: str, probabilities: np.ndarray) -> None:
    wrong = np.flatnonzero((probabilities < 0) | (probabilities > 1))
    if len(wrong):
        raise ValueError(
            f"{place}: the probability of map {wrong[0] + 1} is {probabilities[wrong[0]]}; it must be in [0, 1]. "
            "Correct it, or copy it anew."
        )
    total = math.fsum(probabilities)
    if abs(total - 1) > _PROBABILITY_TOLERANCE:
        raise ValueError(
            f"{place}: the probabilities of its {len(probabilities)} maps add up to {total:.6g}; they must add up to "
            "1. A row may be missing; correct it, or copy it anew."
        )
