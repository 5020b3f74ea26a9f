"""`compare`: two models on the same rows, and how much each gap and rate changed.

Paired throughout: intervals are of the change, not of each side (see ``paired``). What it does not
do: average over training seeds. Pass one model each; the spread over seeds is another spread.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd

from fvlfp.audit.audit_options import AuditOptions
from fvlfp.audit.document import Result
from fvlfp.audit.provenance import with_versions
from fvlfp.audit.schema import (
    SCHEMA,
    ChangedAttribute,
    ComparisonDocument,
    Facts,
    GapChange,
    GroupChanges,
    Settings,
)
from fvlfp.audit.stats.bins import bin_groups
from fvlfp.audit.stats.columns import Columns, encode, everyone, key_names, require_column
from fvlfp.audit.stats.families import families
from fvlfp.audit.stats.gaps import TESTED_AS
from fvlfp.audit.stats.intervals import holm
from fvlfp.audit.stats.paired import Change, infer_changes
from fvlfp.audit.stats.pairs import Pairs, class_sizes, count_pairs, rate_changes, worst_cell_change
from fvlfp.audit.stats.rates import number
from fvlfp.audit.stats.resampling import affordable
from fvlfp.audit.stats.sanity import constant_columns, fine_groups, heavy_rows, weight_remark
from fvlfp.errors import InputError
from fvlfp.values import first_row, names_of


class Comparison(Result[ComparisonDocument]):
    """One finished comparison of two models."""

    @property
    def changes(self) -> pd.DataFrame:
        """One row per attribute and gap: a, b, change, low, high, p-values."""
        parts = self.document["attributes"].items()
        return pd.DataFrame(
            [{"attribute": a, "gap": g, **e} for a, part in parts for g, e in part["changes"].items()]
        )

    @property
    def groups(self) -> pd.DataFrame:
        """One row per attribute, group and rate: a, b, change, low, high, n, positives, negatives."""
        sizes = ("n", "positives", "negatives")
        return pd.DataFrame(
            [
                {"attribute": attribute, "group": group, "rate": rate}
                | {size: entry.get(size) for size in sizes}
                | cell
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
        rows = {
            "balanced accuracy": self.document["overall"]["rates"]["balanced_accuracy"],
            "worst-cell recall": part["worst_cell_recall"],
            "odds gap (worst)": self.odds_gap(attribute),
            "parity gap": self._largest(attribute, "demographic_parity_difference"),
        }
        return pd.DataFrame(rows).T[["a", "b", "change", "low", "high"]].astype(float)

    def odds_gap(self, attribute: str) -> GapChange:
        """The worst-case odds gap's entry; of several classes the one of their largest."""
        return self._largest(attribute, "equalized_odds_difference_worst")

    def _largest(self, attribute: str, gap: str) -> GapChange:
        changes = self.document["attributes"][attribute]["changes"]
        return changes[gap] if gap in changes else changes[f"{gap}_class_max"]


def compare(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    label: str,
    prediction: str,
    groups: Sequence[str],
    positive: str | None = None,
    key: str | None = None,
    weight: str | None = None,
    bins: Mapping[str, Sequence[float]] | None = None,
    cross: bool = False,
    names: tuple[str, str] = ("a", "b"),
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    provenance: Facts | None = None,
) -> Comparison:
    """Judge the change from model `a` to model `b` on the same examples.

    Args:
        a, b: tables with the same rows. With `key` they are matched by that column, otherwise row i
            of one is row i of the other. Labels, groups and weights must agree; they are read from `a`.
        names: what the two models are called in the report.
        other arguments: see ``audit``.

    Raises:
        InputError: as ``audit``; also different rows, or a label or group that differs (row named).
    """
    settings: Settings = {
        "label": label,
        "prediction": prediction,
        "groups": list(groups),
        "positive": positive,
        "key": key,
        "weight": weight,
        "bins": {name: list(cuts) for name, cuts in (bins or {}).items()},
        "cross": cross,
        "draws": draws,
        "seed": seed,
        "level": level,
    }
    named = {name: value for name, value in settings.items() if name not in ("key", "bins")}
    options = AuditOptions(**named | {"groups": groups})  # type: ignore[arg-type]
    same = [label, *groups, *([weight] if weight else [])]
    for frame, column in product((a, b), [prediction, *same, *([key] if key else [])]):
        require_column(frame, column, "the")
    a, b = (bin_groups(frame, bins or {}, groups) for frame in (a, b))
    a, b = _matched(a, b, key, [prediction, *same])
    _check_rows(a, b, same, prediction, names)
    both = pd.concat([a, b], ignore_index=True)
    both.attrs = {"first_row": first_row(a)}
    columns = encode(both, options)
    return Comparison(_document(columns, names, settings, with_versions(provenance)))


