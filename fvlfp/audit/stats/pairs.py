"""Two models on the same rows as counts, and the paired change of every rate.

``by_class[group, class, label is the class, a says so, b says so]`` is enough for every rate of both models
and for the change of each; the draws of few classes also need who was predicted as what (``full``).
What this module does not do: changes of gaps (see ``paired``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import SupportsFloat

import numpy as np

from fvlfp import metrics
from fvlfp.audit.schema import RateChange
from fvlfp.audit.stats.columns import Columns
from fvlfp.audit.stats.counts import Counts, effective
from fvlfp.audit.stats.families import FEW, joints, joints_by_class
from fvlfp.audit.stats.paired import mean_change, rate_change, residuals
from fvlfp.audit.stats.rates import number
from fvlfp.values import Coded


@dataclass(frozen=True)
class Pairs:
    """One attribute: counts of model a, by_class (G, C, 2, 2, 2), full (G, C, C, C) of few classes."""

    counts: Counts
    by_class: np.ndarray
    full: np.ndarray | None

    def joints(self) -> list[np.ndarray]:
        """The joint counts of each of ``families``."""
        return joints_by_class(self.by_class) if self.full is None else joints(self.full)


def count_pairs(columns: Columns, groups: Coded, attribute: str) -> Pairs:
    """Pairs of one attribute; `columns` holds the rows of model a and then the same rows of model b.

    groups: of the rows of model a, (n,).
    """
    n, g, c = len(groups), len(groups.names), len(columns.classes)
    known = groups.codes >= 0
    codes = groups.codes[known].astype(np.int64)
    first = replace(
        columns, label=columns.label[:n], prediction=columns.prediction[:n], groups={attribute: groups}
    )
    weight = None
    if columns.weight is not None:
        first = replace(first, weight=columns.weight[:n])
        weight = effective(columns.weight[:n][known], codes, g)
    y, a, b = (x[:n][known] for x in (columns.label, columns.prediction, columns.prediction[n:]))
    full = None
    if c <= FEW:
        cell = ((codes * c + y) * c + a) * c + b
        full = np.bincount(cell, weights=weight, minlength=g * c**3).reshape(g, c, c, c)
    by_class = _by_class(codes, (y, a, b), weight, (g, c))
    return Pairs(first.count(attribute), by_class, full)


def _by_class(
    codes: np.ndarray,
    classes: tuple[np.ndarray, np.ndarray, np.ndarray],
    weight: np.ndarray | None,
    shape: tuple[int, int],
) -> np.ndarray:
    """(G, C, 2, 2, 2): a row counts once for each class that it names, and as (0, 0, 0) for all others.

    classes: label, prediction of a, prediction of b, each (n,) like `codes` and `weight`.
    """
    (y, a, b), (g, c) = classes, shape
    apart, new = a != y, (b != y) & (b != a)
    cells = [
        ((codes * c + y) * 8 + 4 + 2 * (a == y) + (b == y)),
        ((codes * c + a) * 8 + 2 + (b == a))[apart],
        ((codes * c + b) * 8 + 1)[new],
    ]
    weights = None if weight is None else np.concatenate([weight, weight[apart], weight[new]])
    out = np.bincount(np.concatenate(cells), weights=weights, minlength=g * c * 8).reshape(g, c, 8)
    rest = np.bincount(codes, weights=weight, minlength=g)[:, None] - out.sum(-1)
    out[..., 0] = np.maximum(rest, 0)  # weights leave a rounding error below 0
    return out.reshape(g, c, 2, 2, 2)


def rate_changes(pairs: Pairs, group: int, level: float) -> dict[str, RateChange]:
    """Paired changes of every rate of one group."""
    by_class = pairs.by_class[group]
    out: dict[str, RateChange] = {}
    if pairs.counts.judged == (1,):
        out["selection_rate"] = _rate_change(by_class[1].sum(0), level)
        out["tpr"], out["fpr"] = _rate_change(by_class[1, 1], level), _rate_change(by_class[1, 0], level)
    hits = by_class[:, 1]  # (C, 2, 2): right by a, right by b
    out["accuracy"] = _rate_change(hits.sum(0), level)
    known = [h for h in hits if h.sum()]
    if len(known) < len(hits):  # a mean over the classes that are there would be another quantity
        out["balanced_accuracy"] = _change(*[np.nan] * 5)
        return out
    mean = mean_change([rate_change(h, level) for h in known])
    a, b = (np.mean([h.sum(axis)[1] / h.sum() for h in known]) for axis in (1, 0))
    out["balanced_accuracy"] = _change(a, b, *mean)
    return out


def class_sizes(pairs: Pairs, group: int) -> tuple[float, float] | tuple[None, None]:
    """Positives and negatives of one group, which TPR and FPR rest on; None unless there are two classes."""
    if pairs.counts.judged != (1,):
        return None, None
    negatives, positives = pairs.by_class[group][1].sum((1, 2))
    return positives.item(), negatives.item()


def _rate_change(hits: np.ndarray, level: float) -> RateChange:
    """From counts [[neither, only b], [only a, both]]."""
    n = hits.sum()
    a, b = (hits[1].sum() / n, hits[:, 1].sum() / n) if n else (np.nan, np.nan)
    return _change(a, b, *rate_change(hits, level))


def worst_cell_change(pairs: Pairs, draws: int, rng: np.random.Generator, level: float) -> RateChange:
    """Change of the smallest recall; reflected (basic) bootstrap of the joint counts."""
    cells = pairs.by_class[:, :, 1]  # (G, C, 2, 2)

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
    return _change(a, b, b - a, low, high)


def _change(
    a: SupportsFloat, b: SupportsFloat, change: SupportsFloat, low: SupportsFloat, high: SupportsFloat
) -> RateChange:
    return {
        "a": number(a),
        "b": number(b),
        "change": number(change),
        "low": number(low),
        "high": number(high),
    }
