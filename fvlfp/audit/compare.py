"""`compare`: two models on the same rows, and how much each gap and rate changed.

Paired throughout: intervals are of the change, not of each side (see ``paired``). What it does not
do: average over training seeds. Pass one model each; the spread over seeds is another spread.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fvlfp.audit.assess import with_versions
from fvlfp.audit.document import SCHEMA
from fvlfp.audit.stats import metrics
from fvlfp.audit.stats.counts import Columns, Counts, encode, first_row, require_column
from fvlfp.audit.stats.families import families, joints
from fvlfp.audit.stats.gaps import TESTED_AS
from fvlfp.audit.stats.intervals import holm
from fvlfp.audit.stats.paired import Change, change, mean_change, rate_change, residuals
from fvlfp.audit.stats.rates import number
from fvlfp.audit.stats.resampling import affordable
from fvlfp.audit.stats.sanity import constant_columns, fine_groups
from fvlfp.errors import InputError
from fvlfp.values import names_of


@dataclass(frozen=True)
class Comparison:
    """One finished comparison; `document` is the content of its ``audit.json``."""

    document: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return self.document

    @property
    def changes(self) -> pd.DataFrame:
        """One row per attribute and gap: a, b, change, low, high, p-values."""
        parts = self.document["attributes"].items()
        return pd.DataFrame(
            [{"attribute": a, "gap": g, **e} for a, part in parts for g, e in part["changes"].items()]
        )

    @property
    def groups(self) -> pd.DataFrame:
        """One row per attribute, group and rate: a, b, change, low, high, n."""
        return pd.DataFrame(
            [
                {"attribute": attribute, "group": group, "rate": rate, "n": entry["n"], **cell}
                for attribute, part in self.document["attributes"].items()
                for group, entry in part["groups"].items()
                for rate, cell in entry["rates"].items()
            ]
        )

    def overview(self, attribute: str) -> pd.DataFrame:
        """What to look at first: four rows, columns a, b, change and its interval, low and high.

        Accuracy and the worst-off cell stand above the gaps: a constant prediction has no gap. The odds gap
        is the worst-case one; of several classes, one against the rest, the largest.
        """
        part = self.document["attributes"][attribute]
        gaps = part["changes"]
        end = "" if "equalized_odds_difference_worst" in gaps else "_class_max"
        rows = {
            "balanced accuracy": self.document["overall"]["rates"]["balanced_accuracy"],
            "worst-cell recall": part["worst_cell_recall"],
            "odds gap (worst)": gaps[f"equalized_odds_difference_worst{end}"],
            "parity gap": gaps[f"demographic_parity_difference{end}"],
        }
        return pd.DataFrame(rows).T[["a", "b", "change", "low", "high"]].astype(float)

    @property
    def remarks(self) -> list[str]:
        """What to look at before any number: constant predictions, groups that are too fine."""
        return list(self.document.get("remarks", []))

    @property
    def warnings(self) -> list[str]:
        return list(self.document["warnings"])


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    label: str,
    prediction: str,
    groups: Sequence[str],
    positive: str | None = None,
    key: str | None = None,
    cross: bool = False,
    names: tuple[str, str] = ("a", "b"),
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    provenance: Mapping[str, Any] | None = None,
) -> Comparison:
    """Judge the change from model `a` to model `b` on the same examples.

    Args:
        a, b: tables with the same rows. With `key` they are matched by that column, otherwise row i
            of one is row i of the other. Labels and groups must agree; they are read from `a`.
        names: what the two models are called in the report.
        other arguments: see ``audit``.

    Raises:
        InputError: as ``audit``; also different rows, or a label or group that differs (row named).
    """
    if draws < 100 or not 0.5 < level < 1:
        raise InputError("draws must be at least 100 and level between 0.5 and 1")
    a, b = _matched(a, b, key, [label, prediction, *groups])
    for column in (label, *groups):
        _same(a[column], b[column], column, first_row(a))
    for frame, side in zip((a, b), names, strict=True):
        blank = names_of(frame[prediction]).isna()
        if blank.any():
            row = int(blank.argmax()) + first_row(frame)
            raise InputError(f"{side}: prediction {prediction!r} is missing in row {row}")
    both = pd.concat([a, b], ignore_index=True)
    columns = encode(both, label=label, prediction=prediction, groups=groups, positive=positive, cross=cross)
    n, binary = len(a), len(columns.classes) == 2
    warnings = list(columns.notes)
    remarks = [
        f"{side}: {remark}"
        for side, rows in zip(names, (slice(0, n), slice(n, None)), strict=True)
        for remark in constant_columns(columns.classes, columns.label[rows], columns.prediction[rows])
    ]
    attributes: dict[str, Any] = {}
    tests: dict[tuple[str, str], float] = {}
    for name, coded in columns.groups.items():
        group_names, codes = coded.names, coded.codes
        joint = _joint(columns, codes[:n], len(group_names))
        missing = int((codes[:n] < 0).sum())
        if missing:
            warnings.append(f"{name}: {missing} rows have no entry and are left out of this attribute")
        counts = Counts(name, group_names, columns.classes, joint.sum(-1), missing)
        remarks += fine_groups(name, group_names, counts.table.sum((-1, -2)))
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        changes = _changes(counts, joint, draws=draws, rng=rng, level=level, warnings=warnings)
        tests |= {(name, gap): c.p_value for gap, c in changes.items() if np.isfinite(c.p_value)}
        attributes[name] = {
            "groups": {
                g: {"n": int(joint[i].sum()), "rates": _rates(counts, joint[i], level)}
                for i, g in enumerate(group_names)
            },
            "changes": {gap: _entry(c) for gap, c in changes.items()},
            "worst_cell_recall": _worst_cell(counts, joint, draws, rng, level),
            "missing": missing,
        }
    tests = {k: p for k, p in tests.items() if k[1].partition("_class_")[0] not in TESTED_AS}
    for (name, gap), p in holm(tests).items():
        attributes[name]["changes"][gap]["p_adjusted"] = p
    everyone = _joint(columns, np.zeros(n, np.int64), 1)[0]
    counts = Counts("all", ("all",), columns.classes, everyone.sum(-1)[None])
    document = {
        "schema": SCHEMA,
        "kind": "comparison",
        "n": n,
        "names": list(names),
        "classes": list(columns.classes),
        "positive": columns.classes[1] if binary else None,
        "settings": {
            "label": label,
            "prediction": prediction,
            "groups": list(groups),
            "positive": positive,
            "key": key,
            "cross": cross,
            "draws": draws,
            "seed": seed,
            "level": level,
        },
        "overall": {"n": n, "rates": _rates(counts, everyone, level)},
        "attributes": attributes,
        "remarks": remarks,
        "warnings": warnings,
        "provenance": with_versions(provenance),
    }
    return Comparison(document)


def _matched(
    a: pd.DataFrame, b: pd.DataFrame, key: str | None, needed: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    for frame in (a, b):
        for column in [*needed, *([key] if key else [])]:
            require_column(frame, column, "the")
    if len(a) != len(b):
        raise InputError(f"the tables have {len(a)} and {len(b)} rows: a paired comparison needs the same")
    if key is None:
        return a[list(needed)].reset_index(drop=True), b[list(needed)].reset_index(drop=True)
    keys = [names_of(frame[key]) for frame in (a, b)]
    for names, frame in zip(keys, (a, b), strict=True):
        if names.isna().any():
            raise InputError(f"key {key!r} is missing in row {int(names.isna().argmax()) + first_row(frame)}")
        if names.duplicated().any():
            value = names[names.duplicated()].iloc[0]
            raise InputError(f"key {key!r} is not unique: {value!r} occurs more than once")
    order = pd.Series(np.arange(len(b)), index=pd.Index(keys[1])).reindex(keys[0]).to_numpy()
    if np.isnan(order).any():
        value = keys[0].iloc[int(np.isnan(order).argmax())]
        raise InputError(f"{key!r} {value!r} of the first table is not in the second")
    b = b.iloc[order.astype(int)]
    return a[list(needed)].reset_index(drop=True), b[list(needed)].reset_index(drop=True)


def _same(left: pd.Series, right: pd.Series, column: str, first: int) -> None:
    x, y = names_of(left).fillna(""), names_of(right).fillna("")
    differ = (x != y).to_numpy()
    if differ.any():
        row = int(differ.argmax())
        raise InputError(
            f"{column!r} differs between the tables in row {row + first} ({x[row]!r} and {y[row]!r}): "
            "these are not the same examples"
        )


def _joint(columns: Columns, codes: np.ndarray, size: int) -> np.ndarray:
    """Joint counts (G, C, C, C): group, label, prediction of a, prediction of b."""
    n, c = len(codes), len(columns.classes)
    cell = (
        (codes.astype(np.int64) * c + columns.label[:n]) * c + columns.prediction[:n]
    ) * c + columns.prediction[n:]
    return np.bincount(cell[codes >= 0], minlength=size * c**3).reshape(size, c, c, c)


def _changes(
    counts: Counts,
    joint: np.ndarray,
    *,
    draws: int,
    rng: np.random.Generator,
    level: float,
    warnings: list[str],
) -> dict[str, Change]:
    fams = families(counts)
    wanted = affordable(fams, draws)
    if wanted < draws:
        warnings.append(f"{counts.attribute}: {wanted} instead of {draws} draws, for the number of groups")
    out: dict[str, Change] = {}
    for pairs, family in zip(joints(joint), fams, strict=True):
        out |= change(pairs, family, draws=wanted, rng=rng, level=level)
    return {name: c for name, c in out.items() if "[" not in name}


def _rates(counts: Counts, joint: np.ndarray, level: float) -> dict[str, Any]:
    """Paired changes of every rate of one group, from its joint counts (C, C, C)."""
    classes = range(len(counts.classes))
    out = {}
    if counts.judged == (1,):
        out["selection_rate"] = _paired(joint.sum(0), 1, level)
        out["tpr"], out["fpr"] = _paired(joint[1], 1, level), _paired(joint[0], 1, level)
    recall = [_collapse(joint[k], k) for k in classes]
    out["accuracy"] = _change_entry(sum(recall), rate_change(sum(recall), level))  # type: ignore[arg-type]
    known = [r for r in recall if r.sum()]
    mean = mean_change([rate_change(r, level) for r in known])
    values = [np.mean([r.sum(axis)[1] / r.sum() for r in known]) if known else np.nan for axis in (1, 0)]
    complete = len(known) == len(recall)
    out["balanced_accuracy"] = {
        "a": number(values[0]) if complete else None,
        "b": number(values[1]) if complete else None,
        "change": number(mean[0]) if complete else None,
        "low": number(mean[1]) if complete else None,
        "high": number(mean[2]) if complete else None,
    }
    return out


def _collapse(joint: np.ndarray, k: int) -> np.ndarray:
    """Hits of class k: (C, C) joint predictions to [[neither, only b], [only a, both]]."""
    both, a, b, n = joint[k, k], joint[k].sum(), joint[:, k].sum(), joint.sum()
    return np.array([[n - a - b + both, b - both], [a - both, both]])


def _paired(joint: np.ndarray, k: int, level: float) -> dict[str, Any]:
    hits = _collapse(joint, k)
    return _change_entry(hits, rate_change(hits, level))


def _change_entry(hits: np.ndarray, got: tuple[float, float, float]) -> dict[str, Any]:
    n = int(hits.sum())
    a, b = (hits[1].sum() / n, hits[:, 1].sum() / n) if n else (np.nan, np.nan)
    names = ("a", "b", "change", "low", "high")
    return dict(zip(names, (number(x) for x in (a, b, *got)), strict=True))


def _worst_cell(
    counts: Counts, joint: np.ndarray, draws: int, rng: np.random.Generator, level: float
) -> dict[str, Any]:
    """Change of the smallest recall; reflected (basic) bootstrap of the joint counts."""
    cells = np.stack([[_collapse(j[k], k) for k in range(j.shape[0])] for j in joint])  # (G, C, 2, 2)

    def worst(hits: np.ndarray, n: np.ndarray) -> np.ndarray:
        recall = metrics.divide(hits, n)
        return np.fmin.reduce(recall.reshape(*recall.shape[:-2], -1), axis=-1)

    n = cells.sum((-1, -2))
    a, b = (float(worst(cells.sum(axis)[..., 1], n)) for axis in (-1, -2))
    ea, eb = residuals(cells, min(draws, 2000), rng)
    centre_a, centre_b = (metrics.divide(cells.sum(axis)[..., 1], n) for axis in (-1, -2))
    drawn = worst((centre_b + eb[..., 1]) * n, n) - worst((centre_a + ea[..., 1]) * n, n)
    tail = (1 - level) / 2
    low, high = 2 * (b - a) - np.quantile(drawn, [1 - tail, tail])
    names = ("a", "b", "change", "low", "high")
    return dict(zip(names, (number(x) for x in (a, b, b - a, low, high)), strict=True))


def _entry(c: Change) -> dict[str, Any]:
    known = np.isfinite(c.a) and np.isfinite(c.b)
    return {
        "a": number(c.a),
        "b": number(c.b),
        "change": number(c.b - c.a),
        "low": number(c.low),
        "high": number(c.high),
        "reason": None if known else "undefined for at least one of the two models",
        "p_value": number(c.p_value),
        "p_adjusted": None,
    }
