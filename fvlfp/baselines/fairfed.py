"""FairFed (Ezzeldin et al., AAAI 2023), eq. 6: a client counts less the further its gap is from the average.

What this module does not do: it cannot check what a client reports.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fvlfp.metrics import recalls


def fairfed_weights(previous: Sequence[float], distances: Sequence[float], *, beta: float) -> list[float]:
    """`w_k <- w_k - beta (d_k - mean d)`, cut off at 0, normalised.

    previous: last round's weights, which sum to 1 (n_k / sum n in the first). distances: d_k, how far client
    k's gap is from everybody's, |F - F_k|. If all weights would be 0 the previous ones stay.
    """
    mean = sum(distances) / len(distances)
    moved = [max(0.0, w - beta * (d - mean)) for w, d in zip(previous, distances, strict=True)]
    total = sum(moved)
    return [w / total for w in moved] if total > 0 else list(previous)


def fairfed_distance(
    own: Sequence[np.ndarray], everybody: Sequence[np.ndarray], *, min_cell: int = 1
) -> float:
    """d_k of one client: the largest |F - F_k| over both's signed gaps.

    own, everybody: counts (G, C, C), one table for each attribute. Where the client's gaps are all undefined,
    the difference in accuracy instead, as published.
    """
    pairs = zip(own, everybody, strict=True)
    gaps = [np.abs(_signed(a, min_cell) - _signed(b, min_cell)) for a, b in pairs]
    known = np.concatenate([gap[np.isfinite(gap)] for gap in gaps])
    if len(known):
        return float(known.max())
    accuracy = [np.trace(c[0].sum(0)) / max(c[0].sum(), 1) for c in (own, everybody)]
    return float(abs(accuracy[0] - accuracy[1]))


def _signed(counts: np.ndarray, min_cell: int) -> np.ndarray:
    """recall[g, c] - recall[g', c] for g < g', (pairs, C); NaN where a cell has fewer than `min_cell`.

    For two classes and two groups the entry of class 1 is FairFed's F, Pr(yhat=1 | g, y=1) - Pr(.. | g', ..).
    """
    recall = recalls(counts, min_cell=min_cell)
    first, second = np.triu_indices(len(counts), 1)
    return recall[first] - recall[second]
