"""Lesson 02: rates of a group, their intervals, chance, and wrong labels."""

from __future__ import annotations

import numpy as np

from fvlfp.audit.stats.intervals import wilson
from fvlfp.course.lesson import Step


def _three_rates(smiles: np.ndarray, said: np.ndarray) -> list[float]:
    return [float(said.mean()), float(said[smiles == 1].mean()), float(said[smiles == 0].mean())]


def _one_group(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    n = int(rng.integers(8, 20))
    smiles = np.array([1, 0, *(rng.random(n) < 0.3)]).astype(int)
    return smiles, np.where(rng.random(n + 2) < 0.8, smiles, 1 - smiles)


def _plausible(found: int, n: int) -> list[float]:
    low, high = wilson(found, n)
    return [float(low), float(high)]


def _counts(rng: np.random.Generator) -> tuple[int, int]:
    n = int(rng.integers(2, 40))
    return int(rng.integers(0, n + 1)), n


def _p_value(measured: float, by_chance: np.ndarray) -> float:
    return float((1 + (by_chance >= measured).sum()) / (1 + len(by_chance)))


def _chance(rng: np.random.Generator) -> tuple[float, np.ndarray]:
    by_chance = np.abs(rng.normal(0, 0.04, int(rng.integers(10, 30)))).round(3)
    return float(rng.choice([by_chance.max(), by_chance[0], 0.2])), by_chance


def _true_gap(measured: float, wrong: float) -> float:
    return measured / (1 - 2 * wrong)


#: truth and answers of one group, (n,) of 0 and 1 -> selection rate, TPR, FPR.
three_rates = Step(_three_rates, _one_group)
#: m of n -> the smallest and the largest plausible rate (Wilson).
plausible = Step(_plausible, _counts)
#: a gap and gaps of shuffled groups -> (1 + how many are as large) / (1 + how many).
p_value = Step(_p_value, _chance)
#: a gap measured with a share of wrong labels -> the gap with right ones.
true_gap = Step(_true_gap, lambda rng: (float(rng.uniform(-0.2, 0.3)), float(rng.uniform(0, 0.45))))
