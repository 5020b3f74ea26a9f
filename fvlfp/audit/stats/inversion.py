"""Intervals of a gap by test inversion: which true gaps could have shown the one observed?

A line of hypothetical truths runs from "all groups have the pooled rate" (gap 0) through the
observed pattern and beyond (`hypotheses`). At each point of it samples are drawn with every group's
n fixed (by ``resampling``); a gap belongs to the interval when the observed one is not extreme among
its draws (`low_limit`, `high_limit`). The lower tail spends nothing at gap 0 and half of alpha from the
null's critical value on, so an interval leaves out 0 exactly when a one-sided test rejects equality,
and a zero gap is covered in `level` of all cases.

Which groups are really the outermost is uncertain too, so for the lower limit the others are moved
up to ``DOUBT`` standard errors towards the extremes (more inflation by chance), for the upper limit
away from them; of two rates (odds) the lesser gap is doubted alike (`stretch`).
benchmarks/instrument.py measures how well all this holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

DOUBT = 2.0  # standard errors: what 95 % of estimates are within
POINTS = 16  # hypothetical truths between gap 0 and the far end; limits are interpolated
FEWER = {2_000: 2, 20_000: 4}  # from so many counts on, so many times fewer points must do
POWER = 0.8


@dataclass
class GapInference:
    """What resampling says about one gap. NaN means: could not be had."""

    low: float = np.nan
    high: float = np.nan
    p_value: float = np.nan
    expected_null: float = np.nan
    null_95: float = np.nan
    minimum_detectable: float = np.nan


Sims = Callable[[int], np.ndarray]  # sorted draws (draws,) of hypothesis i, made when asked for


def low_limit(x: float, gap: np.ndarray, sims: Sims, level: float) -> tuple[float, float]:
    """Smallest hypothetical gap (of points,) whose draws reach `x`, and the gap found with 80 % power."""
    critical, spend = _spending(gap, sims(0), level)
    power = crossing(lambda i: float((sims(i) > critical + 1e-12).mean()), POWER, gap)
    low = crossing(lambda i: quantile(sims(i), level + spend[i]), x - 1e-12, gap)
    return min(gap[-1] if low is None else low, x), np.nan if power is None else power


def high_limit(x: float, gap: np.ndarray, sims: Sims, level: float) -> float:
    """Largest hypothetical gap (of points,) whose draws go down to `x`."""
    _, spend = _spending(gap, sims(0), level)
    high = crossing(lambda i: quantile(sims(i), spend[i]) if spend[i] > 0 else -1.0, x, gap)
    return max(gap[-1] if high is None else high, x)


def _spending(gap: np.ndarray, null: np.ndarray, level: float) -> tuple[float, np.ndarray]:
    """The null's critical value, and the lower tail's share of alpha per hypothesis."""
    critical = quantile(null, level)
    share = np.minimum(1, gap / critical) if critical > 0 else np.ones_like(gap)
    return critical, (1 - level) / 2 * share


def crossing(value: Callable[[int], float], goal: float, gap: np.ndarray) -> float | None:
    """The gap at which `value`, rising along the line, reaches `goal`; by bisection: few points are drawn."""
    low, high = 0, len(gap) - 1
    if value(low) >= goal:
        return float(gap[low])
    if value(high) < goal:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if value(middle) >= goal else (middle, high)
    return float(np.interp(goal, [value(low), value(high)], gap[[low, high]]))


def infer_estimates(
    values: np.ndarray, errors: np.ndarray, *, draws: int, rng: np.random.Generator, level: float = 0.95
) -> GapInference:
    """The same for max - min of independent normal estimates (G,) with standard errors (G,)."""
    known = np.isfinite(values) & np.isfinite(errors) & (errors > 0)
    v, se = values[known], errors[known]
    if len(v) < 2:
        return GapInference()
    x = float(np.ptp(v))
    weight = se**-2 / (se**-2).sum()
    noise = rng.standard_normal((draws, len(v))) * se
    chance = np.ptp(noise, axis=1)
    out = GapInference(
        p_value=(1 + int((chance >= x).sum())) / (1 + draws),
        expected_null=float(chance.mean()),
        null_95=float(np.quantile(chance, level)),
    )
    for doubt in (DOUBT, -DOUBT):
        pattern = _moved(v[:, None], se[:, None], doubt)[:, 0]
        direction = pattern - weight @ pattern
        if np.ptp(direction) < 1e-12:
            direction = np.arange(len(v), dtype=float)
        gap = np.linspace(0, x + 5 * np.sqrt(2) * se.max(), POINTS)
        line = gap[:, None] * direction / np.ptp(direction)
        sims = np.sort(np.ptp(line[:, None, :] + noise, axis=-1), axis=1)
        if doubt > 0:
            out.low, out.minimum_detectable = low_limit(x, gap, sims.__getitem__, level)
        else:
            out.high = high_limit(x, gap, sims.__getitem__, level)
    return out


def hypotheses(counts: np.ndarray, extent: float, doubt: float, across: str = "") -> np.ndarray:
    """Outcome probabilities (points, G, S, C) from equality through the observed pattern outwards.

    Args:
        counts: (G, S, C). extent: the observed gap; the line ends some standard errors beyond it.
        doubt: standard errors by which the groups in between are moved outwards, see above.
        across: how the gap joins its strata ("max", "sum" or nothing); the smaller ones are doubted too.
    """
    counts = counts.astype(float)
    n = counts.sum(-1, keepdims=True)
    total = counts.sum(0)
    pooled = (total + 0.5) / (total + 0.5).sum(-1, keepdims=True)
    # One pseudo-example at the pooled rate keeps a rate of 0 or 1 in a small group from being certain.
    smooth = (counts + pooled) / (n + 1)
    pattern = np.where(n > 0, doubtful(smooth, n, doubt), pooled)
    weight = np.where(n > 0, n, 0) / np.maximum(n.sum(0), 1)
    direction = pattern - (weight * pattern).sum(0)
    direction = np.where(n > 0, direction, 0)
    flat = np.ptp(direction, axis=0).max() < 1e-9
    if flat:  # no pattern to follow: let the smallest group stand apart
        direction = smallest_apart(n[..., 0], pooled)
    noise = np.sqrt(2 * pooled * (1 - pooled) / np.where(n > 0, n, np.inf).min(0))
    if across:
        direction = direction * stretch(np.ptp(direction, axis=0), noise, doubt, across)
    reach = np.ptp(direction, axis=0)  # (S, C)
    end = min(1.0, extent + 5 * float(noise.max()))
    points = POINTS // max([1, *(k for size, k in FEWER.items() if counts.size > size)])
    steps = np.linspace(0, 1, points) * end / max(reach.max(), 1e-12)
    line = np.clip(pooled + steps[:, None, None, None] * direction, 0, None)
    line = np.minimum(line, 1)
    return line / line.sum(-1, keepdims=True)


def stretch(reach: np.ndarray, noise: np.ndarray, doubt: float, across: str) -> np.ndarray:
    """Factors (S, 1) that move all strata but the widest `doubt` standard errors closer to it, or to 0.

    The gap of the lesser stratum is uncertain as well: close to the widest it adds chance inflation to a
    maximum, close to 0 it adds inflation to a sum. A negative doubt takes inflation away.
    """
    wide, sure = reach.max(-1, keepdims=True), noise.max(-1, keepdims=True)
    step = abs(doubt) * sure / np.maximum(wide, 1e-12)
    if (doubt > 0) == (across == "max"):
        factor = np.minimum(1 + step, wide.max() / np.maximum(wide, 1e-12))
    else:
        factor = np.maximum(0, 1 - step)
    return np.where(wide == wide.max(), 1.0, factor)


def doubtful(p: np.ndarray, n: np.ndarray, doubt: float) -> np.ndarray:
    """Rates of groups with examples, all but the outermost moved by their own standard errors."""
    known = np.where(n > 0, p, np.nan)
    return np.where(n > 0, _moved(known, np.sqrt(p * (1 - p) / np.maximum(n, 1)), doubt), p)


def _moved(p: np.ndarray, se: np.ndarray, doubt: float) -> np.ndarray:
    """Move all but the outermost of p (G, ...) `doubt` standard errors to the extremes, or from them."""
    top, bottom = np.fmax.reduce(p, axis=0), np.fmin.reduce(p, axis=0)
    middle = (top + bottom) / 2
    if doubt > 0:
        up, down = np.minimum(top, p + doubt * se), np.maximum(bottom, p - doubt * se)
    else:
        up, down = np.maximum(middle, p + doubt * se), np.minimum(middle, p - doubt * se)
    return np.where((p == top) | (p == bottom), p, np.where(p >= middle, up, down))


def smallest_apart(n: np.ndarray, pooled: np.ndarray) -> np.ndarray:
    """Direction (G, S, C): in each stratum the smallest group loses its commonest outcome."""
    g, s = n.shape
    out = np.zeros((g, *pooled.shape))
    smallest = np.where(n > 0, n, np.inf).argmin(0)
    for j in range(s):
        common = int(pooled[j].argmax())
        share = (pooled[j] + 1e-12) * (np.arange(pooled.shape[1]) != common)
        out[smallest[j], j] = share / share.sum()
        out[smallest[j], j, common] = -1.0
    return out


def quantile(ordered: np.ndarray, q: float) -> float:
    """Quantile of sorted draws by rank: of M draws and one more, the k-th is exceeded in 1 - k / (M + 1)."""
    place = min(max(q * (len(ordered) + 1) - 1, 0.0), len(ordered) - 1.0)
    i = int(place)
    j = min(i + 1, len(ordered) - 1)
    return float(ordered[i] + (place - i) * (ordered[j] - ordered[i]))
