"""Intervals of a *change* between two models judged on the same rows.

Everything is drawn from the joint counts ``[group, stratum, outcome of a, outcome of b]``, which
keep the pairing: rows on which both models agree add no noise to the change.

The change of a gap is a difference of two maxima, and the smaller gap is inflated more by chance
than the larger one. So a plain bootstrap is off; again hypothetical truths are tried instead
(`change`): both gaps keep their estimated sum while their difference runs through a grid, multinomial
residuals of the joint counts are added, and a difference belongs to the interval when the observed
one is not extreme among its draws. benchmarks/instrument.py measures the coverage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fvlfp.audit.intervals import z_score
from fvlfp.audit.inversion import doubtful, smallest_apart, stretch
from fvlfp.audit.resampling import Family, frequencies

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


def change(
    joint: np.ndarray, family: Family, *, draws: int, rng: np.random.Generator, level: float = 0.95
) -> dict[str, Change]:
    """Change of each of the family's gaps; `joint` has shape (G, S, C, C) and pairs both models."""
    a, b = joint.sum(-1), joint.sum(-2)
    va, vb = (family.statistic(frequencies(x)) for x in (a, b))
    out = {k: Change(float(va[k]), float(vb[k])) for k in va if "ratio" not in k}
    ea, eb = residuals(joint, draws, rng)
    for side, doubt in ((0, DOUBT), (1, -DOUBT)):
        line_a, line_b = _Line(a, -doubt, family.across), _Line(b, doubt, family.across)
        spread_a, spread_b = line_a.gaps(family), line_b.gaps(family)
        sims_a = [family.statistic(p + ea) for p in line_a.centres]
        sims_b = [family.statistic(p + eb) for p in line_b.centres]
        for name, got in out.items():
            if not (np.isfinite(got.a) and np.isfinite(got.b)):
                continue
            ga, gb = spread_a[name], spread_b[name]
            middle_a = _median_unbiased(got.a, ga, [np.median(s[name]) for s in sims_a])
            middle_b = _median_unbiased(got.b, gb, [np.median(s[name]) for s in sims_b])
            observed, total = got.b - got.a, middle_a + middle_b
            noise = 5 * float(np.std(sims_b[0][name] - sims_a[0][name])) + 1e-9
            ends = sorted([observed, middle_b - middle_a])
            grid = np.linspace(ends[0] - noise, ends[1] + noise, POINTS)
            grid = np.unique(np.append(grid, 0.0))
            drawn = [
                family.statistic(line_b.at(gb, y) + eb)[name] - family.statistic(line_a.at(ga, x) + ea)[name]
                for x, y in (_split(total, d) for d in grid)
            ]
            tail = (1 - level) / 2
            edge = [np.quantile(d, 1 - tail if side == 0 else tail) for d in drawn]
            limit = float(np.interp(observed, np.maximum.accumulate(edge), grid))
            zero = drawn[int(np.searchsorted(grid, 0.0))]
            beyond = zero >= observed - 1e-12 if side == 0 else zero <= observed + 1e-12
            p = (1 + int(beyond.sum())) / (1 + len(zero))
            if side == 0:
                got.low, got.p_value = min(limit, observed), min(1.0, 2 * p)
            else:
                got.high, got.p_value = max(limit, observed), min(got.p_value, 2 * p)
    return out


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
    drawn = rng.multinomial(n, smooth, size=(draws, g, s)).reshape(draws, g, s, c, c)
    size = np.where(n > 0, n, np.nan)[..., None]
    centre = smooth.reshape(g, s, c, c)
    return drawn.sum(-1) / size - centre.sum(-1), drawn.sum(-2) / size - centre.sum(-2)


def rate_change(joint: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Change of one paired rate with its interval, from counts [[00, 01], [10, 11]] of hits.

    Bonett and Price (2012): the adjusted Wald interval of a difference of paired proportions.
    """
    n = int(joint.sum())
    if not n:
        return np.nan, np.nan, np.nan
    gained, lost = int(joint[0, 1]), int(joint[1, 0])
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
    """Hypothetical truths of one model: from equal groups through its pattern outwards."""

    def __init__(self, counts: np.ndarray, doubt: float, across: str):
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
        if across:
            direction = direction * stretch(
                np.ptp(direction, axis=0), noise, (doubt > 0) == (across == "max")
            )
        self.direction = direction / np.ptp(direction, axis=0).max()
        shown = np.ptp(smooth, axis=0).max()
        self.steps = np.linspace(0, min(1.0, shown + 5 * noise.max()), POINTS)
        self.centres = [self.pooled + t * self.direction for t in self.steps]

    def gaps(self, family: Family) -> dict[str, np.ndarray]:
        """The true gaps along the line, each (POINTS,) and never falling."""
        found = [family.statistic(p) for p in self.centres]
        return {k: np.maximum.accumulate([float(f[k]) for f in found]) for k in found[0]}

    def at(self, gaps: np.ndarray, gap: float) -> np.ndarray:
        """The point of the line whose gap is `gap`, beyond its end by extrapolation."""
        if gap > gaps[-1] > 0:
            return self.pooled + gap / gaps[-1] * self.direction
        return self.pooled + float(np.interp(gap, gaps, self.steps)) * self.direction


def _median_unbiased(observed: float, gaps: np.ndarray, medians: list[float]) -> float:
    """The gap under which the observed one is the median draw; 0 when chance alone exceeds it."""
    rising = np.maximum.accumulate(medians)
    return float(gaps[0]) if rising[0] >= observed else float(np.interp(observed, rising, gaps))


def _split(total: float, difference: float) -> tuple[float, float]:
    """Two gaps >= 0 with this sum and difference b - a; the difference wins where both cannot be."""
    a, b = (total - difference) / 2, (total + difference) / 2
    if a < 0:
        return 0.0, difference
    if b < 0:
        return -difference, 0.0
    return a, b
