"""Thresholds for each group: fairlearn's ThresholdOptimizer (Hardt et al., NeurIPS 2016) on score histograms.

Two classes only. What this module does not do: it reads no single score; rows are rebuilt from binned scores.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator

BINS = 100


class ScoreAsPrediction(BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """The fitted estimator that fairlearn asks for: the score is the prediction."""

    def fit(self, x: np.ndarray, y: np.ndarray) -> ScoreAsPrediction:
        """Nothing to fit."""
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict(self, x: np.ndarray) -> np.ndarray:
        """(n, 1) scores -> (n,) scores."""
        return np.asarray(x)[:, 0]


@dataclass(frozen=True)
class Rule:
    """One group's rule: the probability of a positive decision at a score.

    `ignore * constant + (1 - ignore) * sum_i weights[i] [score above or below cuts[i]]`; above: whether a
    score above the cut counts, else one below it.
    """

    weights: tuple[float, float]
    cuts: tuple[float, float]
    above: tuple[bool, bool]
    ignore: float = 0.0
    constant: float = 0.0

    def __call__(self, score: np.ndarray) -> np.ndarray:
        """(n,) from scores (n,)."""
        hits = [score > cut if up else score < cut for cut, up in zip(self.cuts, self.above, strict=True)]
        mixed = self.weights[0] * hits[0] + self.weights[1] * hits[1]
        return self.ignore * self.constant + (1 - self.ignore) * mixed


@dataclass(frozen=True)
class Thresholds:
    """What a fitted ThresholdOptimizer decides by: a rule for each group that it was fitted to."""

    rules: dict[str, Rule]

    def to_json(self) -> dict[str, dict[str, object]]:
        """As JSON types."""
        return {group: asdict(rule) for group, rule in self.rules.items()}

    @classmethod
    def from_json(cls, saved: Mapping[str, Mapping[str, Any]]) -> Thresholds:
        """The inverse of `to_json`."""
        rules = {group: dict(rule) for group, rule in saved.items()}
        for rule in rules.values():
            rule.update({key: tuple(rule[key]) for key in ("weights", "cuts", "above")})
        return cls({group: Rule(**rule) for group, rule in rules.items()})

    def decide(self, score: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
        """Decisions (n,) in {0, 1} from scores and groups (n,); rows of unknown groups are cut at 1/2."""
        known = np.isin(groups, list(self.rules))
        out = (score >= 0.5).astype(int)
        centres = (in_bins(score) + 0.5) / BINS
        positive = np.zeros(len(score))
        for group, rule in self.rules.items():
            positive[groups == group] = rule(centres[groups == group])
        drawn = np.random.RandomState(seed % 2**32).rand(int(known.sum()))  # as fairlearn draws
        out[known] = positive[known] >= drawn
        return out


def fit_thresholds(bins: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Thresholds:
    """Fit for equalized odds. bins: (n,) of the scores, labels: (n,) in {0, 1}, groups: (n,).

    A group without both classes gets no threshold; where no group has both, there is none at all.
    """
    both = [group for group in np.unique(groups) if len(np.unique(labels[groups == group])) == 2]
    if not both:
        return Thresholds({})
    known = np.isin(groups, both)
    centres = (bins + 0.5)[:, None] / BINS
    fitted = ThresholdOptimizer(
        estimator=ScoreAsPrediction(),
        constraints="equalized_odds",
        objective="balanced_accuracy_score",
        prefit=True,
        predict_method="predict",
    ).fit(centres[known], labels[known], sensitive_features=groups[known])
    found = fitted.interpolated_thresholder_.interpolation_dict
    return Thresholds({group: _rule(found[group]) for group in map(str, both)})


def _rule(fitted: Any) -> Rule:
    operations = (fitted.operation0, fitted.operation1)
    return Rule(
        weights=(float(fitted.p0), float(fitted.p1)),
        cuts=(float(operations[0].threshold), float(operations[1].threshold)),
        above=(operations[0].operator == ">", operations[1].operator == ">"),
        ignore=float(fitted.get("p_ignore", 0.0)),
        constant=float(fitted.get("prediction_constant", 0.0)),
    )


def in_bins(score: np.ndarray) -> np.ndarray:
    """Which of the `BINS` equal bins of [0, 1] each score (n,) falls into."""
    return np.floor(score * BINS).clip(0, BINS - 1)


def crossed(columns: Iterable[np.ndarray]) -> np.ndarray:
    """One code for each row (n,), such as "0/2", from the group codes (n,) of several attributes."""
    rows = np.stack(list(columns), 1).tolist()
    return np.array(["/".join(map(str, row)) for row in rows])
