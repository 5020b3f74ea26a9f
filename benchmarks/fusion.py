"""FedAvg, FPF and FPF judged by peers on development rows: a split of *training* rows; no test row is read.

    [FVLFP_SHARED=DIR] python -m benchmarks.fusion [--task T ...] [--seeds 1]

A third of a task's training rows, drawn by the seed, stands in for test rows; drawn faces are drawn anew with
seeds that no other benchmark uses. Writes `results/fusion.json` after every run (a second call goes on from
it) and `fusion.md` at the end. `peers_share` was chosen on such rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import RESULTS
from benchmarks.grid import TASKS, Sources, config_of
from benchmarks.machine import named
from benchmarks.seeds import run_missing
from fvlfp.config import Config
from fvlfp.data import toyfaces
from fvlfp.data.table import Dataset
from fvlfp.fpf import balanced_accuracy, recall_gap
from fvlfp.runs.train import Prepared, prepare, train
from fvlfp.training.readout import Readout

METHODS = ("fedavg", "fpf", "fpf-peers")
#: added to the seeds of drawn faces
ANEW = 1_000


def development(sources: Sources, task: str, cfg: Config) -> Dataset:
    """The task's training rows, without their `split`: `prepare` then takes a third of them for test rows."""
    if TASKS[task].source == "toy":
        dataset = toyfaces.make(cfg.n, seed=ANEW + cfg.seed, label=cfg.label, **TASKS[task].toy)
    else:
        dataset = sources.dataset(task, cfg)
    mine = dataset.take(np.flatnonzero((dataset.frame["split"] != "test").to_numpy()))
    return dataclasses.replace(mine, frame=mine.frame.drop(columns="split"))


def run_once(prepared: Prepared, cfg: Config) -> dict[str, Any]:
    """Train; balanced accuracy and odds gap on the development rows, largest weight, bytes a round."""
    trained = train(cfg, prepared, progress=None)
    readout = Readout.of(prepared.task, trained.model)
    counts = next(iter(readout.confusion(prepared.test).values()))
    return {
        "balanced_accuracy": balanced_accuracy(counts),
        "odds_gap": recall_gap(counts),
        "largest_weight": float(np.mean([row.largest_weight or 0.0 for row in trained.history])),
        "uplink_bytes": round(np.mean([row.uplink_bytes for row in trained.history])),
        "n": len(prepared.test),
        "seconds": round(trained.seconds, 1),
    }


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    rows = []
    for key, run in results["runs"].items():
        task, method, seed = key.split("|")
        shown = [f"{run[name]:.3f}" for name in ("balanced_accuracy", "odds_gap", "largest_weight")]
        cost = [f"{run['uplink_bytes']:,}", f"{run['seconds']:g}"]
        rows.append(f"| {task} | {seed} | {method} | {run['n']:,} | {' | '.join(shown + cost)} |")
    return "\n".join(
        [
            "# Fusion rules on development rows",
            "",
            "Written by `python -m benchmarks.fusion`; do not edit. FPF alone, without CDFP and DSOP, on a "
            "third of the *training* rows; no test row was read. Single seeds and no intervals: this page "
            "is for a choice, not for a claim. Weight: largest share of one client, mean over rounds.",
            "",
            f"Machine: {named(results['machine'])}; other work ran beside it, so seconds are an upper bound.",
            "",
            "| task | seed | method | n | balanced accuracy | odds gap | weight | bytes a round | seconds |",
            "|---|--:|---|--:|--:|--:|--:|--:|--:|",
            *rows,
        ]
    ) + "\n"  # fmt: skip


def runs_of(
    sources: Sources, task: str, seed: int, methods: tuple[str, ...]
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every method on one task and seed; rows are read for the first that runs."""

    def config(method: str) -> Config:
        t = TASKS[task]
        base = {"label": t.label, "groups": (t.group,), "seed": seed, "device": "cpu", **t.settings}
        named_model = (
            {} if t.source == "toy" else {"data": f"fairface_{t.source}.csv", "model": "FaceCLIP-64"}
        )
        return Config.make(method=method, **base, **named_model)

    @functools.cache
    def prepared() -> Prepared:
        cfg = config_of(task, "fedavg", seed, device="cpu")
        return prepare(cfg, dataset=development(sources, task, cfg), encoder=sources.encoder(task))

    for method in methods:
        yield f"{task}|{method}|{seed}", lambda method=method: run_once(prepared(), config(method))  # type: ignore


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("fvlfp").setLevel(logging.ERROR)
    sources = Sources(args.work)
    tasks = args.task or ["toy-shape", "toy-tint", "age-gender", "opposed", "gender-race"]
    cases = (c for seed in range(args.seeds) for task in tasks for c in runs_of(sources, task, seed, METHODS))
    results = run_missing(RESULTS / "fusion.json", cases)
    (RESULTS / "fusion.md").write_text(page(results))
    print(RESULTS / "fusion.md")


if __name__ == "__main__":
    main()
