"""Rates and gaps as plain functions of contingency counts: the same for audits and in training.

Every function takes ``table`` of shape (..., G, C, C): group, label, prediction; leading axes are
draws, clients or candidates. A rate whose denominator is 0 is **undefined**: it is NaN here, null with a
reason in ``audit.json``, and takes no part in any gap. (fairlearn gives 0.0 there, which invents a gap.)
Where a function takes `min_cell`, a rate that rests on fewer examples is undefined as well.
All values are in [0, 1], sums of two gaps in [0, 2]. Formulas: METHOD.md, "Metrics".

What this module does not do: it draws nothing and knows no interval; see `fvlfp.audit.stats`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

GAPS = {
    "demographic_parity_difference": "max - min of the selection rate P(yhat = + | group)",
    "demographic_parity_ratio": "min / max of the selection rate (1 is parity)",
    "equal_opportunity_difference": "max - min of the true positive rate P(yhat = + | y = +, group)",
    "equalized_odds_difference_worst": "the larger of the TPR gap and the FPR gap (fairlearn's)",
    "equalized_odds_difference_sum": "TPR gap + FPR gap (FF-DVP's; range 0 to 2)",
    "equalized_odds_difference_mean": "(TPR gap + FPR gap) / 2",
    "accuracy_gap": "max - min of the accuracy P(yhat = y | group)",
}


def is_ratio(gap: str) -> bool:
    """Whether 1 is equality and less is worse: for the ratio alone; for every other gap it is 0."""
    return "ratio" in gap


def confusion(
    label: ArrayLike, prediction: ArrayLike, group: ArrayLike, *, positive: object = 1
) -> np.ndarray:
    """Binary counts of three equally long columns, shape (G, 2, 2), groups in sorted order.

    The bare version for lessons; ``audit`` reads and checks real tables.
    """
    y = (np.asarray(label) == positive).astype(np.int64)
    p = (np.asarray(prediction) == positive).astype(np.int64)
    names, g = np.unique(np.asarray(group), return_inverse=True)
    return np.bincount(g * 4 + y * 2 + p, minlength=4 * len(names)).reshape(-1, 2, 2)


def divide(part: ArrayLike, whole: ArrayLike) -> np.ndarray:
    """part / whole, NaN where whole is 0."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    out = np.full(np.broadcast_shapes(part.shape, whole.shape), np.nan)
    return np.divide(part, whole, out=out, where=whole > 0)


