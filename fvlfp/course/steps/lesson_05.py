"""Lesson 05: federated averaging."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fvlfp.course.lesson import Step


def _fused(prompts: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("k,k...->...", weights.to(prompts.dtype), prompts)


def _prompts_and_weights(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    clients = int(rng.integers(2, 6))
    prompts = torch.from_numpy(rng.normal(size=(clients, 2, 4, 8)).astype(np.float32))
    return prompts, torch.from_numpy(rng.dirichlet(np.ones(clients)).astype(np.float32))


#: FedAvg: prompts (K, L, n_ctx, width) and weights (K,) that sum to 1 -> (L, n_ctx, width).
fedavg = Step(_fused, _prompts_and_weights)
