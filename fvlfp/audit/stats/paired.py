"""Intervals of a *change* between two models judged on the same rows.

Everything is drawn from the joint counts ``[group, stratum, outcome of a, outcome of b]``, which
keep the pairing: rows on which both models agree add no noise to the change.

The change of a gap is a difference of two maxima, and the smaller gap is inflated more by chance
than the larger one. So a plain bootstrap is off; again hypothetical truths are tried instead
(`infer_changes`): both gaps keep their estimated sum while their difference runs through a grid, multinomial
residuals of the joint counts are added, and a difference belongs to the interval when the observed
one is not extreme among its draws. benchmarks/instrument.py measures the coverage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fvlfp import metrics
from fvlfp.audit.stats.intervals import z_score
from fvlfp.audit.stats.inversion import crossing, doubtful, quantile, smallest_apart, stretch
from fvlfp.audit.stats.resampling import Family, frequencies

DOUBT = 0.75  # standard errors, see inversion.DOUBT; less is needed as the two sides offset
POINTS = 17


@dataclass
class Change:
    """Values of one measure under both models and the inference on b - a."""

    a: float
    b: float
    low: float = np.nan
    high: float = np.nan
    p_value: float = np.nan


def infer_changes(
    joint: np.ndarray, family: Family, *, draws: int, rng: np.random.Generator, level: float = 0.95
) -> dict[str, Change]:
    """Change of each of the family's gaps; `joint` has shape (G, S, C, C) and pairs both models."""
    a, b = joint.sum(-1), joint.sum(-2)
    va, vb = (family.statistic(frequencies(x)) for x in (a, b))
    out = {k: Change(float(va[k]), float(vb[k])) for k in va if not metrics.is_ratio(k) and "[" not in k}
    ea, eb = residuals(joint, draws, rng)
    known = [k for k, change in out.items() if np.isfinite(change.a) and np.isfinite(change.b)]
    if not known:  # one group only: nothing to be apart from
        return out
    for doubt in (DOUBT, -DOUBT):
        line_a, line_b = _Line(a, family, -doubt, ea), _Line(b, family, doubt, eb)
        for name in known:
            change = out[name]
            limit, p = _limit(change, name, line_a, line_b, doubt > 0, level)
            if doubt > 0:
                change.low, change.p_value = limit, p
            else:
                change.high, change.p_value = limit, min(change.p_value, p)
    return out


def _limit(
    change: Change, name: str, line_a: _Line, line_b: _Line, lower: bool, level: float
) -> tuple[float, float]:
    """One limit of the change and the two-sided p-value from its side."""
    middle_a, middle_b = line_a.median_unbiased(name, change.a), line_b.median_unbiased(name, change.b)
    observed = change.b - change.a
    noise = 5 * float(np.std(line_b.shown(0)[name] - line_a.shown(0)[name])) + 1e-9
    ends = sorted([observed, middle_b - middle_a])
    grid = np.unique(np.append(np.linspace(ends[0] - noise, ends[1] + noise, POINTS), 0.0))

    def drawn(i: int) -> np.ndarray:
        x, y = _split(middle_a + middle_b, grid[i])
        return np.sort(line_b.at(name, y) - line_a.at(name, x))

    tail = (1 - level) / 2
    found = crossing(lambda i: quantile(drawn(i), 1 - tail if lower else tail), observed, grid)
    limit = grid[-1] if found is None else found
    zero = drawn(int(np.searchsorted(grid, 0.0)))
    beyond = zero >= observed - 1e-12 if lower else zero <= observed + 1e-12
    p = min(1.0, 2 * (1 + int(beyond.sum())) / (1 + len(zero)))
    return float(min(limit, observed) if lower else max(limit, observed)), p


