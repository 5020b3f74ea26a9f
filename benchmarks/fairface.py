"""FairFace with FaceCLIP-64: zero-shot, FedAvg prompts and the full method, with paired intervals.

    FVLFP_SHARED=DIR python -m benchmarks.fairface [--seeds 3] [--task age] [--task gender]

DIR holds `data/fairface` (the official label files and zips) and `models/faceclip64`. Writes
`benchmarks/results/fairface.json` after every seed (a second call goes on from it), `fairface.md` at the end.
Nothing is chosen on the official val split, which is the test split here.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.machine import machine
from data_prep.fairface import convert
from fvlfp.audit import audit, compare
from fvlfp.clip.encoder import Encoder
from fvlfp.config import Config
from fvlfp.data.table import read_table
from fvlfp.errors import InputError
from fvlfp.federation.run import Prepared, predict, prepare, train

RESULTS = Path(__file__).parent / "results"
TASKS = {"age": ("age_40", "gender", "40+"), "gender": ("gender", "race", "Male")}
#: method -> what differs from the defaults; "labels" says what training may read.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "FedAvg prompts": ("none", {"method": "fedavg"}),
    "full method": ("none", {}),
    "full method, group labels": ("at training clients", {"cf_directions": "image", "dsop": "image"}),
}
#: gaps of the table; accuracy and worst cell stand beside them, always
GAPS = {
    "demographic_parity_difference": "parity gap",
    "equalized_odds_difference_worst": "odds gap (worst)",
}
ACCURACY = {"balanced_accuracy": "balanced accuracy", "worst_cell_recall": "worst cell"}


def shared_folder() -> Path:
    """`FVLFP_SHARED`, checked."""
    folder = os.environ.get("FVLFP_SHARED")
    if not folder:
        raise InputError("set FVLFP_SHARED to the folder with data/fairface and models/faceclip64")
    return Path(folder)


def load_encoder(shared: Path) -> Encoder:
    """FaceCLIP-64."""
    folder = shared / "models" / "faceclip64"
    return Encoder.load(
        "FaceCLIP-64",
        pretrained=str(folder / "faceclip64_fp16.safetensors"),
        model_config=folder / "FaceCLIP-64.json",
    )


def run_seed(
    table: Path, task: str, seed: int, encoder: Encoder, settings: dict[str, Any], rows: int | None = None
) -> dict[str, Any]:
    """Everything one seed says: metrics of each method, and paired changes against FedAvg prompts."""
    label, group, positive = TASKS[task]
    base = {"label": label, "groups": (group,), "data": str(table), "seed": seed, **settings}
    cfg = Config.make(**base)
    dataset = read_table(table, label=label, groups=[group])
    if rows is not None:  # a small version for the tests: every k-th row
        dataset = dataset.take(np.arange(0, len(dataset), max(1, len(dataset) // rows)))
    prepared = prepare(cfg, dataset=dataset, encoder=encoder, quiet=False)
    frames = {"zero-shot": predict(prepared)}
    seconds, chosen = {}, {}
    for name, (_, changes) in METHODS.items():
        trained = train(Config.make(**base, **changes), prepared, progress=None)
        frames[name] = predict(prepared, trained)
        seconds[name] = round(trained.seconds, 1)
        chosen[name] = [trained.projection.basis.shape[1], trained.projection.lam]
    common = {
        "label": label,
        "prediction": "prediction",
        "groups": [group],
        "positive": positive,
        "seed": seed,
    }
    return {
        "n_test": len(prepared.test),
        "clients": [len(c.train) for c in prepared.clients],
        "metrics": {name: metrics_of(frame, group, common) for name, frame in frames.items()},
        "changes": {
            name: changes_of(frames["FedAvg prompts"], frame, group, common)
            for name, frame in frames.items()
            if name not in ("zero-shot", "FedAvg prompts")
        },
        "rank_lambda": chosen,
        "seconds": seconds,
        "provenance": _short(prepared),
    }


def metrics_of(frame: pd.DataFrame, group: str, common: dict[str, Any]) -> dict[str, Any]:
    """The table's metrics of one classifier, each with its 95 % interval."""
    document = audit(frame, **common, draws=2000).to_json()
    part = document["attributes"][group]
    found = {name: part["gaps"][name] for name in GAPS}
    found["balanced_accuracy"] = document["overall"]["rates"]["balanced_accuracy"]
    found["worst_cell_recall"] = part["worst_cell_recall"]
    keep = ("value", "low", "high", "expected_null", "null_95", "perfect_classifier")
    return {name: {k: entry[k] for k in keep if k in entry} for name, entry in found.items()}


