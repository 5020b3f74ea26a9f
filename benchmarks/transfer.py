"""Prompts trained on FairFace and judged on CelebA with the same words.

    FVLFP_SHARED=DIR python -m benchmarks.transfer [--seeds 5]

One frozen model, FaceCLIP-64, sees both sets. Two cases: age (20-39 against 40+, judged as young against not
young) by perceived gender, and perceived gender by perceived race, judged by perceived age. Nothing is tuned
on CelebA, not even a threshold. Writes `results/transfer.json`, which `benchmarks.results` shows; a seed that
is there is not run again.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.grid import DRAWS, GAPS, KEPT, POSTHOC, TASKS, Sources, config_of
from benchmarks.machine import code_state, machine
from benchmarks.shared import command
from benchmarks.summary import TRANSFER
from data_prep import fairface
from fvlfp.audit import audit
from fvlfp.data.table import Dataset
from fvlfp.runs.predict import predict
from fvlfp.runs.train import Prepared, Trained, prepare, train, with_posthoc

METHODS = ("zero-shot", "fedavg", "leace", "fvlfp-label-free")
AGE_40 = {"Young": "20-39", "Not young": "40+"}


@dataclass(frozen=True)
class Case:
    """task: of the grid, where prompts are trained. group: by which CelebA is judged."""

    task: str
    group: str
    trained: str
    judged: str


CASES = (
    Case("age-gender", "gender", "FairFace, age", "CelebA, young or not, by perceived gender"),
    Case("gender-race", "age", "FairFace, gender", "CelebA, gender, by perceived age"),
)


def as_fairface(celeba: Dataset, group: str) -> Dataset:
    """The test rows of CelebA with FairFace's labels and class words; `group`: its own perceived groups."""
    frame = celeba.frame.assign(age_40=celeba.frame["age"].map(AGE_40))
    card = dataclasses.replace(fairface.CARD, groups={group: celeba.card.groups[group]})
    return dataclasses.replace(celeba, frame=frame, card=card)


def trained_with(method: str, prepared: Prepared, fedavg: Trained, task: str, seed: int) -> Trained:
    """A method of the grid on its own task."""
    cfg = config_of(task, method, seed)
    if method == "fedavg":
        return fedavg
    return with_posthoc(cfg, prepared, fedavg) if method in POSTHOC else train(cfg, prepared, progress=None)


def metrics(frame: pd.DataFrame, task: str, group: str, seed: int) -> dict[str, Any]:
    """As a cell of the grid has them, by `group`."""
    t = TASKS[task]
    document = audit(
        frame, label=t.label, prediction="prediction", groups=[group], positive=t.positive,
        seed=seed, draws=DRAWS,
    ).document  # fmt: skip
    part = document["attributes"][group]
    entries: dict[str, Any] = {
        "balanced_accuracy": document["overall"]["rates"]["balanced_accuracy"],
        "worst_cell_recall": part["worst_cell_recall"],
        **{gap: part["gaps"][gap] for gap in GAPS},
    }
    return {name: {k: e[k] for k in KEPT if e.get(k) is not None} for name, e in entries.items()}


def run(sources: Sources, case: Case, seed: int) -> dict[str, dict[str, Any]]:
    """Where judged -> method -> metrics, for one seed."""
    cfg = config_of(case.task, "fedavg", seed)
    encoder, group = sources.encoder(case.task), TASKS[case.task].group
    here = prepare(cfg, dataset=sources.dataset(case.task, cfg), encoder=encoder)
    celeba = sources.dataset("smiling-gender", cfg)
    there = prepare(
        cfg.replace(groups=(case.group,)), dataset=as_fairface(celeba, case.group), encoder=encoder
    )
    fedavg = train(cfg, here, progress=None)
    found: dict[str, dict[str, Any]] = {"here": {}, "there": {}}
    for method in METHODS:
        trained = trained_with(method, here, fedavg, case.task, seed)
        found["here"][method] = metrics(predict(here, trained), case.task, group, seed)
        found["there"][method] = metrics(predict(there, trained), case.task, case.group, seed)
    return found | {"n": {"there": len(there.test_frame)}}


def summed(runs: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What the page reads, from the runs by "case|seed"."""
    cases = []
    for case in CASES:
        mine = [found for key, found in runs.items() if key.startswith(f"{case.task}|")]
        for where, judged in (("here", "the same set, by " + TASKS[case.task].group), ("there", case.judged)):
            methods = {m: [found[where][m] for found in mine] for m in METHODS}
            if mine:
                cases.append({"trained": case.trained, "judged": judged, "methods": methods})
    seeds = min((sum(k.startswith(f"{c.task}|") for k in runs) for c in CASES), default=0)
    return {"cases": cases, "seeds": seeds, "n": next(iter(runs.values()))["n"]["there"]}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmarks"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    sources = Sources(args.work)
    known = json.loads(TRANSFER.read_text(encoding="utf-8")) if TRANSFER.is_file() else {"runs": {}}
    for seed in range(args.seeds):
        for case in CASES:
            key = f"{case.task}|{seed}"
            if key not in known["runs"]:
                known["runs"][key] = run(sources, case, seed)
                told = summed(known["runs"]) | {"machine": machine(), "code": code_state()}
                TRANSFER.write_text(
                    json.dumps(told | {"runs": known["runs"]}, indent=1) + "\n", encoding="utf-8"
                )
                print(key, flush=True)


if __name__ == "__main__":
    sys.exit(command(main))
