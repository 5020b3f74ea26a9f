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
from typing import Any

import numpy as np
import pandas as pd

from fvlfp import __version__
from fvlfp.audit.document import SCHEMA, Audit
from fvlfp.audit.stats import metrics
from fvlfp.audit.stats.bins import bin_groups
from fvlfp.audit.stats.counts import Columns, Counts, encode, require_column
from fvlfp.audit.stats.families import FEW, families
from fvlfp.audit.stats.gaps import gap_entries
from fvlfp.audit.stats.intervals import holm, smallest_rate
from fvlfp.audit.stats.rates import SMALL, blocks, number, numbers
from fvlfp.audit.stats.sanity import constant_columns, fine_groups, score_remarks
from fvlfp.audit.stats.scores import read_scores, score_entry, sweep
from fvlfp.audit.stats.sensitivity import label_noise
from fvlfp.errors import InputError


def audit(
    frame: pd.DataFrame,
    *,
    label: str,
    prediction: str,
    groups: Sequence[str],
    score: str | None = None,
    positive: str | None = None,
    templates: Mapping[str, str] | None = None,
    template_scores: Mapping[str, str] | None = None,
    bins: Mapping[str, Sequence[float]] | None = None,
    cross: bool = False,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
    provenance: Mapping[str, Any] | None = None,
) -> Audit:
    """Judge predictions by perceived group, with intervals, tests and what could not be judged.

    Args:
        frame: predictions table, one row an example.
        label, prediction: columns of true and predicted classes.
        groups: columns of perceived groups.
        score: optional column with the score of the positive class (two classes only).
        positive: what "selected" means; by default the second of two classes in sorted order, and
            with more classes each one against the rest.
        templates: further columns of predictions, name -> column, for instance one per prompt
            template; every value then carries the ``band`` it covers over them.
        template_scores: the same for `score`, name -> column.
        bins: group column of numbers -> rising cuts, for instance ``{"age": [20, 40, 60]}``; the groups are
            then the bands between the cuts.
        cross: also judge all combinations of the groups.
        draws: resampling draws per hypothetical truth and for the permutation null.
        seed: root of all draws; an attribute's numbers do not depend on the other attributes.
        level: coverage of every interval, in (0, 1).
        provenance: what is known about model and data; copied into the document.

    Raises:
        InputError: see ``counts.encode``; also for draws < 100 or a level outside (0.5, 1).
    """
    if template_scores and score is None:
        raise InputError("template_scores need a score column to be compared with")
    if draws < 100:
        raise InputError(f"draws={draws}: at least 100 are needed for an interval")
    if not 0.5 < level < 1:
        raise InputError(f"level={level}: must lie between 0.5 and 1, e.g. 0.95")
    frame = bin_groups(frame, bins or {}, groups)
    options: dict[str, Any] = {"label": label, "groups": groups, "positive": positive, "cross": cross}
    columns = encode(frame, prediction=prediction, **options)
    binary = len(columns.classes) == 2
    warnings = list(columns.notes)
    remarks = constant_columns(columns.classes, columns.label, columns.prediction)
    scores = None
    if score is not None:
        require_column(frame, score, "score")
        scores = read_scores(frame, score, columns.classes[1] if binary else None)
        remarks += score_remarks(scores, columns.label, columns.prediction, columns.classes[1], level)
    attributes = {}
    for name in columns.groups:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        common: dict[str, Any] = {"draws": draws, "rng": rng, "level": level}
        counts = columns.count(name)
        remarks += fine_groups(name, counts.groups, counts.table.sum((-1, -2)))
        attributes[name] = _attribute(counts, **common, warnings=warnings)
        if scores is not None:
            attributes[name]["scores"] = score_entry(columns, scores, name, **common)
            attributes[name]["sweep"] = sweep(columns, scores, name)
    _adjust(attributes)
    overall = _overall(columns, level)
    for column in (templates or {}).values():
        other = encode(
            frame, prediction=column, **{**options, "positive": columns.classes[1] if binary else None}
        )
        _widen(overall, _overall(other, level))
        for name, part in attributes.items():
            _band(part, other.count(name), level)
    for column in (template_scores or {}).values():
        require_column(frame, column, "score")
        values = read_scores(frame, column, columns.classes[1] if binary else None)
        for name, part in attributes.items():
            rng = np.random.default_rng(seed)
            _band_scores(part["scores"], score_entry(columns, values, name, draws=100, rng=rng, level=level))
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "n": len(columns),
        "classes": list(columns.classes),
        "positive": columns.classes[1] if binary else None,
        "settings": {
            "label": label,
            "prediction": prediction,
            "groups": list(groups),
            "score": score,
            "positive": positive,
            "templates": dict(templates or {}),
            "template_scores": dict(template_scores or {}),
            "bins": {name: list(cuts) for name, cuts in (bins or {}).items()},
            "cross": cross,
            "draws": draws,
            "seed": seed,
            "level": level,
        },
        "overall": overall,
        "attributes": attributes,
        "remarks": remarks,
        "warnings": warnings,
        "provenance": with_versions(provenance),
    }
    return Audit(document)


