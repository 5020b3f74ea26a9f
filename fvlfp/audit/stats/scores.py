"""Scores instead of decisions: ranking, calibration and the choice of a threshold, by group.

ROC-AUC with DeLong's variance, Brier score, expected calibration error over 10 equal bins with the
value that a perfectly calibrated score would show at this n, and gaps of each with the same test
inversion as the gaps of rates. The threshold sweep shows which gaps a threshold buys or removes.
"""

from __future__ import annotations

import numpy as np

from fvlfp import metrics
from fvlfp.audit.schema import Bin, Gap, GroupScores, ScoreEstimate, Scores
from fvlfp.audit.stats.columns import Columns
from fvlfp.audit.stats.intervals import wilson, z_score
from fvlfp.audit.stats.inversion import GapInference, infer_estimates
from fvlfp.audit.stats.rates import number

BINS = 10
THRESHOLDS = 51
SWEPT = ("demographic_parity_difference", "equal_opportunity_difference", "equalized_odds_difference_worst")
NOT_PROBABILITY = "scores outside [0, 1] are no probabilities"


def auc(score: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """ROC-AUC and its standard error (DeLong 1988, by mid-ranks as in Sun and Xu 2014).

    DeLong's error is 0 where all pairs are in order, or all scores tied, however few they are; see
    `_score_error`, which then takes its place.
    """
    positive, negative = score[label == 1], score[label == 0]
    m, n = len(positive), len(negative)
    if not m or not n:
        return np.nan, np.nan
    ranks = _midranks(np.concatenate([positive, negative]))
    v10 = (ranks[:m] - _midranks(positive)) / n
    v01 = 1 - (ranks[m:] - _midranks(negative)) / m
    variance = (v10.var(ddof=1) / m if m > 1 else np.nan) + (v01.var(ddof=1) / n if n > 1 else np.nan)
    area = float(v10.mean())
    return area, _score_error(area, m, n) if variance == 0 else float(np.sqrt(variance))


def _score_error(area: float, m: int, n: int) -> float:
    """The distance of an area from the end of its 95 % score interval, in standard errors of 1.96.

    Newcombe (2006, method 5): the variance of the area t that is tried, by Hanley and McNeil (1982), with the
    mean of `m` positives and `n` negatives in its two places.
    """
    from scipy.optimize import brentq  # late, as in `resampling`

    area, z, mean = max(area, 1 - area), z_score(0.95), (m + n) / 2 - 1

    def beyond(t: float) -> float:
        variance = t * (1 - t) * (1 + mean * ((1 - t) / (2 - t) + t / (1 + t))) / (m * n)
        return area - t - z * float(np.sqrt(variance))

    return (area - float(brentq(beyond, 0, min(area, 1 - 1e-9)))) / z


def _midranks(x: np.ndarray) -> np.ndarray:
    _, inverse, count = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[inverse]


def brier(score: np.ndarray, label: np.ndarray) -> tuple[float, float]:
    """Mean squared distance of score and outcome, with its standard error.

    Where all distances are equal, which says little of a few rows, it is that of a rate, by Wilson.
    """
    loss = (score - label) ** 2
    mean, n = float(loss.mean()), len(loss)
    if n > 1 and np.ptp(loss) == 0:
        low, high = wilson(n * mean, n)
        return mean, float(max(high - mean, mean - low)) / z_score(0.95)
    return mean, float(loss.std(ddof=1) / np.sqrt(n)) if n > 1 else np.nan


def calibration(score: np.ndarray, label: np.ndarray, level: float) -> list[Bin]:
    """Reliability bins that hold examples: mean score, observed share with interval, n."""
    place = np.minimum((score * BINS).astype(int), BINS - 1)
    n = np.bincount(place, minlength=BINS)
    hits = np.bincount(place, weights=label, minlength=BINS)
    total = np.bincount(place, weights=score, minlength=BINS)
    low, high = wilson(hits, n, level)
    return [
        {
            "mean_score": float(total[i] / n[i]),
            "share": float(hits[i] / n[i]),
            "low": float(low[i]),
            "high": float(high[i]),
            "n": int(n[i]),
        }
        for i in np.flatnonzero(n)
    ]


def ece(bins: list[Bin], rng: np.random.Generator, draws: int) -> tuple[float, float]:
    """Expected calibration error, and its mean if outcomes followed the mean score of their bin.

    ECE is a sum of absolute values, so chance alone makes it positive: the second number says how much.
    """
    n = np.array([b["n"] for b in bins])
    mean, share = np.array([b["mean_score"] for b in bins]), np.array([b["share"] for b in bins])
    weight = n / n.sum()
    chance = np.abs(rng.binomial(n, np.clip(mean, 0, 1), (draws, len(n))) / n - mean) @ weight
    return float(np.abs(share - mean) @ weight), float(chance.mean())


def score_entry(
    columns: Columns, score: np.ndarray, attribute: str, *, draws: int, rng: np.random.Generator, level: float
) -> Scores:
    """Everything about scores for one attribute: per group, gaps, ES-AUC."""
    names, codes = columns.groups[attribute].names, columns.groups[attribute].codes
    probability = bool(score.min() >= 0 and score.max() <= 1)
    # One stable sort brings every group together, so that many groups cost one pass.
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
    groups: dict[str, GroupScores] = {}
    for i, name in enumerate(names):
        rows = order[bounds[i] : bounds[i + 1]]
        groups[name] = _group_scores(score[rows], columns.label[rows], probability, rng, draws, level)
    overall = _group_scores(score, columns.label, probability, rng, draws, level)
    gaps: dict[str, Gap] = {}
    for measure, estimates in (
        ("roc_auc", [g["roc_auc"] for g in groups.values()]),
        ("brier", [g["brier"] for g in groups.values()]),
    ):
        values = np.array([e["value"] for e in estimates], float)
        errors = np.array([e["se"] for e in estimates], float)
        inference = infer_estimates(values, errors, draws=draws, rng=rng, level=level)
        known = np.isfinite(values) & np.isfinite(errors)
        value = float(np.ptp(values[known])) if known.sum() > 1 else None
        gaps[f"{measure}_gap"] = _gap_entry(value, inference)
    areas = np.array([g["roc_auc"]["value"] for g in groups.values()], float)
    whole = overall["roc_auc"]["value"]
    scaled = number(metrics.equity_scaled(np.nan if whole is None else whole, areas))
    return {"overall": overall, "groups": groups, "gaps": gaps, "es_auc": {"value": scaled}}


def _group_scores(
    score: np.ndarray,
    label: np.ndarray,
    probability: bool,
    rng: np.random.Generator,
    draws: int,
    level: float,
) -> GroupScores:
    area = _estimate(*auc(score, label), level, "needs examples of both classes")
    if not probability or not len(score):
        why = NOT_PROBABILITY if len(score) else "the group has no examples"
        nothing: ScoreEstimate = {"value": None, "low": None, "high": None, "se": None, "reason": why}
        return {"n": len(score), "roc_auc": area, "brier": nothing, "ece": nothing.copy(), "bins": []}
    bins = calibration(score, label, level)
    error, chance = ece(bins, rng, min(draws, 1000))
    return {
        "n": len(score),
        "roc_auc": area,
        "brier": _estimate(*brier(score, label), level, "the group has no examples"),
        "ece": {"value": error, "expected_if_calibrated": chance, "reason": None},
        "bins": bins,
    }


def _estimate(value: float, se: float, level: float, why: str) -> ScoreEstimate:
    half = z_score(level) * se
    known, sure = bool(np.isfinite(value)), bool(np.isfinite(half))
    return {
        "value": value if known else None,
        "low": max(0.0, value - half) if known and sure else None,
        "high": min(1.0, value + half) if known and sure else None,
        "se": se if sure else None,
        "reason": None if known else why,
    }


def _gap_entry(value: float | None, inference: GapInference) -> Gap:
    return {
        "value": value,
        "low": number(inference.low),
        "high": number(inference.high),
        "reason": None if value is not None else "fewer than two groups have it",
        "p_value": number(inference.p_value),
        "p_adjusted": None,
        "tested_as": None,
        "expected_null": number(inference.expected_null),
        "minimum_detectable": number(inference.minimum_detectable),
    }


def sweep(columns: Columns, score: np.ndarray, attribute: str) -> dict[str, list[float | None]]:
    """Gaps and balanced accuracy at thresholds spread over the scores: predict + when score >= t."""
    names, codes = columns.groups[attribute].names, columns.groups[attribute].codes
    thresholds = np.unique(np.quantile(score, np.linspace(0, 1, THRESHOLDS), method="nearest"))
    place = np.searchsorted(thresholds, score, side="right")  # how many thresholds the score reaches
    size = len(thresholds) + 1
    known = codes >= 0
    cell = (codes[known] * 2 + columns.label[known]) * size + place[known]
    counts = np.bincount(cell, minlength=len(names) * 2 * size).reshape(len(names), 2, size)
    above = counts.sum(-1, keepdims=True) - np.cumsum(counts, -1)  # selected at threshold i
    selected = np.moveaxis(above[..., :-1], -1, 0)
    tables = np.stack([counts.sum(-1) - selected, selected], -1)
    gaps = metrics.gaps(tables)
    curves = {name: gaps[name] for name in SWEPT} | {"balanced_accuracy": metrics.balanced_accuracy(tables)}
    return {"threshold": thresholds.tolist()} | {
        name: [number(v) for v in values] for name, values in curves.items()
    }
