"""FedPGP (Cui et al., ICML 2024): a shared prompt, and for each client a correction of low rank.

Client k uses `p_k = p + U_k V_k`; only p travels. A contrastive term keeps the shared prompt close to the
frozen model's knowledge and the correction different from the shared prompt. What this module does not do:
it trains nothing and knows no client.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def personal_prompt(shared: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """`p + U V`, of p's shape. shared: p (..., n_ctx, width); down: U (..., n_ctx, b); up: V (..., b, width).

    The rank b is far below n_ctx and width; V = 0 gives the shared prompt.
    """
    return shared + down @ up


def contrast(frozen: Tensor, shared: Tensor, personal: Tensor, *, temperature: float) -> Tensor:
    """`-log e^{a/t} / (e^{a/t} + e^{b/t})` (...,), mean over classes.

    `a = cos(shared, frozen)` is pulled up and `b = cos(shared, personal)` pushed down. All are (..., C, d):
    text embeddings of the classes under the hand-written prompt, the shared and the personal one.
    """
    a = F.cosine_similarity(shared, frozen, dim=-1)
    b = F.cosine_similarity(shared, personal, dim=-1)
    return F.softplus((b - a) / temperature).mean(-1)
