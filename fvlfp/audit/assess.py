"""`audit`: judge the predictions of one model by perceived group.

The result is one document, ``audit.json`` (see ``schema``); everything shown later (tables, figures, report)
is read from that document alone. What it does not do: read or write files (``fvlfp.data``, ``report``),
compare two models (``compare``).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fvlfp import metrics
from fvlfp.audit.audit_options import AuditOptions
from fvlfp.audit.bands import equity_scaled_accuracy, under_template, widen
from fvlfp.audit.document import Audit
from fvlfp.audit.from_arrays import ColumnNames, table_of_arrays
from fvlfp.audit.provenance import with_versions
from fvlfp.audit.schema import SCHEMA, Attribute, Facts, Gap, GroupRates, LeftOut, Rate, WorstCell
from fvlfp.audit.stats.columns import Columns, encode
from fvlfp.audit.stats.counts import Counts
from fvlfp.audit.stats.families import FEW
from fvlfp.audit.stats.gaps import attribute_gaps
from fvlfp.audit.stats.intervals import holm, smallest_rate
from fvlfp.audit.stats.rates import SMALL, estimate, group_rates
from fvlfp.audit.stats.sanity import (
    constant_columns,
    fine_groups,
    heavy_rows,
    lone_labels,
    score_remarks,
    weight_remark,
)
from fvlfp.audit.stats.scores import score_entry, sweep
from fvlfp.audit.stats.sensitivity import label_noise
from fvlfp.errors import InputError


def audit(
    frame: pd.DataFrame | None = None,
    *,
    label: str | None = None,
    prediction: str | None = None,
    groups: Sequence[str] | None = None,
    y_true: Any = None,
    y_pred: Any = None,
    sensitive_features: Any = None,
    y_score: Any = None,
    sample_weight: Any = None,
    provenance: Facts | None = None,
    **options: Any,
) -> Audit:
    """Judge predictions by perceived group, with intervals, tests and what could not be judged.

    Either a table and the names of its columns, or arrays as fairlearn and scikit-learn take them:
    ``audit(frame, label="y", prediction="p", groups=["g"])`` or
    ``audit(y_true=y, y_pred=p, sensitive_features=g)``.

    Args:
        frame: predictions table, one row per example.
        label, prediction: columns of true and predicted classes. Without a label column only selection rates
            are judged; without a prediction column name a score and a threshold.
        groups: columns of perceived groups.
        y_true, y_pred, sensitive_features, y_score, sample_weight: the same as arrays (n,), see
            ``from_arrays.table_of_arrays``; sensitive_features may hold several columns.
        provenance: what is known about model and data; copied into the document.
        options: further fields of ``AuditOptions``: score, threshold, weight, key, positive, templates,
            template_scores, bins, cross, draws, seed, level.

    Raises:
        InputError: see ``AuditOptions`` and ``columns.encode``.
    """
    arrays = {"y_true": y_true, "y_pred": y_pred, "y_score": y_score, "sample_weight": sample_weight}
    given = {name: value for name, value in options.items() if value is not None}
    if frame is None:
        frame, columns = table_of_arrays(**arrays, sensitive_features=sensitive_features)
    elif sensitive_features is not None or any(values is not None for values in arrays.values()):
        raise InputError("give a table and names of its columns, or arrays, not both")
    else:
        columns = ColumnNames(label=label, prediction=prediction, groups=groups or ())
    try:
        chosen = AuditOptions(**columns, **given)
    except TypeError as error:  # an unknown option, or one given twice
        raise InputError(str(error).replace("AuditOptions.__init__()", "audit")) from None
    read = encode(frame, chosen)
    return judge(read, chosen, provenance)


def judge(columns: Columns, options: AuditOptions, provenance: Facts | None = None) -> Audit:
    """`audit` of a table that was read with these options."""
    o, score = options, columns.score
    warnings, remarks = list(columns.notes), _remarks(columns, o)
    attributes: dict[str, Attribute] = {}
    for name in columns.groups:
        rng = np.random.default_rng([o.seed, zlib.crc32(name.encode())])
        counts = columns.count(name)
        remarks += fine_groups(name, counts.groups, counts.sizes)
        entry, notes = _attribute(counts, draws=o.draws, rng=rng, level=o.level)
        warnings += notes
        if score is not None:
            entry["scores"] = score_entry(columns, score, name, draws=o.draws, rng=rng, level=o.level)
            entry["sweep"] = sweep(columns, score, name)
        attributes[name] = entry
    _adjust(attributes)
    overall = group_rates(columns.everyone(), o.level)[0]
    _add_bands(columns, o, overall, attributes)
    return Audit(
        {
            "schema": SCHEMA,
            "n": len(columns),
            "classes": list(columns.classes),
            "positive": columns.positive,
            "settings": o.settings(),
            "overall": overall,
            "attributes": attributes,
            "remarks": remarks,
            "warnings": warnings,
            "provenance": with_versions(provenance),
        }
    )


def _remarks(columns: Columns, o: AuditOptions) -> list[str]:
    """What to look at before any number of the audit."""
    label, prediction = columns.label, columns.prediction
    if columns.truth:
        out = lone_labels(columns.classes, label, columns.first_row)
    else:
        out = ["No truth column: only selection rates are judged, which say nothing about errors."]
    out += weight_remark(o.weight)
    out += heavy_rows(columns.groups, columns.weight, columns.first_row)
    out += constant_columns(columns.classes, label if columns.truth else None, prediction)
    if columns.score is not None:
        out += score_remarks(columns.score, label, prediction, columns.classes[1], o.level)
    return out


def _add_bands(
    columns: Columns, o: AuditOptions, overall: GroupRates, attributes: Mapping[str, Attribute]
) -> None:
    """The range of every value over the templates, written into the entries as ``band``."""
    for again in columns.templates:
        widen(overall, group_rates(again.everyone(), o.level)[0])
        for name, entry in attributes.items():
            found = under_template(again.count(name), o.level)
            widen({part: entry[part] for part in found}, found)  # type: ignore[literal-required]
    for score in columns.template_scores:
        for name, entry in attributes.items():
            rng = np.random.default_rng(o.seed)
            other = score_entry(columns, score, name, draws=100, rng=rng, level=o.level)
            widen(entry["scores"], other)


def _attribute(
    counts: Counts, *, draws: int, rng: np.random.Generator, level: float
) -> tuple[Attribute, list[str]]:
    """The entry of one attribute, and warnings about it."""
    name, notes = counts.attribute, []
    if counts.missing:
        notes.append(f"{name}: {counts.missing} rows have no entry and are left out of this attribute")
    if len(counts.groups) == 1:
        notes.append(f"{name}: only one group ({counts.groups[0]!r}), so no gap can be judged")
    groups = dict(zip(counts.groups, group_rates(counts, level), strict=True))
    left_out, small = _weak_cells(groups)
    if small:
        shown = ", ".join(small[:10]) + (", ..." if len(small) > 10 else "")
        notes.append(f"{name}: some rates of {shown} rest on fewer than {SMALL} examples")
    judged = attribute_gaps(counts, draws=draws, rng=rng, level=level)
    entry: Attribute = {
        "groups": groups,
        "gaps": judged.gaps,
        "left_out": left_out,
        "missing": counts.missing,
        "worst_cell_recall": _worst_cell(counts, level) if counts.truth else None,
        "es_accuracy": {"value": equity_scaled_accuracy(counts.shared) if counts.truth else None},
        "label_noise": label_noise(counts),
        # of many classes the counts are the numerators and denominators in "classes"
        "counts": counts.table.tolist() if len(counts.classes) <= FEW else None,
    }
    if judged.classes:
        entry["classes"] = judged.classes
    return entry, [*notes, *judged.notes]


def _weak_cells(groups: Mapping[str, GroupRates]) -> tuple[list[LeftOut], list[str]]:
    """Rates that are undefined, with the reason; and groups with a rate on few examples."""
    left_out: list[LeftOut] = []
    small: dict[str, None] = {}  # an ordered set
    for group, judged, name, rate in _each_rate(groups):
        if rate["value"] is None:
            out: LeftOut = {"group": group, "rate": name, "reason": rate["reason"]}
            if judged is not None:
                out = {"group": group, "rate": name, "class": judged, "reason": rate["reason"]}
            left_out.append(out)
        if rate["small"]:
            small[group] = None
    return left_out, list(small)


def _each_rate(groups: Mapping[str, GroupRates]) -> Iterator[tuple[str, str | None, str, Rate]]:
    """Every rate: group, class (None if it is not about one of many), name, entry."""
    for group, entry in groups.items():
        for judged, part in [(None, entry), *entry.get("classes", {}).items()]:
            for name, rate in part["rates"].items():
                yield group, judged, name, rate


def _worst_cell(counts: Counts, level: float) -> WorstCell:
    recall = metrics.divide(counts.hits, counts.table.sum(-1))
    worst = smallest_rate(counts.hits.ravel(), counts.table.sum(-1).ravel(), level)
    group, judged = np.unravel_index(int(np.nanargmin(recall)), recall.shape)
    return {**estimate(*worst), "cell": {"group": counts.groups[group], "class": counts.classes[judged]}}


def _adjust(attributes: Mapping[str, Attribute]) -> None:
    """Holm's correction over every distinct test of the audit, written into the entries."""
    entries: dict[tuple[str, str], Gap] = {}
    for attribute, entry in attributes.items():
        gaps = entry["gaps"] | (entry["scores"]["gaps"] if "scores" in entry else {})
        entries |= {(attribute, name): gap for name, gap in gaps.items()}
    tested = {
        key: gap["p_value"]
        for key, gap in entries.items()
        if gap["p_value"] is not None and not gap["tested_as"]
    }
    adjusted = holm(tested)
    for (attribute, name), gap in entries.items():
        gap["p_adjusted"] = adjusted.get((attribute, gap["tested_as"] or name))
