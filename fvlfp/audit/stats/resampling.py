"""Intervals and tests of gaps, drawn from the contingency counts instead of the rows.

A gap is a maximum minus a minimum, so it is biased upwards: seven groups with equal rates still
show a gap, and a plain bootstrap, which adds noise to noise, never covers zero. Two answers here:

*Permutation null* (`null`). Shuffling the group labels of the rows gives multivariate
hypergeometric counts, which are drawn directly: parity shuffles among all rows, odds among rows of
the same class. Its mean is the gap to expect by chance at this n; its tail is the p-value.

*Interval* (`invert`). Test inversion over binomial or multinomial counts: see ``inversion``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from fvlfp.audit.stats.inversion import DOUBT, POINTS, GapInference, high_limit, hypotheses, low_limit

Statistic = Callable[[np.ndarray], dict[str, np.ndarray]]

NORMAL = 1000  # variance of a binomial count from which a normal one takes its place (skewness < 0.03)
MANY = 2000  # cells from which drawing them together beats drawing each one fast
BUDGET = 2e8  # drawn counts per attribute; many groups get fewer draws, and are told so
CHUNK = 4e6  # drawn counts held at once


@dataclass(frozen=True)
class Family:
    """Counts that are drawn together, and the gaps that are computed from their frequencies.

    ``counts`` has shape (G, S, C): group, stratum, outcome; a gap is a function of the
    frequencies ``counts / counts.sum(-1)``. `statistic` maps (..., G, S, C) to named arrays (...);
    every one must grow with inequality. ``scale`` names the one that sets the line's length;
    ``across`` says how it joins the strata, see ``inversion.hypotheses``.
    """

    counts: np.ndarray
    statistic: Statistic
    scale: str
    across: str = ""

    @property
    def drawn(self) -> np.ndarray:
        """The counts as whole numbers, for drawing; weighted ones are not whole."""
        return np.rint(self.counts).astype(np.int64)

    def observed(self) -> dict[str, float]:
        """Name -> value on the counts themselves."""
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
        family.statistic(frequencies(_shuffled(family.drawn, size, rng)))
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
    observed = {k: v for k, v in family.observed().items() if np.isfinite(v)}
    scale = observed.get(family.scale, 0.0)
    near, far = (
        _Line(family, hypotheses(family.counts, scale, doubt, family.across), draws, rng)
        for doubt in (DOUBT, -DOUBT)
    )
    far.drawn[0] = near.at(0)  # both start at equality
    out = {}
    for name, x in observed.items():
        low, detectable = low_limit(x, near.gap(name), partial(near.sims, name), level)
        out[name] = low, high_limit(x, far.gap(name), partial(far.sims, name), level), detectable
    return out


class _Line:
    """Hypothetical truths (points, G, S, C); samples of each are drawn when first asked for."""

    def __init__(self, family: Family, points: np.ndarray, draws: int, rng: np.random.Generator):
        self.family, self.points, self.draws, self.rng = family, points, draws, rng
        self.true = family.statistic(points)
        self.drawn: dict[int, dict[str, np.ndarray]] = {}

    def gap(self, name: str) -> np.ndarray:
        """The true gap of every point, shape (points,), never falling."""
        return np.maximum.accumulate(np.nan_to_num(self.true[name]))

    def at(self, i: int) -> dict[str, np.ndarray]:
        """The sorted gaps in samples from point i, each (draws,)."""
        if i not in self.drawn:
            self.drawn[i] = _draw(self.family, self.points[i], self.draws, self.rng)
        return self.drawn[i]

    def sims(self, name: str, i: int) -> np.ndarray:
        return self.at(i)[name]


def _draw(family: Family, p: np.ndarray, draws: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The family's gaps in `draws` samples from outcome probabilities p (G, S, C), each sorted."""
    n = family.drawn.sum(-1)
    pieces = []
    for size in _chunks(draws, family.counts.size):
        if p.shape[-1] == 2:
            drawn = _binomial_rates(n, p[..., 1], size, rng)
        else:
            drawn = frequencies(rng.multinomial(n, p, size=(size, *n.shape)))
        pieces.append(family.statistic(drawn))
    return {k: np.sort(np.nan_to_num(np.concatenate([piece[k] for piece in pieces]))) for k in pieces[0]}


def _binomial_rates(n: np.ndarray, p: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Frequencies (draws, G, S, 2) of misses and hits; normal where no eye could tell it apart."""
    n, p, shape = n.ravel(), p.ravel(), n.shape
    variance = n * p * (1 - p)
    large = variance > NORMAL
    rate = np.full((len(n), draws), np.nan)
    sd = np.sqrt(variance[large]) / n[large]
    rate[large] = p[large, None] + sd[:, None] * rng.standard_normal((len(sd), draws))
    rest = np.flatnonzero(~large & (n > 0))
    if len(rest) > MANY or draws < 1000:
        rate[rest] = rng.binomial(n[rest, None], p[rest, None], (len(rest), draws)) / n[rest, None]
    else:
        for i in rest:
            rate[i] = _binomial(int(n[i]), p[i], draws, rng) / n[i]
    return np.stack([1 - rate.T, rate.T], axis=-1).reshape(draws, *shape, 2)


def _binomial(n: int, p: float, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Systematic binomial draws: as even over the distribution as they can be, in random order.

    Faster than independent ones, and quantiles of what is made of them vary less.
    """
    from scipy.special import bdtr  # late: a third of a second that reading a table does not need

    half = 7 * np.sqrt(n * p * (1 - p)) + 7
    k = np.arange(max(0, int(n * p - half)), min(n, int(n * p + half)) + 1)
    ends = np.floor(bdtr(k, n, p) * draws + rng.random()).astype(np.int64)
    ends[-1] = draws
    return rng.permutation(np.repeat(k, np.diff(np.minimum(ends, draws), prepend=0)))


def _chunks(draws: int, cells: int) -> list[int]:
    size = int(max(1, min(draws, CHUNK // max(cells, 1))))
    return [min(size, draws - start) for start in range(0, draws, size)]
