"""Lesson 15: masks, clipped updates, noise, and what they cost."""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import norm

from fvlfp.course.lesson import Step


def _masked(shares: np.ndarray, masks: np.ndarray) -> np.ndarray:
    out = shares.copy()
    for k in range(len(shares)):
        for j in range(k + 1, len(shares)):
            out[k] += masks[k, j]
            out[j] -= masks[k, j]
    return out


def _shares(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    k = int(rng.integers(2, 5))
    shares = rng.integers(0, 1000, size=(k, 3)).astype(np.int64)
    return shares, rng.integers(-(2**20), 2**20, size=(k, k, 3)).astype(np.int64)


def _the_other(with_all: list[float], without: list[float]) -> np.ndarray:
    a, b = np.asarray(with_all), np.asarray(without)
    return (a[:-1] - b[:-1]) / (a[-1] - b[-1])


def _two_sums(rng: np.random.Generator) -> tuple[list[float], list[float]]:
    weights, prompts = rng.integers(10, 90, 3).astype(float), rng.normal(size=(3, 2))
    rows = np.column_stack([weights[:, None] * prompts, weights])
    return rows.sum(0).tolist(), rows[:2].sum(0).tolist()


def _clipped(update: np.ndarray, most: float) -> np.ndarray:
    return update * min(1.0, most / float(np.linalg.norm(update)))


def _update(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    return rng.normal(size=(2, 3)), float(rng.choice([0.5, 2.0, 50.0]))


def _delta(epsilon: float, noise: float, rounds: int) -> float:
    rho = math.sqrt(rounds) / noise
    first, second = norm.cdf(rho / 2 - epsilon / rho), norm.cdf(-rho / 2 - epsilon / rho)
    return float(first - math.exp(epsilon) * second)


def _promise(rng: np.random.Generator) -> tuple[float, float, int]:
    return float(rng.uniform(0.5, 4)), float(rng.uniform(0.8, 4)), int(rng.integers(1, 20))


def _real_multiplier(noise: float, sizes: list[int]) -> float:
    return noise * sum(sizes) / (len(sizes) * max(sizes))


def _unequal(rng: np.random.Generator) -> tuple[float, list[int]]:
    return float(rng.uniform(0.5, 4)), rng.integers(10, 300, int(rng.integers(2, 8))).tolist()


#: (shares (K, n), masks (K, K, n)) -> what each client sends; masks[k, j], k < j, is that of the pair.
masked = Step(_masked, _shares)
#: (sums with a client, sums without; the last number is the sum of weights) -> that client's prompts.
the_other = Step(_the_other, _two_sums)
#: (update, C) -> the update, at most C long.
clipped = Step(_clipped, _update, cases=8)
#: (epsilon, noise multiplier, rounds) -> delta.
delta = Step(_delta, _promise)
#: (noise multiplier, sizes) -> the multiplier that noise for K equal weights really has.
real_multiplier = Step(_real_multiplier, _unequal)
