"""The fairness-performance figure: every method of every main task, mean over seeds.

Names stand at our methods, FedAvg, and whatever no other method beats in both; the tables name the rest. What
this module does not do: it shows no sampling interval; the tables do.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes

from benchmarks.grid import OURS, POSTHOC, TASKS
from benchmarks.table import ODDS, Cell, Grid, over_seeds

#: family -> marker; colour follows the family too, so neither is needed alone
FAMILIES = {"ours": "*", "post-hoc on FedAvg": "^", "trained": "o"}
#: points of balanced accuracy under FedAvg's beyond which a method is left out of the picture, and counted
SHOWN = 0.06


def family(method: str) -> str:
    """Which of the three a method belongs to."""
    return "ours" if method in OURS else "post-hoc on FedAvg" if method in POSTHOC else "trained"


def draw(grid: Grid, path: Path) -> None:
    """Write the figure as PNG."""
    tasks = [task for task in TASKS if TASKS[task].kind == "main" and "fedavg" in grid.get(task, {})]
    sns.set_theme(style="whitegrid", context="notebook")
    rows = max(1, -(-len(tasks) // 2))
    figure, axes = plt.subplots(rows, 2, figsize=(13, 5 * rows), layout="constrained", squeeze=False)
    for task, axis in zip(tasks, axes.flat, strict=False):
        _panel(axis, TASKS[task].title, grid[task])
    for axis in axes.flat[len(tasks) :]:
        axis.axis("off")
    if tasks:
        axes.flat[0].legend(loc="lower left", fontsize=9)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _panel(axis: Axes, title: str, methods: dict[str, list[Cell]]) -> None:
    colours = dict(zip(FAMILIES, sns.color_palette("colorblind", len(FAMILIES)), strict=True))
    found = {m: (over_seeds(c, ODDS), over_seeds(c, "balanced_accuracy")) for m, c in methods.items()}
    points = {m: (gap, accuracy) for m, (gap, accuracy) in found.items() if gap and accuracy}
    floor = points["fedavg"][1].value - SHOWN
    seen = {m: p for m, p in points.items() if p[1].value >= floor}
    for name, marker in FAMILIES.items():
        mine = [p for m, p in seen.items() if family(m) == name]
        if mine:
            axis.errorbar(
                [gap.value for gap, _ in mine],
                [accuracy.value for _, accuracy in mine],
                xerr=[gap.sd for gap, _ in mine],
                yerr=[accuracy.sd for _, accuracy in mine],
                fmt=marker,
                color=colours[name],
                markersize=15 if name == "ours" else 7,
                markeredgecolor="black",
                elinewidth=1,
                alpha=0.85,
                label=name,
            )
    best = sorted((gap.value, -accuracy.value, m) for m, (gap, accuracy) in seen.items())
    top = np.maximum.accumulate([-accuracy for _, accuracy, _ in best])
    axis.step([gap for gap, *_ in best], top, where="post", color="grey", linewidth=1, linestyle=":")
    named = {m for (_, accuracy, m), high in zip(best, top, strict=True) if -accuracy == high}
    null = float(np.mean([cell["metrics"][ODDS]["null_95"] for cell in methods["fedavg"]]))
    axis.axvline(null, color="black", linestyle="--", linewidth=1)
    said = sorted((-seen[m][1].value, m) for m in named | {*OURS, "fedavg"} if m in seen)
    for row, (_, m) in enumerate(said):  # one under the other, best accuracy first, with a line to the point
        gap, accuracy = seen[m]
        axis.annotate(
            m,
            (gap.value, accuracy.value),
            xytext=(0.98, 0.95 - 0.055 * row),
            textcoords="axes fraction",
            ha="right",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6},
        )
    hidden = len(points) - len(seen)
    note = f"; {hidden} method{'s lie' if hidden > 1 else ' lies'} below" if hidden else ""
    axis.set_title(title, loc="left", fontsize=11)
    axis.set_xlabel(f"odds gap (chance alone: left of the dashed line, 95 %){note}", fontsize=9)
    axis.set_ylabel("balanced accuracy")