def changes_of(
    before: pd.DataFrame, after: pd.DataFrame, group: str, common: dict[str, Any]
) -> dict[str, Any]:
    """The paired change of each of them, with its 95 % interval."""
    document = compare(before, after, **common, draws=10_000).to_json()
    part = document["attributes"][group]
    found = {name: part["changes"][name] for name in GAPS}
    found["balanced_accuracy"] = document["overall"]["rates"]["balanced_accuracy"]
    found["worst_cell_recall"] = part["worst_cell_recall"]
    return {name: {k: e[k] for k in ("a", "b", "change", "low", "high")} for name, e in found.items()}


def _short(prepared: Prepared) -> dict[str, Any]:
    keys = ("model", "weights_sha256", "activation", "data", "licence", "label_origin", "split", "prompts")
    return {key: prepared.provenance[key] for key in keys}


def page(results: dict[str, Any]) -> str:
    """The results as Markdown: means over seeds with their spread, then each seed's paired change."""
    where = results["machine"]
    lines = [
        "# FairFace with FaceCLIP-64: before and after",
        "",
        "Written by `python -m benchmarks.fairface`; do not edit. Perceived labels, given by annotators to "
        "photographs. The official val split is the test split; rank and lambda were chosen on the clients' "
        "own validation rows. FaceCLIP-64 is a small model trained for this purpose; its numbers say nothing "
        "about any released CLIP.",
        "",
        f"Machine: {where['cpu']}, {where['cores']} cores, {where['system']}, torch {where['torch']}, "
        f"flwr {where['flwr']}.",
    ]
    for task, by_seed in results["tasks"].items():
        lines += ["", *_task_lines(task, by_seed)]
    return "\n".join(lines) + "\n"


def _task_lines(task: str, by_seed: dict[str, Any]) -> list[str]:
    label, group, positive = TASKS[task]
    seeds = sorted(by_seed, key=int)
    first = by_seed[seeds[0]]
    columns = ACCURACY | GAPS
    null = first["metrics"]["zero-shot"]["equalized_odds_difference_worst"]
    floor = first["metrics"]["zero-shot"]["demographic_parity_difference"]["perfect_classifier"]
    lines = [
        f"## {label} by perceived {group}",
        "",
        f"n = {first['n_test']} test rows, {len(first['clients'])} clients, seeds {', '.join(seeds)}; "
        f"positive class `{positive}`. Mean over seeds ± standard deviation over seeds; in brackets the 95 % "
        f"sampling interval of seed {seeds[0]}. A classifier with equal rates would show an odds gap of "
        f"{null['expected_null']:.3f} by chance at this n (95 %: {null['null_95']:.3f}); a perfect one would "
        f"show a parity gap of {floor:.3f}, because the true shares differ between the groups.",
        "",
        "| | group labels in training | " + " | ".join(columns.values()) + " |",
        "|---|---|" + "---|" * len(columns),
    ]
    reads = {"zero-shot": "none"} | {name: labels for name, (labels, _) in METHODS.items()}
    for name, labels in reads.items():
        cells = []
        for key in columns:
            values = [by_seed[s]["metrics"][name][key]["value"] for s in seeds]
            entry = first["metrics"][name][key]
            cells.append(
                f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f} "
                f"[{entry['low']:.3f}, {entry['high']:.3f}]"
            )
        lines.append(f"| {name} | {labels} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Paired change against FedAvg prompts, same test rows, 95 % interval of the change, seed by seed:",
        "",
        "| | seed | " + " | ".join(columns.values()) + " | rank, lambda |",
        "|---|---|" + "---|" * (len(columns) + 1),
    ]
    for name in first["changes"]:
        for s in seeds:
            change = by_seed[s]["changes"][name]
            cells = [
                f"{change[k]['change']:+.3f} [{change[k]['low']:+.3f}, {change[k]['high']:+.3f}]"
                for k in columns
            ]
            rank, lam = by_seed[s]["rank_lambda"][name]
            lines.append(f"| {name} | {s} | " + " | ".join(cells) + f" | {rank}, {lam:g} |")
    seconds = {name: np.mean([by_seed[s]["seconds"][name] for s in seeds]) for name in METHODS}
    told = ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
    return [*lines, "", f"Training time a run (features cached): {told}."]


def main() -> None:
    """Run what is missing, write JSON after every seed and the page at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--task", choices=TASKS, action="append", help="default: both")
    args = parser.parse_args()
    shared = shared_folder()
    encoder = load_encoder(shared)
    path = RESULTS / "fairface.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"tasks": {}}
    results["machine"] = machine()
    with tempfile.TemporaryDirectory() as folder:
        tables = convert(shared / "data" / "fairface", Path(folder))
        for task in args.task or TASKS:
            done = results["tasks"].setdefault(task, {})
            for seed in range(args.seeds):
                if str(seed) in done:
                    continue
                print(f"{task}, seed {seed}", flush=True)
                done[str(seed)] = run_seed(tables[task], task, seed, encoder, {})
                path.write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / "fairface.md").write_text(page(results))
    print(RESULTS / "fairface.md")


if __name__ == "__main__":
    main()
