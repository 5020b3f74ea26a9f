"""Published terms and row weights of a local loss.

- `proximal`: FedProx (Li et al., MLSys 2020), eq. 2;
- `uniform_loss`: the fairness term of FF-DVP (Zeng et al., Findings of ACL 2024), read for text prompts;
- `cell_weights`: reweighing (Kamiran and Calders 2012), so that every class-by-group cell counts equally.

What this module does not do: it trains nothing and knows no client.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def proximal(params: Tensor, start: Tensor) -> Tensor:
    """`1/2 |P - P_t|^2` (...,): how far clients moved from the prompts (..., L, n_ctx, width) they got."""
    return 0.5 * (params - start).square().sum((-3, -2, -1))


def uniform_loss(z: Tensor, group_texts: Tensor, scale: float, *, weight: Tensor | None = None) -> Tensor:
    """`KL(uniform || softmax_g(s z E^T))`, mean over images: none should look more like one group's words.

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
