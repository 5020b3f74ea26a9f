"""Run cells of the results grid.

    [FVLFP_SHARED=DIR] python -m benchmarks.run --task T --method M --seed S
    [FVLFP_SHARED=DIR] python -m benchmarks.run --all [--part PART ...] [--task T ...] [--again METHOD ...]
    FVLFP_SHARED=DIR python -m benchmarks.run --all --model ViT-B-16-quickgelu --pretrained openai

The first prints one cell as JSON and writes it to its place, results/grid/T/M/S.json. The second runs what is
missing, or was made with other settings, a cell a file: stop it at any time and call it again. --again counts
cells of a method as missing where another state of the code made them. The third runs the tasks on real
images with a released CLIP, into runs/released, and says first how long that takes and how much memory.

DIR: see `benchmarks.shared`; the models of CelebA and HAM10000 come from `benchmarks.small_clips`; drawn
faces need nothing. Encoder and tables are read once a process, all methods of a task and seed share one set
of clients, and post-hoc methods share the FedAvg run, which is kept under `--work`. Nothing is chosen on test
rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Container, Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

import fvlfp
from benchmarks.counterfactual import measured
from benchmarks.estimate import estimate
from benchmarks.grid import (
    GRID,
    OURS,
    PARTS,
    POSTHOC,
    PROJECTIONS,
    SETTINGS,
    TASKS,
    Sources,
    cell_path,
    changes_of,
    choice_of,
    config_of,
    cost_of,
    metrics_of,
)
from benchmarks.machine import code_state, machine
from benchmarks.shared import command
from fvlfp import metrics
from fvlfp.clip.encoder import Encoder
from fvlfp.config import Config
from fvlfp.dsop import Projection
from fvlfp.files import write_atomically
from fvlfp.runs.client_table import client_readouts
from fvlfp.runs.predict import predict
from fvlfp.runs.train import Prepared, Trained, prepare, train, with_posthoc
from fvlfp.training.model import ClientPrompts, Prompts
from fvlfp.training.readout import Readout
from fvlfp.training.reports import RoundReport


class Seed:
    """One task and seed: its clients, its FedAvg run, and the cells of any method."""

    def __init__(self, sources: Sources, task: str, seed: int, **settings: Any) -> None:
        self.task, self.seed, self.settings, self.work = task, seed, settings, sources.work
        self.cfg = config_of(task, "fedavg", seed, **settings)
        self.dataset, self.encoder = sources.dataset(task, self.cfg), sources.encoder(task)
        self.prepared = prepare(self.cfg, dataset=self.dataset, encoder=self.encoder)
        self.fedavg = self._fedavg()
        self.before = predict(self.prepared, self.fedavg)
        self._posthoc: dict[str, pd.DataFrame] = {}

    def cell(self, method: str) -> dict[str, Any]:
        """Everything the page says about one method on this task and seed."""
        cfg = config_of(self.task, method, self.seed, **self.settings)
        if cfg.vision_ctx:  # the image tower runs in every step, so clients hold pictures instead of features
            prepared = prepare(cfg, dataset=self.dataset, encoder=self.encoder)
            trained = train(cfg, prepared, progress=None)
        else:
            prepared, trained = self.prepared, self._train(method, cfg)
        frame = predict(prepared, trained)
        found = {
            "task": self.task,
            "method": method,
            "seed": self.seed,
            "config": cfg.digest(),
            "labels_read": cfg.labels_read(),
            "n_test": len(frame),
            "groups": len(self.prepared.task.groups[TASKS[self.task].group]),
            "clients": [len(c.train) for c in self.prepared.clients],
            "metrics": metrics_of(frame, self.task, self.seed),
            **choice_of(trained),
            **cost_of(trained, prepared),
        }
        if method != "fedavg":
            found["changes"] = changes_of(self.before, frame, self.task, self.seed)
        if method in OURS:  # the question a reader asks: does it beat FedAvg and a free projection?
            found["against"] = {
                name: changes_of(self._after(name), frame, self.task, self.seed) for name in PROJECTIONS
            }
        if isinstance(trained.model, ClientPrompts):
            found["mean_client"] = mean_client(self.prepared, trained)
            found["own_rows"] = {
                m: own_rows(self.prepared, t) for m, t in (("own", trained), ("fedavg", self.fedavg))
            }
        elif cfg.tune == "prompts" and cfg.posthoc == "none" and not cfg.vision_ctx:
            found["counterfactual"] = measured(self.prepared, cfg, trained)
        weights = self.prepared.provenance["weights_sha256"]
        made_by = {**machine(), "source": source_digest(), "commit": code_state(), "weights_sha256": weights}
        return found | {"made_by": made_by}

    def _train(self, method: str, cfg: Config) -> Trained:
        if method == "fedavg":
            return self.fedavg
        if method in POSTHOC:
            return with_posthoc(cfg, self.prepared, self.fedavg)
        return train(cfg, self.prepared, progress=None)

    def _after(self, method: str) -> pd.DataFrame:
        if method not in self._posthoc:
            cfg = config_of(self.task, method, self.seed, **self.settings)
            self._posthoc[method] = predict(self.prepared, with_posthoc(cfg, self.prepared, self.fedavg))
        return self._posthoc[method]

    def _fedavg(self) -> Trained:
        """Trained, or read if this code trained it before on these rows."""
        key = hashlib.sha256(f"{source_digest()} {self.cfg.digest()}".encode())
        for client in self.prepared.clients:
            key.update(client.train.z.cpu().numpy().tobytes())
        path = self.work / "fedavg" / f"{key.hexdigest()[:24]}.safetensors"
        facts = path.with_suffix(".json")
        if path.is_file() and facts.is_file():
            tensors, told = load_file(path), json.loads(facts.read_text())
            projection = Projection(tensors["basis"], tensors["mu"], 0.0)
            history = [RoundReport(**row) for row in told["history"]]
            return Trained(
                self.cfg, Prompts(tensors["prompts"]), projection, history, seconds=told["seconds"]
            )
        trained = train(self.cfg, self.prepared, progress=None)
        path.parent.mkdir(parents=True, exist_ok=True)
        p = trained.projection
        save_file({"prompts": trained.prompts.cpu(), "basis": p.basis.cpu(), "mu": p.mu.cpu()}, path)
        told = {"history": [asdict(report) for report in trained.history], "seconds": trained.seconds}
        write_atomically(facts, json.dumps(told).encode())
        return trained


@torch.no_grad()
def mean_client(prepared: Prepared, trained: Trained) -> dict[str, float]:
    """Mean over clients, by size, of what each client's own model shows on all test rows."""
    task, model = prepared.task, trained.model
    assert isinstance(model, ClientPrompts)
    rows = []
    for texts in model.class_texts(task):
        counts = next(iter(Readout(task, texts).confusion(prepared.test).values()))
        rows.append(list(_measured(counts).values()))
    mean = np.average(np.array(rows, float), axis=0, weights=model.sizes)
    return {name: round(float(x), 6) for name, x in zip(_measured(counts), mean, strict=True)}


