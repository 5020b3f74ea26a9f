"""Lesson 14: what a server does about clients that break or lie."""

from __future__ import annotations

import numpy as np

from fvlfp import robust
from fvlfp.course.lesson import Step


def _too_long(lengths: list[float], bound: float) -> np.ndarray:
    return np.asarray(lengths) > bound * np.median(lengths)


def _lengths(rng: np.random.Generator) -> tuple[list[float], float]:
    lengths = rng.uniform(0.5, 1.5, int(rng.integers(4, 13)))
    lengths[0] *= float(rng.choice([1, 12, 1000]))
    return rng.permutation(lengths).tolist(), float(rng.choice([3, 10]))


def _trimmed_mean(values: np.ndarray, trim: int) -> np.ndarray:
    return robust.trimmed_mean(values, np.ones(values.shape), trim)


def _values(rng: np.random.Generator) -> tuple[np.ndarray, int]:
    trim = int(rng.integers(0, 3))
    values = rng.normal(size=(2 * trim + int(rng.integers(2, 5)), 4))
    values[0, :2] = 50.0  # a liar in some numbers only
    return values, trim


def _capped(sizes: list[float], times: float) -> np.ndarray:
    return robust.capped(np.asarray(sizes, float), times)


def _claims(rng: np.random.Generator) -> tuple[list[float], float]:
    sizes = rng.integers(50, 200, int(rng.integers(3, 8))).astype(float)
    sizes[-1] *= float(rng.choice([1, 100]))
    return rng.permutation(sizes).tolist(), float(rng.choice([1.5, 3.0]))


def _lie(start: np.ndarray, honest: np.ndarray) -> np.ndarray:
    return 2 * start - honest


def _prompts(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    start = rng.normal(size=(2, 4))
    return start, start + rng.normal(size=(2, 4)) * 0.1


def _most_liars(clients: int) -> int:
    return (clients - 1) // 2


#: (lengths of the updates, bound) -> which are refused.
too_long = Step(_too_long, _lengths, cases=16)
#: (values (K, n), trim) -> the mean of each number without its `trim` smallest and largest values.
trimmed_mean = Step(_trimmed_mean, _values, cases=12)
#: (claimed sizes, times) -> sizes, none above `times` the median.
capped = Step(_capped, _claims)
#: (prompts at the start, honest prompts) -> prompts whose update is the opposite.
lie = Step(_lie, _prompts)
#: clients -> how many a trimmed mean can drop at each end and still keep one.
most_liars = Step(_most_liars, lambda rng: (int(rng.integers(1, 40)),), cases=8)
