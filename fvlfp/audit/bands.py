"""Prompt templates: how far every value of an audit moves when the same model is asked in other words.

`widen` widens the ``band`` of entries by what another template gives. What this module does not do: intervals
(chance) or tests; a band is the range of point values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fvlfp import metrics
from fvlfp.audit.stats.counts import Counts
from fvlfp.audit.stats.families import families
from fvlfp.audit.stats.rates import group_rates, number


def widen(entry: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Widen the band of every value in `entry` by the value in the same place of `other`, if it has one."""
    for key, part in entry.items():
        if not isinstance(part, dict):
            continue
        there = other.get(key, {})
        if "value" not in part:
            widen(part, there)
            continue
        covered = [*(part.get("band") or [part["value"]]), there.get("value")]
        values = [value for value in covered if value is not None]
        part["band"] = [min(values), max(values)] if values else None


def under_template(counts: Counts, level: float) -> Mapping[str, Any]:
    """The point values of one attribute under another template, in the places of its entry."""
    gaps = {name: value for family in families(counts) for name, value in family.observed().items()}
    found: dict[str, Any] = {
        "groups": dict(zip(counts.groups, group_rates(counts, level), strict=True)),
        "gaps": {
            name: {"value": number(1 - gap if metrics.is_ratio(name) else gap)} for name, gap in gaps.items()
        },
    }
    if counts.truth:
        found["worst_cell_recall"] = {"value": number(metrics.worst_cell_recall(counts.table))}
        found["es_accuracy"] = {"value": equity_scaled_accuracy(counts.shared)}
    return found


def equity_scaled_accuracy(table: np.ndarray) -> float | None:
    """ES-accuracy of counts (G, C, C), None where it is undefined."""
    return number(metrics.equity_scaled(metrics.accuracy(table.sum(0)), metrics.accuracy(table)))
