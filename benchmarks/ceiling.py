"""How far a linear head on the frozen embedding could go, even one that knows the group at inference.

    FVLFP_SHARED=DIR python -m benchmarks.ceiling [--task T ...]

Three linear heads (logistic regression, classes weighted equally) on a development split of *training* rows
(a third is held out by seed; no test row is read): one for everybody; one whose rows also weigh groups
equally; and one *for each group*, which must be told the group at inference. If even the last leaves an odds
gap, the image tower itself separates the classes less well for some groups, and no prompt, projection or
fusion rule that keeps the accuracy of the others can close it. Writes `results/ceiling.json`, which
`benchmarks.results` shows.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

from benchmarks.grid import TASKS, Sources, config_of
from benchmarks.machine import machine
from benchmarks.shared import command
from fvlfp import metrics
from fvlfp.arrays import default_cache
from fvlfp.clip.cache import features
from fvlfp.errors import InputError
from fvlfp.training.examples import codes, which_test

RESULT = Path(__file__).parent / "results" / "ceiling.json"
SEEDS = range(5)
MAIN = [name for name, task in TASKS.items() if task.kind == "main"]
HEADS = {
    "one head": "one linear head for everybody",
    "one head, cells equal": "one linear head, every class-group cell weighted equally",
    "a head per group": "a linear head per group, told the group at inference",
}


def heads(z: np.ndarray, y: np.ndarray, g: np.ndarray, seed: int) -> dict[str, dict[str, Any]]:
    """Head -> balanced accuracy, worst cell, odds gap, its value by chance, and balanced accuracy by group.

    z (n, d), y (n,) of two classes, g (n,): split by `seed`, two thirds to fit, one to measure.
    """
    held = np.random.default_rng(seed).random(len(y)) < 1 / 3
    fit = ~held
    cell = y * (g.max() + 1) + g
    equal = (1 / np.bincount(cell[fit], minlength=cell.max() + 1).clip(1))[cell]
    said = {name: np.empty(held.sum(), int) for name in HEADS}

    def head(rows: np.ndarray, weight: np.ndarray | None = None) -> LogisticRegression:
        model = LogisticRegression(
            C=10.0, max_iter=2_000, class_weight="balanced" if weight is None else None
        )
        return model.fit(z[rows] * 10, y[rows], None if weight is None else weight[rows] * len(weight))

    said["one head"] = head(fit).predict(z[held] * 10)
    said["one head, cells equal"] = head(fit, equal).predict(z[held] * 10)
    for group in np.unique(g):
        mine = g[held] == group
        said["a head per group"][mine] = head(fit & (g == group)).predict(z[held][mine] * 10)
    return {name: _measured(y[held], predicted, g[held], seed) for name, predicted in said.items()}


def _measured(y: np.ndarray, predicted: np.ndarray, g: np.ndarray, seed: int) -> dict[str, Any]:
    counts = np.zeros((g.max() + 1, 2, 2))
    np.add.at(counts, (g, y, predicted), 1)
    totals = counts.sum(2).T.astype(int)  # (C, G)
    right = np.einsum("gcc->c", counts) / totals.sum(1)
    chance = np.random.default_rng(seed).binomial(totals, right[:, None], (2_000, *totals.shape)) / totals
    by_group = metrics.recalls(counts).mean(1)
    return {
        "n": int(counts.sum()),
        "balanced_accuracy": float(metrics.balanced_accuracy(counts)),
        "worst_cell_recall": float(metrics.worst_cell_recall(counts)),
        "odds_gap": float(metrics.recall_gap(counts)),
        "by_chance": float((chance.max(2) - chance.min(2)).max(1).mean()),
        "balanced_accuracy_by_group": by_group.round(4).tolist(),
    }


def measured(sources: Sources, name: str) -> dict[str, Any]:
    """What the heads reach on one task, by seed; training rows only."""
    t, cfg = TASKS[name], config_of(name, "fedavg", 0)
    dataset = sources.dataset(name, cfg)
    keep = ~which_test(dataset.frame, cfg)
    frame = dataset.frame[keep].reset_index(drop=True)
    images = dataset.take(keep).images
    z = features(sources.encoder(name), images, cache=default_cache())
    y = codes(frame, t.label, list(dataset.card.classes[t.label]))
    groups = list(dataset.card.groups[t.group].words)
    g = codes(frame, t.group, groups)
    return {"groups": groups, "seeds": [heads(z, y, g, seed) for seed in SEEDS]}


def main() -> None:
    """Every main task that the file lacks, five seeds; a task without its model is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", choices=MAIN, action="append", help="run these again")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    sources = Sources(args.work)
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.is_file() else {"tasks": {}}
    for name in args.task or [t for t in MAIN if t not in found["tasks"]]:
        try:
            found["tasks"][name] = measured(sources, name)
        except InputError as error:
            print(f"{name}: {error}", flush=True)
            continue
        found["tasks"] = {t: found["tasks"][t] for t in MAIN if t in found["tasks"]}
        found["machine"] = machine()
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(name, json.dumps(found["tasks"][name]["seeds"][0]), flush=True)


if __name__ == "__main__":
    sys.exit(command(main))
