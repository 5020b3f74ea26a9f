"""From a table of predictions to contingency counts, the only thing the rest of the audit looks at.

Every metric, interval and test of this package is a function of the counts
``table[group, label, prediction]``, so a million rows are read once and never again.
What it does not do: read files (see ``load``), judge anything (see ``metrics``).
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fvlfp.errors import InputError

FIRST_ROW = 2  # row number of a table's first data row, as a spreadsheet counts: the header is row 1


@dataclass(frozen=True)
class Counts:
    """Contingency counts of one perceived-group attribute.

    ``table`` has shape (G, C, C) and dtype int64: group, label, prediction. ``missing`` counts the
    rows whose group is not given; they are in no cell of ``table``.
    """

    attribute: str
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    table: np.ndarray
    missing: int = 0

    @property
    def judged(self) -> tuple[int, ...]:
        """Classes that rates are about: the positive one of two, or each one of many."""
        return (1,) if len(self.classes) == 2 else tuple(range(len(self.classes)))


@dataclass(frozen=True)
class Columns:
    """The audited columns as integer codes, each of shape (n,); a missing group has the code -1."""

    classes: tuple[str, ...]
    label: np.ndarray
    prediction: np.ndarray
    groups: dict[str, tuple[tuple[str, ...], np.ndarray]]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.label)

    def count(self, attribute: str) -> Counts:
        """Contingency counts of one attribute, shape (G, C, C)."""
        names, codes = self.groups[attribute]
        c = len(self.classes)
        size = len(names) * c * c
        if size < 2**31:  # half the memory, nearly always
            cell: np.ndarray = codes * np.int32(c * c)
        else:
            cell = codes * np.int64(c * c)
        cell += self.label * np.int32(c) + self.prediction
        missing = int((codes < 0).sum())
        if missing:
            cell = cell[codes >= 0]
        table = np.bincount(cell, minlength=size).reshape(len(names), c, c)
        return Counts(attribute, names, self.classes, table, missing)


def require_column(frame: pd.DataFrame, name: str, what: str) -> None:
    """Raise InputError, naming the nearest column, when the table has no column `name`."""
    columns = [str(column) for column in frame.columns]
    found = columns.count(name)
    if found > 1:
        raise InputError(f"the table has {found} columns named {name!r}")
    if not found:
        near = difflib.get_close_matches(name, columns, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
        raise InputError(f"{what} column {name!r} is not in the table{hint} (columns: {shown})")


def encode(
    frame: pd.DataFrame,
    *,
    label: str,
    prediction: str,
    groups: Sequence[str],
    positive: str | None = None,
    cross: bool = False,
) -> Columns:
    """Check the named columns and turn them into integer codes.

    Args:
        frame: the table, one row an example; shape (n, any).
        label: column of true classes.
        prediction: column of predicted classes, written as the labels are.
        groups: columns of perceived groups; a missing entry leaves the row out of that attribute.
        positive: class that "selected" means; every other class is then counted as negative.
            Without it two classes are judged by the second in sorted order, more by one-vs-rest.
        cross: also cross all attributes, as a further attribute named ``"a x b"``.

    Raises:
        InputError: empty table, missing or twice-named column, missing label or prediction (with
            its row number), only one class and no `positive`, labels and predictions in
            different writings, or a group column without any entry.
    """
    if isinstance(groups, str):
        raise InputError("groups must be a list of column names, not one string")
    if not groups:
        raise InputError("name at least one perceived-group column")
    repeated = sorted({g for g in groups if list(groups).count(g) > 1})
    if repeated:
        raise InputError(f"group column {repeated[0]!r} is named twice")
    for name, what in [(label, "label"), (prediction, "prediction"), *((g, "group") for g in groups)]:
        require_column(frame, name, what)
    if not len(frame):
        raise InputError("the table has no rows: nothing to audit")

    y_names, y = _codes(frame[label], numeric=True)
    p_names, p = _codes(frame[prediction], numeric=True)
    for codes, what, name in [(y, "label", label), (p, "prediction", prediction)]:
        bad = np.flatnonzero(codes < 0)
        if len(bad):
            row = int(bad[0]) + FIRST_ROW
            raise InputError(
                f"{what} {name!r} is missing in row {row} "
                f"({len(bad)} of {len(frame)} rows have none; row 2 is the first after the header)"
            )
    classes, y, p, notes = _classes(y_names, y, p_names, p, label, prediction, positive)

    coded: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    for name in groups:
        names, codes = _codes(frame[name])
        if not names:
            raise InputError(f"group column {name!r} is empty in every row")
        coded[name] = (names, codes)
    if cross:
        if len(groups) < 2:
            raise InputError("crossing needs at least two group columns")
        coded[" x ".join(groups)] = _cross(list(coded.values()))
    return Columns(classes, y, p, coded, tuple(notes))


def _codes(column: pd.Series, numeric: bool = False) -> tuple[tuple[str, ...], np.ndarray]:
    """Sorted names and the code of every row (-1 where missing). 1, 1.0 and "1" are one name."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        raw, values = column.cat.codes.to_numpy(), list(column.cat.categories)
    else:
        raw, uniques = pd.factorize(column)
        values = list(uniques)
    used = np.bincount(raw[raw >= 0], minlength=len(values)) > 0
    names = [_name(value, numeric) for value in values]
    order = sorted({n for n, u in zip(names, used, strict=True) if u and n is not None}, key=_rank)
    place = {name: i for i, name in enumerate(order)}
    lookup = np.array([place.get(n, -1) if n is not None else -1 for n in names] + [-1], np.int32)
    return tuple(order), lookup[raw]  # code -1 picks the last entry, which is -1


