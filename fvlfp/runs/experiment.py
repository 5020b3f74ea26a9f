"""`fvlfp train`: the method and its baseline on the same clients, then the paired audit on the test rows.

What this module does not do: it chooses nothing on the test rows; they are read once, after training.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fvlfp.audit import audit, compare, write_audit, write_comparison
from fvlfp.audit.report.write import check_free
from fvlfp.audit.schema import Facts
from fvlfp.config import Config
from fvlfp.data.table import Dataset
from fvlfp.errors import InputError
from fvlfp.federation.privacy import epsilon
from fvlfp.files import write_atomically
from fvlfp.output_folder import check_own, claimed
from fvlfp.runs.client_table import client_table, in_words, personal_models, write_clients
from fvlfp.runs.predict import predict
from fvlfp.runs.save import WORDS, write_result
from fvlfp.runs.train import Prepared, Trained, load_data, prepare, train
from fvlfp.training.model import initial_model
from fvlfp.training.personal_methods import method_of
from fvlfp.training.reports import RoundReport

CONFIG = "config.json"
#: Columns that a run writes beside the table's own.
WRITTEN = ("prediction", "baseline", "method", "baseline score", "method score", "row", "path")
#: What may change when a run goes on: none of them changes what a round that is done has computed.
FREE = ("rounds", "draws", "device", "patience")


def run_and_audit(
    cfg: Config,
    out: Path,
    *,
    dataset: Dataset | None = None,
    resume: bool = False,
    skip_bad: bool = False,
    images: Path | None = None,
    say: Callable[[str], None] = print,
    on_round: Callable[[RoundReport], None] | None = None,
) -> Path:
    """Train `cfg.baseline` and `cfg.method`, write both audits and their comparison; returns its report.

    In `out`: `config.json`; `words.toml` (the data card); `baseline/` and `method/` with checkpoints,
    `prompts.safetensors`, `history.jsonl` (a line as each round ends), `history.csv`, `clients.csv`,
    `candidates.csv` (where any were tried), `personal/` (with `personalise`); `predictions.csv` (the
    test rows, see `predictions`); `audit/baseline`, `audit/method` and
    `audit/comparison`, each with JSON, CSV and `report.html`.

    Args:
        on_round: called with the report of each round of the method, for a tracker of experiments.

    Raises:
        InputError: `out` holds a run and `resume` is not set, or another run than `cfg`'s, or something else,
            or another command is at work in it; or any bad input named by `prepare`.
    """
    check_own(out, marker=CONFIG, what="run")
    with claimed(out):
        goes_on = (out / CONFIG).is_file()
        if goes_on and not resume:
            raise InputError(f"{out} holds a run: add --resume to go on with it, or choose another --out")
        if goes_on:
            check_same_run(out / CONFIG, cfg)
        check_pair_free(out / "audit")
        return _run_and_audit(cfg, out, dataset, goes_on, skip_bad, images, say, on_round)


def _run_and_audit(
    cfg: Config,
    out: Path,
    dataset: Dataset | None,
    goes_on: bool,
    skip_bad: bool,
    images: Path | None,
    say: Callable[[str], None],
    on_round: Callable[[RoundReport], None] | None,
) -> Path:
    dataset = load_data(cfg, skip_bad=skip_bad, images=images) if dataset is None else dataset
    dataset = fit_to_train(dataset, cfg)
    for line in (*dataset.skipped, *dataset.remarks, *dataset.read.get("merged", ())):
        say(f"note: {line}")
    deepest = max(cfg, cfg.with_method(cfg.baseline), key=lambda c: c.depth)  # one set of rows for both
    prepared = prepare(deepest, dataset=dataset, quiet=False)
    say(describe_run(prepared, cfg))
    config = json.dumps(cfg.to_dict(), indent=1).encode()
    if not goes_on:
        write_atomically(out / CONFIG, config)
    runs: dict[str, Trained | None] = {"baseline": None}
    if cfg.baseline != "zero-shot":
        baseline = cfg.with_method(cfg.baseline)
        runs["baseline"] = _train(baseline, prepared, out / "baseline", goes_on, say, None)
    runs["method"] = _train(cfg, prepared, out / "method", goes_on, say, on_round)
    write_atomically(out / CONFIG, config)  # a run that goes on: only now are its checkpoints known to fit
    write_atomically(out / WORDS, dataset.card.to_toml().encode())
    return audit_runs(cfg, prepared, runs, out)


def check_same_run(path: Path, cfg: Config) -> None:
    """Compare `cfg` with the config in `path`, before anything slow and before anything is written.

    Raises:
        InputError: `path` is no config of a run, or a key differs that may not change (see `FREE`).
    """
    try:
        before = Config.make(**json.loads(path.read_text(encoding="utf-8"))).to_dict()
    except (ValueError, TypeError) as error:  # an InputError, too: not a config of ours
        raise InputError(f"{path} is not the config of a run: {error}; choose another --out") from None
    now = cfg.to_dict()
    if other := [key for key in now if now[key] != before[key] and key not in FREE]:
        raise InputError(
            f"{path.parent} holds a run with {', '.join(f'{key} = {before[key]!r}' for key in other)}; now "
            f"{', '.join(f'{key} = {now[key]!r}' for key in other)}: choose another --out, or the same "
            f"values (only {', '.join(FREE)} may change)"
        )


def fit_to_train(dataset: Dataset, cfg: Config) -> Dataset:
    """The data set with remarks on what this run leaves unused, checked before anything takes time.

    Raises:
        InputError: no test rows, or a label or group column with the name of one that a run writes.
    """
    frame = dataset.frame
    refuse_written((cfg.label, *cfg.groups))
    if "split" in frame and not (frame["split"] == "test").any():
        raise InputError(
            "no row has the split 'test', and the audit after training needs some: mark them, or leave the "
            "column 'split' out, and a third of the rows is drawn"
        )
    if "client" not in frame or cfg.partition == "column":
        return dataset
    unused = (
        f"the table's column 'client' ({frame['client'].nunique()} clients) is not used: partition = "
        f"'{cfg.partition}' pretends {cfg.clients} clients; partition = 'column' takes the table's"
    )
    return dataclasses.replace(dataset, remarks=(*dataset.remarks, unused))


def audit_runs(cfg: Config, prepared: Prepared, runs: dict[str, Trained | None], out: Path) -> Path:
    """Predict the test rows of `prepared` with `baseline` and `method`, then audit both; returns the report.

    runs: `baseline` (None is zero-shot) and `method`, wherever they were trained.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = {name: predict(prepared, run) for name, run in runs.items()}
    table = predictions(prepared.test_frame, [cfg.label, *cfg.groups], found, prepared.test_rows)
    table.to_csv(out / "predictions.csv", index=False)
    return audit_pair(table, cfg, prepared.provenance, runs, out / "audit")


