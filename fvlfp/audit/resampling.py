"""Intervals and tests of gaps, drawn from the contingency counts instead of the rows.

A gap is a maximum minus a minimum, so it is biased upwards: seven groups with equal rates still
show a gap, and a plain bootstrap, which adds noise to noise, never covers zero. Two answers here:

*Permutation null* (`null`). Shuffling the group labels of the rows gives multivariate
hypergeometric counts, which are drawn directly: parity shuffles among all rows, odds among rows of
the same class. Its mean is the gap to expect by chance at this n; its tail is the p-value.

*Interval by test inversion* (`invert`). A line of hypothetical truths runs from "all groups have
the pooled rate" (gap 0) through the observed pattern and beyond. At each point of it counts are
drawn (binomial or multinomial, every group's n fixed); a gap belongs to the interval when the
observed one is not extreme among its draws. The lower tail spends nothing at gap 0 and half of
alpha from the null's critical value on, so an interval leaves out 0 exactly when a one-sided test
rejects equality, and a zero gap is covered in `level` of all cases. Which groups are really the
outermost is uncertain too, so for the lower limit the others are moved up to `DOUBT` standard
errors towards the extremes (more chance inflation), for the upper limit away from them.

benchmarks/instrument.py measures how well both hold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtr

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]

DOUBT = 1.5  # standard errors; chosen by simulation, see benchmarks/instrument.py
POINTS = 16  # hypothetical truths between gap 0 and the far end; limits are interpolated
MANY = 2000  # counts from which half the points must do
POWER = 0.8
NORMAL = 1000  # variance of a binomial count from which a normal one takes its place (skewness < 0.03)
LOOKUP = 1 << 14  # a probability's resolution in fast binomial draws
BUDGET = 2e8  # drawn counts per attribute; many groups get fewer draws, and are told so
CHUNK = 4e6  # drawn counts held at once


@dataclass
class GapInference:
    """What resampling says about one gap. NaN means: could not be had."""

    low: float = np.nan
    high: float = np.nan
    p_value: float = np.nan
    expected_null: float = np.nan
    null_95: float = np.nan
    minimum_detectable: float = np.nan


@dataclass(frozen=True)
class Family:
    """Counts that are drawn together, and the gaps that are computed from their frequencies.

    ``counts`` has shape (G, S, C): group, stratum, outcome; a gap is a function of the
    frequencies ``counts / counts.sum(-1)``. `statistic` maps (..., G, S, C) to named arrays (...);
    every one must grow with inequality. ``scale`` names the one that sets the line's length.
    """

    counts: np.ndarray
    statistic: Statistic
    scale: str

    def observed(self) -> dict[str, float]:
        return {k: float(v) for k, v in self.statistic(frequencies(self.counts)).items()}


def frequencies(counts: np.ndarray) -> np.ndarray:
    """Counts (..., C) to frequencies, NaN for a stratum without examples."""
    n = counts.sum(-1, keepdims=True)
    out = np.full(counts.shape, np.nan)
    return np.divide(counts, n, out=out, where=n > 0)


def affordable(families: list[Family], draws: int) -> int:
    """Draws that stay within ``BUDGET``; equal to `draws` up to some hundreds of groups."""
    cells = sum(f.counts.shape[0] * f.counts.shape[1] * max(1, f.counts.shape[2] - 1) for f in families)
    return int(max(100, min(draws, BUDGET / (2 * POINTS * cells))))


def infer(
    family: Family, *, draws: int, rng: np.random.Generator, level: float = 0.95
) -> dict[str, GapInference]:
    """Interval, p-value, null expectation and smallest detectable gap of each gap in `family`."""
    observed = {k: v for k, v in family.observed().items() if np.isfinite(v)}
    out = {name: GapInference() for name in observed}
    if not observed:
        return out
    for name, values in null(family, draws=draws, rng=rng).items():
        if name in out:
            tail = int((values >= observed[name] - 1e-12).sum())
            out[name].p_value = (1 + tail) / (1 + len(values))  # Phipson and Smyth 2010
            out[name].expected_null = float(values.mean())
            out[name].null_95 = float(np.quantile(values, level))
    for name, (low, high, detectable) in invert(family, draws=draws, rng=rng, level=level).items():
        if name in out:
            out[name].low, out[name].high, out[name].minimum_detectable = low, high, detectable
    return out


def null(family: Family, *, draws: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The gaps under shuffled group labels, each of shape (draws,)."""
    pieces = [
        family.statistic(frequencies(_shuffled(family.counts, size, rng)))
        for size in _chunks(draws, family.counts.size)
    ]
    return {k: np.nan_to_num(np.concatenate([p[k] for p in pieces])) for k in pieces[0]}


