"""FPF judged by peers: client weights from what *other* clients' validation rows say of everybody's prompts.

Judge j says, for each candidate k (a client's new prompts) and each cell (class c, perceived group g), how
many of its rows are right. `recalls` adds the judges up to R (K, C, G); nobody judges itself. From R come

- `a_k`, the cell accuracy: the mean of R[k]; and
- `b_k`, the signed gaps: R[k, c, g] - mean_g R[k, c, :]. Gaps of opposite sign cancel in a sum of prompts.

`balanced_weights` is the convex programme

    min_w |sum_k w_k b_k|^2   such that   sum_k w_k a_k >= floor,   KL(w | p) <= log(1 / share),

p_k = n_k / sum n. Its solution has FPF's own form, `w_k ∝ n_k exp(beta a_k - v . b_k)`: the programme finds
beta and v, which FPF has as constants. `share` bounds how far the effective number of clients falls.
METHOD.md: FPF judged by peers; all of it is our reading of "dynamic weights from performance and fairness".

What this module does not do: recalls are not linear in the prompts, so the programme is a guess that must be
tried: fuse, let peers judge the result, take it only if it is good (`choose`). It is plain arithmetic and
knows neither torch nor Flower.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp

from fvlfp.robust import capped, trimmed_mean, weighted_median

#: No judge's cell counts for more than this many times the median judge's. With 1, liars who are fewer than
#: half of the judges hold less than half of the weight, whatever numbers of rows they claim.
JUDGE_CAP = 1.0

#: No client's size counts for more than this many times the median client's.
SIZE_CAP = 2.0

#: A client whose prompts are judged this much less accurate than the median client's counts for nothing.
GATE = 0.1


def recalls(
    right: np.ndarray, total: np.ndarray, *, nobody: np.ndarray | None = None, liars: int = 0
) -> np.ndarray:
    """R (A, C, G): recall of each candidate in each cell, over all judges; NaN where too few judges hold it.

    right: (J, A, C, G) rows that judge j finds right; total: (J, C, G) its rows. nobody: (J, A) bool, True
    where judge j may not judge candidate a, its own. A judge's weight is capped at `JUDGE_CAP` times the
    median judge's. liars: 0 is the weighted median over judges; else the trimmed mean without the `liars`
    largest and smallest, and a cell that 2 * liars judges or fewer hold is unknown: where clients differ,
    rare cells have few honest judges, liars claim them all, and nobody can tell who lies.
    """
    allowed = np.ones(right.shape[:2], bool) if nobody is None else ~nobody
    each = right / np.where(total > 0, total, 1)[:, None]
    weight = capped(total.astype(float), JUDGE_CAP)[:, None] * allowed[:, :, None, None]
    if not liars:
        return weighted_median(each, weight)
    return np.where((weight > 0).sum(0) > 2 * liars, trimmed_mean(each, weight, liars), np.nan)


@dataclass(frozen=True)
class Judgement:
    """What peers say of A candidates. tables: for each attribute R (A, C, G), NaN where unknown."""

    tables: Sequence[np.ndarray]

    def filled(self) -> Judgement:
        """A cell that only a candidate's own client holds gets the mean of the other candidates there."""
        out = []
        for table in self.tables:
            known = np.isfinite(table)
            mean = np.where(known, table, 0.0).sum(0) / np.maximum(known.sum(0), 1)
            out.append(np.where(known | ~known.any(0), table, mean))
        return Judgement(out)

    @property
    def accuracy(self) -> np.ndarray:
        """a (A,): the mean over the cells that every candidate has.

        NaN where a class has none: without it, whoever always says another class would be right throughout.
        """
        parts = self._by_class()
        if not all(part.size for part in parts):
            return np.full(len(self.tables[0]), np.nan)
        return np.asarray(np.concatenate(parts, axis=1).mean(1))

    @property
    def gap(self) -> np.ndarray:
        """(A,): the largest difference of recall between two groups of a class; NaN where undefined."""
        parts = [part for part in self._by_class() if part.shape[1] >= 2]
        if not parts:
            return np.full(len(self.tables[0]), np.nan)
        return np.asarray(np.max([part.max(1) - part.min(1) for part in parts], axis=0))

    @property
    def signed(self) -> np.ndarray:
        """s (A, M): recall less the mean over the groups of its class and attribute."""
        parts = [part - part.mean(1, keepdims=True) for part in self._by_class() if part.size]
        return np.concatenate(parts, axis=1) if parts else np.zeros((len(self.tables[0]), 0))

    def _by_class(self) -> list[np.ndarray]:
        """(A, groups) of every attribute and class: the groups that every candidate has."""
        return [
            table[:, c, np.isfinite(table[:, c]).all(0)]
            for table in self.tables
            for c in range(table.shape[1])
        ]

    def of(self, rows: np.ndarray) -> Judgement:
        """Of some candidates only."""
        return Judgement([table[rows] for table in self.tables])