def refuse_written(columns: Iterable[str]) -> None:
    """Raises InputError where a label or group column has the name of one that a run writes."""
    for name in columns:
        if name in WRITTEN:
            raise InputError(f"the column {name!r} has the name of one that a run writes: rename it")


def predictions(
    frame: pd.DataFrame, columns: list[str], found: Mapping[str, pd.DataFrame], rows: Sequence[int | str]
) -> pd.DataFrame:
    """Predicted rows as `predictions.csv` has them.

    Args:
        frame: n rows with the label and group `columns`.
        found: model -> its n rows with `prediction` and, for two classes, `score`.
        rows: what messages call the n rows; () where they come from no file.

    Returns:
        n rows: `columns`; each model's prediction under its own name; then `MODEL score`, the probability of
        the second class, `row`, and `path`, as far as they are known.
    """
    table = frame[columns].copy()
    for name, predicted in found.items():
        table[name] = predicted["prediction"].to_numpy()
    for name, predicted in found.items():
        if "score" in predicted:
            table[f"{name} score"] = predicted["score"].to_numpy()
    if rows:
        table["row"] = list(rows)
    if "path" in frame:
        table["path"] = frame["path"]
    return table


def audit_pair(
    table: pd.DataFrame, cfg: Config, provenance: Facts, runs: dict[str, Trained | None], out: Path
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
        result = audit(frame, provenance=facts, **common)
        result.document["remarks"] += provenance.get("remarks", [])
        rows = frame[[cfg.label, *cfg.groups, "prediction"]]
        write_audit(result, out / name, title=f"Audit of {names[name]}", rows=rows)
    change = compare(
        frames["baseline"],
        frames["method"],
        **common,
        names=(names["baseline"], names["method"]),
        provenance={**provenance, **training_facts(cfg.method, runs["method"])},
    )
    change.document["remarks"] += provenance.get("remarks", [])
    write_comparison(change, out / "comparison", title=f"{names['method']} against {names['baseline']}")
    return out / "comparison" / "report.html"


def check_pair_free(out: Path) -> None:
    """Refuse, before anything takes time, what `audit_pair` would refuse when it writes into `out`."""
    for name, kind in (("baseline", "audit"), ("method", "audit"), ("comparison", "comparison")):
        check_free(out / name, kind)


def describe_run(prepared: Prepared, cfg: Config) -> str:
    """What is about to happen, in a few lines, before it takes time."""
    sizes = sorted(len(client.train) for client in prepared.clients)
    if cfg.pooling == "personal":
        method = method_of(prepared.task, cfg)
        numbers, sent = method.trained, method.sent
    else:
        numbers = sent = sum(t.numel() for t in initial_model(prepared.task, cfg).tensors().values())
    return (
        f"{len(sizes)} clients with {sizes[0]} to {sizes[-1]} training rows (partition: {cfg.partition}), "
        f"{len(prepared.test)} test rows\n"
        f"frozen model {prepared.provenance['model']} on {prepared.provenance['device']}; images encoded in "
        f"{prepared.seconds:.1f} s\n"
        f"{numbers} trainable numbers ({4 * sent / 1024:.1f} KiB for each client and round)"
        + "".join(f"\na client also sends {what}" for what in cfg.sends())
    )


def training_facts(method: str, trained: Trained | None) -> Facts:
    """What a report's model card says about training."""
    if trained is None:
        return {"training": "none: zero-shot with the first template"}
    chosen = f"rank {trained.projection.basis.shape[1]}, lambda {trained.projection.lam:g}"
    if trained.posthoc is not None:
        chosen = f"{trained.cfg.posthoc}: {trained.posthoc.describe()}"
    private = {"privacy": privacy_of(trained)} if trained.cfg.dp_noise > 0 else {}
    failed = sorted({name for report in trained.history for name in report.failed})
    return {
        "training": f"{method}, {len(trained.history)} rounds, {clients_in(trained)} clients",
        "seed": trained.cfg.seed,
        "selection": "rank and lambda of the projection on clients' validation rows; nothing on test rows",
        "projection": chosen,
        "failed_clients": failed,
        "clients_on_validation": list(trained.clients),
        **private,
    }


def clients_in(trained: Trained) -> int:
    """How many clients the run had: those that answered and those that failed in a round, at most."""
    return max((r.clients + len(r.failed) for r in trained.history), default=trained.cfg.clients)


def privacy_of(trained: Trained) -> str:
    """What the noise promises, in words (`fvlfp.federation.privacy` says what it covers)."""
    delta = 0.1 / clients_in(trained)
    spent = epsilon(multiplier=trained.cfg.dp_noise, rounds=len(trained.history), delta=delta)
    return (
        f"epsilon = {spent:.3g} at delta = {delta:.2g} for each client's prompts, over "
        f"{len(trained.history)} rounds; sizes and reports are not covered"
    )


def _as_they_come(out: Path, on_round: Callable[[RoundReport], None] | None) -> Callable[[RoundReport], None]:
    """Append each round's report to `history.jsonl`, then hand it on.

    A resumed run writes its rounds behind those that are there; a round that was done twice stands twice.
    """

    def write(report: RoundReport) -> None:
        with (out / "history.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(report)) + "\n")
        if on_round:
            on_round(report)

    return write


def _train(
    cfg: Config,
    prepared: Prepared,
    out: Path,
    resume: bool,
    say: Callable[[str], None],
    on_round: Callable[[RoundReport], None] | None,
) -> Trained:
    say(f"training {cfg.method}")
    out.mkdir(parents=True, exist_ok=True)
    trained = train(
        cfg, prepared, out=out, resume=resume, progress=say, on_round=_as_they_come(out, on_round)
    )
    write_result(out, trained, prepared.provenance)
    own = personal_models(cfg, prepared, trained) if cfg.personalise else {}
    table = client_table(cfg, prepared, trained, own)
    write_clients(table, own, out)
    trained = dataclasses.replace(trained, clients=tuple(in_words(table)))
    if cfg.dp_noise > 0:
        say(privacy_of(trained))
    pd.DataFrame(trained.history).to_csv(out / "history.csv", index=False)
    if trained.candidates:
        pd.DataFrame([c.to_dict() for c in trained.candidates]).to_csv(out / "candidates.csv", index=False)
    return trained
