"""What client-level differential privacy costs: epsilon against balanced accuracy and odds gap.

    python -m benchmarks.private [--seeds 3]

Built-in data: 6,000 drawn faces, 60 clients of very different size, FedAvg, 8 rounds. Writes
`benchmarks/results/private.json` after every run (a second call goes on from it) and `private.md` at the end.
A seed draws new faces, clients, batches and noise.
"""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

import numpy as np

from benchmarks.fairface import RESULTS, metrics_of
from benchmarks.machine import machine
from fvlfp.config import Config
from fvlfp.federation.privacy import epsilon, largest_share, real_multiplier
from fvlfp.federation.run import Prepared, predict, prepare, train

CLIENTS, ROUNDS, CLIP, DELTA = 60, 8, 0.5, 1e-3
#: noise multipliers; None is no clipping and no noise
NOISE = (None, 1e-3, 1.0, 2.0, 5.0, 10.0)
METHODS = ("fedavg",)


def config(seed: int, method: str = "fedavg", noise: float | None = None) -> Config:
    """The benchmark's config. Clients differ in size alone: the noise is what is looked at."""
    private = {} if noise is None else {"dp_noise": noise, "dp_clip": CLIP}
    return Config.make("lesson", method, seed=seed, device="cpu", clients=CLIENTS, partition="quantity",
                       concentration=1.0, rounds=ROUNDS, min_cell=2, **private)  # fmt: skip


def run_once(prepared: Prepared, cfg: Config) -> dict[str, Any]:
    """Train; metrics on the test rows, and the largest share of one client, round by round."""
    trained = train(cfg, prepared, progress=None)
    common = {"label": "smiling", "prediction": "prediction", "groups": ["shape"], "positive": "yes"}
    frame = predict(prepared, trained)
    return {
        **metrics_of(frame, "shape", common | {"seed": cfg.seed}),
        "largest_share": [row["largest_weight"] for row in trained.history],
        "seconds": round(trained.seconds, 1),
    }


def shares(prepared: Prepared) -> dict[str, float]:
    """The largest share, and what Flower's noise for equal weights is really worth, at multiplier 1."""
    weights = [float(len(client.train)) for client in prepared.clients]
    return {"largest_share": largest_share(weights), "flower": real_multiplier(weights, multiplier=1.0)}


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    where = results["machine"]
    cases = [f"{method}|{noise}" for method in METHODS for noise in NOISE]
    every = sorted(results["shares"])
    seeds = [s for s in every if all(f"{case}|{s}" in results["runs"] for case in cases)]
    share = np.mean([results["shares"][s]["largest_share"] for s in seeds])
    real = np.mean([results["shares"][s]["flower"] for s in seeds])
    lines = [
        "# Differential privacy: what it costs",
        "",
        "Written by `python -m benchmarks.private`; do not edit. Built-in data, smiling by shape, "
        f"{CLIENTS} clients that differ in size, {ROUNDS} rounds, every client in every round, updates "
        f"clipped to {CLIP}, delta = {DELTA:g}, seeds {', '.join(seeds)}, 2,000 test rows. Mean over seeds ± "
        f"standard deviation; in brackets the 95 % sampling interval of seed {seeds[0]}. epsilon is for the "
        "prompts that leave the server, weights taken as public; the reports are not covered.",
        "",
        f"Machine: {where['cpu']}, {where['cores']} cores, torch {where['torch']}, flwr {where['flwr']}.",
        "",
        "| method | noise multiplier | epsilon | balanced accuracy | odds gap (worst) |",
        "|---|--:|--:|---|---|",
    ]
    for method in METHODS:
        for noise in NOISE:
            runs = [results["runs"][f"{method}|{noise}|{seed}"] for seed in seeds]
            cells = []
            for key in ("balanced_accuracy", "equalized_odds_difference_worst"):
                values, first = [run[key]["value"] for run in runs], runs[0][key]
                spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
                said = f"{np.mean(values):.3f} ± {spread:.3f} [{first['low']:.3f}, {first['high']:.3f}]"
                cells.append(said)
            spent = "infinite" if noise in (None, 1e-3) else f"{_epsilon(noise):.2f}"
            name = (
                "off" if noise is None else f"clipping alone ({noise:g})" if noise == 1e-3 else f"{noise:g}"
            )
            lines.append(f"| {method} | {name} | {spent} | {' | '.join(cells)} |")
    lines += [
        "",
        "## Noise for equal weights is too little noise",
        "",
        f"Flower's wrappers add noise of multiplier x clip / {CLIENTS}, as if every client counted the same. "
        f"Here the largest client's share is {share:.3f}, not {1 / CLIENTS:.3f} (mean over seeds), so their "
        f"noise has {real:.3f} of the multiplier that it is accounted with. (With an accountant attached, "
        "Flower 1.41 refuses unequal weights; without one it says nothing.)",
        "",
        "| noise multiplier | epsilon as accounted for equal weights | epsilon that it really has |",
        "|--:|--:|--:|",
    ]
    for noise in NOISE[2:]:
        lines.append(f"| {noise:g} | {_epsilon(noise):.2f} | {_epsilon(noise * real):.2f} |")
    return "\n".join(lines) + "\n"


def _epsilon(noise: float) -> float:
    return epsilon(multiplier=noise, rounds=ROUNDS, delta=DELTA)


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    logging.getLogger("fvlfp").setLevel(logging.ERROR)
    path = RESULTS / "private.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"runs": {}, "shares": {}}
    results["machine"] = machine()
    for seed in range(args.seeds):
        prepared = prepare(config(seed))
        results["shares"][str(seed)] = shares(prepared)
        for method in METHODS:
            for noise in NOISE:
                key = f"{method}|{noise}|{seed}"
                if key not in results["runs"]:
                    results["runs"][key] = run_once(prepared, config(seed, method, noise))
                    path.write_text(json.dumps(results, indent=1) + "\n")
                    print(key, results["runs"][key]["seconds"], flush=True)
    (RESULTS / "private.md").write_text(page(results))
    print(RESULTS / "private.md")


if __name__ == "__main__":
    main()
