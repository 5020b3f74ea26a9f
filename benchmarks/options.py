"""The parts of the results page that look inside: options one at a time, counterfactuals, and the ceiling.

What this module does not do: it runs nothing; cells come from `results/grid`, the ceiling from
`results/ceiling.json`.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from benchmarks.ceiling import HEADS, RESULT
from benchmarks.grid import CORNERS, FUSIONS, OPTIONS, OURS, PARTS, TASKS
from benchmarks.markdown import table
from benchmarks.table import ODDS, Cell, Grid, excess, over_seeds, reduction

BASE = {"cdfp": "CDFP alone", "dsop": "DSOP alone", "fpf": "FPF alone", "fedavg": "FedAvg"}


def options(grid: Grid) -> str:
    """One setting of one component changed at a time."""
    parts = [
        ("options", ("cdfp", "dsop"), OPTIONS),
        ("fusions", ("fpf",), FUSIONS),
    ]
    blocks: list[str] = []
    for part, bases, names in parts:
        for task in PARTS[part].tasks:
            methods = _seeds_of(part, grid.get(task, {}))
            if any(name in methods for name in names):
                blocks.append(_table(task, methods, ("fedavg", *bases), names))
    if not blocks:
        return ""
    head = (
        "## One option at a time\n\n"
        "Each component runs alone, with one setting changed. The second column names the change; everything "
        "else is the default. The other columns are as above. A flip is a test row whose class changes when "
        "its embedding is moved from its group to another (see the next section)."
    )
    return "\n\n".join([head, *blocks, _fpf_said(grid)]).rstrip()


def _seeds_of(part: str, methods: dict[str, list[Cell]]) -> dict[str, list[Cell]]:
    """The cells of the part's own seeds: methods of other parts may have run with more."""
    most = PARTS[part].seeds
    return {name: [c for c in cells if c["seed"] < most] for name, cells in methods.items()}


def _fpf_said(grid: Grid) -> str:
    """Where FPF alone differs from weights by size, measured by FedAvg's own spread over seeds."""
    told: dict[str, list[str]] = {
        "lower": [],
        "higher": [],
        "within one standard deviation of FedAvg's seeds": [],
    }
    for task in PARTS["fusions"].tasks:
        methods = _seeds_of("fusions", grid.get(task, {}))
        gaps = [over_seeds(methods.get(m, []), ODDS) for m in ("fpf", "fedavg")]
        if gaps[0] and gaps[1]:
            change = gaps[0].value - gaps[1].value
            words = list(told)
            word = words[2] if abs(change) <= gaps[1].sd else words[0] if change < 0 else words[1]
            told[word].append(f"`{task}` ({change:+.3f})")
    parts = [f"{word}: {', '.join(where)}" for word, where in told.items() if where]
    return (
        f"Odds gap of FPF alone minus that of weights by size, means over seeds. {'; '.join(parts)}."
        if parts
        else ""
    )


def _table(task: str, methods: dict[str, list[Cell]], bases: tuple[str, ...], names: dict[str, Any]) -> str:
    rows = []
    fedavg = methods.get("fedavg")
    for name in (*bases, *names):
        cells = methods.get(name)
        if not cells:
            continue
        told = []
        for metric in ("balanced_accuracy", "worst_cell_recall", ODDS):
            mean = over_seeds(cells, metric)
            told.append("undefined" if mean is None else f"{mean.value:.3f} ± {mean.sd:.3f}")
        share = reduction(cells, fedavg) if fedavg and name != "fedavg" else None
        told.append(f"{excess(cells):.3f}" + (f" ({-share:+.0%})" if share is not None else ""))
        told.append(_flips(cells))
        changed = ", ".join(f"{k} = {v}" for k, v in names.get(name, {}).items() if k != "method")
        rows.append([f"`{name}`", changed or BASE[name], len(cells), *told])
    title = TASKS[task].title
    heads = ["", "changed", "seeds", "balanced accuracy", "worst cell", "odds gap", "excess", "flips"]
    return "\n".join([f"**{title[0].upper()}{title[1:]}**", "", *table(heads, rows)])


def _flips(cells: list[Cell]) -> str:
    rates = [c["counterfactual"]["flip_rate"] for c in cells if "counterfactual" in c]
    return f"{np.mean(rates):.3f}" if rates else ""


def counterfactuals(grid: Grid) -> str:
    """Flip rates, and how CDFP's gradient stands to the task's."""
    rows = []
    for task, methods in grid.items():
        for name in dict.fromkeys((*CORNERS, *OURS)):
            cells = [c for c in methods.get(name, []) if "counterfactual" in c]
            if not cells or TASKS[task].kind != "main":
                continue
            pairs = [c["counterfactual"] for c in cells if "cosine_before" in c["counterfactual"]]
            keys = ("cosine_before", "cosine_after")
            cosines = [f"{np.mean([p[k] for p in pairs]):+.2f}" if pairs else "" for k in keys]
            rows.append([TASKS[task].title, f"`{name}`", len(cells), _flips(cells), *cosines])
    if not rows:
        return ""
    return "\n".join(
        [
            "## What happens to counterfactuals",
            "",
            "Flips: share of (test row, other group) pairs whose class changes when the embedding is moved "
            "by the whole difference of the two groups' mean training embeddings (perceived labels, used for "
            "this measurement only). Cosine: between the gradients of CDFP's term and of the cross-entropy, "
            "at the first and at the final prompts; below 0 they point in opposite directions. All values "
            "are means over seeds.",
            "",
            *table(["task", "", "seeds", "flips", "cosine before", "cosine after"], rows),
        ]
    )


def ceiling() -> str:
    """What linear heads reach on a development split of training rows."""
    if not RESULT.is_file():
        return ""
    document = json.loads(RESULT.read_text())
    splits = len(next(iter(document["tasks"].values()))["seeds"])
    lines = [
        "## How far could anything go here?",
        "",
        "`python -m benchmarks.ceiling`. Logistic regression on the frozen embeddings, on a development "
        f"split of *training* rows (a third held out), mean ± standard deviation over {splits} splits. The "
        "last head of each task is told the group at inference; of the methods above only `thresholds` is. "
        "Where even that head leaves an excess, the image tower separates the classes less well for some "
        "groups. Prompts, projections or weights cannot remove this part; it can only be lowered at the cost "
        "of other groups' accuracy.",
        "",
    ]
    rows = []
    for task, found in document["tasks"].items():
        for head, title in HEADS.items():
            runs = [seed[head] for seed in found["seeds"]]

            def mean(key: str, runs: list[dict[str, Any]] = runs) -> str:
                values = [run[key] for run in runs]
                return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"

            by_group = np.mean([run["balanced_accuracy_by_group"] for run in runs], 0)
            more = np.mean([run["odds_gap"] - run["by_chance"] for run in runs])
            chance = f"{np.mean([r['by_chance'] for r in runs]):.3f}"
            span = f"{by_group.min():.3f}, {by_group.max():.3f}"
            gaps = (mean("worst_cell_recall"), mean("odds_gap"), chance, f"{more:.3f}")
            first = (TASKS[task].title, title, f"{runs[0]['n']:,}", mean("balanced_accuracy"), span)
            rows.append([*first, *gaps])
    heads = [
        "task",
        "",
        "n",
        "balanced accuracy",
        "by group",
        "worst cell",
        "odds gap",
        "by chance",
        "excess",
    ]
    return "\n".join([*lines, *table(heads, rows)])
