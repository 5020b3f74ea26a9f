"""Prompt templates: how far every value of an audit moves when the same model is asked in other words.

Each function widens the ``band`` of entries by what another template gives. What this module does not do:
intervals (chance) or tests; a band is the range of point values.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fvlfp import metrics
from fvlfp.audit.schema import Attribute, Banded, ClassRates, GroupRates, Scores
from fvlfp.audit.stats.counts import Counts
from fvlfp.audit.stats.families import families
from fvlfp.audit.stats.rates import group_rates, number


def widen_attribute(entry: Attribute, counts: Counts, level: float) -> None:
    """Widen the bands of one attribute by the counts under another template."""
    for mine, other in zip(entry["groups"].values(), group_rates(counts, level), strict=True):
        widen_rates(mine, other)
    values = {k: v for family in families(counts) for k, v in family.observed().items()}
    for name, gap in entry["gaps"].items():
        value = values.get(name, np.nan)
        _widen(gap, number(1 - value if metrics.is_ratio(name) else value))
    if entry["worst_cell_recall"] is not None:  # there is truth
        _widen(entry["worst_cell_recall"], number(metrics.worst_cell_recall(counts.table)))
        _widen(entry["es_accuracy"], equity_scaled_accuracy(counts.table))


def widen_rates(entry: GroupRates, other: GroupRates) -> None:
    """Widen the bands of one group's rates, and of its classes."""
    _widen_class(entry, other)
    for name, part in entry.get("classes", {}).items():
        _widen_class(part, other.get("classes", {}).get(name))


def widen_scores(entry: Scores, other: Scores) -> None:
    """Widen the bands of ranking, calibration and their gaps."""
    pairs = [(entry["overall"], other["overall"])]
    pairs += [(part, other["groups"][group]) for group, part in entry["groups"].items()]
    for mine, theirs in pairs:
        _widen(mine["roc_auc"], theirs["roc_auc"]["value"])
        _widen(mine["brier"], theirs["brier"]["value"])
        _widen(mine["ece"], theirs["ece"]["value"])
    for name, gap in entry["gaps"].items():
        _widen(gap, other["gaps"][name]["value"])
    _widen(entry["es_auc"], other["es_auc"]["value"])


def equity_scaled_accuracy(table: np.ndarray) -> float | None:
    """ES-accuracy of counts (G, C, C), None where it is undefined."""
    return number(metrics.equity_scaled(metrics.accuracy(table.sum(0)), metrics.accuracy(table)))


def _widen_class(entry: ClassRates, other: ClassRates | None) -> None:
    for name, rate in entry["rates"].items():
        same = None if other is None else other["rates"].get(name)
        _widen(rate, None if same is None else same["value"])


def _widen(entry: Banded, value: float | None) -> None:
    before: Sequence[float | None] = entry.get("band") or [entry["value"]]
    values = [v for v in (*before, value) if v is not None]
    entry["band"] = [min(values), max(values)] if values else None