def own_rows(prepared: Prepared, trained: Trained) -> dict[str, float]:
    """Every client's validation rows, judged by the model it ends with, and counted in one table.

    No method with personal models chooses anything on these rows: they are held out, and they are the only
    rows that have a client.
    """
    tables = [
        next(iter(readout.confusion(client.val).values()))
        for client, readout in zip(prepared.clients, client_readouts(prepared, trained), strict=True)
    ]
    return {name: round(float(x), 6) for name, x in _measured(np.sum(tables, axis=0)).items()}


def _measured(counts: np.ndarray) -> dict[str, Any]:
    """Of counts (G, C, C)."""
    return {
        "balanced_accuracy": metrics.balanced_accuracy(counts),
        "worst_cell_recall": metrics.worst_cell_recall(counts),
        "equalized_odds_difference_worst": metrics.recall_gap(counts),
    }


@cache
def source_digest() -> str:
    """Changes with any line of the package that can change a result; read once a process."""
    root = Path(fvlfp.__file__).parent
    files = sorted(p for p in root.rglob("*.py") if "audit" not in p.relative_to(root).parts)
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def missing(
    part: str,
    tasks: Iterable[str],
    seeds: int,
    root: Path = GRID,
    *,
    again: Container[str] = (),
    **settings: Any,
) -> dict[tuple[str, int], list[str]]:
    """(task, seed) -> methods of one part of the grid without a cell of today's settings.

    again: methods whose cells must also be made by today's code.
    """
    wanted = PARTS[part]
    out: dict[tuple[str, int], list[str]] = {}
    for seed in range(min(seeds, wanted.seeds)):
        for task in (t for t in tasks if t in wanted.tasks):
            left = [
                m
                for m in wanted.methods
                if not is_done(task, m, seed, root, by_this_code=m in again, **settings)
            ]
            if left:
                out[task, seed] = left
    return out


