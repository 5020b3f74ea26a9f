"""Lesson 13: what a machine sends, refuses, waits for and saves."""

from __future__ import annotations

import hashlib

import numpy as np
import torch

from fvlfp.course.lesson import Step
from fvlfp.suppression import countable


def _bytes_sent(layers: int, n_ctx: int, width: int, reports: int, rounds: int) -> int:
    return rounds * (4 * layers * n_ctx * width + 8 * reports)


def _sizes(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(rng.integers(low, high)) for low, high in ((1, 9), (2, 17), (64, 513), (1, 9), (1, 20)))


def _newest_good(saved: list[tuple[int, bytes, str]]) -> int:
    good = [number for number, body, digest in saved if hashlib.sha256(body).hexdigest() == digest]
    return max(good, default=0)


def _checkpoints(rng: np.random.Generator) -> tuple[list[tuple[int, bytes, str]]]:
    saved = []
    for number in rng.permutation(np.arange(1, 5)):
        body = rng.bytes(6)
        digest = hashlib.sha256(body).hexdigest()
        damaged = bytes([body[0] ^ 1]) + body[1:] if rng.random() < 0.6 else body
        saved.append((int(number), damaged, digest))
    return (saved,)


def _may_count(labels: list[int], groups: list[int], min_cell: int) -> int:
    return int(countable(torch.tensor(labels), [torch.tensor(groups)], min_cell).sum())


def _rows(rng: np.random.Generator) -> tuple[list[int], list[int], int]:
    n = int(rng.integers(12, 30))
    return rng.integers(0, 2, n).tolist(), rng.choice(3, n, p=[0.6, 0.3, 0.1]).tolist(), 3


def _round_seconds(seconds: list[float], deadline: float, needed: int) -> float:
    if sum(s <= deadline for s in seconds) < needed:
        return float("nan")
    return min(max(seconds), deadline)


def _waits(rng: np.random.Generator) -> tuple[list[float], float, int]:
    seconds = np.round(rng.gamma(2.0, 20.0, int(rng.integers(3, 7))), 1).tolist()
    return seconds, float(rng.choice([15.0, 60.0, 600.0])), 2


#: (L, n_ctx, width, numbers in a report, rounds) -> bytes that a client sends.
bytes_sent = Step(_bytes_sent, _sizes)
#: [(round, body, sha256 in hex)] -> the newest round whose body is whole; 0 without one.
newest_good = Step(_newest_good, _checkpoints, cases=8)
#: (classes, groups, min_cell) -> how many rows lie in cells that may be counted.
may_count = Step(_may_count, _rows)
#: (seconds of each client, deadline, answers needed) -> seconds until the round ends; NaN if it stops.
round_seconds = Step(_round_seconds, _waits, cases=12)
