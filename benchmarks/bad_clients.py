"""What lying and broken clients do, and what checks, caps and robust rules do about them.

    python -m benchmarks.bad_clients [--seeds 3] [--again N]

Built-in data, lesson profile (6,000 drawn faces, 10 clients, 8 rounds). Writes
`benchmarks/results/bad_clients.json` after every run (a second call goes on from it) and `bad_clients.md` at
the end. A seed draws new faces, clients and batches; the bad clients are the first 1 or 3 of a permutation
drawn by the seed.
"""

from __future__ import annotations

import argparse
import functools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from benchmarks import RESULTS
from benchmarks.grid import metrics_of
from benchmarks.machine import named
from benchmarks.seeds import complete, over_seeds, repeat, repeated, run_missing, states
from fvlfp.config import Config
from fvlfp.federation.client_app import make_client_app
from fvlfp.federation.local_grid import LocalGrid, in_this_process
from fvlfp.federation.protocol import arrays_of, number, read_arrays
from fvlfp.federation.server_app import serve
from fvlfp.federation.together import TrainTogether
from fvlfp.federation.trust import Roll
from fvlfp.runs.predict import predict
from fvlfp.runs.train import Prepared, prepare, trained_of
from fvlfp.training.examples import ClientData

#: rule -> (what it is, config)
RULES: dict[str, dict[str, Any]] = {
    "FedAvg, lengths unchecked": {"method": "fedavg", "norm_bound": 0.0},
    "FedAvg": {"method": "fedavg"},
    "FPF uncapped": {"method": "fpf", "fpf_cap": 1e6},
    "FPF capped": {"method": "fpf"},
    "trimmed mean": {"method": "fedavg", "robust": "trimmed-mean"},
    "multi-Krum": {"method": "fedavg", "robust": "multi-krum"},
}
#: kind -> what such a client does
KINDS = {
    "honest": "all clients are honest",
    "broken": "sends random numbers (standard deviation 1) for prompts, with an honest report",
    "lying": "sends the opposite of its update, and reports accuracy 1 and gap 0 for the largest weight",
    "inflated": "the same, and claims 100 times its examples",
}


@dataclass(frozen=True)
class Bad(ClientApp):
    """A ClientApp some of whose clients lie or are broken, from the first round on."""

    honest: ClientApp
    kind: str
    who: frozenset[int]
    cfg: Config

    def __call__(self, message: Message, context: Context) -> Message:
        """The honest answer, spoilt."""
        reply = self.honest(message, context)
        client = int(context.node_config["partition-id"])
        if client not in self.who or message.metadata.message_type != "train":
            return reply
        report = reply.content.metric_records["metrics"]
        sent = read_arrays(message.content, "arrays")["prompts"]
        prompts = read_arrays(reply.content, "arrays")["prompts"]
        if self.kind == "broken":
            round_ = int(number(message.content.config_records["config"], "server-round"))
            noise = torch.Generator().manual_seed(self.cfg.seed_for(f"broken/{client}/round/{round_}"))
            prompts = torch.randn(prompts.shape, generator=noise)
        else:
            prompts = sent - (prompts - sent)
            n = int(number(report, "num-examples")) * (100 if self.kind == "inflated" else 1)
            report.update({"num-examples": n, "perf": 1.0, "disp": 0.0})
        reply.content["arrays"] = arrays_of({"prompts": prompts})
        return reply


def run_with(
    prepared: Prepared, cfg: Config, bad: int, spoil: Callable[[ClientApp, frozenset[int]], ClientApp]
) -> dict[str, Any]:
    """Train with `bad` clients; metrics on the test rows, and what was refused.

    spoil: puts itself before the honest app; it gets the numbers of the bad clients.
    """
    clients = prepared.clients
    who = np.random.default_rng(cfg.seed_for("bad")).permutation(len(clients))[:bad].tolist()

    def load(context: Context) -> ClientData:
        return clients[int(context.node_config["partition-id"])]

    together = TrainTogether(load, prepared.task, cfg)
    honest = make_client_app(load, prepared.task, cfg, trainer=together.trainer)
    app = spoil(honest, frozenset(who))
    numbers = {k + 1: str(k) for k in range(len(clients))}  # node ids count from 1
    started = time.perf_counter()
    with in_this_process():
        grid, roll = LocalGrid(app, len(clients), together=together), Roll(names=numbers)
        state = serve(grid, prepared.task, cfg, roll=roll)
    frame = predict(prepared, trained_of(cfg, state))
    refused = [int(number) for report in state.history for number in report.failed]
    return {
        **metrics_of(frame, "toy-shape", cfg.seed),
        "refused": sum(k in who for k in refused),
        "refused honest": sum(k not in who for k in refused),
        "seconds": round(time.perf_counter() - started, 1),
    }


