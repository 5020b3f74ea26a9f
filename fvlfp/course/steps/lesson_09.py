"""Lesson 09: the four functions of lessons 05 to 08 once more, and a part's average effect."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from fvlfp.course.lesson import Step
from fvlfp.course.steps.lesson_05 import fedavg
from fvlfp.course.steps.lesson_06 import cf_loss
from fvlfp.course.steps.lesson_07 import project
from fvlfp.course.steps.lesson_08 import by_peers

__all__ = ["average_effect", "by_peers", "cf_loss", "fedavg", "project"]

_PARTS = ("CDFP", "DSOP", "FPF")


def _effect(gap: dict[str, float], part: str) -> float:
    on = [value for name, value in gap.items() if part in name]
    off = [value for name, value in gap.items() if part not in name]
    return float(np.mean(on) - np.mean(off))


def _eight(rng: np.random.Generator) -> tuple[dict[str, float], str]:
    names = [" + ".join(some) or "FedAvg" for r in range(4) for some in combinations(_PARTS, r)]
    gap = {name: float(value) for name, value in zip(names, rng.uniform(0.02, 0.25, 8).round(3), strict=True)}
    return gap, str(rng.choice(_PARTS))


#: name of a combination -> its odds gap, and a part -> the part's average effect.
average_effect = Step(_effect, _eight)
