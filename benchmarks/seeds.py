"""Runs over seeds: made one after another into one JSON file, and shown as one cell of a table.

What this module does not do: the grid of results has its own cells, a file each, see `benchmarks.grid`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import code_state, machine

Run = dict[str, Any]


def run_missing(path: Path, cases: Iterable[tuple[str, Callable[[], Run]]]) -> dict[str, Any]:
    """Make the runs that the file lacks, and write it after each: stop at any time and call again.

    cases: a run's key, `...|seed`, and what makes it.

    Returns:
        What the file holds: `machine`, and `runs` by key, each with the `commit` of the code.
    """
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"runs": {}}
    results.setdefault("machine", machine())
    for key, run in cases:
        if key not in results["runs"]:
            results["runs"][key] = run() | {"commit": code_state()}
            results["machine"] = machine()
            path.write_text(json.dumps(results, indent=1) + "\n")
            print(key, results["runs"][key]["seconds"], flush=True)
    return results


def complete(results: dict[str, Any], cases: Sequence[str]) -> list[str]:
    """The seeds for which every one of these cases has run, in order."""
    seeds = sorted({key.rpartition("|")[2] for key in results["runs"]}, key=int)
    return [s for s in seeds if all(f"{case}|{s}" in results["runs"] for case in cases)]


def states(results: dict[str, Any]) -> str:
    """The states of the code that made the runs, as a page says them."""
    return ", ".join(sorted({run.get("commit") or "unknown" for run in results["runs"].values()}))


def over_seeds(runs: Sequence[Run], metric: str) -> str:
    """Mean ± standard deviation over seeds, and the first seed's sampling interval in brackets."""
    values, first = [run[metric]["value"] for run in runs], runs[0][metric]
    spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.3f} ± {spread:.3f} [{first['low']:.3f}, {first['high']:.3f}]"
