"""Lesson 00: rates, gaps and accuracy, counted."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fvlfp.course.lesson import Step

_GROUPS = np.array(["round", "square", "oval"])


def _rate(groups: list[str], answers: list[bool], group: str) -> float:
    return float(np.mean([answer for answer, of in zip(answers, groups, strict=True) if of == group]))


def _lists(rng: np.random.Generator) -> tuple[list[str], list[bool], str]:
    groups = [*_GROUPS, *rng.choice(_GROUPS, 9, p=[0.6, 0.3, 0.1])]
    answers = [bool(answer) for answer in rng.random(12) < 0.6]
    return [str(group) for group in groups], answers, str(rng.choice(_GROUPS))


def _gap(rates: dict[str, float]) -> float:
    return max(rates.values()) - min(rates.values())


def _rates(rng: np.random.Generator) -> tuple[dict[str, float]]:
    names = ["square", "round", "oval", "flat"][: int(rng.integers(2, 5))]
    return ({name: round(float(rate), 2) for name, rate in zip(names, rng.random(4), strict=False)},)


def _gap_in_table(frame: pd.DataFrame, column: str, attribute: str) -> float:
    rates = (frame[column] == "yes").groupby(frame[attribute]).mean()
    return float(rates.max() - rates.min())


def _faces(rng: np.random.Generator) -> pd.DataFrame:
    n = int(rng.integers(25, 40))
    yes_no = {name: rng.choice(["no", "yes"], n, p=[0.7, 0.3]) for name in ("hat", "smiling", "prediction")}
    tint = [*("amber", "teal", "violet"), *rng.choice(["amber", "teal"], n - 3)]
    return pd.DataFrame({**yes_no, "tint": tint, "shape": ["round", "square", *rng.choice(_GROUPS, n - 2)]})


def _table(rng: np.random.Generator) -> tuple[pd.DataFrame, str, str]:
    return _faces(rng), str(rng.choice(["hat", "smiling"])), str(rng.choice(["tint", "shape"]))


def _accuracy(frame: pd.DataFrame, attribute: str) -> dict[str, float]:
    right = frame["prediction"] == frame["smiling"]
    return {str(group): float(share) for group, share in right.groupby(frame[attribute]).mean().items()}


#: groups, truth values, one group -> the share of True among its members.
rate = Step(_rate, _lists)
#: {group: rate} -> largest minus smallest.
gap = Step(_gap, _rates)
#: table, column, attribute -> the gap of the shares of "yes" over all groups of the attribute.
gap_in_table = Step(_gap_in_table, _table)
#: table, attribute -> {group: share of right predictions}.
accuracy_by_group = Step(_accuracy, lambda rng: _table(rng)[::2])
