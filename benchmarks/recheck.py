"""Run some committed cells again and compare every number to the last digit.

    [FVLFP_SHARED=DIR] python -m benchmarks.recheck [--cells 10] [--method M ...] [--task T ...]

Cells are picked by the sha256 of their place, so nobody chooses them. A cell is equal if everything but its
times and its `made_by` is. Where all are equal, the other cells of the grid stand although the code has
moved on; where a method's differ, `benchmarks.run --all --again METHOD` makes its cells anew. Writes
`results/recheck.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import RESULTS
from benchmarks.grid import GRID, SETTINGS, TASKS, Sources
from benchmarks.machine import code_state, machine
from benchmarks.run import Seed, source_digest
from benchmarks.shared import command

RESULT = RESULTS / "recheck.json"
TIMED = ("seconds", "made_by")


def picked(root: Path, n: int, methods: Container[str], tasks: Container[str]) -> list[Path]:
    """n cells of these methods and tasks, in the order of the sha256 of their place."""
    known = [p for p in root.glob("*/*/*.json") if p.parts[-2] in methods and p.parts[-3] in tasks]

    def order(path: Path) -> str:
        return hashlib.sha256("/".join(path.parts[-3:]).encode()).hexdigest()

    return sorted(known, key=order)[:n]


def differing(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Names of what differs between two cells, times aside; the second may not have gone through a file."""
    now = json.loads(json.dumps(now))
    keys = (before.keys() | now.keys()) - set(TIMED)
    return sorted(k for k in keys if before.get(k) != now.get(k))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cells", type=int, default=10)
    parser.add_argument("--method", choices=SETTINGS, action="append")
    parser.add_argument("--task", choices=TASKS, action="append")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sources = Sources(args.work)
    found: dict[str, Any] = {
        "code": code_state(),
        "source": source_digest(),
        "machine": machine(),
        "cells": {},
    }
    for path in picked(GRID, args.cells, args.method or SETTINGS, args.task or TASKS):
        before = json.loads(path.read_text(encoding="utf-8"))
        now = Seed(sources, before["task"], before["seed"]).cell(before["method"])
        place = "/".join(path.parts[-3:])
        found["cells"][place] = {"made_by": before["made_by"]["source"], "differs": differing(before, now)}
        print(
            place,
            "differs in " + ", ".join(d) if (d := found["cells"][place]["differs"]) else "equal",
            flush=True,
        )
        RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(command(main))
