"""The rates of every group with counts, Wilson intervals, reasons and flags, as the document shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsFloat

import numpy as np

from fvlfp import metrics
from fvlfp.audit.schema import ClassRates, Estimate, GroupRates, Rate
from fvlfp.audit.stats.counts import Counts
from fvlfp.audit.stats.intervals import mean_of_rates, wilson

SMALL = 10  # a rate on fewer examples than this is flagged

WHY_UNDEFINED = {
    "selection_rate": "the group has no examples",
    "tpr": "no example of the group has the positive label",
    "fpr": "every example of the group has the positive label",
    "accuracy": "the group has no examples",
    "balanced_accuracy": "the group has no examples",
}


def group_rates(counts: Counts, level: float) -> list[GroupRates]:
    """Counts and rates of every group."""
    out = _group_rates(counts, level)
    if counts.rows is not None:
        for entry in out:
            for part in (entry, *entry.get("classes", {}).values()):
                for rate in part["rates"].values():
                    rate["reason"] = rate["reason"] and f"{rate['reason']}; rows of weight 0 do not count"
    return out


def _group_rates(counts: Counts, level: float) -> list[GroupRates]:
    table, n = counts.table, counts.sizes
    out: list[GroupRates]
    if counts.judged == (1,):
        out = [
            {"n": int(m), "positives": r["positives"], "negatives": r["negatives"], "rates": r["rates"]}
            for m, r in zip(n, _one_vs_rest(table, level), strict=True)
        ]
    else:
        by_class = {counts.classes[k]: _one_vs_rest(counts.binary(k), level) for k in counts.judged}
        out = [
            {
                "n": int(m),
                "positives": None,
                "negatives": None,
                "rates": {},
                "classes": {name: rates[i] for name, rates in by_class.items()},
            }
            for i, m in enumerate(n)
        ]
    if not counts.truth:
        for entry in out:
            for part in (entry, *entry.get("classes", {}).values()):
                _keep_selection_only(part)
        return out
    accuracy = rate_entries("accuracy", np.einsum("gcc->g", table), counts.n, level)
    for i, entry in enumerate(out):
        entry["rates"]["accuracy"] = accuracy[i]
        entry["rates"]["balanced_accuracy"] = _balanced_accuracy(counts.classes, table[i], level)
    return out


def _keep_selection_only(entry: ClassRates) -> None:
    """Without truth: leave out what rests on it."""
    entry["positives"] = entry["negatives"] = None
    entry["rates"] = {k: v for k, v in entry["rates"].items() if k == "selection_rate"}


def _balanced_accuracy(classes: Sequence[str], table: np.ndarray, level: float) -> Rate:
    """Mean recall of one group, defined only if the group has examples of every class."""
    hits, sizes = np.diag(table), table.sum(-1)
    absent = [name for name, size in zip(classes, sizes, strict=True) if size == 0]
    # a mean over the remaining classes would be another quantity: do not mix the two
    mean = (np.nan, np.nan, np.nan) if absent else mean_of_rates(hits, sizes, level)
    return {
        **estimate(*mean),
        "reason": f"no example has the label {', '.join(map(repr, absent[:5]))}" if absent else None,
        "numerator": None,
        "denominator": sizes.min().item(),
        "small": bool(0 < sizes.min() < SMALL),
    }


def _one_vs_rest(table: np.ndarray, level: float) -> list[ClassRates]:
    """Rates of the second class of binary tables (G, 2, 2), one entry per group."""
    pieces = metrics.parts(table)
    entries = {name: rate_entries(name, *pair, level) for name, pair in pieces.items()}
    positives, negatives = pieces["tpr"][1], pieces["fpr"][1]
    return [
        {
            "positives": positives[i].item(),
            "negatives": negatives[i].item(),
            "rates": {name: cells[i] for name, cells in entries.items()},
        }
        for i in range(len(table))
    ]


def rate_entries(name: str, k: np.ndarray, n: np.ndarray, level: float) -> list[Rate]:
    """The rates k / n, one per group, as the document shows them."""
    low, high = wilson(k, n, level)
    columns = (x.tolist() for x in (metrics.divide(k, n), low, high, k, n))
    return [
        {
            **estimate(value, below, above),
            "reason": None if size else WHY_UNDEFINED[name],
            "numerator": hits,
            "denominator": size,
            "small": 0 < size < SMALL,
        }
        for value, below, above, hits, size in zip(*columns, strict=True)
    ]


def estimate(value: SupportsFloat, low: SupportsFloat, high: SupportsFloat) -> Estimate:
    """A value with its interval, as JSON numbers or None."""
    return {"value": number(value), "low": number(low), "high": number(high)}


def number(x: SupportsFloat) -> float | None:
    """A JSON number, or None for an undefined value."""
    x = float(x)
    return x if np.isfinite(x) else None
