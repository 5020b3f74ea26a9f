"""One answer: the same tables, config and seed on the deployment, the simulation engine, and in process.

    python -m deploy.engines runs/trial [--no-simulation]

Needs a trial that has run (`python -m deploy.trial all runs/trial`), and for the simulation engine the
package ray (`pip install "flwr[simulation]"`), which nothing else here needs. Prints, for every engine,
whether the global prompts are the deployment's bit for bit, or the largest difference, and writes
`benchmarks/results/engines.json` and `engines.md`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from benchmarks import RESULTS
from benchmarks.machine import machine, named
from deploy.trial import Trial, free_port
from fvlfp.config import Config
from fvlfp.data.card import Card
from fvlfp.data.table import read_table
from fvlfp.federation.local_grid import LocalGrid, in_this_process
from fvlfp.runs.deployment import Site, open_node, run_config_of, run_server
from fvlfp.runs.save import read_result
from fvlfp.runs.train import Trained, prepare, train


def in_process(trial: Trial) -> Trained:
    """The trial's run on a Grid in this process: same apps, same tables."""
    words = _run_config(trial, "in-process")
    apps: dict[Any, ClientApp] = {}

    class Nodes(ClientApp):
        def __call__(self, message: Message, context: Context) -> Message:
            k = context.node_config["partition-id"]
            if k not in apps:  # a process of its own would open its files for every message
                apps[k] = open_node(words, context.node_config)
            return apps[k](message, context)

    with in_this_process():
        run_server(LocalGrid(Nodes(), trial.cfg.clients), words)
    return read_result(Path(str(words["server"])) / "prompts.safetensors")


def simulated(trial: Trial, *, seconds: float = 900.0) -> Trained:
    """The trial's run on Flower's simulation engine (Ray), through a SuperLink of its own on the loopback."""
    words = _run_config(trial, "simulation")
    other = Trial(trial.folder / "simulation")
    other.cfg = trial.cfg
    other.stop()
    other.start_simulation(port=free_port())
    try:
        federation = f"num-supernodes={trial.cfg.clients} client-resources-num-cpus=1 init-args-num-cpus=2"
        number = other.submit_words(words, "--federation-config", federation)
        status = other.wait(number, seconds=seconds)
        if status != "finished:completed":
            said = other.flwr("log", str(number), "trial", "--show")
            raise RuntimeError(f"the simulation ended as {status}:\n{said[-3000:]}")
    finally:
        other.stop()
    return read_result(Path(str(words["server"])) / "prompts.safetensors")


def one_table(trial: Trial) -> Trained:
    """`fvlfp train` as it is: all rows in one table, encoded together, spread over clients in memory."""
    cfg = Config.make(**trial.cfg.to_dict())
    return train(cfg, prepare(cfg), stacked=False, progress=None)


def feature_difference(trial: Trial) -> float:
    """The largest difference of a training feature: a node's table encoded alone, and within one table."""
    cfg = Config.make(**trial.cfg.to_dict())
    largest = 0.0
    for whole in prepare(cfg).clients:
        table = trial.folder / f"node-{whole.client}" / "faces.csv"
        dataset = read_table(table, label=cfg.label, groups=cfg.groups)
        alone = Site.open(cfg, dataset.card).client(whole.client, dataset)
        largest = max(largest, float((alone.train.z - whole.train.z).abs().max()))
    return largest


def _run_config(trial: Trial, engine: str) -> dict[str, str | bool]:
    server = trial.folder / engine / "server"
    shutil.rmtree(server, ignore_errors=True)
    server.mkdir(parents=True)
    shutil.copy(trial.folder / "server" / "words.toml", server)
    site = Site.open(trial.cfg, Card.read(server / "words.toml"))
    tables = str(trial.folder / "node-{}" / "faces.csv")
    return run_config_of(site, server=str(server), resume=False, **{"simulated-data": tables})


def difference(a: Trained, b: Trained) -> dict[str, Any]:
    """Bit for bit, or by how much."""
    tensors = [(a.prompts, b.prompts), (a.projection.basis, b.projection.basis)]
    same = all(x.shape == y.shape and torch.equal(x, y) for x, y in tensors)
    return {
        "bit for bit": same,
        "largest difference of a prompt": float((a.prompts - b.prompts).abs().max()),
        "largest prompt": float(a.prompts.abs().max()),
        "rank, lambda": [a.projection.basis.shape[1], a.projection.lam],
    }


#: engine -> what it is
ENGINES = {
    "in process": "the same apps, the nodes' tables, a Grid in this process",
    "simulation engine": "the same apps, the nodes' tables, Flower's simulation engine (ray)",
    "one table": "as `fvlfp train`: all rows in one table, encoded together; one client after another",
}


def page(found: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    where = found["machine"]
    lines = [
        "# One answer from every engine",
        "",
        "Written by `python -m deploy.engines`; do not edit. The trial's config and seed (smoke profile, "
        f"full method, {found['clients']} clients, {found['rounds']} rounds) on SuperLink and SuperNodes, "
        "and on other engines: are the global prompts and the subspace those of the deployment?",
        "",
        f"Machine: {named(where)}{', ray ' + found['ray'] if found['ray'] else ''}.",
        "",
        "| engine | what it is | equal bit for bit | largest difference | largest number in a prompt |",
        "|---|---|---|--:|--:|",
    ]
    for name, what in ENGINES.items():
        if name in found["engines"]:
            row = found["engines"][name]
            same = "yes" if row["bit for bit"] else "no"
            difference, largest = row["largest difference of a prompt"], row["largest prompt"]
            lines.append(f"| {name} | {what} | {same} | {difference:.2g} | {largest:.2f} |")
        else:
            lines.append(f"| {name} | {what} | not run | | |")
    lines += [
        "",
        "One table differs because its features do, by at most "
        f"{found['largest difference of a feature']:.2g}: a convolution rounds by what else is in its batch, "
        "and where a client encodes its own table a batch ends with that table. Read from the nodes' tables, "
        "the same apps give the same bits.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is asked for and compare with the deployment's result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--no-simulation", action="store_true", help="without Flower's simulation engine")
    args = parser.parse_args()
    trial = Trial(args.folder)
    path = trial.folder / "server" / "prompts.safetensors"
    if not path.exists():
        sys.exit(f"{path} is not there: python -m deploy.trial all {args.folder}")
    deployed = read_result(path)
    engines = {"in process": in_process, "one table": one_table}
    if not args.no_simulation:
        engines["simulation engine"] = simulated
    found: dict[str, Any] = {
        "machine": machine(),
        "ray": None if args.no_simulation else version("ray"),
        "clients": trial.cfg.clients,
        "rounds": trial.cfg.rounds,
        "largest difference of a feature": feature_difference(trial),
        "engines": {},
    }
    for name, engine in engines.items():
        started = time.perf_counter()
        row = difference(engine(trial), deployed) | {"seconds": round(time.perf_counter() - started, 1)}
        found["engines"][name] = row
        print(f"{name} against the deployment: {json.dumps(row)}", flush=True)
    (RESULTS / "engines.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "engines.md").write_text(page(found))
    print(RESULTS / "engines.md")


if __name__ == "__main__":
    main()
