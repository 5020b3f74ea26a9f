"""Lesson 07: the projection, soft membership, soft means, and the choice of a strength."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp import dsop
from fvlfp.course.lesson import Step


def _rows(rng: np.random.Generator, n: int, d: int = 6) -> Tensor:
    return F.normalize(torch.from_numpy(rng.normal(size=(n, d))).float(), dim=-1)


def _projected(z: Tensor, basis: Tensor, mu: Tensor, lam: float) -> Tensor:
    return dsop.Projection(basis, mu, lam).unnormalised(z)


def _to_project(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, float]:
    basis, _ = dsop.subspace(_rows(rng, int(rng.integers(1, 4))))
    mu = torch.from_numpy(rng.normal(scale=0.3, size=6)).float()
    return _rows(rng, int(rng.integers(2, 8))), basis, mu, float(rng.choice([0.3, 0.5, 1.0]))


def _with_words(rng: np.random.Generator) -> tuple[Tensor, Tensor, float]:
    scale = float(rng.choice([5.0, 20.0, 300.0]))  # e to the power of 300 is no number in float32
    return _rows(rng, int(rng.integers(3, 8))), _rows(rng, int(rng.integers(2, 4))), scale


def _soft_means(z: Tensor, y: Tensor, q: Tensor) -> Tensor:
    return dsop.group_means(*dsop.moments(z, y, q, 2))


def _soft_groups(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    n, groups = int(rng.integers(8, 20)), int(rng.integers(2, 4))
    q = torch.from_numpy(rng.dirichlet(np.ones(groups), n)).float()
    smiles = np.array([0, 1, *(rng.random(n - 2) < 0.3)])
    return _rows(rng, n), torch.from_numpy(smiles).long(), q


def _chosen(accuracy: np.ndarray, gap: np.ndarray, tolerance: float) -> int:
    return int(np.where(accuracy >= accuracy[0] - tolerance, gap, np.inf).argmin())


def _candidates(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    k = int(rng.integers(3, 7))
    accuracy = rng.uniform(0.80, 0.90, k)
    gap = np.sort(rng.uniform(0.02, 0.20, k))[::-1]
    return accuracy, gap, float(rng.choice([0.0, 0.02, 0.05]))


#: z (n, d), U (d, rank), mu (d,), lambda -> (n, d), before rows are made unit again.
project = Step(_projected, _to_project)
#: z (n, d), E (G, d), scale -> soft membership (n, G).
soft_membership = Step(dsop.soft_membership, _with_words, cases=8)
#: z (n, d), classes (n,), q (n, G) -> soft group means (G, d), each class counting the same.
soft_means = Step(_soft_means, _soft_groups)
#: cell accuracies (A,) and odds gaps (A,) of candidates, "off" first, and a tolerance -> which is chosen.
choose = Step(_chosen, _candidates, cases=8)
