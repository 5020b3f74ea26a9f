"""Runs over seeds: made one after another into one JSON file, made again, and shown as one cell of a table.

What this module does not do: the grid of results has its own cells, a file each, see `benchmarks.grid`.
"""

from __future__ import annotations

import hashlib
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


def repeat(path: Path, cases: Iterable[tuple[str, Callable[[], Run]]], n: int) -> dict[str, Any]:
    """Make n runs again that the file holds, picked by the sha256 of their keys, and compare every number.

    Returns:
        What the file then holds: `repeated` has the commit and what differs (name: before, now) by key.
    """
    results: dict[str, Any] = json.loads(path.read_text())
    known = {key: run for key, run in cases if key in results["runs"]}
    for key in sorted(known, key=lambda key: hashlib.sha256(key.encode()).hexdigest())[:n]:
        before, now = results["runs"][key], json.loads(json.dumps(known[key]()))
        names = sorted(before.keys() - {"seconds", "commit"})
        differs = {x: [before.get(x), now.get(x)] for x in names if not same(before.get(x), now.get(x))}
        results.setdefault("repeated", {})[key] = {"commit": code_state(), "differs": differs}
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(key, differs or "equal", flush=True)
    return results


def same(before: Any, now: Any) -> bool:
    """Whether a run made again has all numbers of the older one, to the sixth digit; newer ones hold more."""
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() <= now.keys() and all(same(before[key], now[key]) for key in before)
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(map(same, before, now))
    if isinstance(before, (int, float)) and isinstance(now, (int, float)):
        return abs(before - now) <= 1e-6
    return bool(before == now)


def repeated(results: dict[str, Any]) -> str:
    """What a page says of `repeat`; "" where nothing was repeated."""
    found = results.get("repeated", {})
    if not found:
        return ""
    commits = ", ".join(sorted({run["commit"] for run in found.values()}))
    other = sorted(key for key, run in found.items() if run["differs"])
    said = "all were equal to the sixth digit" if not other else f"these differ: {'; '.join(other)}"
    return f" {len(found)} of the {len(results['runs'])} runs were made again by {commits}: {said}."


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
