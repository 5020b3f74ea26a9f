"""A thousand simulated clients, five rounds, one process: time and memory, round by round.

    python -m benchmarks.thousand [--rounds 5]

Built-in data: 15,000 drawn faces, ten rows a client, the full method on Flower's apps and the Grid in this
process. Adds the run to `benchmarks/results/thousand.json` and writes `thousand.md`.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks import RESULTS
from benchmarks.machine import machine, named
from benchmarks.markdown import table
from fvlfp.config import Config
from fvlfp.runs.train import prepare, train


def resident() -> float:
    """MiB of this process that are in memory now (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmRSS")


def measure(clients: int = 1000, rounds: int = 5, n: int = 15_000) -> dict[str, Any]:
    """Train, and look at memory and clock after every round."""
    cfg = Config.make(clients=clients, rounds=rounds, n=n, partition="iid", local_epochs=1, device="cpu")
    prepared = prepare(cfg)
    before, memory, seconds = resident(), [], [time.perf_counter()]

    def on_round(line: str) -> None:
        memory.append(round(resident(), 1))
        seconds.append(time.perf_counter())

    trained = train(cfg, prepared, progress=on_round)
    return {
        "clients": clients,
        "answered": [row.clients for row in trained.history],
        "before training": round(before, 1),
        "after each round": memory,
        "seconds a round": [round(b - a, 1) for a, b in pairwise(seconds)],
        "bytes sent by all clients a round": trained.history[-1].uplink_bytes,
    }


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    where, run = results["machine"], results["runs"]["5"]
    memory = run["after each round"]
    rows = zip(run["answered"], memory, run["seconds a round"], strict=True)
    longer = [(int(n), other["after each round"]) for n, other in results["runs"].items() if n != "5"]
    return "\n".join(
        [
            "# A thousand clients in one process",
            "",
            "Written by `python -m benchmarks.thousand`; do not edit. Built-in data, full method, ten rows a "
            "client, every client in every round. Round 1 includes the clients' sums and counts for DSOP.",
            "",
            f"Machine: {named(where)}. Other work ran on it: the seconds are an upper bound.",
            "",
            f"Before training {run['before training']:.0f} MiB are in memory, the encoded data among them. "
            f"From round 1 to round 5 memory changes by {memory[-1] - memory[0]:+.1f} MiB. All "
            f"clients together send {run['bytes sent by all clients a round'] / 2**20:.1f} MiB a round.",
            *(
                f"A run of {n} rounds: {m[-1] - m[0]:+.1f} MiB from round 1 to round {n}, of these "
                f"{m[-1] - m[n // 2 - 1]:+.1f} in its second half."
                for n, m in longer
            ),
            "",
            *table(
                ["round", "clients that answered", "memory, MiB", "seconds"],
                [(i, n, f"{mib:.1f}", f"{s:.1f}") for i, (n, mib, s) in enumerate(rows, 1)],
            ),
            "",
        ]
    )


def main() -> None:
    """Measure, then write JSON and page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    path = RESULTS / "thousand.json"
    runs = json.loads(path.read_text())["runs"] if path.is_file() else {}
    results = {"machine": machine(), "runs": runs | {str(args.rounds): measure(rounds=args.rounds)}}
    path.write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "thousand.md").write_text(page(results))
    print(RESULTS / "thousand.md")


if __name__ == "__main__":
    main()
