"""`audit`: judge the predictions of one model by perceived group.

The result is one document, the ``audit.json`` of DESIGN; everything shown later (tables, figures,
report) is read from that document alone. What it does not do: read or write files (``fvlfp.data``,
``report``), compare two models (``compare``).
"""

from __future__ import annotations

import platform
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fvlfp import __version__
from fvlfp.audit.audit_options import AuditOptions
from fvlfp.audit.document import SCHEMA, Audit
from fvlfp.audit.from_arrays import table_of_arrays
from fvlfp.audit.stats import metrics
from fvlfp.audit.stats.bins import bin_groups
from fvlfp.audit.stats.counts import Columns, Counts, encode, require_column
from fvlfp.audit.stats.decisions import with_decisions
from fvlfp.audit.stats.families import FEW, families
from fvlfp.audit.stats.gaps import gap_entries
from fvlfp.audit.stats.intervals import holm, smallest_rate
from fvlfp.audit.stats.rates import SMALL, blocks, number, numbers
from fvlfp.audit.stats.sanity import constant_columns, fine_groups, score_remarks
from fvlfp.audit.stats.scores import read_scores, score_entry, sweep
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
    provenance: Mapping[str, Any] | None = None,
    **options: Any,
) -> Audit:
    """Judge predictions by perceived group, with intervals, tests and what could not be judged.

    Either a table and the names of its columns, or arrays as fairlearn and scikit-learn take them:
    ``audit(frame, label="y", prediction="p", groups=["g"])`` or
    ``audit(y_true=y, y_pred=p, sensitive_features=g)``.

    Args:
        frame: predictions table, one row an example.
        label, prediction: columns of true and predicted classes. Without a label column only selection rates
            are judged; without a prediction column name a score and a threshold.
        groups: columns of perceived groups.
        y_true, y_pred, sensitive_features, y_score, sample_weight: the same as arrays (n,), see
            ``from_arrays.table_of_arrays``; sensitive_features may hold several columns.
        provenance: what is known about model and data; copied into the document.
        options: further fields of ``AuditOptions``: score, threshold, weight, positive, templates,
            template_scores, bins, cross, draws, seed, level.

    Raises:
        InputError: see ``AuditOptions`` and ``counts.encode``.
    """
    arrays = {"y_true": y_true, "y_pred": y_pred, "y_score": y_score, "sample_weight": sample_weight}
    columns: dict[str, Any] = {"label": label, "prediction": prediction, "groups": groups or ()}
    if frame is None:
        frame, columns = table_of_arrays(**arrays, sensitive_features=sensitive_features)
    elif sensitive_features is not None or any(values is not None for values in arrays.values()):
        raise InputError("give a table and names of its columns, or arrays, not both")
    try:
        chosen = AuditOptions(**columns, **{k: v for k, v in options.items() if v is not None})
    except TypeError as error:  # an unknown option, or one given twice
        raise InputError(str(error).replace("AuditOptions.__init__()", "audit")) from None
    return judge(frame, chosen, provenance)


def judge(frame: pd.DataFrame, options: AuditOptions, provenance: Mapping[str, Any] | None = None) -> Audit:
    """`audit` with its options in one object."""
    o = options
    frame = bin_groups(frame, o.bins, o.groups)
    frame, prediction = with_decisions(frame, o)
    columns = _encode(frame, o, prediction, o.positive)
    positive = columns.classes[1] if len(columns.classes) == 2 else None
    warnings, remarks = list(columns.notes), _remarks(columns, o)
    scores = _scores(frame, o.score, positive) if o.judges_scores else None
    if scores is not None:
        remarks += score_remarks(scores, columns.label, columns.prediction, columns.classes[1], o.level)
    attributes = {}
    for name in columns.groups:
        rng = np.random.default_rng([o.seed, zlib.crc32(name.encode())])
        counts = columns.count(name)
        remarks += fine_groups(name, counts.groups, counts.sizes)
        attributes[name], notes = _attribute(counts, draws=o.draws, rng=rng, level=o.level)
        warnings += notes
        if scores is not None:
            drawn: dict[str, Any] = {"draws": o.draws, "rng": rng, "level": o.level}
            attributes[name]["scores"] = score_entry(columns, scores, name, **drawn)
            attributes[name]["sweep"] = sweep(columns, scores, name)
    _adjust(attributes)
    overall = blocks(columns.everyone(), o.level)[0]
    _add_bands(frame, o, columns, overall, attributes)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "n": len(columns),
        "classes": list(columns.classes),
        "positive": positive,
        "settings": o.settings(),
        "overall": overall,
        "attributes": attributes,
        "remarks": remarks,
        "warnings": warnings,
        "provenance": with_versions(provenance),
    }
    return Audit(document)