def parts(table: np.ndarray, positive: int = 1) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numerator and denominator of each one-vs-rest rate, each of shape (..., G)."""
    k = positive
    n = table.sum((-1, -2))
    positives = table[..., k, :].sum(-1)
    selected = table[..., :, k].sum(-1)
    tp = table[..., k, k]
    return {
        "selection_rate": (selected, n),
        "tpr": (tp, positives),
        "fpr": (selected - tp, n - positives),
    }


def one_vs_rest(table: np.ndarray) -> np.ndarray:
    """Binary tables (..., G, C, 2, 2) of every class against the rest, from (..., G, C, C)."""
    hits = np.einsum("...kk->...k", table)
    labels, selected = table.sum(-1), table.sum(-2)
    n = labels.sum(-1, keepdims=True)
    missed, wrong = labels - hits, selected - hits
    rest = n - labels - wrong
    return np.stack([np.stack([rest, wrong], -1), np.stack([missed, hits], -1)], -2)


def rates(table: np.ndarray, positive: int = 1) -> dict[str, np.ndarray]:
    """Selection rate, TPR, FPR of class `positive` against the rest; each of shape (..., G)."""
    return {name: divide(*pair) for name, pair in parts(table, positive).items()}


def accuracy(table: np.ndarray) -> np.ndarray:
    """P(yhat = y | group), shape (..., G)."""
    return divide(np.einsum("...ii->...", table), table.sum((-1, -2)))


def recalls(table: np.ndarray, *, min_cell: int = 1) -> np.ndarray:
    """P(yhat = y | y, group) per (group, class) cell, shape (..., G, C)."""
    totals = table.sum(-1)
    return divide(np.einsum("...ii->...i", table), np.where(totals >= min_cell, totals, 0))


def balanced_accuracy(table: np.ndarray, *, min_cell: int = 1) -> np.ndarray:
    """Mean recall over all classes, of the table summed over groups: (...).

    Undefined, not the mean over the classes that are there: a client that holds one class and always says
    it would report 1.0, and outweigh everybody.
    """
    return recalls(table.sum(-3), min_cell=min_cell).mean(-1)


def worst_cell_recall(table: np.ndarray) -> np.ndarray:
    """The smallest recall of any (class, group) cell that has examples, shape (...)."""
    recall = recalls(table)
    return np.fmin.reduce(recall.reshape(*recall.shape[:-2], -1), axis=-1)


def recall_gap(table: np.ndarray, *, min_cell: int = 1, prior: float = 0.0) -> np.ndarray:
    """The largest difference of recall between two groups, over the classes: (...).

    For two classes this is ``equalized_odds_difference_worst``. A gap is a maximum minus a minimum, so a
    small sample shows one by chance: with `prior` > 0 each class's gap is multiplied by m / (m + prior), m
    the size of its smallest cell that counts.
    """
    recall = recalls(table, min_cell=min_cell)
    smallest = np.fmin.reduce(np.where(np.isfinite(recall), table.sum(-1), np.nan), axis=-2)  # (..., C)
    gaps = spread(np.swapaxes(recall, -1, -2)) * (smallest / (smallest + prior))
    return np.fmax.reduce(gaps, axis=-1)


def equity_scaled(overall: ArrayLike, by_group: np.ndarray) -> np.ndarray:
    """ES-M = M / (1 + sum_g |M - M_g|), undefined groups left out (METHOD.md: Metrics; FairCLIP)."""
    overall = np.asarray(overall, float)
    return overall / (1 + np.nansum(np.abs(overall[..., None] - by_group), axis=-1))


def spread(rate: np.ndarray) -> np.ndarray:
    """max - min over the last axis (groups), NaN when fewer than two groups are defined."""
    top, bottom, known = _extremes(rate)
    return np.where(known < 2, np.nan, top - bottom)


def ratio(rate: np.ndarray) -> np.ndarray:
    """min / max over groups; NaN for fewer than two defined groups or when nobody is selected."""
    top, bottom, known = _extremes(rate)
    return np.where(known < 2, np.nan, divide(bottom, np.nan_to_num(top)))


def _extremes(rate: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Largest and smallest defined rate and their number; groups first, which is much faster."""
    by_group = np.ascontiguousarray(np.moveaxis(rate, -1, 0))
    return np.fmax.reduce(by_group), np.fmin.reduce(by_group), np.isfinite(by_group).sum(0)


def gaps(table: np.ndarray, positive: int = 1) -> dict[str, np.ndarray]:
    """Every gap in ``GAPS`` for class `positive` against the rest, each of shape (...)."""
    r = rates(table, positive)
    return {
        **parity(r["selection_rate"]),
        "equal_opportunity_difference": spread(r["tpr"]),
        **odds(r["tpr"], r["fpr"]),
        "accuracy_gap": spread(accuracy(table)),
    }


def parity(selection_rate: np.ndarray) -> dict[str, np.ndarray]:
    """Demographic parity difference and ratio from rates of shape (..., G)."""
    return {
        "demographic_parity_difference": spread(selection_rate),
        "demographic_parity_ratio": ratio(selection_rate),
    }


def odds(tpr: np.ndarray, fpr: np.ndarray) -> dict[str, np.ndarray]:
    """The three formulas that all go by the name "equalized odds difference", from (..., G)."""
    a, b = spread(tpr), spread(fpr)
    return {
        "equalized_odds_difference_worst": np.maximum(a, b),
        "equalized_odds_difference_sum": a + b,
        "equalized_odds_difference_mean": (a + b) / 2,
    }


def over_classes(per_class: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One-vs-rest gaps summed up: ``..._class_max`` and ``..._class_mean`` over defined classes.

    For the ratio, where small is bad, the minimum (``..._class_min``) stands in for the maximum.
    """
    return summed_up({name: np.stack([gap[name] for gap in per_class], axis=-1) for name in per_class[0]})


def summed_up(by_class: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same from arrays (..., C), one by name."""
    out: dict[str, np.ndarray] = {}
    for name, values in by_class.items():
        if is_ratio(name):
            out[f"{name}_class_min"] = np.fmin.reduce(values, axis=-1)
        else:
            out[f"{name}_class_max"] = np.fmax.reduce(values, axis=-1)
        defined = np.isfinite(values).sum(-1)
        out[f"{name}_class_mean"] = divide(np.nansum(values, -1), defined)
    return out
