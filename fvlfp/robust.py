"""Sums over clients that a few liars cannot move far: caps, weighted medians, weighted trimmed means.

K clients are the first axis everywhere. Every function takes weights, because clients differ in size, and a
client without a value has the weight 0. `trim` values are dropped at each end, by number and not by weight:
a liar's weight is its own claim.

What this module does not do: it knows no message and refuses nobody (`fvlfp.federation.trust`). With as many
liars as honest clients no such rule helps.
"""

from __future__ import annotations

import numpy as np


def capped(sizes: np.ndarray, times: float) -> np.ndarray:
    """Sizes (K,) or (K, ...), none above `times` the median of the positive ones along the first axis.

    >>> capped(np.array([10.0, 20.0, 30.0, 9000.0]), 3.0).tolist()
    [10.0, 20.0, 30.0, 75.0]
    """
    known = np.where(sizes > 0, sizes, np.nan)
    there = np.isfinite(known).any(0)
    middle = np.nanmedian(np.where(there, known, 0.0), axis=0)
    return np.minimum(sizes, np.where(there, times * middle, np.inf))


def weighted_median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The weighted median over the first axis; NaN where all weights are 0.

    values, weights: (K, ...), the second >= 0. It is the smallest value at which half of the weight is
    reached; where exactly half is reached, the mean with the next value, as for the plain median.

    >>> weighted_median(np.array([0.0, 0.8, 0.9]), np.array([1.0, 1.0, 1.0])).item()
    0.8
    """
    values, weights = np.broadcast_arrays(values, weights)
    weights = np.where(np.isfinite(values), weights, 0.0)
    order = np.argsort(np.where(weights > 0, values, np.inf), axis=0, kind="stable")
    v, w = np.take_along_axis(values, order, 0), np.take_along_axis(weights, order, 0)
    reached, half = np.cumsum(w, 0), w.sum(0) / 2
    slack = half * 1e-12
    low = (reached >= half - slack).argmax(0)
    high = (reached > half + slack).argmax(0)
    middle = (np.take_along_axis(v, low[None], 0) + np.take_along_axis(v, high[None], 0))[0] / 2
    return np.where(half > 0, middle, np.nan)


def trimmed_mean(values: np.ndarray, weights: np.ndarray, trim: int) -> np.ndarray:
    """The weighted mean over the first axis without the `trim` smallest and largest values of each number.

    values, weights: (K, ...), the second >= 0; NaN where all weights are 0. Of m values with a weight, at
    most (m - 1) // 2 are dropped at each end, so that one is left. `trim` = 0 is the weighted mean. Yin et
    al. 2018, with weights.

    >>> trimmed_mean(np.array([1.0, 2.0, 4.0, 99.0]), np.array([1.0, 3.0, 1.0, 5.0]), 1).item()
    2.5
    """
    values, weights = np.broadcast_arrays(values, weights)
    there = weights > 0
    order = np.argsort(np.where(there, values, np.inf), axis=0, kind="stable")
    v, w = np.take_along_axis(values, order, 0), np.take_along_axis(weights, order, 0)
    m = there.sum(0)
    cut = np.minimum(trim, np.maximum(m - 1, 0) // 2)
    rank = np.arange(len(values)).reshape(-1, *[1] * (values.ndim - 1))
    w = np.where((rank >= cut) & (rank < m - cut), w, 0.0)
    total = w.sum(0)
    return np.where(total > 0, (w * np.where(w > 0, v, 0.0)).sum(0) / np.where(total > 0, total, 1.0), np.nan)
