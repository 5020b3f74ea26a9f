"""Lesson 10: what an audit report computes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fvlfp.audit.stats import intervals
from fvlfp.course.lesson import Step


def _wilson(k: int, n: int) -> list[float]:
    low, high = intervals.wilson(k, n)
    return [float(low), float(high)]


def _counts(rng: np.random.Generator) -> tuple[int, int]:
    n = int(rng.integers(3, 60))
    return int(rng.choice([0, n, int(rng.integers(0, n + 1))])), n


def _gap(rates: list[float]) -> float:
    known = [rate for rate in rates if rate == rate]
    return max(known) - min(known) if len(known) >= 2 else float("nan")


def _rates(rng: np.random.Generator) -> tuple[list[float]]:
    rates = np.round(rng.uniform(0.3, 0.9, int(rng.integers(2, 6))), 3)
    rates[rng.random(len(rates)) < 0.3] = np.nan
    return (rates.tolist(),)


def _p_value(observed: float, dealt: list[float]) -> float:
    return (1 + sum(gap >= observed for gap in dealt)) / (1 + len(dealt))


def _gaps(rng: np.random.Generator) -> tuple[float, list[float]]:
    dealt = np.round(np.abs(rng.normal(0, 0.05, int(rng.integers(9, 40)))), 2).tolist()
    return float(rng.choice([dealt[0], 0.06, 0.5])), dealt  # a tie, something between, more than all


def _noticed(document: Mapping[str, Any], attribute: str, difference: float) -> bool:
    gap = document["attributes"][attribute]["gaps"]["equalized_odds_difference_worst"]
    return bool(gap["minimum_detectable"] <= difference)


def _document(rng: np.random.Generator) -> tuple[dict[str, Any], str, float]:
    found = {
        name: {
            "gaps": {"equalized_odds_difference_worst": {"minimum_detectable": float(rng.uniform(0, 0.1))}}
        }
        for name in ("shape", "tint")
    }
    return {"attributes": found}, str(rng.choice(["shape", "tint"])), 0.05


#: (right answers k, faces n) -> the two ends of Wilson's 95 % interval.
wilson = Step(_wilson, _counts)
#: rates of groups, NaN where undefined -> the gap over the known ones.
gap = Step(_gap, _rates, cases=8)
#: (observed gap, gaps dealt by chance) -> the permutation p-value.
p_value = Step(_p_value, _gaps, cases=8)
#: (an audit's document, attribute, difference) -> would this audit have noticed it?
noticed = Step(_noticed, _document, cases=8)
