"""Thresholds for each group: fairlearn's ThresholdOptimizer (Hardt et al., NeurIPS 2016) on score histograms.

Two classes only. What this module does not do: it reads no single score; rows are rebuilt from binned scores.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from fairlearn.postprocessing import ThresholdOptimizer
from sklearn.base import BaseEstimator

BINS = 100


class ScoreAsPrediction(BaseEstimator):
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
class Thresholds:
    """A fitted ThresholdOptimizer, and the groups it has thresholds for."""

    fitted: ThresholdOptimizer
    groups: tuple[str, ...]

    def decide(self, score: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
        """Decisions (n,) in {0, 1} from scores and groups (n,); rows of unknown groups are cut at 1/2."""
        known = np.isin(groups, self.groups)
        out = (score >= 0.5).astype(int)
        centres = (in_bins(score) + 0.5) / BINS
        if known.any():
            out[known] = self.fitted.predict(
                centres[known, None], sensitive_features=groups[known], random_state=seed
            )
        return out


def fit_thresholds(bins: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Thresholds:
    """Fit for equalized odds. bins: (n,) of the scores, labels: (n,) in {0, 1}, groups: (n,).

    A group without both classes gets no threshold.
    """
    both = [group for group in np.unique(groups) if len(np.unique(labels[groups == group])) == 2]
    known = np.isin(groups, both)
    centres = (bins + 0.5)[:, None] / BINS
    fitted = ThresholdOptimizer(
        estimator=ScoreAsPrediction(),
        constraints="equalized_odds",
        objective="balanced_accuracy_score",
        prefit=True,
        predict_method="predict",
    ).fit(centres[known], labels[known], sensitive_features=groups[known])
    return Thresholds(fitted, tuple(both))


def in_bins(score: np.ndarray) -> np.ndarray:
    """Which of the `BINS` equal bins of [0, 1] each score (n,) falls into."""
    return np.floor(score * BINS).clip(0, BINS - 1)


def crossed(columns: Iterable[np.ndarray]) -> np.ndarray:
    """One code for each row (n,), such as "0/2", from the group codes (n,) of several attributes."""
    rows = np.stack(list(columns), 1).tolist()
    return np.array(["/".join(map(str, row)) for row in rows])
