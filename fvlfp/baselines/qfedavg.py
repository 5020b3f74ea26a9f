"""q-FedAvg (Li et al., ICLR 2020): clients count by their loss to the power q.

With F_k the client's loss on the prompts w that it was sent: `w <- w - sum_k D_k / sum_k h_k`,
`D_k = F_k^q L (w - w_k)`, `h_k = q F_k^(q-1) |L (w - w_k)|^2 + L F_k^q`. The same as Flower's own strategy,
which collects garbage once for each reply; that would take most of the run's time.

`L` is a key of its own. The paper's 1 / (learning rate) is for gradient steps; Adam's are not, and with it
the step shrinks to nothing. What this module does not do: it cannot check what a client reports.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def qfedavg_step(
    sent: Tensor, answers: Iterable[tuple[Tensor, float]], *, q: float, lipschitz: float
) -> Tensor:
    """The next w, of the shape of `sent`. answers: each client's (w_k, F_k)."""
    step, size = torch.zeros_like(sent), 0.0
    for received, start_loss in answers:
        loss = max(start_loss, 1e-10)
        change = lipschitz * (sent - received)
        step += loss**q * change
        size += q * loss ** (q - 1) * float(change.square().sum()) + lipschitz * loss**q
    return sent - step / size