def is_done(
    task: str, method: str, seed: int, root: Path = GRID, *, by_this_code: bool = False, **settings: Any
) -> bool:
    """Whether the cell is there, and was made with the settings (and the code) it would be made with now."""
    path = cell_path(task, method, seed, root)
    if not path.is_file():
        return False
    cell = json.loads(path.read_text())
    if by_this_code and cell["made_by"]["source"] != source_digest():
        return False
    return cell["config"] == config_of(task, method, seed, **settings).digest()


def write_cell(cell: dict[str, Any], root: Path = GRID) -> Path:
    """Put a cell in its place."""
    path = cell_path(cell["task"], cell["method"], cell["seed"], root)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(cell, indent=1) + "\n").encode())
    return path


def run_missing(
    sources: Sources,
    todo: dict[tuple[str, int], list[str]],
    *,
    root: Path = GRID,
    say: Callable[[str], None] = print,
    **settings: Any,
) -> None:
    """Run cells, write each as it is ready, and say how long the rest will take."""
    total = sum(map(len, todo.values()))
    started, done = time.perf_counter(), 0
    for (task, seed), methods in todo.items():
        at = Seed(sources, task, seed, **settings)
        for method in methods:
            begun = time.perf_counter()
            write_cell(at.cell(method), root)
            done += 1
            now = time.perf_counter()
            left = (now - started) / done * (total - done)
            say(
                f"{done}/{total}  {task}  {method}  seed {seed}  {now - begun:.0f} s; "
                f"about {left / 60:.0f} min left"
            )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--all", action="store_true", help="run what is missing of the grid")
    parser.add_argument("--part", choices=PARTS, action="append", help="with --all; default: every part")
    parser.add_argument("--task", choices=TASKS, action="append")
    parser.add_argument("--method", choices=SETTINGS)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--seeds", type=int, default=5, help="with --all: at most this many seeds")
    parser.add_argument("--again", choices=SETTINGS, action="append", default=[], help="with --all")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"), help="images and FedAvg runs")
    parser.add_argument("--model", help="an open_clip name: run the real tasks with this model instead")
    parser.add_argument("--pretrained", default="", help="with --model: a tag open_clip knows, or a file")
    parser.add_argument("--model-config", default="", help="with --model: an open_clip config file")
    args = parser.parse_args()
    if not args.all and not (args.task and len(args.task) == 1 and args.method and args.seed is not None):
        parser.error("give --all, or one --task with --method and --seed")
    torch.set_num_threads(1)
    settings: dict[str, Any] = {}
    sources, root, tasks = Sources(args.work), GRID, list(args.task or TASKS)
    if args.model:
        settings = {k: getattr(args, k) for k in ("model", "pretrained", "model_config")}
        sources = Sources(args.work, encoder=Encoder.load(**settings))
        root = Path("runs/released") / "-".join(filter(None, (args.model, Path(args.pretrained).stem)))
        tasks = [t for t in tasks if TASKS[t].source != "toy" and not TASKS[t].tower]
    if not args.all:
        cell = Seed(sources, tasks[0], args.seed, **settings).cell(args.method)
        print(json.dumps(cell, indent=1))
        write_cell(cell, root)
        return
    todo = {p: missing(p, tasks, args.seeds, root, again=args.again, **settings) for p in args.part or PARTS}
    cells = sum(len(methods) for part in todo.values() for methods in part.values())
    if args.model and cells:
        wanted = dict.fromkeys(task for part in todo.values() for task, _ in part)
        print(estimate(sources, wanted, cells, **settings).describe(), flush=True)
    for part in todo:  # asked again: parts share cells
        left = missing(part, tasks, args.seeds, root, again=args.again, **settings)
        print(f"{part}: {sum(map(len, left.values()))} cells missing", flush=True)
        run_missing(sources, left, root=root, say=lambda line: print(line, flush=True), **settings)


if __name__ == "__main__":
    sys.exit(command(main))
