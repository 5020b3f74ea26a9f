"""`fvlfp train`: the method and its baseline on the same clients, then the paired audit on the test rows.

What this module does not do: it chooses nothing on the test rows; they are read once, after training.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from fvlfp.audit import audit, compare, write_audit, write_comparison
from fvlfp.config import Config
from fvlfp.data.table import Dataset
from fvlfp.errors import InputError
from fvlfp.files import write_atomically
from fvlfp.runs.predict import predict
from fvlfp.runs.save import write_result
from fvlfp.runs.train import Prepared, Trained, load_data, prepare, train
from fvlfp.training.model import initial_model


def run_and_audit(
    cfg: Config,
    out: Path,
    *,
    dataset: Dataset | None = None,
    resume: bool = False,
    skip_bad: bool = False,
    say: Callable[[str], None] = print,
) -> Path:
    """Train `cfg.baseline` and `cfg.method`, write both audits and their comparison; returns its report.

    In `out`: `config.json`; `baseline/` and `method/` with checkpoints, `prompts.safetensors`, `history.csv`,
    `candidates.csv` (where any were tried); `predictions.csv` (test rows, one column of predictions a model);
    `audit/baseline`, `audit/method` and `audit/comparison`, each with JSON, CSV and `report.html`.

    Raises:
        InputError: `out` holds a run and `resume` is not set, or any bad input named by `prepare`.
    """
    if (out / "config.json").exists() and not resume:
        raise InputError(f"{out} holds a run: add --resume to go on with it, or choose another --out")
    dataset = load_data(cfg, skip_bad=skip_bad) if dataset is None else dataset
    deepest = max(cfg, cfg.with_method(cfg.baseline), key=lambda c: c.depth)  # one set of rows for both
    prepared = prepare(deepest, dataset=dataset, quiet=False)
    say(describe_run(prepared, cfg))
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "config.json", json.dumps(cfg.to_dict(), indent=1).encode())

    runs: dict[str, Trained | None] = {"baseline": None}
    if cfg.baseline != "zero-shot":
        runs["baseline"] = _train(cfg.with_method(cfg.baseline), prepared, out / "baseline", resume, say)
    runs["method"] = _train(cfg, prepared, out / "method", resume, say)
    return audit_runs(cfg, prepared, runs, out)


def audit_runs(cfg: Config, prepared: Prepared, runs: dict[str, Trained | None], out: Path) -> Path:
    """Predict the test rows of `prepared` with `baseline` and `method`, then audit both; returns the report.

    runs: `baseline` (None is zero-shot) and `method`, wherever they were trained.
    """
    out.mkdir(parents=True, exist_ok=True)
    predictions = pd.concat(
        [
            predict(prepared, run)[["prediction"]].rename(columns={"prediction": name})
            for name, run in runs.items()
        ],
        axis=1,
    )
    columns = [cfg.label, *cfg.groups]
    table = pd.concat([prepared.test_frame[columns], predictions], axis=1)
    table.to_csv(out / "predictions.csv", index=False)
    return audit_pair(table, cfg, prepared.provenance, runs, out / "audit")


def audit_pair(
    table: pd.DataFrame, cfg: Config, provenance: dict[str, Any], runs: dict[str, Trained | None], out: Path
) -> Path:
    """Audit the `baseline` and `method` columns of `table`, and their paired change; returns its report."""
    frames = {name: table.assign(prediction=table[name]) for name in runs}
    names = {"baseline": cfg.baseline, "method": cfg.method}
    classes = provenance["prompts"]["classes"]
    common: dict[str, Any] = {
        "label": cfg.label,
        "prediction": "prediction",
        "groups": list(cfg.groups),
        "positive": list(classes)[1] if len(classes) == 2 else None,
        "draws": cfg.draws,
        "seed": cfg.seed,
    }
    for name, frame in frames.items():
        facts = {**provenance, **training_facts(names[name], runs[name])}
        write_audit(audit(frame, **common, provenance=facts), out / name, title=f"Audit of {names[name]}")
        rows = frame[[cfg.label, *cfg.groups, "prediction"]]
        rows.to_csv(out / name / "predictions.csv", index=False)
    change = compare(
        frames["baseline"],
        frames["method"],
        **common,
        names=(names["baseline"], names["method"]),
        provenance={**provenance, **training_facts(cfg.method, runs["method"])},
    )
    write_comparison(change, out / "comparison", title=f"{names['method']} against {names['baseline']}")
    return out / "comparison" / "report.html"


def describe_run(prepared: Prepared, cfg: Config) -> str:
    """What is about to happen, in a few lines, before it takes time."""
    sizes = sorted(len(client.train) for client in prepared.clients)
    numbers = sum(tensor.numel() for tensor in initial_model(prepared.task, cfg).tensors().values())
    return (
        f"{len(sizes)} clients with {sizes[0]} to {sizes[-1]} training rows (partition: {cfg.partition}), "
        f"{len(prepared.test)} test rows\n"
        f"frozen model {prepared.provenance['model']} on {prepared.provenance['device']}; images encoded in "
        f"{prepared.seconds:.1f} s\n"
        f"{numbers} trainable numbers ({4 * numbers / 1024:.1f} KiB for each client and round)"
        + "".join(f"\na client also sends {what}" for what in cfg.sends())
    )


def training_facts(method: str, trained: Trained | None) -> dict[str, Any]:
    """What a report's model card says about training."""
    if trained is None:
        return {"training": "none: zero-shot with the first template"}
    chosen = f"rank {trained.projection.basis.shape[1]}, lambda {trained.projection.lam:g}"
    if trained.posthoc is not None:
        chosen = f"{trained.cfg.posthoc}: {trained.posthoc.describe()}"
    failed = sorted({node for report in trained.history for node in report.failed})
    return {
        "training": f"{method}, {len(trained.history)} rounds, {trained.cfg.clients} clients",
        "seed": trained.cfg.seed,
        "selection": "rank and lambda of the projection on clients' validation rows; nothing on test rows",
        "projection": chosen,
        "failed_clients": failed,
    }


def _train(cfg: Config, prepared: Prepared, out: Path, resume: bool, say: Callable[[str], None]) -> Trained:
    if out.exists() and not resume:
        shutil.rmtree(out)
    say(f"training {cfg.method}")
    trained = train(cfg, prepared, out=out, resume=resume, progress=say)
    write_result(out, trained, prepared.provenance)
    pd.DataFrame(trained.history).to_csv(out / "history.csv", index=False)
    if trained.candidates:
        pd.DataFrame([c.to_dict() for c in trained.candidates]).to_csv(out / "candidates.csv", index=False)
    return trained
