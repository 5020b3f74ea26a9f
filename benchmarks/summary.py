"""The results page's summary, one line a task, and what happens when prompts move to another data set.

What this module does not do: it runs nothing; cells come from `results/grid`, the limit of a linear head from
`results/ceiling.json`, the transfer from `results/transfer.json`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from benchmarks import RESULTS
from benchmarks.ceiling import RESULT as CEILING
from benchmarks.grid import TASKS
from benchmarks.markdown import table
from benchmarks.table import Cell, Grid, excess, over_seeds, reduction

#: the two forms of the full method that read no group label
JUDGED, OWN = "fvlfp-peers-label-free", "fvlfp-label-free"
TRANSFER = RESULTS / "transfer.json"


def summary(grid: Grid) -> str:
    """One line a main task: FedAvg, two forms of the full method without group labels, LEACE, the limit."""
    limits, rows = _limits(), []
    for task in (t for t in TASKS if TASKS[t].kind == "main"):
        methods = grid.get(task, {})
        fedavg, judged, own, leace = (methods.get(m, []) for m in ("fedavg", JUDGED, OWN, "leace"))
        if not fedavg:
            continue
        told = [TASKS[task].title, str(len(fedavg)), _level(fedavg), f"{excess(fedavg):.3f}"]
        told += [_change(judged, "balanced_accuracy"), _change(judged, "worst_cell_recall")]
        told += [_excess(judged, fedavg), _change(own, "balanced_accuracy"), _excess(own, fedavg)]
        told.append(_excess(leace, fedavg))
        told.append(f"{limits[task]:.3f}" if task in limits else "not measured")
        rows.append(told)
    heads = [
        *("task", "seeds", "FedAvg: balanced accuracy", "excess"),
        *("judged by peers: change of balanced accuracy", "of worst cell", "excess"),
        *("own reports: change of balanced accuracy", "excess", "LEACE: excess", "limit"),
    ]
    lines = [
        "## Summary",
        "",
        "Excess: odds gap above chance, mean over seeds; in brackets the change against FedAvg. Both forms "
        "of the full method read no group label: in the first, FPF is judged by peers; in the second it "
        "rests on clients' own reports. LEACE reads labels in training. Limit: the excess of a linear head "
        "that is told the group, on held-out training rows ([how far could anything "
        "go](#how-far-could-anything-go-here)).",
        "",
        *table(heads, rows),
    ]
    return "\n".join(lines)


def _limits() -> dict[str, float]:
    if not CEILING.is_file():
        return {}
    tasks = json.loads(CEILING.read_text(encoding="utf-8"))["tasks"]
    heads = {task: [seed["a head per group"] for seed in found["seeds"]] for task, found in tasks.items()}
    return {t: float(np.mean([h["odds_gap"] - h["by_chance"] for h in found])) for t, found in heads.items()}


def _level(cells: list[Cell]) -> str:
    mean = over_seeds(cells, "balanced_accuracy")
    return f"{mean.value:.3f}" if mean else "undefined"


def _change(cells: list[Cell], metric: str) -> str:
    mean = over_seeds(cells, metric, change=True)
    return f"{mean.value:+.3f}" if mean else "not run"


def _excess(cells: list[Cell], fedavg: list[Cell]) -> str:
    if not cells:
        return "not run"
    share = reduction(cells, fedavg)
    return f"{excess(cells):.3f}" + (f" ({-share:+.0%})" if share is not None else "")


def transfer() -> str:
    """Prompts trained on one set and judged on another; "" where it was not run."""
    if not TRANSFER.is_file():
        return ""
    found = json.loads(TRANSFER.read_text(encoding="utf-8"))
    lines = [
        "## Prompts on another data set",
        "",
        "`python -m benchmarks.transfer`. Prompts are trained on FairFace with FaceCLIP-64 and judged, with "
        f"the same words, on the {found['n']:,} test images of CelebA. Mean ± standard deviation over "
        f"{found['seeds']} seeds. Projections travel with the prompts. CelebA's crops and labels differ from "
        "FairFace's, so a loss here may be of the data as well as of the prompts.",
        "",
    ]
    rows = []
    for entry in found["cases"]:
        for method, runs in entry["methods"].items():
            told = [
                _spread([r[k]["value"] for r in runs]) for k in ("balanced_accuracy", "worst_cell_recall")
            ]
            gaps: list[dict[str, Any]] = [r["equalized_odds_difference_worst"] for r in runs]
            told += [
                _spread([g["value"] for g in gaps]),
                f"{np.mean([g['expected_null'] for g in gaps]):.3f}",
            ]
            rows.append([entry["trained"], entry["judged"], f"`{method}`", *told])
    heads = ["trained on", "judged on", "", "balanced accuracy", "worst cell", "odds gap", "by chance"]
    return "\n".join([*lines, *table(heads, rows)])


def _spread(values: list[float]) -> str:
    sd = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.3f} ± {sd:.3f}"
