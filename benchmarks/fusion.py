"""Compare fusion rules on development rows: a split of *training* rows; no test row is read.

    [FVLFP_SHARED=DIR] python -m benchmarks.fusion [--task T ...] [--seeds 2]

Each rule alone (FedAvg, FPF, FPF judged by peers) and on top of CDFP and DSOP, with the group labels of
validation rows and without any. A third of a task's training rows, drawn by the seed, stands in for test
rows; drawn faces are drawn anew with seeds that no other benchmark uses. Writes `results/fusion.json` after
every run (a second call goes on from it) and `fusion.md` at the end. `peers_share` was chosen on such rows.
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
from scipy import stats

from benchmarks import RESULTS
from benchmarks.grid import TASKS, Sources, config_of
from benchmarks.machine import named
from benchmarks.markdown import table
from benchmarks.seeds import run_missing, states
from fvlfp import metrics
from fvlfp.config import Config
from fvlfp.data import toyfaces
from fvlfp.data.table import Dataset
from fvlfp.runs.train import Prepared, prepare, train
from fvlfp.training.model import ClientPrompts
from fvlfp.training.readout import Readout

_ALONE = {"lambda_cf": 0.0, "lambda_dsop": 0.0}
_PEERS = {"fusion": "peers", "beta": 0.0, "gamma": 0.0}
_AVERAGE = {"beta": 0.0, "gamma": 0.0}
_FREE = {"groups_from": "model"}
#: name -> config keys; the first four without CDFP and DSOP, the others with both
RULES: dict[str, dict[str, Any]] = {
    "FedAvg": _ALONE | _AVERAGE,
    "FPF": _ALONE,
    "peers": _ALONE | _PEERS,
    "peers, no labels": _ALONE | _PEERS | _FREE,
    "CDFP + DSOP, no labels": _AVERAGE | _FREE,
    "CDFP + DSOP + FPF, no labels": _FREE,
    "CDFP + DSOP + peers, no labels": _PEERS | _FREE,
    "CDFP + DSOP + peers": _PEERS,
}
#: (rule, against which): FPF alone, and on top of the other two components
COMPARED = (
    ("FPF", "FedAvg"),
    ("peers", "FedAvg"),
    ("peers, no labels", "FedAvg"),
    ("CDFP + DSOP + FPF, no labels", "CDFP + DSOP, no labels"),
    ("CDFP + DSOP + peers, no labels", "CDFP + DSOP, no labels"),
)
#: the goal of FPF alone: so much less of the gap, at so little balanced accuracy
LESS, POINT = 0.4, 0.01
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
    assert not isinstance(trained.model, ClientPrompts)  # no method here keeps prompts at the clients
    readout = Readout.of(prepared.task, trained.model)
    counts = next(iter(readout.confusion(prepared.test).values()))
    return {
        "balanced_accuracy": float(metrics.balanced_accuracy(counts)),
        "odds_gap": float(metrics.recall_gap(counts)),
        "largest_weight": float(np.mean([row.largest_weight or 0.0 for row in trained.history])),
        "uplink_bytes": round(np.mean([row.uplink_bytes for row in trained.history])),
        "n": len(prepared.test),
        "seconds": round(trained.seconds, 1),
    }


#: task -> rule -> balanced accuracy and odds gap
Found = dict[str, dict[str, tuple[float, float]]]


def means(runs: dict[str, dict[str, Any]]) -> Found:
    """Task -> rule -> balanced accuracy and odds gap, each a mean over the seeds that every rule has."""
    by: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for key, run in runs.items():
        task, rule, seed = key.split("|")
        by.setdefault(task, {}).setdefault(rule, {})[seed] = run
    out = {}
    for task, rules in by.items():
        if set(rules) == set(RULES):
            shared = set.intersection(*(set(seeds) for seeds in rules.values()))
            names = ("balanced_accuracy", "odds_gap")
            out[task] = {
                rule: tuple(float(np.mean([rules[rule][s][n] for s in shared])) for n in names)
                for rule in RULES
            }
    return out  # type: ignore[return-value]


def change(found: Found, rule: str, base: str) -> list[str]:
    """Of one rule against another: changes with t intervals over tasks, and the tasks that reach the goal."""
    pairs = {task: (np.array(t[rule]), np.array(t[base])) for task, t in found.items()}
    moved = np.array([a - b for a, b in pairs.values()])  # (tasks, 2): balanced accuracy, odds gap
    cells = []
    for values in moved.T:
        low, high = stats.ttest_1samp(values, 0.0).confidence_interval()
        cells.append(f"{values.mean():+.3f} [{low:+.3f}, {high:+.3f}]")
    hit = [t for t, (a, b) in pairs.items() if a[1] <= (1 - LESS) * b[1] and a[0] >= b[0] - POINT]
    return [rule, base, cells[1], cells[0], f"{len(hit)} of {len(pairs)}: {', '.join(hit) or 'none'}"]


def page(results: dict[str, Any]) -> str:
    """The results as Markdown, what was missed first."""
    found = means(results["runs"])
    compared = [change(found, rule, base) for rule, base in COMPARED]
    rows = [[task, *(f"{gap:.3f} ({right:.3f})" for right, gap in t.values())] for task, t in found.items()]
    mean = {r: tuple(np.mean([t[r] for t in found.values()], 0)) for r in RULES}
    rows.append(["**mean**", *(f"{gap:.3f} ({right:.3f})" for right, gap in mean.values())])
    seeds = sorted({key.rsplit("|", 1)[1] for key in results["runs"]})
    n = [run["n"] for run in results["runs"].values()]
    return "\n".join(
        [
            "# Fusion rules on development rows",
            "",
            "Written by `python -m benchmarks.fusion`; do not edit.",
            "",
            "## Missed",
            "",
            f"Wanted: FPF alone, without labels, lowers the excess odds gap by {LESS:.0%} on every task",
            "where clients differ, with balanced accuracy within 1 point. **Missed by every rule tried.**",
            "The table counts the tasks that reach it, by the raw gap (no excess was computed here; its",
            f"fall in percent is larger). Changes are means over {len(found)} tasks with 95 % t intervals",
            "over tasks. What FPF adds on top of CDFP and DSOP stands in the last two rows: an interval that",
            "holds 0 is an effect that cannot be told from none.",
            "",
            *table(
                ["rule", "against", "odds gap", "balanced accuracy", f"tasks with {LESS:.0%} less gap"],
                compared,
            ),
            "",
            "## Each task",
            "",
            "Each cell: the odds gap, and in brackets the balanced accuracy, on a third of the *training*",
            f"rows ({min(n):,} to {max(n):,} of them), mean over seeds {', '.join(seeds)}. No test row was",
            "read: the page is for a choice, not a claim. The first four columns train without CDFP, DSOP;",
            "`no labels` means that groups are read by the frozen model, never from labels.",
            "",
            f"Machine: {named(results['machine'])}. Made by these states of the code: {states(results)}.",
            "",
            *table(["task", *RULES], rows),
            "",
        ]
    )


def runs_of(sources: Sources, task: str, seed: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every rule on one task and seed; rows are read for the first that runs."""

    @functools.cache
    def prepared() -> Prepared:
        cfg = config_of(task, "fedavg", seed, device="cpu")
        return prepare(cfg, dataset=development(sources, task, cfg), encoder=sources.encoder(task))

    for rule, keys in RULES.items():
        cfg = config_of(task, "fvlfp", seed, device="cpu", **keys)
        yield f"{task}|{rule}|{seed}", lambda cfg=cfg: run_once(prepared(), cfg)  # type: ignore[misc]


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", action="append", choices=TASKS)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("fvlfp").setLevel(logging.ERROR)
    sources = Sources(args.work)
    tasks = args.task or [name for name, task in TASKS.items() if task.kind == "main" or name == "opposed"]
    cases = (case for seed in range(args.seeds) for task in tasks for case in runs_of(sources, task, seed))
    results = run_missing(RESULTS / "fusion.json", cases)
    (RESULTS / "fusion.md").write_text(page(results))
    print(RESULTS / "fusion.md")


if __name__ == "__main__":
    main()