def _name(value: Any, numeric: bool) -> str | None:
    """The name a value goes by; None if it is a blank, which means missing."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    text = str(value)
    if not text.strip():
        return None
    if numeric and isinstance(value, str):
        try:  # "1.0" beside "1" is one class written twice, not two
            number = float(text)
        except ValueError:
            return text
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else text
    return text


def _rank(name: str) -> tuple[int, float, str]:
    try:
        return (0, float(name), name)
    except ValueError:
        return (1, 0.0, name)


def _classes(
    y_names: tuple[str, ...],
    y: np.ndarray,
    p_names: tuple[str, ...],
    p: np.ndarray,
    label: str,
    prediction: str,
    positive: str | None,
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray, list[str]]:
    if len(y_names) > 1 and not set(y_names) & set(p_names):
        raise InputError(
            f"label {label!r} and prediction {prediction!r} share no class: labels are "
            f"{_some(y_names)}, predictions are {_some(p_names)}"
        )
    names = tuple(sorted({*y_names, *p_names}, key=_rank))
    notes: list[str] = []
    if positive is not None:
        positive = _name(positive, True) or positive
        if positive not in names:
            near = difflib.get_close_matches(positive, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"positive class {positive!r} is neither a label nor a prediction{hint} "
                f"(classes: {_some(names)})"
            )
        if len(names) > 2:
            notes.append(f"every class other than {positive!r} is counted together as negative")
            names = (f"not {positive}", positive)
            y_map = np.array([int(n == positive) for n in y_names], np.int32)
            p_map = np.array([int(n == positive) for n in p_names], np.int32)
            return names, y_map[y], p_map[p], notes
        other = [n for n in names if n != positive] or [f"not {positive}"]
        names = (other[0], positive)
    elif len(names) == 1:
        raise InputError(
            f"labels and predictions hold only one class ({names[0]!r}): there is nothing to "
            "compare it with; name it as the positive class to see its rates alone"
        )
    elif len(names) == 2:
        notes.append(f"the positive class was not named; {names[1]!r}, the second in order, is used")
    else:
        notes.append(f"{len(names)} classes: every class is judged against the rest")
    if len(names) > 200:
        raise InputError(
            f"{len(names)} different classes in {label!r} and {prediction!r}: these look like "
            "scores or texts, not classes"
        )
    y_map = np.array([names.index(n) for n in y_names], np.int32)
    p_map = np.array([names.index(n) for n in p_names], np.int32)
    return names, y_map[y], p_map[p], notes


def _some(names: Sequence[str], k: int = 6) -> str:
    return ", ".join(repr(n) for n in names[:k]) + (", ..." if len(names) > k else "")


def _cross(
    attributes: list[tuple[tuple[str, ...], np.ndarray]],
) -> tuple[tuple[str, ...], np.ndarray]:
    """All combinations that occur; a row missing one attribute is missing here."""
    code = np.zeros(len(attributes[0][1]), np.int64)
    missing = np.zeros(len(code), bool)
    for names, codes in attributes:
        code = code * len(names) + np.maximum(codes, 0)
        missing |= codes < 0
    seen, dense = np.unique(code[~missing], return_inverse=True)
    if not len(seen):
        raise InputError("no row has an entry in every group column: nothing to cross")
    sizes = [len(names) for names, _ in attributes]
    parts = np.unravel_index(seen, sizes)
    labels = [
        " x ".join(names[i] for (names, _), i in zip(attributes, place, strict=True))
        for place in zip(*parts, strict=True)
    ]
    if len(set(labels)) < len(labels):  # a group name that itself contains " x "
        labels = [
            " x ".join(repr(names[i]) for (names, _), i in zip(attributes, place, strict=True))
            for place in zip(*parts, strict=True)
        ]
    out = np.full(len(code), -1, np.int32)
    out[~missing] = dense
    return tuple(labels), out
