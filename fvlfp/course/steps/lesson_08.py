"""Lesson 08: how much each client counts, by its own report and by its peers'."""

from __future__ import annotations

import numpy as np

from fvlfp.course.lesson import Step
from fvlfp.fpf import Fusion, client_weight
from fvlfp.peers import Judgement, balanced_weights, peer_weights


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


def _some_recalls(rng: np.random.Generator) -> np.ndarray:
    """(K, 2, 2): each client leans to one side, by another amount."""
    clients = int(rng.integers(4, 10))
    lean = rng.normal(0, 0.05, (clients, 1, 1)) * np.array([[1, -1], [-1, 1]])
    around = rng.uniform(0.75, 0.9, (1, 2, 2)) + rng.normal(0, 0.02, (clients, 2, 2))
    return np.asarray((around + lean).clip(0.3, 1.0).round(3))


def _fairest(
    p: np.ndarray, accuracy: np.ndarray, signed: np.ndarray, floor: float, share: float
) -> np.ndarray:
    # A gap g of a class with two groups is the signed gaps g / 2 and -g / 2; recalls that have them:
    table = (accuracy[:, None] + signed).reshape(len(p), -1, 2)
    return balanced_weights(p, Judgement([table]), share=share, floor=floor)


def _to_balance(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, float, float]:
    judged = Judgement([_some_recalls(rng)])
    p = rng.dirichlet(np.full(len(judged.accuracy), 5.0))
    floor = float(judged.accuracy @ p) - 0.005
    return p, judged.accuracy, judged.signed, floor, float(rng.choice([0.5, 0.7, 0.9]))


def _by_peers(n: np.ndarray, judged: Judgement, share: float, tolerance: float) -> np.ndarray:
    return peer_weights(n, judged, share=share, tolerance=tolerance)


def _claims(rng: np.random.Generator) -> tuple[np.ndarray, Judgement, float, float]:
    recall = _some_recalls(rng)
    n = rng.integers(50, 400, len(recall)).astype(float)
    n[rng.integers(len(n))] *= 40  # one claims far too many rows
    if rng.random() < 0.5:
        recall[rng.integers(len(n))] -= 0.25  # and somebody's prompts are ruined
    return n, Judgement([recall]), float(rng.choice([0.5, 0.7])), 0.01


#: n, perf, disp, perf_mean, disp_mean, beta, gamma -> the weight of a client that reports on itself.
own_weight = Step(_own, _report)
#: recalls (K, C, G) -> signed gaps (K, C G).
signed_gaps = Step(_signed, _recalls)
#: n (K,), accuracy (K,), signed gaps (K, M), beta, v (M,) -> shares (K,) that sum to 1.
tilted = Step(_tilted, _judged)
#: p (K,), accuracy (K,), signed gaps (K, M), floor, share -> the weights (K,) with the smallest gap.
fairest = Step(_fairest, _to_balance)
#: n (K,), a Judgement, share, tolerance -> shares (K,), with caps, gate and floor.
by_peers = Step(_by_peers, _claims, cases=4)
