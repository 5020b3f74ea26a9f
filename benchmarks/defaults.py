"""Compare values of the full method's defaults on development splits of training rows; no test row is read.

    FVLFP_SHARED=DIR python -m benchmarks.defaults [--seeds 2] [--task T ...]

A third of each task's training rows, drawn by seed, plays the test set; the rest are clients. One setting is
changed at a time from today's defaults, without any group label in training; one more run may choose any
projection (`select.KEPT` = 0). A value is better where its mean excess over chance, over tasks and seeds, is
smaller and its mean balanced accuracy is within one point of FedAvg's. Writes `results/defaults.json` after
each run, resumes, and ends with `results/defaults.md`, which names the best value of each setting. It changes
no default: a person does, in `fvlfp.options`.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from scipy import stats

from benchmarks import RESULTS
from benchmarks.grid import TASKS, Sources, config_of, metrics_of
from benchmarks.machine import named
from benchmarks.markdown import table
from benchmarks.seeds import run_missing, states
from benchmarks.shared import command
from benchmarks.table import ODDS
from fvlfp.data.table import Dataset
from fvlfp.runs.predict import predict
from fvlfp.runs.train import prepare, train
from fvlfp.training import select
from fvlfp.training.examples import which_test

RESULT = RESULTS / "defaults.json"
METHOD = "fvlfp-label-free"
#: setting -> values to try beside the default
CANDIDATES: dict[str, tuple[float, ...]] = {
    "lambda_cf": (0.5, 2.0, 5.0, 20.0),
    "alpha": (1.0, 3.0, 4.0),
    "beta": (0.0, 4.0),
    "gamma": (0.0, 20.0),
    "depth": (1,),
}
COST = 0.01  # balanced accuracy that may be lost
FEDAVG, DEFAULT = "fedavg", "default"
#: the default without the rule that a projection must leave some of what separates the classes
ANY_PROJECTION = "any projection"


def development(dataset: Dataset, cfg: Any, seed: int) -> Dataset:
    """The training rows alone, a third of them as test rows."""
    kept = dataset.take(~which_test(dataset.frame, cfg))
    held = np.random.default_rng(seed).random(len(kept)) < 1 / 3
    return dataclasses.replace(kept, frame=kept.frame.assign(split=np.where(held, "test", "train")))


def variants() -> dict[str, dict[str, Any]]:
    """Name -> what differs from the full method; FedAvg first."""
    one = {f"{k} = {v:g}": {k: v} for k, values in CANDIDATES.items() for v in values}
    return {FEDAVG: {}, DEFAULT: {}, **one, ANY_PROJECTION: {}}


def run(sources: Sources, task: str, name: str, seed: int) -> dict[str, Any]:
    """Balanced accuracy and excess of one variant on one task's development split."""
    cfg = config_of(task, FEDAVG if name == FEDAVG else METHOD, seed, **variants()[name])
    prepared = prepare(
        cfg, dataset=development(sources.dataset(task, cfg), cfg, seed), encoder=sources.encoder(task)
    )
    with patch.object(select, "KEPT", 0.0 if name == ANY_PROJECTION else select.KEPT):
        trained = train(cfg, prepared, progress=None)
    found = metrics_of(predict(prepared, trained), task, seed)
    odds = found[ODDS]
    return {
        "balanced_accuracy": found["balanced_accuracy"]["value"],
        "excess": odds["value"] - odds["expected_null"],
        "config": cfg.digest(),
        "seconds": round(trained.seconds, 1),
    }


def by_place(runs: dict[str, dict[str, Any]]) -> dict[str, np.ndarray]:
    """Variant -> balanced accuracy and excess (places, 2), for the tasks and seeds that every variant has."""
    names = {key.partition("|")[0] for key in runs}
    places = sorted({key.partition("|")[2] for key in runs})
    shared = [place for place in places if all(f"{name}|{place}" in runs for name in names)]
    found = {
        name: np.array([[runs[f"{name}|{p}"][k] for k in ("balanced_accuracy", "excess")] for p in shared])
        for name in names
    }
    return found if shared else {}


