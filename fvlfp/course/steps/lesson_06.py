"""Lesson 06: the counterfactual arrow, the divergence of two answers, CDFP's loss, and flips."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp import cdfp, dsop
from fvlfp.course.lesson import Step


def _rows(rng: np.random.Generator, n: int, d: int) -> Tensor:
    return F.normalize(torch.from_numpy(rng.normal(size=(n, d))).float(), dim=-1)


def _to_shift(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, float]:
    n, groups = int(rng.integers(3, 8)), int(rng.integers(2, 5))
    source = torch.from_numpy(rng.integers(0, groups, n))
    target = (source + torch.from_numpy(rng.integers(1, groups, n))) % groups
    directions = dsop.centred(_rows(rng, groups, 6))
    return _rows(rng, n, 6), directions, source, target, float(rng.choice([0.5, 1.0, 2.0]))


def _two_answers(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    n, classes = int(rng.integers(2, 6)), int(rng.integers(2, 5))
    scale = float(rng.choice([1.0, 5.0, 300.0]))  # at 300 some probabilities are 0 in float32
    a, b = (torch.from_numpy(rng.normal(size=(n, classes))).float() for _ in range(2))
    return scale * a, scale * b


def _directions(z: Tensor, y: Tensor, group: Tensor) -> Tensor:
    return dsop.centred(dsop.group_means(*dsop.moments(z, y, F.one_hot(group, 2), 2)))


def _faces(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    n = int(rng.integers(12, 30))
    group = torch.from_numpy(np.array([0, 0, 1, 1, *rng.integers(0, 2, n)]))
    smiles = rng.random(n) < np.where(group[4:].numpy() == 0, 0.8, 0.3)
    return _rows(rng, n + 4, 5), torch.from_numpy(np.array([0, 1, 0, 1, *smiles])).long(), group


def _cf_loss(
    z: Tensor, texts: Tensor, scale: float, directions: Tensor, source: Tensor, target: Tensor, alpha: float
) -> Tensor:
    moved = cdfp.counterfactual(z, directions, source, target, alpha)
    return cdfp.js_divergence(scale * z @ texts.T, scale * moved @ texts.T)


def _batch(rng: np.random.Generator) -> tuple[Tensor, Tensor, float, Tensor, Tensor, Tensor, float]:
    z, directions, source, target, alpha = _to_shift(rng)
    return z, _rows(rng, 2, 6), float(rng.uniform(2, 20)), directions, source, target, alpha


def _flips(round_yes: np.ndarray, square_yes: np.ndarray) -> list[float]:
    return [float((round_yes != square_yes).mean()), float(round_yes.mean() - square_yes.mean())]


def _answers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    first = rng.random(int(rng.integers(10, 40))) < 0.5
    return first, np.where(rng.random(len(first)) < 0.3, ~first, first)


#: z (n, d), D (G, d), source (n,), target (n,), alpha -> counterfactual arrows (n, d) of length 1.
counterfactual = Step(cdfp.counterfactual, _to_shift)
#: two tables of logits (n, C) -> the Jensen-Shannon divergence of each row (n,).
js_divergence = Step(cdfp.js_divergence, _two_answers, cases=8)
#: z (n, d), classes (n,), groups (n,) of 0 and 1 -> class-balanced, centred directions (2, d).
directions = Step(_directions, _faces)
#: z (n, d), T (C, d), scale, D (G, d), source (n,), target (n,), alpha -> CDFP's term of each row (n,).
cf_loss = Step(_cf_loss, _batch)
#: answers on round and on square twins, each (n,) -> the flip rate, and how much more often round smiles.
flips = Step(_flips, _answers)