def audited_rows(frame: pd.DataFrame, options: AuditOptions) -> pd.DataFrame:
    """The rows as they were judged, for ``predictions.csv``: label, `prediction`, groups in their bands."""
    frame, prediction = with_decisions(bin_groups(frame, options.bins, options.groups), options)
    kept = [name for name in (options.label, prediction, *options.groups) if name is not None]
    return frame[kept].rename(columns={prediction: "prediction"})


def _encode(frame: pd.DataFrame, o: AuditOptions, prediction: str, positive: str | None) -> Columns:
    return encode(
        frame,
        label=o.label,
        prediction=prediction,
        groups=o.groups,
        positive=positive,
        weight=o.weight,
        cross=o.cross,
    )


def _scores(frame: pd.DataFrame, column: str | None, positive: str | None) -> np.ndarray:
    assert column is not None
    require_column(frame, column, "score")
    return read_scores(frame, column, positive)


def _remarks(columns: Columns, o: AuditOptions) -> list[str]:
    """What to look at before any number of the audit."""
    out = []
    if not columns.truth:
        out.append("No truth column: only selection rates are judged, which say nothing about errors.")
    if o.weight is not None:
        out.append(
            f"Rates are weighted by {o.weight!r}; intervals and tests use each group's effective sample size "
            "(Kish), and counts are of that size."
        )
    return out + constant_columns(
        columns.classes, columns.label if columns.truth else None, columns.prediction
    )


def _add_bands(
    frame: pd.DataFrame,
    o: AuditOptions,
    columns: Columns,
    overall: dict[str, Any],
    attributes: dict[str, Any],
) -> None:
    """The range of every value over the templates, written into the entries as ``band``."""
    positive = columns.classes[1] if len(columns.classes) == 2 else None
    for column in o.templates.values():
        again = _encode(frame, o, column, positive)
        _widen(overall, blocks(again.everyone(), o.level)[0])
        for name, part in attributes.items():
            _band(part, again.count(name), o.level)
    for column in o.template_scores.values():
        values = _scores(frame, column, positive)
        for name, part in attributes.items():
            rng = np.random.default_rng(o.seed)
            _band_scores(
                part["scores"], score_entry(columns, values, name, draws=100, rng=rng, level=o.level)
            )


def _attribute(
    counts: Counts, *, draws: int, rng: np.random.Generator, level: float
) -> tuple[dict[str, Any], list[str]]:
    """The entry of one attribute, and what has to be said about it."""
    name, notes = counts.attribute, []
    if counts.missing:
        notes.append(f"{name}: {counts.missing} rows have no entry and are left out of this attribute")
    if len(counts.groups) == 1:
        notes.append(f"{name}: only one group ({counts.groups[0]!r}), so no gap can be judged")
    groups = dict(zip(counts.groups, blocks(counts, level), strict=True))
    left_out, small = _weak_cells(groups)
    if small:
        shown = ", ".join(small[:10]) + (", ..." if len(small) > 10 else "")
        notes.append(f"{name}: some rates of {shown} rest on fewer than {SMALL} examples")
    gaps, classes = gap_entries(counts, draws=draws, rng=rng, level=level, warnings=notes)
    out = {
        "groups": groups,
        "gaps": gaps,
        "left_out": left_out,
        "missing": counts.missing,
        "worst_cell_recall": _worst_cell(counts, level) if counts.truth else None,
        "es_accuracy": {"value": _es_accuracy(counts.table) if counts.truth else None},
        "label_noise": label_noise(counts),
        # of many classes the counts are the numerators and denominators in "classes"
        "counts": counts.table.tolist() if len(counts.classes) <= FEW else None,
    }
    if classes:
        out["classes"] = classes
    return out, notes


