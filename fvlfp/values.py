"""One rule for how a value of a table is read, for labels, predictions, groups and keys alike.

1, 1.0, "1" and "1.0" are one value, and so are True, "true" and "TRUE"; surrounding spaces do not count; a
blank is missing. Nothing else is merged: "01" is not "1", "3_9" is not 39, and "Yes" is not "yes", which is
remarked on.
What this module does not do: read files, which `fvlfp.data.cells` holds to stricter rules.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fvlfp.errors import InputError

FIRST_ROW = 2  # of a table, as a spreadsheet counts: the header is row 1
SPACES = " \u00a0\u202f\u3000"
WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0*)?")


@dataclass(frozen=True)
class Coded:
    """A column as codes (n,) into its sorted names, -1 where missing; notes say what was merged."""

    names: tuple[str, ...]
    codes: np.ndarray
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.codes)


def first_row(frame: pd.DataFrame) -> int:
    """What messages call the first row of a frame: its reader knows; `FIRST_ROW` where nobody said."""
    return int(frame.attrs.get("first_row", FIRST_ROW))


def value_name(value: Any) -> str | None:
    """The name of a value; None if it is blank, which means missing."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    text = str(value).strip(SPACES)
    if not text.strip():
        return None
    whole = WHOLE.fullmatch(text)
    if whole:
        return "0" if whole[1] == "-0" else whole[1]
    return text.capitalize() if text.casefold() in ("true", "false") else text


def names_of(column: pd.Series) -> pd.Series:
    """The name of every entry, None where missing."""
    coded = code(column)
    lookup = np.array([*coded.names, None], dtype=object)
    return pd.Series(lookup[coded.codes], index=column.index)


def code(column: pd.Series) -> Coded:
    """Code a column; an ordered categorical keeps its order, everything else is sorted.

    Raises:
        InputError: a cell that is a list, a dict or an array (named), or True among numbers.
    """
    if isinstance(column.dtype, pd.CategoricalDtype):
        raw, values = column.cat.codes.to_numpy(), list(column.cat.categories)
        ordered = bool(column.cat.ordered)
    else:
        raw, uniques = _factorized(column)
        values, ordered = list(uniques), False
    used = np.bincount(raw[raw >= 0], minlength=len(values)) > 0
    spellings: dict[str, list[str]] = {}
    names = [value_name(value) for value in values]
    for name, value, seen in zip(names, values, used, strict=True):
        if seen and name is not None:
            spellings.setdefault(name, []).append(str(value))
    order = list(spellings) if ordered else sorted(spellings, key=rank)
    place = {name: i for i, name in enumerate(order)}
    lookup = np.array([*(place.get(name, -1) if name else -1 for name in names), -1], np.int32)
    return Coded(tuple(order), lookup[raw], tuple(_notes(str(column.name), spellings)))


def _factorized(column: pd.Series) -> tuple[np.ndarray, Any]:
    """`pd.factorize`, which takes True for 1 and cannot take lists: InputError tells of both."""
    if column.dtype == object:
        kinds = {type(value) for value in column[column.notna()]}
        bools = {kind for kind in kinds if issubclass(kind, bool | np.bool_)}
        if bools and any(issubclass(kind, int | float | np.number) for kind in kinds - bools):
            raise InputError(f"{column.name}: some entries are True or False, others numbers: use one kind")
    try:
        return pd.factorize(column)
    except TypeError:
        for i, value in enumerate(column):
            if not _is_one_value(value):
                kind = type(value).__name__
                raise InputError(f"{column.name}: entry {i} is a {kind}, {value!r}, not one value") from None
        raise


def _is_one_value(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def _notes(column: str, spellings: dict[str, list[str]]) -> list[str]:
    """What was merged, and what looks as if it should have been."""
    merged = [
        f"{column}: {', '.join(map(repr, sorted(set(found))))} are one value, {name!r}"
        for name, found in spellings.items()
        if len(set(found)) > 1
    ]
    folded: dict[str, list[str]] = {}
    for name in spellings:
        folded.setdefault(name.casefold(), []).append(name)
    alike = [
        f"{column}: {', '.join(map(repr, sorted(found)))} differ only in capitals and stay apart"
        for found in folded.values()
        if len(found) > 1
    ]
    return [*merged[:5], *alike[:5]]


def rank(name: str) -> tuple[int, float, str]:
    """Sort key: numbers by value, then texts."""
    try:
        number = float(name)
    except ValueError:
        return (1, 0.0, name)
    return (1, 0.0, name) if np.isnan(number) else (0, number, name)


def doubles(numbers: np.ndarray) -> np.ndarray:
    """Numbers (n,) as float64; those of 16 or 32 bits as the decimals that they are written as.

    >>> doubles(np.array([0.7], np.float32)).tolist()
    [0.7]
    """
    short = numbers.dtype.kind == "f" and numbers.dtype.itemsize < 8
    return (numbers.astype(str) if short else numbers).astype(float)


def is_fraction(name: str) -> bool:
    """Whether a name is a number that is not whole, such as "0.37" or "1e-5"."""
    try:
        number = float(name)
    except ValueError:
        return False
    return bool(np.isfinite(number)) and not number.is_integer()