def run_once(prepared: Prepared, cfg: Config, kind: str, bad: int) -> dict[str, Any]:
    """`run_with` clients of one kind."""
    return run_with(prepared, cfg, bad, lambda honest, who: Bad(honest, kind, who, cfg))


def page(results: dict[str, Any]) -> str:
    """The results as Markdown."""
    where = results["machine"]
    seeds_of = {
        kind: complete(results, [f"{k}|{bad}|{rule}" for k, bad, rule in cases() if k == kind])
        for kind in KINDS
    }
    lines = [
        "# Lying and broken clients",
        "",
        "Written by `python -m benchmarks.bad_clients`; do not edit. Built-in data, smiling by shape, "
        "10 clients (Dirichlet 0.3), 8 rounds, 2,000 test rows. Mean over seeds ± standard deviation "
        "over seeds; in brackets the 95 % sampling interval of the first seed. Refused: answers of bad and "
        "of honest clients left out, of all seeds and rounds.",
        "",
        *(f"- **{kind}**: {said}." for kind, said in KINDS.items()),
        "",
        "Krum and trimmed mean are told how many liars there are. All but the first rule refuse updates "
        "longer than 10 times the round's median; what else is refused stands in "
        "`fvlfp/federation/trust.py`.",
        "",
        f"Machine: {named(where)}. Made by these states of the code: {states(results)}.{repeated(results)}",
        "",
        "| clients | bad of 10 | rule | seeds | balanced accuracy | odds gap (worst) | refused bad, honest |",
        "|---|--:|---|---|---|---|---|",
    ]
    for kind, bad, rule in cases():
        seeds = seeds_of[kind]
        if not seeds:
            continue
        runs = [results["runs"][f"{kind}|{bad}|{rule}|{seed}"] for seed in seeds]
        cells = [over_seeds(runs, m) for m in ("balanced_accuracy", "equalized_odds_difference_worst")]
        refused = f"{sum(r['refused'] for r in runs)}, {sum(r['refused honest'] for r in runs)}"
        lines.append(f"| {kind} | {bad} | {rule} | {', '.join(seeds)} | {' | '.join(cells)} | {refused} |")
    return "\n".join(lines) + "\n"


def cases() -> list[tuple[str, int, str]]:
    """Every (kind, number of bad clients, rule)."""
    out = [("honest", 0, rule) for rule in RULES]
    return out + [(kind, bad, rule) for kind in list(KINDS)[1:] for bad in (1, 3) for rule in RULES]


def runs_of(seed: int) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Every case of one seed; faces are drawn for the first that runs."""
    prepared = functools.cache(lambda: prepare(Config.make("lesson", seed=seed, device="cpu")))
    for kind, bad, rule in cases():

        def run(kind: str = kind, bad: int = bad, rule: str = rule) -> dict[str, Any]:
            cfg = Config.make("lesson", seed=seed, device="cpu", liars=max(bad, 1), **RULES[rule])
            return run_once(prepared(), cfg, kind, bad)

        yield f"{kind}|{bad}|{rule}|{seed}", run


def main() -> None:
    """Run what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--again", type=int, metavar="N", help="make N of the runs again, and compare")
    args = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    logging.getLogger("fvlfp").setLevel(logging.ERROR)
    cases = (case for seed in range(args.seeds) for case in runs_of(seed))
    path = RESULTS / "bad_clients.json"
    results = repeat(path, cases, args.again) if args.again else run_missing(path, cases)
    (RESULTS / "bad_clients.md").write_text(page(results))
    print(RESULTS / "bad_clients.md")


if __name__ == "__main__":
    main()
