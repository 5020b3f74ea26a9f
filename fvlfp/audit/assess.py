"""`audit`: judge the predictions of one model by perceived group.

The result is one document, the ``audit.json`` of DESIGN; everything shown later (tables, figures,
report) is read from that document alone. What it does not do: read or write files (``load``,
``report``), compare two models (``compare``).
"""

from __future__ import annotations

import json
import platform
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fvlfp import __version__
from fvlfp.audit import metrics
from fvlfp.audit.counts import Columns, Counts, encode
from fvlfp.audit.gaps import gap_entries
from fvlfp.audit.intervals import holm, mean_of_rates, smallest_rate, wilson
from fvlfp.errors import InputError

SCHEMA = 1
SMALL = 10  # a rate on fewer examples than this is flagged

WHY_UNDEFINED = {
    "selection_rate": "the group has no examples",
    "tpr": "no example of the group has the positive label",
    "fpr": "every example of the group has the positive label",
    "accuracy": "the group has no examples",
    "balanced_accuracy": "the group has no examples",
}


@dataclass(frozen=True)
class Audit:
    """One finished audit. `document` is the content of ``audit.json``."""

    document: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The whole document: only dict, list, str, int, float, bool and None."""
        return self.document

    @classmethod
    def read(cls, path: str | Path) -> Audit:
        """Read an ``audit.json`` or the folder that holds one."""
        path = Path(path)
        path = path / "audit.json" if path.is_dir() else path
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise InputError(f"no audit at {path}") from None
        except ValueError as error:
            raise InputError(f"{path} is not an audit: {error}") from None
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise InputError(f"{path} is not an audit of schema {SCHEMA}")
        return cls(document)

    @property
    def groups(self) -> pd.DataFrame:
        """One row per attribute, group, class and rate: value, low, high, counts, reason."""
        rows = []
        for attribute, part in self.document["attributes"].items():
            for group, entry in part["groups"].items():
                blocks = [(None, entry), *entry.get("classes", {}).items()]
                for judged, block in blocks:
                    for rate, cell in block["rates"].items():
                        rows.append(
                            {
                                "attribute": attribute,
                                "group": group,
                                "class": judged or self.document["positive"],
                                "rate": rate,
                                **{k: cell[k] for k in ("value", "low", "high")},
                                "n": entry["n"],
                                "positives": block["positives"],
                                "negatives": block["negatives"],
                                "numerator": cell["numerator"],
                                "denominator": cell["denominator"],
                                "small": cell["small"],
                                "reason": cell["reason"],
                            }
                        )
        return pd.DataFrame(rows)

    @property
    def gaps(self) -> pd.DataFrame:
        """One row per attribute and gap: value, interval, null expectation, excess, p-values, pair."""
        rows = []
        for attribute, part in self.document["attributes"].items():
            blocks = [(None, part["gaps"]), *((c, b["gaps"]) for c, b in part.get("classes", {}).items())]
            for judged, gaps in blocks:
                for gap, entry in gaps.items():
                    pair = entry.get("pair") or {}
                    high, low = pair.get("groups", (None, None))
                    flat = {k: v for k, v in entry.items() if k != "pair"}
                    rows.append(
                        {"attribute": attribute, "class": judged, "gap": gap, **flat}
                        | {"highest": high, "lowest": low, "pair_rate": pair.get("rate")}
                        | {f"pair_{k}": pair.get(k) for k in ("difference", "low", "high")}
                    )
        return pd.DataFrame(rows)

    @property
    def warnings(self) -> list[str]:
        return list(self.document["warnings"])

    @property
    def left_out(self) -> list[dict[str, Any]]:
        """Groups that could not be judged, with the rate and the reason."""
        return [
            {"attribute": attribute, **entry}
            for attribute, part in self.document["attributes"].items()
            for entry in part["left_out"]
        ]


def audit(
    frame: pd.DataFrame,
    *,
    label: str,
    prediction: str,
    groups: Sequence[str],
    score: str | None = None,
    positive: str | None = None,
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
        cross: also judge all combinations of the groups.
        draws: resampling draws per hypothetical truth and for the permutation null.
        seed: root of all draws; an attribute's numbers do not depend on the other attributes.
        level: coverage of every interval, in (0, 1).
        provenance: what is known about model and data; copied into the document.

    Raises:
        InputError: see ``counts.encode``; also for draws < 100 or a level outside (0.5, 1).
    """
    if draws < 100:
        raise InputError(f"draws={draws}: at least 100 are needed for an interval")
    if not 0.5 < level < 1:
        raise InputError(f"level={level}: must lie between 0.5 and 1, e.g. 0.95")
    columns = encode(frame, label=label, prediction=prediction, groups=groups, positive=positive, cross=cross)
    binary = len(columns.classes) == 2
    warnings = list(columns.notes)
    attributes = {}
    for name in columns.groups:
        counts = columns.count(name)
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        attributes[name] = _attribute(counts, draws=draws, rng=rng, level=level, warnings=warnings)
    _adjust(attributes)
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
            "cross": cross,
            "draws": draws,
            "seed": seed,
            "level": level,
        },
        "overall": _overall(columns, level),
        "attributes": attributes,
        "warnings": warnings,
        "provenance": {**(provenance or {}), "versions": versions()},
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
    groups, left_out = dict(zip(counts.groups, _blocks(counts, level), strict=True)), []
    for group in counts.groups:
        blocks = [(None, groups[group]), *groups[group].get("classes", {}).items()]
        for judged, block in blocks:
            for rate, cell in block["rates"].items():
                if cell["value"] is None:
                    where = {} if judged is None else {"class": judged}
                    left_out.append({"group": group, "rate": rate, **where, "reason": cell["reason"]})
    flagged = sorted(
        {
            group
            for group, entry in groups.items()
            for block in [entry, *entry.get("classes", {}).values()]
            for cell in block["rates"].values()
            if cell["small"]
        }
    )
    if flagged:
        shown = ", ".join(flagged[:10]) + (", ..." if len(flagged) > 10 else "")
        warnings.append(f"{name}: some rates of {shown} rest on fewer than {SMALL} examples")
    gaps, classes = gap_entries(counts, draws=draws, rng=rng, level=level, warnings=warnings)
    cells = np.einsum("gcc->gc", table)
    worst = smallest_rate(cells.ravel(), table.sum(-1).ravel(), level)
    recall = metrics.recalls(table)
    at = np.unravel_index(int(np.nanargmin(recall)), recall.shape)
    accuracy = metrics.accuracy(table.sum(0))
    out = {
        "groups": groups,
        "gaps": gaps,
        "left_out": left_out,
        "missing": counts.missing,
        "worst_cell_recall": {
            **_numbers(*worst),
            "cell": {"group": counts.groups[at[0]], "class": counts.classes[at[1]]},
        },
        "es_accuracy": {"value": number(metrics.equity_scaled(accuracy, metrics.accuracy(table)))},
        "counts": table.tolist(),
    }
    if classes:
        out["classes"] = classes
    return out


