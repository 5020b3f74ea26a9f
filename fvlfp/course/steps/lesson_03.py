"""Lesson 03: two gaps, the formulas made of them, and rates that are undefined."""

from __future__ import annotations

import numpy as np

from fvlfp import metrics
from fvlfp.course.lesson import Step

_GROUPS = np.array(["round", "square", "oval"])


def _two_gaps(y: np.ndarray, said: np.ndarray, group: np.ndarray) -> list[float]:
    rates = metrics.rates(metrics.confusion(y, said, group))
    return [float(np.ptp(rates["tpr"])), float(np.ptp(rates["fpr"]))]


def _faces(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    of = _GROUPS[: int(rng.integers(2, 4))]
    n = int(rng.integers(15, 30))
    y = np.array([*([0, 1] * len(of)), *(rng.random(n) < 0.4)]).astype(int)
    said = np.where(rng.random(len(y)) < 0.7, y, 1 - y)
    return y, said, np.array([*np.repeat(of, 2), *rng.choice(of, n)])


def _eods(tpr_gap: float, fpr_gap: float) -> dict[str, float]:
    total = tpr_gap + fpr_gap
    return {"worst": max(tpr_gap, fpr_gap), "sum": total, "mean": total / 2, "FairMedFM": 1 - total / 2}


def _pair(rng: np.random.Generator) -> tuple[float, float]:
    return float(rng.random() / 2), float(rng.random() / 2)


def _sum_from_fairmedfm(eod: float) -> float:
    return 2 * (1 - eod)


def _defined_gap(rates: np.ndarray) -> float:
    known = rates[~np.isnan(rates)]
    return float(known.max() - known.min()) if len(known) >= 2 else float("nan")


def _some_undefined(rng: np.random.Generator) -> tuple[np.ndarray]:
    rates = rng.uniform(0.2, 0.9, int(rng.integers(3, 6))).round(2)
    rates[rng.choice(len(rates), int(rng.integers(1, len(rates))), replace=False)] = np.nan
    return (rates,)


#: labels, answers (0 or 1) and groups, each (n,) -> the TPR gap and the FPR gap.
two_gaps = Step(_two_gaps, _faces)
#: the two gaps -> {"worst", "sum", "mean", "FairMedFM"}.
eods = Step(_eods, _pair)
#: FairMedFM's number -> the sum.
sum_from_fairmedfm = Step(_sum_from_fairmedfm, lambda rng: (float(rng.uniform(0.5, 1)),))
#: rates (G,), NaN where undefined -> the gap of the defined ones, NaN for fewer than two.
defined_gap = Step(_defined_gap, _some_undefined, cases=8)
