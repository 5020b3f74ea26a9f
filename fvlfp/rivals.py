"""Published ways to train and to fuse, as small as their ideas: what our components are measured against.

- `proximal`: FedProx (Li et al., MLSys 2020), eq. 2;
- `uniform_loss`: the fairness term of FF-DVP (Zeng et al., Findings of ACL 2024), read for text prompts;
- `cell_weights`: reweighing (Kamiran and Calders 2012), so that every class-by-group cell counts equally;
- `fairfed_weights`: FairFed (Ezzeldin et al., AAAI 2023), eq. 6.

q-FedAvg is in `fvlfp.federation.rules`, FedCLIP in `fvlfp.training.adapter`. What this module does not do:
it trains nothing and knows no client.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def proximal(params: Tensor, start: Tensor) -> Tensor:
    """`1/2 |P - P_t|^2` (...,): how far clients moved from the prompts (..., L, n_ctx, width) they got."""
    return 0.5 * (params - start).square().sum((-3, -2, -1))


def uniform_loss(z: Tensor, group_texts: Tensor, scale: float, *, weight: Tensor | None = None) -> Tensor:
    """`KL(uniform || softmax_g(s z E^T))`, mean over images: no image should look more like one group's
    words.

    z: (n, d) unit rows; group_texts: E (G, d) unit rows, said with the prompts in training. FF-DVP trains
    *image* prompts this way; where the image tower is frozen only the words can give way. No group label.
    weight: (n,) of each row in the mean; None is 1.
    """
    logp = F.log_softmax(scale * z @ group_texts.T, -1)
    each = -logp.mean(-1) - math.log(len(group_texts))
    return each.mean() if weight is None else (each * weight).sum() / weight.sum()


def cell_weights(y: Tensor, groups: Iterable[Tensor]) -> Tensor:
    """(n,) weights, mean 1, with which every non-empty cell of class by groups has the same sum.

    y: (n,) classes; groups: (n,) perceived groups of each attribute; several attributes are crossed.
    """
    cells = torch.stack([y, *groups], 1).unique(dim=0, return_inverse=True)[1]
    counts = torch.bincount(cells)
    return len(y) / (len(counts) * counts[cells].float())


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
    """d_k of one client from counts (C, C, G), one array an attribute: the largest |F - F_k| over both's
    signed gaps; where the client's gaps are all undefined, the difference in accuracy instead (as published).
    """
    pairs = zip(own, everybody, strict=True)
    gaps = [np.abs(_signed(a, min_cell) - _signed(b, min_cell)) for a, b in pairs]
    known = np.concatenate([gap[np.isfinite(gap)] for gap in gaps])
    if len(known):
        return float(known.max())
    accuracy = [np.trace(c[0].sum(2)) / max(c[0].sum(), 1) for c in (own, everybody)]
    return float(abs(accuracy[0] - accuracy[1]))


def _signed(counts: np.ndarray, min_cell: int) -> np.ndarray:
    """recall[c, g] - recall[c, g'] for g < g', (C, pairs); NaN where a cell has fewer than `min_cell`.

    For two classes and two groups the entry of class 1 is FairFed's F, Pr(yhat=1 | g, y=1) - Pr(.. | g', ..).
    """
    totals = counts.sum(1).astype(float)
    totals[totals < max(min_cell, 1)] = np.nan
    recall = np.einsum("ccg->cg", counts) / totals
    first, second = np.triu_indices(counts.shape[2], 1)
    return recall[:, first] - recall[:, second]