def _blocks(counts: Counts, level: float) -> list[dict[str, Any]]:
    """Counts and rates of every group."""
    table = counts.table
    n, right = table.sum((-1, -2)), np.einsum("gcc->g", table)
    out: list[dict[str, Any]]
    if counts.judged == (1,):
        out = [{"n": int(m), **block} for m, block in zip(n, _one_vs_rest(table, 1, level), strict=True)]
    else:
        per_class = {counts.classes[k]: _one_vs_rest(table, k, level) for k in counts.judged}
        out = [
            {"n": int(m), "positives": None, "negatives": None, "rates": {}}
            | {"classes": {name: blocks[i] for name, blocks in per_class.items()}}
            for i, m in enumerate(n)
        ]
    accuracy = rate_entries("accuracy", right, n, level)
    for i, block in enumerate(out):
        block["rates"]["accuracy"] = accuracy[i]
        block["rates"]["balanced_accuracy"] = _balanced(counts.classes, table[i], level)
    return out


def _balanced(classes: Sequence[str], table: np.ndarray, level: float) -> dict[str, Any]:
    """Mean recall of one group, defined only if the group has examples of every class."""
    hits, sizes = np.diag(table), table.sum(-1)
    absent = [name for name, size in zip(classes, sizes, strict=True) if size == 0]
    # a mean over the remaining classes would be another quantity: do not mix the two
    numbers = (np.nan, np.nan, np.nan) if absent else mean_of_rates(hits, sizes, level)
    return {
        **_numbers(*numbers),
        "reason": f"no example has the label {', '.join(map(repr, absent[:5]))}" if absent else None,
        "numerator": None,
        "denominator": int(sizes.min()),
        "small": bool(0 < sizes.min() < SMALL),
    }


def _one_vs_rest(table: np.ndarray, k: int, level: float) -> list[dict[str, Any]]:
    pieces = metrics.parts(table, k)
    entries = {name: rate_entries(name, *pair, level) for name, pair in pieces.items()}
    positives, negatives = pieces["tpr"][1], pieces["fpr"][1]
    return [
        {
            "positives": int(positives[i]),
            "negatives": int(negatives[i]),
            "rates": {name: cells[i] for name, cells in entries.items()},
        }
        for i in range(len(table))
    ]


def rate_entries(name: str, k: np.ndarray, n: np.ndarray, level: float) -> list[dict[str, Any]]:
    """The rates k / n, one per group, as the document shows them."""
    low, high = wilson(k, n, level)
    columns = (x.tolist() for x in (metrics.divide(k, n), low, high, k, n))
    return [
        {
            **_numbers(value, below, above),
            "reason": None if size else WHY_UNDEFINED[name],
            "numerator": int(hits),
            "denominator": int(size),
            "small": 0 < size < SMALL,
        }
        for value, below, above, hits, size in zip(*columns, strict=True)
    ]


def _overall(columns: Columns, level: float) -> dict[str, Any]:
    c = len(columns.classes)
    table = np.bincount(columns.label * c + columns.prediction, minlength=c * c).reshape(c, c)
    return _blocks(Counts("all", ("all",), columns.classes, table[None]), level)[0]


def _adjust(attributes: dict[str, Any]) -> None:
    """Holm's correction over every distinct test of the audit, written into the entries."""
    tests = {
        (attribute, gap): entry["p_value"]
        for attribute, part in attributes.items()
        for gap, entry in part["gaps"].items()
        if entry["p_value"] is not None and entry["tested_as"] is None
    }
    adjusted = holm(tests)
    for attribute, part in attributes.items():
        for gap, entry in part["gaps"].items():
            entry["p_adjusted"] = adjusted.get((attribute, entry["tested_as"] or gap))


def _numbers(value: Any, low: Any, high: Any) -> dict[str, float | None]:
    return {"value": number(value), "low": number(low), "high": number(high)}


def number(x: Any) -> float | None:
    """A JSON number, or None for an undefined value."""
    x = float(x)
    return x if np.isfinite(x) else None


def versions() -> dict[str, str]:
    known = {"fvlfp": __version__, "python": platform.python_version()}
    return known | {name: version(name) for name in ("numpy", "pandas", "scipy")}