def _attribute(
    counts: Counts, *, draws: int, rng: np.random.Generator, level: float, warnings: list[str]
) -> dict[str, Any]:
    table, name = counts.table, counts.attribute
    if counts.missing:
        warnings.append(f"{name}: {counts.missing} rows have no entry and are left out of this attribute")
    if len(counts.groups) == 1:
        warnings.append(f"{name}: only one group ({counts.groups[0]!r}), so no gap can be judged")
    groups = dict(zip(counts.groups, blocks(counts, level), strict=True))
    left_out: list[dict[str, Any]] = []
    flagged: dict[str, None] = {}  # an ordered set
    for group, judged, rate, cell in _cells(groups):
        if cell["value"] is None:
            where = {} if judged is None else {"class": judged}
            left_out.append({"group": group, "rate": rate, **where, "reason": cell["reason"]})
        if cell["small"]:
            flagged[group] = None
    if flagged:
        shown = ", ".join(list(flagged)[:10]) + (", ..." if len(flagged) > 10 else "")
        warnings.append(f"{name}: some rates of {shown} rest on fewer than {SMALL} examples")
    gaps, classes = gap_entries(counts, draws=draws, rng=rng, level=level, warnings=warnings)
    cells = np.einsum("gcc->gc", table)
    worst = smallest_rate(cells.ravel(), table.sum(-1).ravel(), level)
    recall = metrics.recalls(table)
    at = np.unravel_index(int(np.nanargmin(recall)), recall.shape)
    out = {
        "groups": groups,
        "gaps": gaps,
        "left_out": left_out,
        "missing": counts.missing,
        "worst_cell_recall": {
            **numbers(*worst),
            "cell": {"group": counts.groups[at[0]], "class": counts.classes[at[1]]},
        },
        "es_accuracy": {"value": _es_accuracy(table)},
        "label_noise": label_noise(counts),
        # of many classes the counts are the numerators and denominators in "classes"
        "counts": table.tolist() if len(counts.classes) <= FEW else None,
    }
    if classes:
        out["classes"] = classes
    return out


def _cells(groups: Mapping[str, Any]) -> Iterator[tuple[str, str | None, str, dict[str, Any]]]:
    """Every rate: group, class (None if it is not about one of many), name, entry."""
    for group, entry in groups.items():
        for judged, block in [(None, entry), *entry.get("classes", {}).items()]:
            for rate, cell in block["rates"].items():
                yield group, judged, rate, cell


def _overall(columns: Columns, level: float) -> dict[str, Any]:
    """The rates of everybody together, as one group."""
    c = len(columns.classes)
    table = np.bincount(columns.label * c + columns.prediction, minlength=c * c).reshape(1, c, c)
    return blocks(Counts("all", ("all",), columns.classes, table), level)[0]


def _band(part: dict[str, Any], counts: Counts, level: float) -> None:
    """Widen the bands of one attribute by what another column of predictions gives."""
    other = dict(zip(counts.groups, blocks(counts, level), strict=True))
    for group, entry in part["groups"].items():
        _widen(entry, other[group])
    values = {k: v for family in families(counts) for k, v in family.observed().items()}
    for gap, entry in part["gaps"].items():
        value = values.get(gap, np.nan)
        _stretch(entry, number(1 - value if "ratio" in gap else value))
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
    given = dict(provenance or {})
    return {**given, "versions": known | dict(given.get("versions") or {})}
