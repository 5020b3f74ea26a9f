"""Lesson 16: audits of released models from counts."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fvlfp.audit.stats.intervals import holm as adjusted
from fvlfp.course.lesson import Step


def _share_called(table: pd.DataFrame, label: str, group: str, answer: str) -> float:
    rows = table[(table["label"] == label) & (table["race"] == group)]
    return float((rows["answer"] == answer).mean())


def _answers(rng: np.random.Generator) -> tuple[pd.DataFrame, str, str, str]:
    n, words = 60, ["Female", "Male"]
    table = pd.DataFrame(
        {"label": rng.choice(words, n), "race": rng.choice(["Black", "White"], n, p=[0.3, 0.7])}
    )
    wrong = rng.random(n) < np.where(table["race"] == "Black", 0.4, 0.1)
    table["answer"] = np.where(
        wrong, table["label"].map({"Female": "Male", "Male": "Female"}), table["label"]
    )
    return table, str(rng.choice(words)), "Black", str(rng.choice(words))


def _worst_cell(recall: pd.DataFrame) -> float:
    return float(np.nanmin(recall.to_numpy()))


def _recall(rng: np.random.Generator) -> tuple[pd.DataFrame]:
    table = pd.DataFrame(rng.uniform(0.6, 1.0, (5, 2)).round(3), columns=["Female", "Male"])
    table.iloc[int(rng.integers(5)), int(rng.integers(2))] = np.nan
    return (table,)


def _false_alarm(tests: int, level: float) -> float:
    return 1 - (1 - level) ** tests


def _tests(rng: np.random.Generator) -> tuple[int, float]:
    return int(rng.integers(1, 60)), float(rng.choice([0.01, 0.05, 0.1]))


def _holm(p_values: list[float]) -> np.ndarray:
    # Not statsmodels' multipletests, which collects all garbage of the process in every call.
    return np.array(list(adjusted(dict(enumerate(p_values))).values()))


def _p_values(rng: np.random.Generator) -> tuple[list[float]]:
    return ((rng.random(int(rng.integers(3, 8))) * rng.choice([0.02, 0.5])).round(4).tolist(),)


#: (answers, label, perceived race, answer) -> the share of these faces that got this answer.
share_called = Step(_share_called, _answers)
#: recalls (groups, classes), NaN where undefined -> the smallest.
worst_cell = Step(_worst_cell, _recall)
#: (tests, level) -> probability of at least one false alarm among independent tests.
false_alarm = Step(_false_alarm, _tests, cases=8)
#: p-values -> Holm's corrected ones, in the order given.
holm = Step(_holm, _p_values)
