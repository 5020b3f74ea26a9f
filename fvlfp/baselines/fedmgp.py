"""FedMGP (Bo et al., NeurIPS 2025, arXiv 2511.00480): clients keep several groups of prompts and send some.

Which ones is drawn: groups that resemble the shared prompts of the last round are drawn more often, so that
common knowledge is fused and the rest stays with the client. What this module does not do: it trains nothing
and averages nothing.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def similarity(own: Tensor, shared: Tensor) -> Tensor:
    """(m,): of each of a client's m prompts, the largest cosine with one of the k shared prompts.

    own: (m, ...), shared: (k, ...); each prompt counts as one long vector.
    """
    a, b = (F.normalize(p.reshape(len(p), -1), dim=-1) for p in (own, shared))
    return (a @ b.T).max(1).values


def draw(similarities: Tensor, k: int, *, temperature: float, rng: np.random.Generator) -> list[int]:
    """k different prompts, drawn one after another by `softmax(similarity / temperature)` of those left."""
    share = (similarities / temperature).softmax(0).cpu().double().numpy()
    k = min(k, len(share))
    return [int(i) for i in rng.choice(len(share), size=k, replace=False, p=share / share.sum())]


def alike(texts: Tensor) -> Tensor:
    """Mean cosine over pairs of prompts and classes (...,): the diversity term, to be made small.

    texts: (..., m, C, d), text embeddings of C classes under m >= 2 prompts.
    """
    z = F.normalize(texts, dim=-1)
    cosine = torch.einsum("...mcd,...ncd->...cmn", z, z)
    n_classes, m, _ = cosine.shape[-3:]
    pairs = cosine.sum((-3, -2, -1)) - cosine.diagonal(dim1=-2, dim2=-1).sum((-2, -1))
    return pairs / (n_classes * m * (m - 1))
