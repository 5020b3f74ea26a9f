"""Lesson 04: slopes, the loss of a prompt, class weights, and a paired change."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fvlfp.cdfp import anchor_loss
from fvlfp.course.lesson import Step


def _slope(loss: Callable[[float], float], at: float) -> float:
    return (loss(at + 1e-4) - loss(at - 1e-4)) / 2e-4


def _cubic(x: float, a: float, b: float) -> float:
    return a * x**3 + b * x**2


def _loss_and_place(rng: np.random.Generator) -> tuple[Callable[[float], float], float]:
    a, b, at = rng.uniform(0.5, 2, 3)
    return partial(_cubic, a=float(a), b=float(b)), float(at)


def _loss(z: Tensor, y: Tensor, texts: Tensor, frozen: Tensor, scale: float, lam: float) -> Tensor:
    return F.cross_entropy(scale * z @ texts.T, y) + lam * anchor_loss(texts, frozen)


def _batch(rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor, float, float]:
    n, classes = int(rng.integers(4, 9)), int(rng.integers(2, 4))
    arrows = [torch.from_numpy(rng.normal(size=(k, 6)).astype(np.float32)) for k in (n, classes, classes)]
    z, texts, frozen = (F.normalize(rows, dim=1) for rows in arrows)
    y = torch.from_numpy(rng.integers(0, classes, n))
    return z, y, texts, frozen, float(rng.integers(2, 9)), float(rng.uniform(0.5, 3))


def _class_weights(count: np.ndarray) -> np.ndarray:
    return count.sum() / (len(count) * count)


def _paired(truth: np.ndarray, before: np.ndarray, after: np.ndarray) -> list[float]:
    change = (after == truth).astype(float) - (before == truth)
    half = 1.96 * change.std(ddof=1) / np.sqrt(len(change))
    return [change.mean(), change.mean() - half, change.mean() + half]


def _answers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    n = int(rng.integers(30, 80))
    truth = (rng.random(n) < 0.5).astype(int)
    before, after = (np.where(rng.random(n) < right, truth, 1 - truth) for right in (0.7, 0.85))
    return truth, before, after


#: a function of one number, and a place -> its slope there.
slope = Step(_slope, _loss_and_place)
#: z (n, d), y (n,), T (C, d), frozen T (C, d), scale, lambda -> cross-entropy + lambda * anchor.
prompt_loss = Step(_loss, _batch)
#: faces of each class (C,) -> weights (C,): every class counts the same, a face 1 on average.
class_weights = Step(_class_weights, lambda rng: (rng.integers(3, 200, int(rng.integers(2, 5))),))
#: truth, answers before and after (n,) -> the change of accuracy, and its paired 95 % interval.
paired_change = Step(_paired, _answers)
