"""pFedFair (Lei et al., arXiv 2503.14925): every client keeps a fair model of its own near a shared one.

Client k minimises `L_k(v) + eta rho_k(v) + lam/2 |v - w|^2` over its own v, where rho is a differentiable
measure of how predictions depend on the group; the shared w follows the gradient of the Moreau envelope,
`lam (w - v_k)`, mean over clients. rho is left to the caller (`fvlfp.baselines.losses` has such terms). What
this module does not do: it fuses no fairness term, which is the paper's point: only v is fair, w is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def personal_loss(
    task: Tensor, unfairness: Tensor, own: Tensor, shared: Tensor, *, eta: float, lam: float
) -> Tensor:
    """`L + eta rho + lam/2 |v - w|^2` (). task, unfairness: (); own, shared: of one shape.

    eta = 0 and lam = 0 is the task's loss alone.
    """
    return task + eta * unfairness + 0.5 * lam * (own - shared).square().sum()


def moreau_step(
    shared: Tensor, own: Sequence[Tensor], shares: Sequence[float], *, lam: float, rate: float
) -> Tensor:
    """`w - rate lam sum_k p_k (w - v_k)`: one step of the shared model. shares: p_k, which sum to 1.

    With rate = 1 / lam it is the weighted mean of the clients' models, that is FedAvg's rule.
    """
    mean = torch.stack([p * v for p, v in zip(shares, own, strict=True)]).sum(0)
    return shared - rate * lam * (shared - mean)