def means(runs: dict[str, dict[str, Any]]) -> dict[str, tuple[float, float]]:
    """Variant -> mean balanced accuracy and mean excess, over the tasks and seeds that every variant has."""
    return {name: (float(v[:, 0].mean()), float(v[:, 1].mean())) for name, v in by_place(runs).items()}


def best(found: dict[str, tuple[float, float]]) -> dict[str, str]:
    """Setting -> the variant with the smallest excess among those that cost at most `COST`."""
    floor = found[FEDAVG][0] - COST
    out = {}
    for setting in CANDIDATES:
        mine = [n for n in found if n == DEFAULT or n.startswith(f"{setting} = ")]
        allowed = [n for n in mine if found[n][0] >= floor]
        out[setting] = min(allowed, key=lambda n: found[n][1]) if allowed else "none keeps the accuracy"
    return out


def page(results: dict[str, Any]) -> str:
    """benchmarks/results/defaults.md."""
    found, average = by_place(results["runs"]), means(results["runs"])
    places = sorted(key.partition("|")[2] for key in results["runs"] if key.startswith(f"{FEDAVG}|"))
    tasks, seeds = ({place.split("|")[i] for place in places} for i in (0, 1))
    rows = [
        (
            name,
            "" if name == FEDAVG else _change(found[name][:, 0] - found[FEDAVG][:, 0]),
            f"{average[name][1]:.3f}",
            "" if name == DEFAULT else _change(found[name][:, 1] - found[DEFAULT][:, 1]),
        )
        for name in variants()
    ]
    lines = [
        "# How the defaults compare with other values",
        "",
        "Written by `python -m benchmarks.defaults`. On development splits of training rows: a third of",
        "them, drawn by seed, plays the test set, and no test row is read. The method is",
        f"`{METHOD}`, with one setting changed at a time.",
        f"{len(tasks)} tasks, seeds {', '.join(sorted(seeds))}.",
        "Excess is the odds gap above chance. Brackets are 95 % t-intervals over tasks and seeds.",
        "",
        *_missed(results["runs"]),
        f"Machine: {named(results['machine'])}. State of the code: {states(results)}.",
        "",
        *table(["", "balanced accuracy, change from FedAvg", "excess", "change from the default"], rows),
        "",
        "The rule: the smallest mean excess among values whose mean balanced accuracy is within one point of",
        "FedAvg's.",
        "",
        *(f"- `{setting}`: {name}" for setting, name in best(average).items()),
    ]
    return "\n".join(lines) + "\n"


def _missed(runs: dict[str, dict[str, Any]]) -> list[str]:
    """Where today's defaults cost more than the rule allows; it stands first."""

    def loss(of: dict[str, dict[str, Any]]) -> float:
        average = means(of)
        return average[FEDAVG][0] - average[DEFAULT][0] if average else 0.0

    lost = loss(runs)
    if lost <= COST:
        return []
    tasks = {key.split("|")[1] for key in runs}
    losses = {task: loss({k: run for k, run in runs.items() if k.split("|")[1] == task}) for task in tasks}
    costly = sorted((task for task in losses if losses[task] > COST), key=lambda task: -losses[task])
    named_losses = ", ".join(f"`{task}` ({100 * losses[task]:.1f})" for task in costly)
    return [
        f"**Today's defaults miss the rule**: they cost {100 * lost:.1f} points of balanced accuracy on the",
        f"mean over tasks. More than one point is lost on {named_losses}.",
        "",
    ]


def _change(differences: np.ndarray) -> str:
    """Mean and 95 % t-interval."""
    low, high = stats.ttest_1samp(differences, 0).confidence_interval()
    return f"{differences.mean():+.3f} [{low:+.3f}, {high:+.3f}]"


def main() -> None:
    """The command line."""
    main_tasks = [name for name, task in TASKS.items() if task.kind == "main"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--task", choices=main_tasks, action="append")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    sources = Sources(args.work)
    cases = (
        (f"{name}|{task}|{seed}", lambda name=name, task=task, seed=seed: run(sources, task, name, seed))
        for seed in range(args.seeds)
        for task in args.task or main_tasks
        for name in variants()
    )
    results = run_missing(RESULT, cases)
    if means(results["runs"]):
        RESULT.with_suffix(".md").write_text(page(results))


if __name__ == "__main__":
    sys.exit(command(main))
