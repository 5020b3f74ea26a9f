"""FedCLIP's adapter (Lu et al. 2023): a small attention on the image embedding, trained instead of prompts.

`z' = normalise(softmax(W2 tanh(W1 z + b1) + b2) * z)`; the class texts stay the frozen ones.

What this module does not do: it trains nothing, see `fvlfp.training.adapter`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def adapt(z: Tensor, adapter: Tensor) -> Tensor:
    """z (n, d) unit rows -> (n, d) unit rows. adapter: A (2, d, d + 1), [W1 | b1] and [W2 | b2]."""
    (w1, b1), (w2, b2) = ((layer[:, :-1], layer[:, -1]) for layer in adapter)
    attention = F.softmax(torch.tanh(z @ w1.T + b1) @ w2.T + b2, -1)  # (n, d)
    return F.normalize(attention * z, dim=-1)
