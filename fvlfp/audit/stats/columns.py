"""A table of predictions as integer codes: read once, in one pass, into one frozen object.

What this module does not do: read files (``fvlfp.data``), judge anything (``assess`` and ``compare``), or
choose a threshold. One chosen on the audited rows flatters the audit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from fvlfp.audit.audit_options import AuditOptions
from fvlfp.audit.stats.bins import bin_groups
from fvlfp.audit.stats.counts import Counts, effective
from fvlfp.errors import InputError, did_you_mean
from fvlfp.values import FIRST_ROW, Coded, code, doubles, first_row, is_fraction, names_of, rank, value_name

LARGEST = 1e100  # squares of larger scores overflow; they count as not finite


@dataclass(frozen=True)
class Columns:
    """The audited columns of n rows: classes and groups as codes (n,), where -1 is a missing group.

    Without truth every label is 0. weight: (n,), the largest is 1. score: (n,), of the positive class.
    templates: the same rows with each further column of predictions. template_scores: further scores.
    rows: the table as it was judged, for ``predictions.csv``: label, `prediction`, banded groups, weight and
    key.
    first_row: what messages call the first row.
    """

    classes: tuple[str, ...]
    label: np.ndarray
    prediction: np.ndarray
    groups: Mapping[str, Coded]
    notes: tuple[str, ...] = ()
    truth: bool = True
    weight: np.ndarray | None = None
    score: np.ndarray | None = None
    templates: tuple[Columns, ...] = ()
    template_scores: tuple[np.ndarray, ...] = ()
    rows: pd.DataFrame | None = None
    first_row: int = FIRST_ROW

    def __len__(self) -> int:
        return len(self.label)

    @property
    def positive(self) -> str | None:
        """The class that rates are about; None where each class is judged against the rest."""
        return self.classes[1] if len(self.classes) == 2 else None

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
        total = np.bincount(rows, weights=self.weight[codes >= 0], minlength=len(names))
        return Counts(attribute, names, self.classes, table, missing, self.truth, sizes, total)

    def everyone(self) -> Counts:
        """Counts of all rows as one group."""
        return replace(self, groups={"all": everyone(len(self))}).count("all")


def everyone(n: int) -> Coded:
    """The attribute of n rows that puts all of them into one group."""
    return Coded(("all",), np.zeros(n, np.int32))


def encode(frame: pd.DataFrame, options: AuditOptions) -> Columns:
    """Check the named columns and turn them into integer codes.

    Args:
        frame: the table, one row per example; shape (n, any).
        options: names of columns. A missing group leaves its row out of that attribute. With a positive class
            every other one is counted as negative; without it two classes are judged by the second in sorted
            order, more by one-vs-rest. `cross` adds the attribute ``"a x b"``.

    Raises:
        InputError: no rows; a missing or twice-named column; a missing label, prediction or score, or a key
            that is missing or not unique (with its row number); bins that cannot be made; only one class and
            no `positive`, or a threshold without one; labels and predictions in different writings; a group
            column without any entry.
    """
    o, first = options, first_row(frame)
    _check_columns(frame, o)
    frame = bin_groups(frame, o.bins, o.groups)
    y = None if o.label is None else _complete(frame[o.label], "label", first)
    predicted = frame[o.prediction] if o.prediction is not None else _decisions(frame, o, y)
    groups = {name: _group(frame[name]) for name in o.groups}
    if o.cross:
        groups[" x ".join(o.groups)] = _cross(list(groups.values()))
    weight = None if o.weight is None else _weights(frame[o.weight], first)
    if o.key is not None:
        key_names(frame[o.key], first)
    for name, coded in groups.items():
        if weight is not None and not weight[coded.codes >= 0].any():
            raise InputError(f"weight {o.weight!r} is 0 in every row that has an entry in {name!r}")
    columns = _columns(y, predicted, o, groups, weight, first)
    scores: list[np.ndarray] = []
    if o.score is not None and o.judges_scores:
        if columns.positive is None:
            raise InputError("scores are judged for two classes only; name the positive class")
        scores = [_scores(frame[name], first) for name in (o.score, *o.template_scores.values())]
    same = replace(o, positive=columns.positive)
    return replace(
        columns,
        score=scores[0] if scores else None,
        templates=tuple(
            _columns(y, frame[name], same, groups, weight, first) for name in o.templates.values()
        ),
        template_scores=tuple(scores[1:]),
        rows=_rows(frame, o, predicted),
    )


def _check_columns(frame: pd.DataFrame, o: AuditOptions) -> None:
    """Raise InputError unless every named column is there once, and there are rows."""
    if isinstance(o.groups, str):
        raise InputError("groups must be a list of column names, not one string")
    if not o.groups:
        raise InputError("name at least one perceived-group column")
    repeated = sorted({g for g in o.groups if list(o.groups).count(g) > 1})
    if repeated:
        raise InputError(f"group column {repeated[0]!r} is named twice")
    predictions = [("prediction", name) for name in (o.prediction, *o.templates.values())]
    groups = [("group", name) for name in o.groups]
    known: dict[str, str] = {}
    for what, name in [("label", o.label), *predictions, ("weight", o.weight), ("key", o.key), *groups]:
        if name is None:
            continue
        require_column(frame, name, what)
        if known.setdefault(name, what) != what:
            raise InputError(f"column {name!r} is named as {known[name]} and as {what}")
    for name in (o.score, *o.template_scores.values()):
        if name is not None:
            require_column(frame, name, "score")
            if known.get(name, "prediction") != "prediction":
                raise InputError(f"column {name!r} is named as {known[name]} and as score")
    if not len(frame):
        raise InputError("the table has no rows: nothing to audit")
    if o.cross and len(o.groups) < 2:
        raise InputError("crossing needs at least two group columns")


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


def _complete(column: pd.Series, what: str, first: int) -> Coded:
    """A column without a missing entry."""
    coded = code(column)
    bad = np.flatnonzero(coded.codes < 0)
    if len(bad):
        raise InputError(
            f"{what} {column.name!r} is missing in row {int(bad[0]) + first} "
            f"({len(bad)} of {len(column)} rows have none; row {first} is the first)"
        )
    return coded


def key_names(column: pd.Series, first: int) -> pd.Series:
    """What a key calls each of n rows; InputError where it calls one nothing, or two the same (row named)."""
    names = names_of(column)
    for bad, what in ((names.isna(), "is missing"), (names.duplicated(), "is not unique")):
        if bad.any():
            i = int(bad.to_numpy().argmax())
            value = "" if names[i] is None else f": {names[i]!r} stands there again"
            raise InputError(f"key {column.name!r} {what} in row {i + first}{value}")
    return names


def _group(column: pd.Series) -> Coded:
    coded = code(column)
    if not coded.names:
        raise InputError(f"group column {column.name!r} is empty in every row")
    return coded


def _decisions(frame: pd.DataFrame, o: AuditOptions, y: Coded | None) -> pd.Series:
    """Predictions made from scores: positive from the threshold on."""
    assert o.score is not None and o.threshold is not None
    yes = None if o.positive is None else value_name(o.positive)
    if y is not None and yes is None:
        if len(y.names) != 2:
            raise InputError(
                f"a threshold needs the class that high scores mean: name the positive class "
                f"({len(y.names)} classes in {o.label!r})"
            )
        yes = y.names[1]
    yes = yes or "selected"
    others = [] if y is None else [name for name in y.names if name != yes]
    no = others[0] if len(others) == 1 else f"not {yes}"  # of several others a score tells none
    reached = _scores(frame[o.score], first_row(frame)) >= o.threshold
    return pd.Series(np.where(reached, yes, no), name=f"{o.score} >= {value_name(o.threshold)}")


def _scores(column: pd.Series, first: int) -> np.ndarray:
    """Scores as float64; InputError for one that is missing, infinite or no number."""
    score = doubles(pd.to_numeric(column, errors="coerce").to_numpy(na_value=np.nan))
    bad = np.flatnonzero(~(np.abs(score) < LARGEST))  # NaN is not smaller
    if len(bad):
        row, value = int(bad[0]), column.iloc[int(bad[0])]
        shown = repr(value) if isinstance(value, str) else str(value)
        raise InputError(f"score {column.name!r} in row {row + first} is {shown}, not a finite number")
    return score


def _weights(column: pd.Series, first: int) -> np.ndarray:
    weight = pd.to_numeric(column, errors="coerce").to_numpy(float)
    bad = np.flatnonzero(~(np.isfinite(weight) & (weight >= 0)))
    if len(bad):
        row = int(bad[0])
        raise InputError(
            f"weight {column.name!r} in row {row + first} is {column.iloc[row]}, not a number >= 0"
        )
    if not weight.any():
        raise InputError(f"weight {column.name!r} is 0 in every row")
    return weight / weight.max()


def _rows(frame: pd.DataFrame, o: AuditOptions, predicted: pd.Series) -> pd.DataFrame:
    label = [] if o.label is None else [o.label]
    rows = frame[[*label, *o.groups, *filter(None, (o.weight, o.key))]].copy(deep=False)
    rows.insert(len(label), "prediction", predicted.array, allow_duplicates=True)
    return rows


def _columns(
    y: Coded | None,
    predicted: pd.Series,
    o: AuditOptions,
    groups: Mapping[str, Coded],
    weight: np.ndarray | None,
    first: int,
) -> Columns:
    """Labels, if there are any, and one column of predictions as codes into the same classes."""
    name, p = str(predicted.name), _complete(predicted, "prediction", first)
    _refuse_scores(() if y is None else y.names, p, name, first)
    true = p if y is None else y
    classes, choice = _classes(true, p, o.label or name, name, o.positive)
    notes = [note for column in (true, p, *groups.values()) for note in column.notes]
    label, prediction = (_recode(column, classes, o.positive) for column in (true, p))
    return Columns(
        classes,
        np.zeros_like(label) if y is None else label,
        prediction,
        groups,
        notes=tuple(dict.fromkeys([*notes, *choice])),
        truth=y is not None,
        weight=weight,
        first_row=first,
    )


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
    rest = (
        None if positive is None else f"not {value_name(positive)}"
    )  # what a threshold says, see _decisions
    said = [name for name in p.names if name != rest]
    if len(y.names) > 1 and said and not set(y.names) & set(said):
        raise InputError(
            f"label {label!r} and prediction {prediction!r} share no class: labels are "
            f"{_some(y.names)}, predictions are {_some(p.names)}"
        )
    names = tuple(sorted({*y.names, *p.names}, key=rank))
    unseen = [name for name in said if name not in y.names]
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
