"""The README's picture: drawn faces, and the odds gap of three classifiers on them.

    python -m benchmarks.toyfaces

The numbers are those of RESULTS.md, task `toy-shape`: means over seeds, ends of the intervals averaged.
What this module does not do: it trains nothing.
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from benchmarks import RESULTS
from benchmarks.table import ODDS, Cell, Grid, over_seeds
from fvlfp.data import toyfaces
from fvlfp.data.table import Dataset

PICTURE = RESULTS / "toyfaces.png"
#: method of the grid -> its name in the picture
SHOWN = {
    "zero-shot": "zero-shot",
    "fedavg": "FedAvg prompts",
    "fvlfp-label-free": "full method,\nno group label",
}


def picture(methods: dict[str, list[Cell]], faces: Dataset, path: Path) -> None:
    """A strip of toy faces over the odds gap of each method, with its 95 % sampling interval."""
    shown = [
        (name, over_seeds(cells, ODDS), over_seeds(cells, "balanced_accuracy"))
        for name, cells in methods.items()
    ]
    bars = [(name, gap, accuracy) for name, gap, accuracy in shown if gap and accuracy]
    sns.set_theme(style="whitegrid", context="notebook")
    figure, (top, below) = plt.subplots(2, 1, figsize=(8, 5), height_ratios=[1, 1.5], layout="constrained")
    rows = np.flatnonzero((faces.frame["split"] == "test").to_numpy())[:20]
    strip = [np.hstack([np.asarray(faces.images[i]) for i in part]) for part in (rows[:10], rows[10:])]
    top.imshow(np.vstack(strip), interpolation="nearest")
    top.set_title("Drawn faces: is it smiling?", loc="left", fontsize=12)
    top.axis("off")
    gaps = [gap for _, gap, _ in bars]
    errors = np.array([[max(0, g.value - g.low), max(0, g.high - g.value)] for g in gaps]).T
    colours = sns.color_palette("colorblind", len(bars))
    drawn = below.barh([name for name, *_ in bars], [g.value for g in gaps], xerr=errors, color=colours,
                       edgecolor="black", capsize=4)  # fmt: skip
    for bar, hatch in zip(drawn, ["//", "..", ""], strict=True):
        bar.set_hatch(hatch)
    cells = methods[SHOWN["fedavg"]]
    chance = float(np.mean([cell["metrics"][ODDS]["null_95"] for cell in cells]))
    below.axvline(chance, color="black", linestyle="--", linewidth=1)
    below.text(chance, 2.55, " chance alone stays left of here (95 %)", fontsize=9, va="center")
    below.set_ylim(-0.6, 2.8)
    for y, (_, gap, accuracy) in enumerate(bars):
        below.text(gap.high + 0.004, y, f"balanced accuracy {accuracy.value:.3f}", va="center", fontsize=10)
    below.set_xlim(0, max(gap.high for gap in gaps) * 1.45)
    below.invert_yaxis()
    below.grid(axis="y", visible=False)  # it would strike through the numbers
    below.set_xlabel(
        "odds gap between round and square faces (worst of TPR and FPR),\n"
        f"mean of {len(cells)} seeds, n = {cells[0]['n_test']:,} each"
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Read the cells, draw."""
    grid = Grid.read()["toy-shape"]
    found = {name: grid[method] for method, name in SHOWN.items()}
    picture(found, toyfaces.make(60, seed=0), PICTURE)
    print(PICTURE)


if __name__ == "__main__":
    main()
