"""The README's picture: drawn faces, and the odds gap of three classifiers on them.

    python -m benchmarks.toyfaces

The numbers are cells of the results grid (task `toy-shape`, seed 0), which stand in RESULTS.md too.
What this module does not do: it trains nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from benchmarks.grid import GRID, cell_path
from benchmarks.table import ODDS
from fvlfp.data import toyfaces
from fvlfp.data.table import Dataset

PICTURE = GRID.parent / "toyfaces.png"
#: method of the grid -> its name in the picture
SHOWN = {
    "zero-shot": "zero-shot",
    "fedavg": "FedAvg prompts",
    "fvlfp-label-free": "full method,\nno group label",
}


def picture(cells: dict[str, dict[str, Any]], faces: Dataset, path: Path) -> None:
    """A strip of toy faces over the odds gap of each method, with its 95 % sampling interval."""
    sns.set_theme(style="whitegrid", context="notebook")
    figure, (top, below) = plt.subplots(2, 1, figsize=(8, 5), height_ratios=[1, 1.5], layout="constrained")
    rows = np.flatnonzero((faces.frame["split"] == "test").to_numpy())[:20]
    strip = [np.hstack([np.asarray(faces.images[i]) for i in part]) for part in (rows[:10], rows[10:])]
    top.imshow(np.vstack(strip), interpolation="nearest")
    top.set_title("Drawn faces: is it smiling?", loc="left", fontsize=12)
    top.axis("off")
    names = list(cells)
    gaps = [cell["metrics"][ODDS] for cell in cells.values()]
    values = np.array([gap["value"] for gap in gaps])
    errors = np.array([[max(0, g["value"] - g["low"]), max(0, g["high"] - g["value"])] for g in gaps]).T
    colours = sns.color_palette("colorblind", len(names))
    bars = below.barh(names, values, xerr=errors, color=colours, edgecolor="black", capsize=4)
    for bar, hatch in zip(bars, ["//", "..", ""], strict=True):
        bar.set_hatch(hatch)
    chance = gaps[names.index("FedAvg prompts")]["null_95"]
    below.axvline(chance, color="black", linestyle="--", linewidth=1)
    below.text(chance, 2.55, " chance alone stays left of here (95 %)", fontsize=9, va="center")
    below.set_ylim(-0.6, 2.8)
    for y, (cell, gap) in enumerate(zip(cells.values(), gaps, strict=True)):
        accuracy = cell["metrics"]["balanced_accuracy"]["value"]
        below.text(gap["high"] + 0.004, y, f"balanced accuracy {accuracy:.3f}", va="center", fontsize=10)
    below.set_xlim(0, max(gap["high"] for gap in gaps) * 1.35)
    below.invert_yaxis()
    n = next(iter(cells.values()))["n_test"]
    below.set_xlabel(f"odds gap between round and square faces (worst of TPR and FPR, n = {n})")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Read the cells, draw."""
    found = {name: json.loads(cell_path("toy-shape", m, 0).read_text()) for m, name in SHOWN.items()}
    picture(found, toyfaces.make(60, seed=0), PICTURE)
    print(PICTURE)


if __name__ == "__main__":
    main()