def _weak_cells(groups: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Rates that are undefined, with the reason; and groups with a rate on few examples."""
    left_out: list[dict[str, Any]] = []
    small: dict[str, None] = {}  # an ordered set
    for group, judged, rate, cell in _cells(groups):
        if cell["value"] is None:
            where = {} if judged is None else {"class": judged}
            left_out.append({"group": group, "rate": rate, **where, "reason": cell["reason"]})
        if cell["small"]:
            small[group] = None
    return left_out, list(small)


def _worst_cell(counts: Counts, level: float) -> dict[str, Any]:
    recall = metrics.divide(counts.hits, counts.table.sum(-1))
    worst = smallest_rate(counts.hits.ravel(), counts.table.sum(-1).ravel(), level)
    group, judged = np.unravel_index(int(np.nanargmin(recall)), recall.shape)
    cell = {"group": counts.groups[group], "class": counts.classes[judged]}
    return {**numbers(*worst), "cell": cell}


def _cells(groups: Mapping[str, Any]) -> Iterator[tuple[str, str | None, str, dict[str, Any]]]:
    """Every rate: group, class (None if it is not about one of many), name, entry."""
    for group, entry in groups.items():
        for judged, block in [(None, entry), *entry.get("classes", {}).items()]:
            for rate, cell in block["rates"].items():
                yield group, judged, rate, cell


def _band(part: dict[str, Any], counts: Counts, level: float) -> None:
    """Widen the bands of one attribute by what another column of predictions gives."""
    other = dict(zip(counts.groups, blocks(counts, level), strict=True))
    for group, entry in part["groups"].items():
        _widen(entry, other[group])
    values = {k: v for family in families(counts) for k, v in family.observed().items()}
    for gap, entry in part["gaps"].items():
        value = values.get(gap, np.nan)
        _stretch(entry, number(1 - value if "ratio" in gap else value))
    if not counts.truth:
        return
    _stretch(part["worst_cell_recall"], number(metrics.worst_cell_recall(counts.table)))
    _stretch(part["es_accuracy"], _es_accuracy(counts.table))


def _band_scores(part: dict[str, Any], other: dict[str, Any]) -> None:
    """The same for scores: ranking, calibration and their gaps."""
    for mine, theirs in (
        (part["overall"], other["overall"]),
        *((entry, other["groups"][group]) for group, entry in part["groups"].items()),
    ):
        for measure in ("roc_auc", "brier", "ece"):
            _stretch(mine[measure], theirs[measure]["value"])
    for gap, entry in part["gaps"].items():
        _stretch(entry, other["gaps"][gap]["value"])
    _stretch(part["es_auc"], other["es_auc"]["value"])


def _es_accuracy(table: np.ndarray) -> float | None:
    return number(metrics.equity_scaled(metrics.accuracy(table.sum(0)), metrics.accuracy(table)))


def _widen(entry: dict[str, Any], other: dict[str, Any]) -> None:
    for _, judged, rate, cell in _cells({"": entry}):
        block = other if judged is None else other.get("classes", {}).get(judged, {"rates": {}})
        _stretch(cell, block["rates"].get(rate, {"value": None})["value"])


def _stretch(entry: dict[str, Any], value: float | None) -> None:
    band = [v for v in (*(entry.get("band") or [entry["value"]]), value) if v is not None]
    entry["band"] = [min(band), max(band)] if band else None


def _adjust(attributes: dict[str, Any]) -> None:
    """Holm's correction over every distinct test of the audit, written into the entries."""
    entries = {
        (attribute, gap): entry
        for attribute, part in attributes.items()
        for gap, entry in {**part["gaps"], **part.get("scores", {}).get("gaps", {})}.items()
    }
    tested = {k: e["p_value"] for k, e in entries.items() if e["p_value"] is not None and not e["tested_as"]}
    adjusted = holm(tested)
    for (attribute, gap), entry in entries.items():
        entry["p_adjusted"] = adjusted.get((attribute, entry["tested_as"] or gap))


def with_versions(provenance: Mapping[str, Any] | None) -> dict[str, Any]:
    """The given provenance and the versions of what computed the numbers."""
    known = {"fvlfp": __version__, "python": platform.python_version()}
    known |= {name: version(name) for name in ("numpy", "pandas", "scipy")}
    given = _without_folders(dict(provenance or {}))
    return {**given, "versions": known | dict(given.get("versions") or {})}


def _without_folders(value: Any) -> Any:
    """Names instead of paths of this machine: an absolute path that is there becomes its last part."""
    if isinstance(value, Mapping):
        return {key: _without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(inner) for inner in value]
    if isinstance(value, str | Path) and _is_here(value):
        return Path(value).name
    return value


def _is_here(value: str | Path) -> bool:
    try:
        return Path(value).is_absolute() and Path(value).exists() and bool(Path(value).name)
    except (OSError, ValueError):  # too long, or a null byte: no path
        return False
