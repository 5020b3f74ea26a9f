"""What client-level differential privacy costs: epsilon against balanced accuracy and odds gap.

    python -m benchmarks.private [--seeds 3] [--again N]

Built-in data: 6,000 drawn faces, 60 clients of very different size, FedAvg and FPF, 8 rounds. Writes
`benchmarks/results/private.json` after every run (a second call goes on from it) and `private.md` at the end.
A seed draws new faces, clients, batches and noise.
"""

from __future__ import annotations

import argparse
import functools
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import RESULTS
from benchmarks.grid import metrics_of
from benchmarks.machine import named
from benchmarks.seeds import complete, over_seeds, repeat, repeated, run_missing, states
from fvlfp.config import Config
from fvlfp.federation.privacy import epsilon
from fvlfp.runs.predict import predict
from fvlfp.runs.train import Prepared, prepare, train

CLIENTS, ROUNDS, CLIP, DELTA = 60, 8, 0.5, 1e-3
#: noise multipliers; None is no clipping and no noise
NOISE = (None, 1e-3, 1.0, 2.0, 5.0, 10.0)
METHODS = ("fedavg", "fpf")


def config(seed: int, method: str = "fedavg", noise: float | None = None) -> Config:
    """The benchmark's config. Clients differ in size alone: the noise is what is looked at."""
    private = {} if noise is None else {"dp_noise": noise, "dp_clip": CLIP}
    return Config.make("lesson", method, seed=seed, device="cpu", clients=CLIENTS, partition="quantity",
                       concentration=1.0, rounds=ROUNDS, min_cell=2, **private)  # fmt: skip


def run_once(prepared: Prepared, cfg: Config) -> dict[str, Any]:
    """Train; metrics on the test rows, and the largest share of one client, round by round."""
    os.environ["FVLFP_NOISE_SEED"] = str(cfg.seed)  # a page whose numbers repeat; nobody's data are at stake
    trained = train(cfg, prepared, progress=None)
    frame = predict(prepared, trained)
    return {
        **metrics_of(frame, "toy-shape", cfg.seed),
        "largest_share": [row.largest_weight for row in trained.history],
        "seconds": round(trained.seconds, 1),
    }


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    where = results["machine"]
    seeds = complete(results, [f"{method}|{noise}" for method in METHODS for noise in NOISE])
    lines = [
        "# Differential privacy: what it costs",
        "",
        "Written by `python -m benchmarks.private`; do not edit. Built-in data, smiling by shape, "
        f"{CLIENTS} clients that differ in size, {ROUNDS} rounds, every client in every round, updates "
        f"clipped to {CLIP}, delta = {DELTA:g}, seeds {', '.join(seeds)}, 2,000 test rows. Mean over seeds ± "
        f"standard deviation; in brackets the 95 % sampling interval of seed {seeds[0]}. Largest share: that "
        "of one client in a round's sum, mean over rounds and seeds; the noise is in proportion to it.",
        "",
        "epsilon is for the prompts that leave the server, *weights taken as public*; the reports are not "
        "covered. FedAvg's weights are sizes. FPF's come from accuracies and gaps that clients measure on "
        "their own validation rows after training, so they tell more: with FPF the same epsilon promises "
        "less.",
        "",
        f"Machine: {named(where)}. Made by these states of the code: {states(results)}.{repeated(results)}",
        "",
        "| method | noise multiplier | epsilon | largest share | balanced accuracy | odds gap (worst) |",
        "|---|--:|--:|--:|---|---|",
    ]
    for method in METHODS:
        for noise in NOISE:
            runs = [results["runs"][f"{method}|{noise}|{seed}"] for seed in seeds]
            cells = [over_seeds(runs, m) for m in ("balanced_accuracy", "equalized_odds_difference_worst")]
            spent = "infinite" if noise in (None, 1e-3) else f"{_epsilon(noise):.2f}"
            name = (
                "off" if noise is None else f"clipping alone ({noise:g})" if noise == 1e-3 else f"{noise:g}"
            )
            share = np.mean([run["largest_share"] for run in runs])
            lines.append(f"| {method} | {name} | {spent} | {share:.3f} | {' | '.join(cells)} |")
    shares = [results["runs"][f"fedavg|None|{seed}"]["largest_share"][0] for seed in seeds]
    # what noise of standard deviation multiplier * clip / K has for a multiplier: privacy.real_multiplier
    real = np.mean([1 / (CLIENTS * share) for share in shares])
    lines += [
        "",
        "## Noise for equal weights is too little noise",
        "",
        f"Flower's wrappers add noise of multiplier x clip / {CLIENTS}, as if every client counted the same. "
        f"Here the largest client's share under FedAvg is {np.mean(shares):.3f}, not {1 / CLIENTS:.3f} (mean "
        f"over seeds), so their noise has {real:.3f} of the multiplier that it is accounted with. (With an "
        "accountant attached, Flower 1.41 refuses unequal weights; without one it says nothing.)",
        "",
        "| noise multiplier | epsilon as accounted for equal weights | epsilon that it really has |",
        "|--:|--:|--:|",
    ]
    for noise in NOISE[2:]:
        lines.append(f"| {noise:g} | {_epsilon(noise):.2f} | {_epsilon(noise * real):.2f} |")
    return "\n".join(lines) + "\n"


@functools.cache
def _epsilon(noise: float) -> float:
    return epsilon(multiplier=noise, rounds=ROUNDS, delta=DELTA)


def runs_of(seed: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every case of one seed; faces are drawn for the first that runs."""
    prepared = functools.cache(lambda: prepare(config(seed)))
    for method in METHODS:
        for noise in NOISE:

            def run(method: str = method, noise: float | None = noise) -> dict[str, Any]:
                return run_once(prepared(), config(seed, method, noise))

            yield f"{method}|{noise}|{seed}", run


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--again", type=int, metavar="N", help="make N of the runs again, and compare")
    args = parser.parse_args()
    logging.getLogger("fvlfp").setLevel(logging.ERROR)
    path, cases = RESULTS / "private.json", (case for seed in range(args.seeds) for case in runs_of(seed))
    results = repeat(path, cases, args.again) if args.again else run_missing(path, cases)
    (RESULTS / "private.md").write_text(page(results))
    print(RESULTS / "private.md")


if __name__ == "__main__":
    main()
