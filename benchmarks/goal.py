"""The goal, and by how much each part of it is hit or missed: nothing here but arithmetic on the cells.

What this module does not do: it knows no table and no figure.
"""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.grid import OURS, TASKS
from benchmarks.table import ODDS, Cell, Grid, best_projection, excess, over_seeds, reduction, summed

#: share by which the excess over chance must fall on each task
REDUCTION = {"fvlfp-peers-label-free": 0.60, "fvlfp-label-free": 0.60, "fvlfp": 0.60, "fvlfp-labels": 0.75}
#: and on the mean of all tasks (the figure of the paper)
MEAN_REDUCTION = 0.45
#: balanced accuracy that may be lost
COST = 0.01


class Verdict(NamedTuple):
    """hit, and what was measured, in words."""

    task: str
    method: str
    goal: str
    hit: bool
    told: str


def verdicts(grid: Grid) -> list[Verdict]:
    """Every part of the goal on every main task that has both FedAvg's cells and ours."""
    out = []
    for task, methods in grid.items():
        if TASKS[task].kind != "main" or "fedavg" not in methods:
            continue
        for method in OURS:
            cells = methods.get(method, [])
            if cells:
                found = _judge(cells, methods)
                out += [Verdict(task, method, goal, hit, told) for goal, (hit, told) in found.items()]
    return out


def _judge(cells: list[Cell], methods: dict[str, list[Cell]]) -> dict[str, tuple[bool, str]]:
    n = len(cells)
    found: dict[str, tuple[bool, str]] = {}
    if cells[0]["groups"] == 2:
        entries = [c["metrics"][ODDS] for c in cells]
        inside = sum(e["value"] <= e["null_95"] for e in entries)
        over = sum(e["value"] - e["null_95"] for e in entries) / n
        told = f"{inside} of {n} seeds; mean {over:+.3f} from the 95 % point of chance"
        found["odds gap within chance"] = inside == n, told
    share, wanted = reduction(cells, methods["fedavg"]), REDUCTION[cells[0]["method"]]
    if share is None:
        found["excess over chance falls"] = True, "FedAvg has no excess over chance here"
    else:
        told = f"by {share:.0%} of {excess(methods['fedavg']):.3f}, wanted {wanted:.0%}"
        found["excess over chance falls"] = share >= wanted, told
    gap = [c["changes"][ODDS] for c in cells]
    clear = sum(e["high"] < 0 for e in gap)
    found["paired interval of the odds gap excludes 0"] = clear == n, f"{clear} of {n} seeds"
    accuracy = over_seeds(cells, "balanced_accuracy", change=True)
    if accuracy:
        told = f"{accuracy.value:+.3f} [{accuracy.low:+.3f}, {accuracy.high:+.3f}]"
        found["balanced accuracy within 1 point"] = accuracy.value >= -COST, told
    worst = over_seeds(cells, "worst_cell_recall", change=True)
    if worst:
        told = f"{worst.value:+.3f} [{worst.low:+.3f}, {worst.high:+.3f}]"
        found["worst cell not lower"] = worst.value >= 0, told
    rival = best_projection(methods)
    if rival:
        ahead = summed([c["against"][rival][ODDS] for c in cells], "change")
        if ahead:
            told = f"{ahead.value:+.3f} [{ahead.low:+.3f}, {ahead.high:+.3f}] against {rival}"
            found["odds gap below FedAvg with the best free projection"] = ahead.value < 0, told
    return found


def over_tasks(grid: Grid, method: str) -> list[Verdict]:
    """What is judged over all main tasks together; [] where the method has no cells."""
    shares: dict[str, float] = {}
    ahead: list[str] = []
    behind: list[str] = []
    for task, methods in grid.items():
        cells, fedavg, leace = (methods.get(name) for name in (method, "fedavg", "leace"))
        if TASKS[task].kind != "main" or not cells or not fedavg:
            continue
        share = reduction(cells, fedavg)
        if share is not None:
            shares[task] = share
        if leace:
            (ahead if excess(cells) < excess(leace) else behind).append(task)
    if not shares:
        return []
    mean = sum(shares.values()) / len(shares)
    told = f"the excess falls by {mean:.0%} on the mean of {len(shares)} tasks, wanted {MEAN_REDUCTION:.0%}"
    found = [Verdict("all tasks", method, "mean excess falls", mean >= MEAN_REDUCTION, told)]
    if ahead or behind:
        told = f"the excess is below LEACE's on {len(ahead)} tasks and not on {len(behind)}"
        found.append(Verdict("all tasks", method, "as often ahead of LEACE", len(ahead) >= len(behind), told))
    return found