def peer_weights(sizes: np.ndarray, judged: Judgement, *, share: float, tolerance: float) -> np.ndarray:
    """w (K,), summing to 1: `balanced_weights` behind two guards. sizes: (K,) rows that clients claim.

    No client's size counts for more than `SIZE_CAP` times the median's, and a client whose prompts are more
    than `GATE` less accurate than the median client's counts for nothing. The floor on accuracy is
    `tolerance` below that of the remaining sizes, or of the median client, whichever is higher.
    """
    p = capped(np.asarray(sizes, float), SIZE_CAP)
    judged = judged.filled()
    accuracy = judged.accuracy
    if not np.isfinite(accuracy).all():
        return p / p.sum()
    middle = float(np.median(accuracy))
    keep = accuracy >= middle - GATE
    w = np.zeros(len(p))
    floor = max(float(accuracy[keep] @ p[keep]) / p[keep].sum(), middle) - tolerance
    w[keep] = balanced_weights(p[keep], judged.of(keep), share=share, floor=floor)
    return w


def balanced_weights(sizes: np.ndarray, judged: Judgement, *, share: float, floor: float) -> np.ndarray:
    """w (K,), summing to 1: the convex programme above.

    sizes: (K,) > 0. judged: of the K clients' prompts. share: in (0, 1]; 1 returns the sizes' shares exactly.
    floor: of the mean cell accuracy sum_k w_k a_k.

    Two equal clients that err in opposite directions keep their weights; of three, two of which err the same
    way, the third gains:

    >>> lean = np.array([[[0.9, 0.7]], [[0.7, 0.9]], [[0.7, 0.9]]])
    >>> balanced_weights(np.ones(2), Judgement([lean[:2]]), share=0.5, floor=0.0).round(2).tolist()
    [0.5, 0.5]
    >>> balanced_weights(np.ones(3), Judgement([lean]), share=0.5, floor=0.0).round(2).tolist()
    [0.5, 0.25, 0.25]
    """
    p = np.asarray(sizes, float) / np.sum(sizes)
    gaps, accuracy = judged.signed, judged.accuracy
    if share >= 1 or not gaps.size or not np.isfinite(accuracy).all():
        return p
    low, high = 1e-6, 10.0  # temperatures r of the Lagrangian |.|^2 + r KL: KL falls as r rises
    w = _tempered(p, gaps, accuracy, low, floor)
    if divergence(w, p) <= -np.log(share):
        return w
    for _ in range(30):
        middle = np.sqrt(low * high)
        w = _tempered(p, gaps, accuracy, middle, floor)
        low, high = (middle, high) if divergence(w, p) > -np.log(share) else (low, middle)
    return _tempered(p, gaps, accuracy, high, floor)


def divergence(w: np.ndarray, p: np.ndarray) -> float:
    """KL(w | p), in nats. exp(-KL) is the share of clients that still count, 1 where w = p."""
    there = w > 0
    return float((w[there] * np.log(w[there] / p[there])).sum())


def _tempered(p: np.ndarray, gaps: np.ndarray, accuracy: np.ndarray, r: float, floor: float) -> np.ndarray:
    """argmin |w b|^2 + r KL(w | p) with w a >= floor, through its dual: smooth, of as many numbers as cells.

    With v in R^M and beta >= 0, w_k ∝ p_k exp((beta a_k - v . b_k) / r); the dual is
    |v|^2 / 4 + r log sum_k p_k exp(...) - beta floor, to be minimised.
    """
    logp, ahead = np.log(p), accuracy - floor

    def dual(x: np.ndarray) -> tuple[float, np.ndarray]:
        v, beta = x[:-1], x[-1]
        exponent = logp + (beta * ahead - gaps @ v) / r
        level = logsumexp(exponent)
        w = np.exp(exponent - level)
        return float(v @ v / 4 + r * level), np.append(v / 2 - gaps.T @ w, ahead @ w)

    start = np.zeros(gaps.shape[1] + 1)
    bounds = [(None, None)] * gaps.shape[1] + [(0.0, 100.0)]
    from scipy.optimize import minimize  # takes a second, and most runs ask no peers

    found = minimize(
        dual, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-9}
    )
    exponent = logp + (found.x[-1] * ahead - gaps @ found.x[:-1]) / r
    return np.exp(exponent - logsumexp(exponent))


def choose(judged: Judgement, *, tolerance: float) -> int:
    """Which fused alternative to take: the smallest judged gap within `tolerance` of the best accuracy.

    The first wins a tie, and is taken where nothing is known. Compared with the *best* alternative, not with
    the first: the first may be what a liar has ruined.
    """
    accuracy, gap = judged.accuracy, judged.gap
    if not (np.isfinite(accuracy).all() and np.isfinite(gap).all()):
        return 0
    fit = accuracy >= accuracy.max() - tolerance
    return int(np.where(fit, gap, np.inf).argmin())
