"""The committed cells of the grid, read and summed up over seeds.

What this module does not do: it writes no page and runs nothing.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from benchmarks.grid import GRID, PROJECTIONS

ODDS = "equalized_odds_difference_worst"
#: metric -> heading; accuracy and worst cell stand beside every gap
COLUMNS = {
    "balanced_accuracy": "balanced accuracy",
    "worst_cell_recall": "worst cell",
    "demographic_parity_difference": "parity gap",
    ODDS: "odds gap",
}
Cell = dict[str, Any]


class Grid(dict[str, dict[str, list[Cell]]]):
    """task -> method -> cells, one a seed, in the order of seeds."""

    @classmethod
    def read(cls, root: Path = GRID) -> Grid:
        """All cells under `root`."""
        grid = cls()
        for path in sorted(root.glob("*/*/*.json"), key=lambda p: (p.parts[:-1], int(p.stem))):
            cell = json.loads(path.read_text())
            grid.setdefault(cell["task"], {}).setdefault(cell["method"], []).append(cell)
        return grid

    def without(self, names: Container[str]) -> Grid:
        """The same grid less these methods."""
        left = {task: {m: c for m, c in methods.items() if m not in names} for task, methods in self.items()}
        return Grid({task: methods for task, methods in left.items() if methods})

    def cells(self) -> list[Cell]:
        """All of them."""
        return [cell for methods in self.values() for cells in methods.values() for cell in cells]


class Mean(NamedTuple):
    """Over seeds: mean, standard deviation, and the mean ends of the seeds' sampling intervals."""

    value: float
    sd: float
    low: float
    high: float


def over_seeds(cells: Sequence[Cell], metric: str, *, change: bool = False) -> Mean | None:
    """One metric (or its paired change against FedAvg) over seeds; None where any seed lacks it."""
    entries = [cell.get("changes" if change else "metrics", {}).get(metric, {}) for cell in cells]
    return summed(entries, "change" if change else "value")


def summed(entries: Sequence[dict[str, Any]], key: str) -> Mean | None:
    """As `over_seeds`, from the entries themselves."""
    if not entries or any(key not in e for e in entries):
        return None
    values = [e[key] for e in entries]
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    ends = [float(np.mean([e.get(end, e[key]) for e in entries])) for end in ("low", "high")]
    return Mean(float(np.mean(values)), sd, *ends)


def excess(cells: Sequence[Cell]) -> float:
    """Odds gap minus what equal rates would show by chance, mean over seeds."""
    return float(np.mean([c["metrics"][ODDS]["value"] - c["metrics"][ODDS]["expected_null"] for c in cells]))


def reduction(cells: Sequence[Cell], fedavg: Sequence[Cell]) -> float | None:
    """By which share the excess is lower than FedAvg's on the same seeds; None where FedAvg has none."""
    seeds = {cell["seed"] for cell in cells} & {cell["seed"] for cell in fedavg}
    if not seeds:
        return None
    after, before = (excess([c for c in some if c["seed"] in seeds]) for some in (cells, fedavg))
    return 1 - after / before if before > 0 else None


def best_projection(methods: dict[str, list[Cell]], *, cost: float = 0.01) -> str | None:
    """The post-hoc projection with the smallest odds gap that keeps FedAvg's balanced accuracy within `cost`.

    It is picked on the test rows: in favour of the projections, against our method.
    """
    floor = over_seeds(methods["fedavg"], "balanced_accuracy")
    gaps = {}
    for name in PROJECTIONS:
        cells = methods.get(name, [])
        accuracy, gap = over_seeds(cells, "balanced_accuracy"), over_seeds(cells, ODDS)
        if floor and accuracy and gap and accuracy.value >= floor.value - cost:
            gaps[name] = gap.value
    return min(gaps, key=lambda name: gaps[name], default=None)


def main_effect(
    methods: dict[str, list[Cell]], component: str, metric: str
) -> tuple[float, float, float] | None:
    """What switching a component on changes, mean over the four settings of the others and over seeds.

    Returns (effect, low, high) with a 95 % t interval over the seeds that every corner has; None where they
    are fewer than two.
    """
    others = [name for name in ("cdfp", "dsop", "fpf") if name != component]
    pairs = []
    for present in itertools.product((False, True), repeat=2):
        base = [name for name, on in zip(others, present, strict=True) if on]
        pairs.append([_corner(methods, names) for names in (base, [*base, component])])
    shared = set.intersection(*(set(corner) for pair in pairs for corner in pair))
    effects = []
    for seed in sorted(shared):
        values = [[c[seed]["metrics"].get(metric, {}).get("value") for c in pair] for pair in pairs]
        if any(value is None for pair in values for value in pair):
            return None
        effects.append(float(np.mean([on - off for off, on in values])))
    if len(effects) < 2:
        return None
    half = stats.t.ppf(0.975, len(effects) - 1) * np.std(effects, ddof=1) / len(effects) ** 0.5
    mean = float(np.mean(effects))
    return mean, mean - float(half), mean + float(half)


def _corner(methods: dict[str, list[Cell]], names: Sequence[str]) -> dict[int, Cell]:
    name = {0: "fedavg", 3: "fvlfp"}.get(len(names)) or "-".join(sorted(names))
    return {cell["seed"]: cell for cell in methods.get(name, [])}
