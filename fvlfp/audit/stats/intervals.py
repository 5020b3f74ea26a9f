"""Closed-form intervals for rates and differences, and Holm's correction.

All functions broadcast over arrays and give NaN where a count is 0: undefined stays undefined.
What this module does not do: intervals of a gap over many groups (see ``resampling``).
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fvlfp.metrics import divide


def z_score(level: float) -> float:
    """Two-sided normal quantile, 1.96 at level 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)


def wilson(k: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Interval in [0, 1] of a rate k / n (Wilson 1927, without continuity correction)."""
    k, n = np.asarray(k, float), np.asarray(n, float)
    z2 = z_score(level) ** 2
    centre = divide(k + z2 / 2, np.where(n > 0, n + z2, 0))
    inner = np.maximum(divide(k * (n - k), n) + z2 / 4, 0)
    half = divide(np.sqrt(z2) * np.sqrt(inner), np.where(n > 0, n + z2, 0))
    low = np.where(k == 0, 0 * centre, centre - half)  # exact at the edges, NaN kept
    high = np.where(k == n, 1 + 0 * centre, centre + half)
    return np.clip(low, 0, 1), np.clip(high, 0, 1)


def newcombe(
    k1: ArrayLike, n1: ArrayLike, k2: ArrayLike, n2: ArrayLike, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the difference k1/n1 - k2/n2 of two independent rates, in [-1, 1].

    Hybrid score interval (Newcombe 1998, method 10): each side joins two Wilson distances.
    """
    p1, p2 = divide(k1, n1), divide(k2, n2)
    l1, u1 = wilson(k1, n1, level)
    l2, u2 = wilson(k2, n2, level)
    d = p1 - p2
    return d - np.hypot(p1 - l1, u2 - p2), d + np.hypot(u1 - p1, p2 - l2)


def mean_of_rates(k: np.ndarray, n: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Value, low, high of the mean of independent rates k / n over the defined ones (MOVER).

    The distances of the Wilson limits are joined as in Newcombe's interval (Zou and Donner 2008).
    """
    keep = np.asarray(n) > 0
    if not keep.any():
        return np.nan, np.nan, np.nan
    k, n = np.asarray(k)[keep], np.asarray(n)[keep]
    p, (low, high) = k / n, wilson(k, n, level)
    value, m = float(p.mean()), len(p)
    down, up = np.sqrt(((p - low) ** 2).sum()) / m, np.sqrt(((high - p) ** 2).sum()) / m
    return value, float(max(value - down, 0)), float(min(value + up, 1))


def smallest_rate(k: np.ndarray, n: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Value, low, high of the smallest of several independent rates; conservative.

    Low: the smallest Wilson limit (the true minimum lies below its own limit at most alpha/2 of the
    time). High: the smallest upper limit at Sidak's level, because any of them may be the one that
    errs.
    """
    keep = np.asarray(n) > 0
    if not keep.any():
        return np.nan, np.nan, np.nan
    k, n = np.asarray(k)[keep], np.asarray(n)[keep]
    sidak = 1 - 2 * (1 - (1 - (1 - level) / 2) ** (1 / len(k)))
    low, high = wilson(k, n, level)[0].min(), wilson(k, n, sidak)[1].min()
    return float((k / n).min()), float(low), float(high)


def holm(p_values: Mapping[Any, float]) -> dict[Any, float]:
    """Holm's (1979) adjusted p-values over one family of tests, under the same keys."""
    keys = sorted(p_values, key=lambda key: p_values[key])
    adjusted, running = {}, 0.0
    for i, key in enumerate(keys):
        running = max(running, min(1.0, (len(keys) - i) * p_values[key]))
        adjusted[key] = running
    return {key: adjusted[key] for key in p_values}
