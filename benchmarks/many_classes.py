"""What the number of classes costs: audit and comparison of 10,000 rows, 5 groups, 2,000 draws.

    python -m benchmarks.many_classes [--out benchmarks/results]

Writes many_classes.json and many_classes.md. Each cell runs in a process of its own, so that its peak memory
is its own. CPU seconds of one thread, imports left out.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.machine import machine
from benchmarks.markdown import table
from fvlfp.audit import Audit, Comparison, audit, compare

CLASSES = (10, 50, 100)
ROWS, GROUPS, DRAWS = 10_000, 5, 2_000


def predictions(classes: int, seed: int = 0) -> pd.DataFrame:
    """Two models' predictions `p` and `q`; group 0 is judged 10 points worse by both."""
    rng = np.random.default_rng(seed)
    label, group = rng.integers(0, classes, ROWS), rng.integers(0, GROUPS, ROWS)
    columns = {"label": label, "group": group}
    for name, accuracy in (("p", 0.75), ("q", 0.8)):
        right = rng.random(ROWS) < accuracy - 0.1 * (group == 0)
        columns[name] = np.where(right, label, rng.integers(0, classes, ROWS))
    return pd.DataFrame(columns)


def cell(what: str, classes: int) -> dict[str, object]:
    """Time and peak memory of one audit or comparison, in this process."""
    frame = predictions(classes)
    columns: dict[str, Any] = {"label": "label", "prediction": "p", "groups": ["group"], "draws": DRAWS}
    result: Audit | Comparison
    start = time.process_time()
    if what == "audit":
        result = audit(frame, **columns)
    else:
        result = compare(frame, frame.assign(p=frame["q"]), **columns)
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    fewer = [w for w in result.warnings if "draws" in w]
    return {"what": what, "classes": classes, "cpu_s": seconds, "peak_mib": peak, "fewer_draws": fewer}


def page(found: Mapping[str, Any]) -> str:
    rows = [
        (
            *(c["what"], c["classes"], f"{c['cpu_s']:.1f} s", f"{c['peak_mib']:,.0f} MiB"),
            "; ".join(c["fewer_draws"]) or "all draws",
        )
        for c in found["cells"]
    ]
    heads = ["what", "classes", "CPU time", "peak memory of the process", "draws"]
    measured = "\n".join(table(heads, rows))
    return f"""# What the number of classes costs

Written by `python -m benchmarks.many_classes` on {found["machine"]["cpu"]}: {ROWS:,} rows, one attribute of
{GROUPS} groups, {DRAWS:,} draws, one thread.

{measured}

From 11 classes on, each class is drawn against the rest: time grows with the number of classes, not with its
square. The audit spends a fixed number of drawn counts: very many classes get fewer draws, and it says so.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.cell:
        print(json.dumps(cell(args.cell[0], int(args.cell[1]))))
        return
    cells = []
    for what in ("audit", "compare"):
        for classes in CLASSES:
            words = [sys.executable, "-m", "benchmarks.many_classes", "--cell", what, str(classes)]
            cells.append(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
    found = {"machine": machine(), "rows": ROWS, "groups": GROUPS, "draws": DRAWS, "cells": cells}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "many_classes.json").write_text(json.dumps(found, indent=1) + "\n")
    (args.out / "many_classes.md").write_text(page(found))
    print(page(found))


if __name__ == "__main__":
    main()
