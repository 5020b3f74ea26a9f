"""Lesson 12: the exported classifier by hand."""

from __future__ import annotations

import numpy as np

from fvlfp.course.lesson import Step


def _share_called(scores: list[float], threshold: float) -> float:
    return float(np.mean(np.asarray(scores) >= threshold))


def _scores(rng: np.random.Generator) -> tuple[list[float], float]:
    scores = np.round(rng.random(int(rng.integers(5, 12))), 2).tolist()
    return scores, float(scores[0])  # one score stands on the threshold


def _logits(
    z: np.ndarray, weight: np.ndarray, bias: np.ndarray, project: np.ndarray, shift: np.ndarray
) -> np.ndarray:
    return (z @ weight.T + bias) / np.linalg.norm(z @ project.T + shift, axis=1, keepdims=True)


def _classifier(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    n, classes, d = int(rng.integers(2, 5)), int(rng.integers(2, 4)), 6
    z = rng.normal(size=(n, d))
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    shapes = ((classes, d), (classes,), (d, d), (d,))
    return z, *(rng.normal(size=shape) for shape in shapes)


def _probabilities(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def _some_logits(rng: np.random.Generator) -> tuple[np.ndarray]:
    size = float(rng.choice([1.0, 1000.0]))  # exp(1000) is past what a float can hold
    return (rng.normal(size=(3, int(rng.integers(2, 4)))) * size,)


def _answers(lines: list[str]) -> dict[str, str]:
    return {line.split("\t")[0]: line.split("\t")[1] for line in lines}


def _lines(rng: np.random.Generator) -> tuple[list[str]]:
    words = rng.choice(["yes", "no"], 4)
    return ([f"my photos/{i:03d}.png\t{word}\t0.25\t0.75" for i, word in enumerate(words)],)


def _seen_before(new: list[str], trained_on: list[str]) -> int:
    return sum(digest in set(trained_on) for digest in new)


def _digests(rng: np.random.Generator) -> tuple[list[str], list[str]]:
    old, new = ([f"{n:02x}" for n in rng.integers(0, 12, 8)] for _ in range(2))
    return new, old


#: (scores, threshold) -> the share of pictures that are called "yes".
share_called = Step(_share_called, _scores)
#: (z, weight, bias, project, shift) -> logits (n, C).
logits = Step(_logits, _classifier)
#: logits (n, C) -> probabilities (n, C).
probabilities = Step(_probabilities, _some_logits, cases=8)
#: lines of the exported script -> picture: class.
answers = Step(_answers, _lines)
#: (digests of new pictures, of those trained on) -> how many new ones were trained on.
seen_before = Step(_seen_before, _digests)
