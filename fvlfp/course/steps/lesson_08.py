"""Lesson 08: how much each client counts, by its own report and by its peers'."""

from __future__ import annotations

import numpy as np

from fvlfp.course.lesson import Step
from fvlfp.fpf import Fusion, client_weight
from fvlfp.peers import Judgement, divergence


def _own(
    n: int, perf: float, disp: float, perf_mean: float, disp_mean: float, beta: float, gamma: float
) -> float:
    rule = Fusion(beta=beta, gamma=gamma, cap=1e9, margin=-1.0)
    return client_weight(n, perf, disp, perf_mean=perf_mean, disp_mean=disp_mean, fusion=rule)


def _report(rng: np.random.Generator) -> tuple[int, float, float, float, float, float, float]:
    perf, disp, perf_mean, disp_mean = map(float, rng.uniform(0.1, 0.9, 4).round(2))
    beta, gamma = map(float, rng.uniform(0.5, 5.0, 2).round(1))
    return int(rng.integers(10, 500)), perf, disp, perf_mean, disp_mean, beta, gamma


def _signed(recall: np.ndarray) -> np.ndarray:
    return Judgement([recall]).signed


def _recalls(rng: np.random.Generator) -> tuple[np.ndarray]:
    clients, classes, groups = rng.integers(2, 5, 3)
    return (rng.uniform(0.3, 1.0, (clients, classes, groups)).round(2),)


def _tilted(
    n: np.ndarray, accuracy: np.ndarray, signed: np.ndarray, beta: float, v: np.ndarray
) -> np.ndarray:
    w = n * np.exp(beta * accuracy - signed @ v)
    return np.asarray(w / w.sum())


def _judged(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, np.ndarray]:
    clients, cells = int(rng.integers(2, 6)), int(rng.integers(2, 5))
    n = rng.integers(10, 500, clients).astype(float)
    accuracy, signed = rng.uniform(0.4, 1.0, clients), rng.uniform(-0.3, 0.3, (clients, cells))
    return (
        n,
        accuracy.round(2),
        signed.round(2),
        round(float(rng.uniform(0, 3)), 1),
        rng.normal(size=cells),
    )


def _kept(w: np.ndarray, p: np.ndarray) -> float:
    return float(np.exp(-divergence(w, p)))


def _shares(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    clients = int(rng.integers(2, 6))
    return rng.dirichlet(np.ones(clients)), rng.dirichlet(np.full(clients, 3.0))


#: n, perf, disp, perf_mean, disp_mean, beta, gamma -> the weight of a client that reports on itself.
own_weight = Step(_own, _report)
#: recalls (K, C, G) -> signed gaps (K, C G).
signed_gaps = Step(_signed, _recalls)
#: n (K,), accuracy (K,), signed gaps (K, M), beta, v (M,) -> shares (K,) that sum to 1.
tilted = Step(_tilted, _judged)
#: shares w (K,) and p (K,) -> how much of the clients still counts.
kept = Step(_kept, _shares)