def residuals(joint: np.ndarray, draws: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paired deviations of both models' frequencies, each (draws, G, S, C); NaN without examples."""
    g, s, c, _ = joint.shape
    flat = joint.reshape(g, s, c * c).astype(float)
    n = joint.sum((-1, -2))
    pooled = (joint.sum(0) + 0.5 / c) / (joint.sum((0, -1, -2)) + 0.5 * c)[:, None, None]
    apart = pooled.sum(-1)[..., :, None] * pooled.sum(-2)[..., None, :]
    # The pseudo-example disagrees at times, so that models that agree everywhere here may differ elsewhere.
    share = ((pooled + apart) / 2).reshape(s, c * c)
    smooth = (flat + share) / (n[..., None] + 1)
    smooth /= smooth.sum(-1, keepdims=True)
    whole = np.maximum(np.rint(n), n > 0).astype(np.int64)  # weighted rows have effective sizes
    drawn = rng.multinomial(whole, smooth, size=(draws, g, s)).reshape(draws, g, s, c, c)
    size = np.where(n > 0, whole, np.nan)[..., None]
    centre = smooth.reshape(g, s, c, c)
    return drawn.sum(-1) / size - centre.sum(-1), drawn.sum(-2) / size - centre.sum(-2)


def rate_change(joint: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Change of one paired rate with its interval, from counts [[00, 01], [10, 11]] of hits.

    Bonett and Price (2012): the adjusted Wald interval of a difference of paired proportions.
    """
    n = float(joint.sum())
    if not n:
        return np.nan, np.nan, np.nan
    gained, lost = float(joint[0, 1]), float(joint[1, 0])
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = z_score(level) * np.sqrt((up + down - (up - down) ** 2) / (n + 2))
    return (gained - lost) / n, max(-1.0, up - down - half), min(1.0, up - down + half)


def mean_change(parts: list[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Mean of independent changes with interval (MOVER), undefined ones left out."""
    known = np.array([p for p in parts if np.isfinite(p[0])])
    if not len(known):
        return np.nan, np.nan, np.nan
    value, low, high = known.T
    m, centre = len(known), float(known[:, 0].mean())
    down, up = np.sqrt(((value - low) ** 2).sum()) / m, np.sqrt(((high - value) ** 2).sum()) / m
    return centre, float(centre - down), float(centre + up)


class _Line:
    """Hypothetical truths of one model, from equal groups through its pattern outwards, with paired noise."""

    def __init__(self, counts: np.ndarray, family: Family, doubt: float, errors: np.ndarray):
        self.statistic, self.errors = family.statistic, errors
        counts = counts.astype(float)
        n = counts.sum(-1, keepdims=True)
        total = counts.sum(0)
        self.pooled = (total + 0.5) / (total + 0.5).sum(-1, keepdims=True)
        smooth = (counts + self.pooled) / (n + 1)
        pattern = np.where(n > 0, doubtful(smooth, n, doubt), self.pooled)
        weight = n / np.maximum(n.sum(0), 1)
        direction = np.where(n > 0, pattern - (weight * pattern).sum(0), 0)
        if np.ptp(direction, axis=0).max() < 1e-9:
            direction = smallest_apart(n[..., 0], self.pooled)
        noise = np.sqrt(2 * self.pooled * (1 - self.pooled) / np.where(n > 0, n, np.inf).min(0))
        if family.across:
            direction = direction * stretch(np.ptp(direction, axis=0), noise, doubt, family.across)
        self.direction = direction / np.ptp(direction, axis=0).max()
        shown = np.ptp(smooth, axis=0).max()
        self.steps = np.linspace(0, min(1.0, shown + 5 * noise.max()), POINTS)
        self.true = family.statistic(self.pooled + self.steps[:, None, None, None] * self.direction)
        self.drawn: dict[int, dict[str, np.ndarray]] = {}

    def gaps(self, name: str) -> np.ndarray:
        """The true gap along the line, shape (POINTS,), never falling."""
        return np.maximum.accumulate(self.true[name])

    def shown(self, i: int) -> dict[str, np.ndarray]:
        """The gaps in samples from point i, each (draws,)."""
        if i not in self.drawn:
            self.drawn[i] = self.statistic(self.pooled + self.steps[i] * self.direction + self.errors)
        return self.drawn[i]

    def at(self, name: str, gap: float) -> np.ndarray:
        """Samples from the point whose gap is `gap`, beyond the line's end by extrapolation."""
        gaps = self.gaps(name)
        if gap > gaps[-1] > 0:
            step = gap / gaps[-1] * self.steps[-1]
        else:
            step = float(np.interp(gap, gaps, self.steps))
        return self.statistic(self.pooled + step * self.direction + self.errors)[name]

    def median_unbiased(self, name: str, observed: float) -> float:
        """The gap under which the observed one is the median draw; 0 when chance alone exceeds it."""
        gaps = self.gaps(name)
        found = crossing(lambda i: float(np.median(self.shown(i)[name])), observed, gaps)
        return float(gaps[-1]) if found is None else found


def _split(total: float, difference: float) -> tuple[float, float]:
    """Two gaps >= 0 with this sum and difference b - a; the difference wins where both cannot be."""
    a, b = (total - difference) / 2, (total + difference) / 2
    if a < 0:
        return 0.0, difference
    if b < 0:
        return -difference, 0.0
    return a, b
