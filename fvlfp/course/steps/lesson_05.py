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


def _mean_of_all(means: list[float], counts: list[int]) -> float:
    return float(np.average(means, weights=counts))


def _trees(rng: np.random.Generator) -> tuple[list[float], list[int]]:
    clients = int(rng.integers(2, 6))
    means = [round(float(mean), 1) for mean in rng.uniform(5, 30, clients)]
    return means, [int(n) for n in rng.integers(1, 50, clients)]


def _bytes(clients: int, layers: int, vectors: int, width: int) -> int:
    return clients * (layers * vectors * width * 4 + 128)


def _sizes(rng: np.random.Generator) -> tuple[int, int, int, int]:
    return (
        int(rng.integers(2, 30)),
        int(rng.integers(1, 6)),
        int(rng.integers(1, 9)),
        int(rng.integers(16, 99)),
    )


def _lie(wish: Tensor, prompts: Tensor, weights: Tensor, liar: int) -> Tensor:
    honest = torch.arange(len(weights)) != liar
    return (wish - _fused(prompts[honest], weights[honest])) / weights[liar]


def _wish(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, int]:
    prompts, _ = _prompts_and_weights(rng)
    weights = torch.from_numpy(rng.uniform(0.2, 1, len(prompts)).astype(np.float32))
    wish = torch.from_numpy(rng.normal(size=prompts.shape[1:]).astype(np.float32))
    return wish, prompts, weights / weights.sum(), int(rng.integers(len(prompts)))


def _clipped(update: Tensor, bound: float) -> Tensor:
    return update * min(1.0, bound / float(update.norm()))


def _update(rng: np.random.Generator) -> tuple[Tensor, float]:
    update = torch.from_numpy(rng.normal(size=(2, 4, 8)).astype(np.float32))
    return update, float(update.norm()) * float(rng.choice([0.2, 0.7, 1.5, 3.0]))


#: means and numbers of trees -> the mean of all.
mean_of_all = Step(_mean_of_all, _trees)
#: clients, layers, vectors, width -> bytes sent up in a round.
bytes_per_round = Step(_bytes, _sizes)
#: wish, prompts (K, ...), weights (K,), which client lies -> what it must send.
lie = Step(_lie, _wish)
#: an update and a bound -> the update, not longer than the bound.
clipped = Step(_clipped, _update, cases=8)
