"""Built-in data: zero-shot, FedAvg prompts and the full method on drawn faces, and the README's picture.

    python -m benchmarks.toyfaces [--seeds 3]

Writes `benchmarks/results/toyfaces.json`, `toyfaces.md` and `toyfaces.png`. A seed draws new faces, new
clients and new batches. Needs nothing but the package.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from benchmarks.fairface import ACCURACY, GAPS, RESULTS, changes_of, metrics_of
from benchmarks.machine import machine
from fvlfp.config import Config
from fvlfp.data import toyfaces
from fvlfp.data.table import Dataset
from fvlfp.federation.run import predict, prepare, train

TASKS = {"smiling by shape": ("smiling", "shape"), "smiling by tint": ("smiling", "tint")}
METHODS: dict[str, dict[str, Any]] = {"FedAvg prompts": {"method": "fedavg"}, "full method": {}}


def run_seed(label: str, group: str, seed: int) -> dict[str, Any]:
    """Metrics of each method and the paired change of the full one against FedAvg prompts."""
    base = {"label": label, "groups": (group,), "seed": seed}
    cfg = Config.make("full", **base)
    prepared = prepare(cfg)
    frames, seconds, chosen = {"zero-shot": predict(prepared)}, {}, {}
    for name, changes in METHODS.items():
        trained = train(Config.make("full", **base, **changes), prepared, progress=None)
        frames[name] = predict(prepared, trained)
        seconds[name] = round(trained.seconds, 1)
        chosen[name] = [trained.projection.basis.shape[1], trained.projection.lam]
    common = {"label": label, "prediction": "prediction", "groups": [group], "positive": "yes", "seed": seed}
    return {
        "n_test": len(prepared.test),
        "metrics": {name: metrics_of(frame, group, common) for name, frame in frames.items()},
        "change": changes_of(frames["FedAvg prompts"], frames["full method"], group, common),
        "rank_lambda": chosen,
        "seconds": seconds,
    }


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    where = results["machine"]
    lines = [
        "# Built-in data: before and after",
        "",
        "Written by `python -m benchmarks.toyfaces`; do not edit. Drawn faces, ToyCLIP-64, no group label in "
        "training. In brackets: 95 % sampling intervals on that seed's test rows.",
        "",
        f"Machine: {where['cpu']}, {where['cores']} cores, torch {where['torch']}, flwr {where['flwr']}.",
    ]
    columns = ACCURACY | GAPS
    for task, by_seed in results["tasks"].items():
        first = next(iter(by_seed.values()))
        null = first["metrics"]["zero-shot"]["equalized_odds_difference_worst"]
        lines += [
            *("", f"## {task}", ""),
            f"n = {first['n_test']} test rows a seed; odds gap expected by chance "
            f"{null['expected_null']:.3f} (95 %: {null['null_95']:.3f}).",
            "",
            "| | seed | " + " | ".join(columns.values()) + " |",
            "|---|---|" + "---|" * len(columns),
        ]
        for name in first["metrics"]:
            for seed, run in by_seed.items():
                cells = [run["metrics"][name][key] for key in columns]
                told = [f"{c['value']:.3f} [{c['low']:.3f}, {c['high']:.3f}]" for c in cells]
                lines.append(f"| {name} | {seed} | " + " | ".join(told) + " |")
        for seed, run in by_seed.items():
            cells = [run["change"][key] for key in columns]
            told = [f"{c['change']:+.3f} [{c['low']:+.3f}, {c['high']:+.3f}]" for c in cells]
            lines.append(f"| **change, full - FedAvg** | {seed} | " + " | ".join(told) + " |")
    return "\n".join(lines) + "\n"


def picture(results: dict[str, Any], faces: Dataset, path: Path) -> None:
    """A strip of toy faces over the odds gap of three classifiers, seed 0."""
    sns.set_theme(style="whitegrid", context="notebook")
    figure, (top, below) = plt.subplots(2, 1, figsize=(8, 5), height_ratios=[1, 1.5], layout="constrained")
    rows = np.flatnonzero((faces.frame["split"] == "test").to_numpy())[:20]
    strip = [np.hstack([np.asarray(faces.images[i]) for i in part]) for part in (rows[:10], rows[10:])]
    top.imshow(np.vstack(strip), interpolation="nearest")
    top.set_title("Drawn faces: is it smiling?", loc="left", fontsize=12)
    top.axis("off")
    run = results["tasks"]["smiling by shape"]["0"]
    names = list(run["metrics"])
    cells = [run["metrics"][name]["equalized_odds_difference_worst"] for name in names]
    values = np.array([cell["value"] for cell in cells])
    errors = np.array([[max(0, c["value"] - c["low"]), max(0, c["high"] - c["value"])] for c in cells]).T
    colours = sns.color_palette("colorblind", len(names))
    bars = below.barh(names, values, xerr=errors, color=colours, edgecolor="black", capsize=4)
    for bar, hatch in zip(bars, ["//", "..", ""], strict=True):
        bar.set_hatch(hatch)
    below.axvline(cells[0]["null_95"], color="black", linestyle="--", linewidth=1)
    below.text(cells[0]["null_95"], 2.55, " chance alone stays left of here (95 %)", fontsize=9, va="center")
    below.set_ylim(-0.6, 2.8)
    for y, name in enumerate(names):
        accuracy = run["metrics"][name]["balanced_accuracy"]["value"]
        below.text(0.003, y, f"balanced accuracy {accuracy:.3f}", va="center", fontsize=10,
                   bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 2})  # fmt: skip
    below.invert_yaxis()
    below.set_xlabel(f"odds gap between round and square faces (worst of TPR and FPR, n = {run['n_test']})")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    """Run every task and seed, then write JSON, page and picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "tasks": {}}
    for task, (label, group) in TASKS.items():
        results["tasks"][task] = {str(s): run_seed(label, group, s) for s in range(args.seeds)}
        print(task, flush=True)
    (RESULTS / "toyfaces.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "toyfaces.md").write_text(page(results))
    picture(results, toyfaces.make(60, seed=0), RESULTS / "toyfaces.png")
    print(RESULTS / "toyfaces.md")


if __name__ == "__main__":
    main()