def _shuffled(counts: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Multivariate hypergeometric counts (draws, G, S, C) with the margins of `counts`."""
    g, s, c = counts.shape
    out = np.zeros((draws, g, s, c), np.int64)
    left = np.broadcast_to(counts.sum(0), (draws, s, c)).copy()  # outcomes not yet handed out
    for i in range(g):
        need = np.broadcast_to(counts[i].sum(-1), (draws, s)).copy()
        rest = left.sum(-1)
        for j in range(c - 1):
            rest = rest - left[..., j]
            took = rng.hypergeometric(left[..., j], rest, need)
            out[:, i, :, j] = took
            need -= took
        out[:, i, :, c - 1] = need
        left -= out[:, i]
    return out


def invert(
    family: Family, *, draws: int, rng: np.random.Generator, level: float = 0.95
) -> dict[str, tuple[float, float, float]]:
    """Low and high limit of each gap and the gap found with 80 % power, by test inversion."""
    observed = family.observed()
    alpha = 1 - level
    out: dict[str, list[float]] = {k: [np.nan] * 3 for k in observed}
    for side, doubt in ((0, DOUBT), (1, -DOUBT)):
        line = hypotheses(family, doubt)
        true = family.statistic(line)
        drawn = [_draw(family, p, draws, rng) for p in line]
        for name, x in observed.items():
            if not np.isfinite(x):
                continue
            gap = np.maximum.accumulate(np.nan_to_num(true[name]))
            sims = np.nan_to_num(np.stack([d[name] for d in drawn]))  # (points, draws)
            sims.sort(axis=1)
            critical = _quantile(sims[0], level)
            spend = alpha / 2 * np.minimum(1, gap / critical if critical > 0 else np.ones_like(gap))
            if side == 0:
                edge = np.maximum.accumulate(
                    [_quantile(row, level + a) for row, a in zip(sims, spend, strict=True)]
                )
                low = 0.0 if edge[0] >= x - 1e-12 else float(np.interp(x, edge, gap))
                found = (sims > critical + 1e-12).mean(1)
                power = np.maximum.accumulate(found)
                out[name][0] = min(low, x)
                if power[-1] >= POWER:
                    out[name][2] = float(np.interp(POWER, power, gap))
            else:
                edge = np.maximum.accumulate(
                    [_quantile(row, a) if a > 0 else -1.0 for row, a in zip(sims, spend, strict=True)]
                )
                high = gap[-1] if edge[-1] <= x else float(np.interp(x, edge, gap))
                out[name][1] = max(float(high), x)
    return {k: (v[0], v[1], v[2]) for k, v in out.items()}


def hypotheses(family: Family, doubt: float) -> np.ndarray:
    """Outcome probabilities (points, G, S, C) from equality through the observed pattern outwards."""
    counts = family.counts.astype(float)
    n = counts.sum(-1, keepdims=True)
    total = counts.sum(0)
    pooled = (total + 0.5) / (total + 0.5).sum(-1, keepdims=True)
    # One pseudo-example at the pooled rate keeps a rate of 0 or 1 in a small group from being certain.
    smooth = (counts + pooled) / (n + 1)
    pattern = np.where(n > 0, _doubtful(smooth, n, doubt), pooled)
    weight = np.where(n > 0, n, 0) / np.maximum(n.sum(0), 1)
    direction = pattern - (weight * pattern).sum(0)
    direction = np.where(n > 0, direction, 0)
    flat = np.ptp(direction, axis=0).max() < 1e-9
    if flat:  # no pattern to follow: let the smallest group stand apart
        direction = _smallest_apart(n[..., 0], pooled)
    reach = np.ptp(direction, axis=0)  # (S, C)
    noise = np.sqrt(2 * pooled * (1 - pooled) / np.where(n > 0, n, np.inf).min(0))
    shown = family.observed()[family.scale]
    extent = shown if np.isfinite(shown) else 0.0
    end = min(1.0, extent + 5 * float(noise.max()))
    points = POINTS if counts.size <= MANY else POINTS // 2
    steps = np.linspace(0, 1, points) * end / max(reach.max(), 1e-12)
    line = np.clip(pooled + steps[:, None, None, None] * direction, 0, None)
    line = np.minimum(line, 1)
    return line / line.sum(-1, keepdims=True)


def _doubtful(p: np.ndarray, n: np.ndarray, doubt: float) -> np.ndarray:
    """Move all but the outermost groups `doubt` standard errors towards (or from) the extremes."""
    if doubt == 0 or len(p) < 3:
        return p
    se = np.sqrt(p * (1 - p) / np.maximum(n, 1))
    known = np.where(n > 0, p, np.nan)
    top, bottom = np.fmax.reduce(known, axis=0), np.fmin.reduce(known, axis=0)
    middle = (top + bottom) / 2
    if doubt > 0:
        up, down = np.minimum(top, p + doubt * se), np.maximum(bottom, p - doubt * se)
    else:
        up, down = np.maximum(middle, p + doubt * se), np.minimum(middle, p - doubt * se)
    moved = np.where(p >= middle, up, down)
    return np.where((p == top) | (p == bottom), p, moved)


def _smallest_apart(n: np.ndarray, pooled: np.ndarray) -> np.ndarray:
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


def _draw(family: Family, p: np.ndarray, draws: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The family's gaps in `draws` samples from outcome probabilities p (G, S, C)."""
    n = family.counts.sum(-1)
    pieces = []
    for size in _chunks(draws, family.counts.size):
        if p.shape[-1] == 2:
            drawn = _binomial_rates(n, p[..., 1], size, rng)
        else:
            drawn = frequencies(rng.multinomial(n, p, size=(size, *n.shape)))
        pieces.append(family.statistic(drawn))
    return {k: np.concatenate([piece[k] for piece in pieces]) for k in pieces[0]}


def _binomial_rates(n: np.ndarray, p: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Frequencies (draws, G, S, 2) of misses and hits; normal where no eye could tell it apart."""
    n, p, shape = n.ravel(), p.ravel(), n.shape
    variance = n * p * (1 - p)
    large = variance > NORMAL
    rate = np.full((len(n), draws), np.nan)
    sd = np.sqrt(variance[large]) / n[large]
    rate[large] = p[large, None] + sd[:, None] * rng.standard_normal((len(sd), draws))
    for i in np.flatnonzero(~large & (n > 0)) if draws >= 500 else []:
        rate[i] = _quantiles(int(n[i]), p[i])[rng.integers(0, LOOKUP, draws, np.uint16)] / n[i]
    if draws < 500:
        rest = ~large & (n > 0)
        rate[rest] = rng.binomial(n[rest, None], p[rest, None], (int(rest.sum()), draws)) / n[rest, None]
    return np.stack([1 - rate.T, rate.T], axis=-1).reshape(draws, *shape, 2)


def _quantiles(n: int, p: float) -> np.ndarray:
    """Binomial counts at ``LOOKUP`` evenly spaced probabilities; picking one is a fast draw."""
    half = 7 * np.sqrt(n * p * (1 - p)) + 7
    k = np.arange(max(0, int(n * p - half)), min(n, int(n * p + half)) + 1)
    ends = np.ceil(bdtr(k, n, p) * LOOKUP - 0.5).astype(np.int64)
    ends[-1] = LOOKUP
    return np.repeat(k, np.diff(ends, prepend=0))


def _chunks(draws: int, cells: int) -> list[int]:
    size = int(max(1, min(draws, CHUNK // max(cells, 1))))
    return [min(size, draws - start) for start in range(0, draws, size)]


def _quantile(ordered: np.ndarray, q: float) -> float:
    """Quantile of sorted draws, linear between order statistics."""
    place = min(max(q, 0.0), 1.0) * (len(ordered) - 1)
    i = int(place)
    j = min(i + 1, len(ordered) - 1)
    return float(ordered[i] + (place - i) * (ordered[j] - ordered[i]))