def _document(
    columns: Columns, names: tuple[str, str], settings: Settings, provenance: Facts
) -> ComparisonDocument:
    """The comparison; `columns` holds the n rows of one model and then the same rows of the other."""
    n, level = len(columns) // 2, settings["level"]
    warnings = list(columns.notes)
    remarks = weight_remark(settings["weight"]) + [
        f"{side}: {remark}"
        for side, rows in zip(names, (slice(0, n), slice(n, None)), strict=True)
        for remark in constant_columns(columns.classes, columns.label[rows], columns.prediction[rows])
    ]
    groups = {name: replace(coded, codes=coded.codes[:n]) for name, coded in columns.groups.items()}
    weight = None if columns.weight is None else columns.weight[:n]
    remarks += heavy_rows(groups, weight, columns.first_row)
    attributes: dict[str, ChangedAttribute] = {}
    for name, coded in groups.items():
        pairs = count_pairs(columns, coded, name)
        rng = np.random.default_rng([settings["seed"], zlib.crc32(name.encode())])
        attributes[name], notes = _attribute(pairs, draws=settings["draws"], rng=rng, level=level)
        warnings += notes
        remarks += fine_groups(name, coded.names, pairs.counts.sizes)
    _adjust(attributes)
    return {
        "schema": SCHEMA,
        "kind": "comparison",
        "n": n,
        "names": list(names),
        "classes": list(columns.classes),
        "positive": columns.positive,
        "settings": settings,
        "overall": _group(count_pairs(columns, everyone(n), "all"), 0, level),
        "attributes": attributes,
        "remarks": remarks,
        "warnings": warnings,
        "provenance": provenance,
    }


def _matched(
    a: pd.DataFrame, b: pd.DataFrame, key: str | None, needed: Sequence[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    if len(a) != len(b):
        raise InputError(f"the tables have {len(a)} and {len(b)} rows: a paired comparison needs the same")
    if key is None:
        return a[list(needed)].reset_index(drop=True), b[list(needed)].reset_index(drop=True)
    keys = [key_names(frame[key].reset_index(drop=True), first_row(frame)) for frame in (a, b)]
    order = pd.Series(np.arange(len(b)), index=pd.Index(keys[1])).reindex(keys[0]).to_numpy()
    if np.isnan(order).any():
        value = keys[0].iloc[int(np.isnan(order).argmax())]
        raise InputError(f"{key!r} {value!r} of the first table is not in the second")
    b = b.iloc[order.astype(int)]
    return a[list(needed)].reset_index(drop=True), b[list(needed)].reset_index(drop=True)


def _check_rows(
    a: pd.DataFrame, b: pd.DataFrame, same: Sequence[str], prediction: str, names: tuple[str, str]
) -> None:
    """Raise InputError where a column that is not a prediction differs, or a prediction is missing."""
    for column in same:
        _same(a[column], b[column], column, first_row(a))
    for frame, side in zip((a, b), names, strict=True):
        blank = names_of(frame[prediction]).isna()
        if blank.any():
            row = int(blank.argmax()) + first_row(frame)
            raise InputError(f"{side}: prediction {prediction!r} is missing in row {row}")


def _same(left: pd.Series, right: pd.Series, column: str, first: int) -> None:
    x, y = names_of(left).fillna(""), names_of(right).fillna("")
    differ = (x != y).to_numpy()
    if differ.any():
        row = int(differ.argmax())
        raise InputError(
            f"{column!r} differs between the tables in row {row + first} ({x[row]!r} and {y[row]!r}): "
            "these are not the same examples"
        )


def _attribute(
    pairs: Pairs, *, draws: int, rng: np.random.Generator, level: float
) -> tuple[ChangedAttribute, list[str]]:
    """The entry of one attribute, and warnings about it."""
    counts, notes = pairs.counts, []
    if counts.missing:
        notes.append(
            f"{counts.attribute}: {counts.missing} rows have no entry and are left out of this attribute"
        )
    sampled = families(counts)
    made = affordable(sampled, draws)
    if made < draws:
        notes.append(f"{counts.attribute}: {made} instead of {draws} draws, for the number of groups")
    changes: dict[str, Change] = {}
    for joint, family in zip(pairs.joints(), sampled, strict=True):
        changes |= infer_changes(joint, family, draws=made, rng=rng, level=level)
    entry: ChangedAttribute = {
        "groups": {group: _group(pairs, i, level) for i, group in enumerate(counts.groups)},
        "changes": {gap: _entry(c) for gap, c in changes.items()},
        "worst_cell_recall": worst_cell_change(pairs, draws, rng, level),
        "missing": counts.missing,
    }
    return entry, notes


def _group(pairs: Pairs, group: int, level: float) -> GroupChanges:
    """The entry of one group."""
    positives, negatives = class_sizes(pairs, group)
    return {
        "n": int(pairs.counts.sizes[group]),
        "positives": positives,
        "negatives": negatives,
        "rates": rate_changes(pairs, group, level),
    }


def _adjust(attributes: Mapping[str, ChangedAttribute]) -> None:
    """Holm's correction over every distinct test of the comparison, written into the entries."""
    tested = {
        (name, gap): change["p_value"]
        for name, entry in attributes.items()
        for gap, change in entry["changes"].items()
        if change["p_value"] is not None and gap.partition("_class_")[0] not in TESTED_AS
    }
    for (name, gap), p in holm(tested).items():
        attributes[name]["changes"][gap]["p_adjusted"] = p


def _entry(c: Change) -> GapChange:
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
