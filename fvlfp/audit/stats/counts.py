"""From a table of predictions to contingency counts, the only thing the rest of the audit looks at.

Every metric, interval and test of this package is a function of the counts
``table[group, label, prediction]``, so a million rows are read once and never again.
What it does not do: read files (see ``load``), judge anything (see ``metrics``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd

from fvlfp import metrics
from fvlfp.errors import InputError, did_you_mean
from fvlfp.values import Coded, code, is_fraction, rank, value_name

FIRST_ROW = 2  # row number of a table's first data row, as a spreadsheet counts: the header is row 1


def first_row(frame: pd.DataFrame) -> int:
    """What messages call the first row of a frame: its reader knows; 2 where nobody said."""
    return int(frame.attrs.get("first_row", FIRST_ROW))


@dataclass(frozen=True)
class Counts:
    """Contingency counts of one perceived-group attribute.

    ``table`` has shape (G, C, C) and dtype int64: group, label, prediction. ``missing`` counts the
    rows whose group is not given; they are in no cell of ``table``. Without truth every row has label 0 and
    only selection rates mean something. Weighted rows make ``table`` float64, scaled so that each group's sum
    is its effective sample size (Kish 1965); ``rows`` (G,) are then the examples themselves.
    """

    attribute: str
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    table: np.ndarray
    missing: int = 0
    truth: bool = True
    rows: np.ndarray | None = None

    @property
    def n(self) -> np.ndarray:
        """Examples of each group, (G,)."""
        return self.table.sum((-1, -2))

    @property
    def sizes(self) -> np.ndarray:
        """Rows of each group, weighted or not, (G,)."""
        return self.n if self.rows is None else self.rows

    @property
    def hits(self) -> np.ndarray:
        """Right predictions by group and class, (G, C)."""
        return np.einsum("gcc->gc", self.table)

    @cached_property
    def one_vs_rest(self) -> np.ndarray:
        """Each class against the rest as binary tables, (G, C, 2, 2)."""
        return metrics.one_vs_rest(self.table)

    def binary(self, k: int) -> np.ndarray:
        """Class k against the rest, (G, 2, 2)."""
        return self.table if len(self.classes) == 2 and k == 1 else self.one_vs_rest[:, k]

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
    groups: dict[str, Coded]
    notes: tuple[str, ...] = ()
    truth: bool = True
    weight: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.label)

    def count(self, attribute: str) -> Counts:
        """Contingency counts of one attribute, shape (G, C, C)."""
        names, codes = self.groups[attribute].names, self.groups[attribute].codes
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
        shape = len(names), c, c
        if self.weight is None:
            table = np.bincount(cell, minlength=size).reshape(shape)
            return Counts(attribute, names, self.classes, table, missing, self.truth)
        rows = codes[codes >= 0]
        scaled = effective(self.weight[codes >= 0], rows, len(names))
        table = np.bincount(cell, weights=scaled, minlength=size).reshape(shape)
        sizes = np.bincount(rows, minlength=len(names))
        return Counts(attribute, names, self.classes, table, missing, self.truth, sizes)

    def everyone(self) -> Counts:
        """Counts of all rows as one group."""
        whole = Coded(("all",), np.zeros(len(self), np.int32))
        return replace(self, groups={"all": whole}).count("all")


def effective(weight: np.ndarray, codes: np.ndarray, groups: int) -> np.ndarray:
    """Weights (n,) scaled so that those of a group sum to its effective sample size (Kish); codes (n,)."""
    total, squares = (np.bincount(codes, weights=w, minlength=groups) for w in (weight, weight**2))
    return weight * np.nan_to_num(metrics.divide(total, squares))[codes]


def require_column(frame: pd.DataFrame, name: str, what: str) -> None:
    """Raise InputError, naming the nearest column, when the table has no column `name`."""
    columns = [str(column) for column in frame.columns]
    found = columns.count(name)
    if found > 1:
        raise InputError(f"the table has {found} columns named {name!r}")
    if not found:
        hint = did_you_mean(name, columns)
        shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
        raise InputError(f"{what} column {name!r} is not in the table{hint} (columns: {shown})")


def encode(
    frame: pd.DataFrame,
    *,
    label: str | None,
    prediction: str,
    groups: Sequence[str],
    positive: str | None = None,
    weight: str | None = None,
    cross: bool = False,
) -> Columns:
    """Check the named columns and turn them into integer codes.

    Args:
        frame: the table, one row an example; shape (n, any).
        label: column of true classes; None leaves only selection rates to judge.
        prediction: column of predicted classes, written as the labels are.
        groups: columns of perceived groups; a missing entry leaves the row out of that attribute.
        positive: class that "selected" means; every other class is then counted as negative.
            Without it two classes are judged by the second in sorted order, more by one-vs-rest.
        weight: column of sample weights, finite and not negative.
        cross: also cross all attributes, as a further attribute named ``"a x b"``.

    Raises:
        InputError: empty table, missing or twice-named column, missing label or prediction (with
            its row number), only one class and no `positive`, labels and predictions in
            different writings, or a group column without any entry.
    """
    _check_columns(frame, {"label": label, "prediction": prediction, "weight": weight}, groups)
    p = code(frame[prediction])
    y = p if label is None else code(frame[label])
    if label is not None:
        _refuse_missing(frame, y, "label", label)
    _refuse_missing(frame, p, "prediction", prediction)
    _refuse_scores(() if label is None else y.names, p, prediction, first_row(frame))
    classes, notes = _classes(y, p, label or prediction, prediction, positive)
    coded: dict[str, Coded] = {}
    for name in groups:
        coded[name] = code(frame[name])
        if not coded[name].names:
            raise InputError(f"group column {name!r} is empty in every row")
    notes = [*y.notes, *p.notes, *(note for column in coded.values() for note in column.notes), *notes]
    if cross:
        if len(groups) < 2:
            raise InputError("crossing needs at least two group columns")
        coded[" x ".join(groups)] = _cross(list(coded.values()))
    label_codes, prediction_codes = (_recode(column, classes, positive) for column in (y, p))
    weights = None if weight is None else _weights(frame, weight)
    if label is None:
        label_codes = np.zeros_like(prediction_codes)
    return Columns(
        classes, label_codes, prediction_codes, coded, tuple(dict.fromkeys(notes)), label is not None, weights
    )


def _check_columns(frame: pd.DataFrame, named: Mapping[str, str | None], groups: Sequence[str]) -> None:
    """Raise InputError unless every named column is there once, and there are rows."""
    if isinstance(groups, str):
        raise InputError("groups must be a list of column names, not one string")
    if not groups:
        raise InputError("name at least one perceived-group column")
    repeated = sorted({g for g in groups if list(groups).count(g) > 1})
    if repeated:
        raise InputError(f"group column {repeated[0]!r} is named twice")
    known: dict[str, str] = {}
    for what, name in [*named.items(), *(("group", g) for g in groups)]:
        if name is None:
            continue
        require_column(frame, name, what)
        if known.setdefault(name, what) != what:
            raise InputError(f"column {name!r} is named as {known[name]} and as {what}")
    if not len(frame):
        raise InputError("the table has no rows: nothing to audit")


def _refuse_missing(frame: pd.DataFrame, column: Coded, what: str, name: str) -> None:
    bad = np.flatnonzero(column.codes < 0)
    if len(bad):
        first = first_row(frame)
        raise InputError(
            f"{what} {name!r} is missing in row {int(bad[0]) + first} "
            f"({len(bad)} of {len(frame)} rows have none; row {first} is the first)"
        )


def _weights(frame: pd.DataFrame, name: str) -> np.ndarray:
    weight = pd.to_numeric(frame[name], errors="coerce").to_numpy(float)
    bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"weight {name!r} in row {row + first_row(frame)} is {frame[name].iloc[row]}, not a number >= 0"
        )
    if not weight.any():
        raise InputError(f"weight {name!r} is 0 in every row")
    return weight / weight.max()


def _refuse_scores(labels: Sequence[str], p: Coded, prediction: str, first: int) -> None:
    """Probabilities where decisions should stand would be audited as dozens of classes."""
    if any(map(is_fraction, labels)):
        return
    scores = np.array([is_fraction(name) for name in p.names])
    rows = np.flatnonzero(scores[p.codes])
    if len(rows):
        row, value = int(rows[0]) + first, p.names[p.codes[rows[0]]]
        raise InputError(
            f"prediction {prediction!r} is {value} in row {row}, which is never a label: these look like "
            f"scores. Pass them with --score {prediction} (score=), and name a --prediction column or the "
            f"--threshold from which on a score is a positive prediction"
        )


def _classes(
    y: Coded, p: Coded, label: str, prediction: str, positive: str | None
) -> tuple[tuple[str, ...], list[str]]:
    """The names of the classes that are judged, the positive one last of two, and notes on the choice."""
    if len(y.names) > 1 and not set(y.names) & set(p.names):
        raise InputError(
            f"label {label!r} and prediction {prediction!r} share no class: labels are "
            f"{_some(y.names)}, predictions are {_some(p.names)}"
        )
    names = tuple(sorted({*y.names, *p.names}, key=rank))
    unseen = [name for name in p.names if name not in y.names]
    notes = []
    if unseen:
        rows = int(np.isin(p.codes, [p.names.index(name) for name in unseen]).sum())
        notes.append(
            f"{prediction}: {_some(unseen)} never occur{'s' * (len(unseen) == 1)} as a label; "
            f"{rows:,} predictions are wrong for that reason alone"
        )
    if positive is not None:
        classes, more = _with_positive(names, positive)
        return classes, [*notes, *more]
    if len(names) == 1:
        raise InputError(
            f"labels and predictions hold only one class ({names[0]!r}): there is nothing to "
            "compare it with; name it as the positive class to see its rates alone"
        )
    if len(names) > max(200, len(y) / 2):
        raise InputError(
            f"{len(names)} different classes in {label!r} and {prediction!r} on {len(y)} rows: these look "
            "like scores or texts, not classes"
        )
    if len(names) == 2:
        notes.append(f"the positive class was not named; {names[1]!r}, the second in order, is used")
    else:
        notes.append(f"{len(names)} classes: every class is judged against the rest")
    return names, notes


def _with_positive(names: tuple[str, ...], positive: str) -> tuple[tuple[str, ...], list[str]]:
    """Two classes: the named one, and the other or all others together."""
    positive = value_name(positive) or positive
    if positive not in names:
        hint = did_you_mean(positive, names)
        raise InputError(
            f"positive class {positive!r} is neither a label nor a prediction{hint} (classes: {_some(names)})"
        )
    if len(names) > 2:
        note = f"every class other than {positive!r} is counted together as negative"
        return (f"not {positive}", positive), [note]
    other = [name for name in names if name != positive] or [f"not {positive}"]
    return (other[0], positive), []


def _recode(column: Coded, classes: tuple[str, ...], positive: str | None) -> np.ndarray:
    """Codes (n,) into `classes`; with a positive class every other name is the negative one."""
    if positive is None:
        places = [classes.index(name) for name in column.names]
    else:
        places = [int(name == classes[1]) for name in column.names]
    return np.array(places, np.int32)[column.codes]


def _some(names: Sequence[str], k: int = 6) -> str:
    return ", ".join(repr(n) for n in names[:k]) + (", ..." if len(names) > k else "")


def _cross(attributes: list[Coded]) -> Coded:
    """All combinations that occur; a row missing one attribute is missing here."""
    missing = np.any([column.codes < 0 for column in attributes], axis=0)
    if missing.all():
        raise InputError("no row has an entry in every group column: nothing to cross")
    first, *others = attributes
    dense: np.ndarray = first.codes[~missing]
    parts: list[tuple[str, ...]] = [(name,) for name in first.names]
    for column in others:  # dense after each step: the codes of many columns would not fit in 64 bits
        size = len(column.names)
        seen, dense = np.unique(dense.astype(np.int64) * size + column.codes[~missing], return_inverse=True)
        parts = [(*parts[i], column.names[j]) for i, j in (divmod(int(k), size) for k in seen)]
    labels = [" x ".join(names) for names in parts]
    if len(set(labels)) < len(labels):  # a group name that itself contains " x "
        labels = [" x ".join(map(repr, names)) for names in parts]
    out = np.full(len(missing), -1, np.int32)
    out[~missing] = dense
    return Coded(tuple(labels), out)
