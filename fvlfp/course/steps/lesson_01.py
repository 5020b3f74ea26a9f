"""Lesson 01: CLIP's classifier, piece by piece."""

from __future__ import annotations

import numpy as np

from fvlfp.course.lesson import Step


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def _softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def _zero_shot(pictures: np.ndarray, sentences: np.ndarray, scale: float) -> np.ndarray:
    return _softmax(scale * _unit(pictures) @ _unit(sentences).T)


def _balanced_accuracy(truth: np.ndarray, said: np.ndarray) -> float:
    return float(np.mean([(said == truth)[truth == label].mean() for label in np.unique(truth)]))


def _rows(rng: np.random.Generator) -> tuple[np.ndarray]:
    return (rng.normal(scale=3, size=(int(rng.integers(2, 5)), int(rng.integers(2, 6)))),)


def _towers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    width, classes = int(rng.integers(3, 8)), int(rng.integers(2, 4))
    pictures, sentences = rng.normal(size=(4, width)), 2 * rng.normal(size=(classes, width))
    return pictures, sentences, float(rng.integers(1, 6))


def _answers(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    truth = np.array(["yes", "no", *np.where(rng.random(20) < 0.2, "yes", "no")])
    return truth, np.where(rng.random(22) < 0.7, truth, "no")


#: rows (n, d) -> the same rows, each of length 1.
unit = Step(_unit, _rows)
#: scores (n, C) -> probabilities (n, C).
softmax = Step(_softmax, _rows)
#: arrows of pictures (n, d) and sentences (C, d), not of length 1 yet, and the scale -> (n, C).
zero_shot = Step(_zero_shot, _towers)
#: truth and answers, (n,) words -> the mean of the recalls of "yes" and "no".
balanced_accuracy = Step(_balanced_accuracy, _answers)
