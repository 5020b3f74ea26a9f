"""`fvlfp audit run`: trained prompts on another table, beside the frozen model zero-shot, row by row.

What this module does not do: it trains nothing and chooses nothing; the table's labels are read to judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from fvlfp.data.table import Dataset
from fvlfp.errors import InputError
from fvlfp.output_folder import check_own, claimed
from fvlfp.runs.experiment import CONFIG, audit_pair, check_pair_free, predictions, refuse_written
from fvlfp.runs.loaded_run import LoadedRun
from fvlfp.training.examples import which_test


def audit_run(
    run: LoadedRun,
    dataset: Dataset,
    out: Path,
    *,
    label: str | None = None,
    groups: Sequence[str] = (),
    table: Path | None = None,
    draws: int = 2_000,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> Path:
    """Judge a run on a table that it was not trained on; returns the report of the paired change.

    Writes what `fvlfp train` writes for its test rows: `predictions.csv`, and `audit/baseline` (zero-shot),
    `audit/method` and `audit/comparison`.

    Args:
        dataset: its label and group columns hold text; a `split` column, if there is one, says which rows are
            test rows, and those alone are judged.
        label, groups: columns of the table; by default those that the run was trained with.
        table: the table's file; the run's own table is judged on the run's test rows alone.

    Raises:
        InputError: a column is missing, a label has no class of the run, or no row may be judged.
    """
    cfg = run.trained.cfg
    check_own(out, marker="audit", what="audit of a run")
    check_pair_free(out / "audit")
    if (out / CONFIG).exists():
        raise InputError(f"{out} holds a run, whose own audit would be written over: choose another --out")
    label, groups = label or cfg.label, list(groups) or list(cfg.groups)
    _check(dataset.frame, label, groups, list(run.classes))
    rows, why = _rows(run, dataset, table)
    say(f"judged: {why}")
    dataset = dataset.take(rows)
    frame = dataset.frame.reset_index(drop=True)
    known = frame if set(cfg.groups) <= set(frame) else None
    found = {
        "baseline": run.predict(dataset.images, zero_shot=True),
        "method": run.predict(dataset.images, groups=known),
    }
    judged = predictions(frame, [label, *groups], found, dataset.rows)
    trained_on = {key: run.provenance.get(key) for key in ("data", "source", "licence", "split")}
    provenance = {
        **run.encoder.provenance,
        **dataset.facts,
        "split": f"{why}; on no client",
        "trained_on": trained_on,
        "prompts": {"templates": run.card.templates, "classes": run.classes},
        "classes_trained_on": not run.new_classes,
    }
    audited = cfg.replace(baseline="zero-shot", label=label, groups=groups, draws=draws, seed=seed)
    with claimed(out):
        judged.to_csv(out / "predictions.csv", index=False)
        runs = {"baseline": None, "method": run.trained}
        return audit_pair(judged, audited, provenance, runs, out / "audit")


def _rows(run: LoadedRun, dataset: Dataset, table: Path | None) -> tuple[np.ndarray, str]:
    """Which rows (n,) may be judged, and why, in words."""
    own = table is not None and Path(run.trained.cfg.data).resolve() == table.resolve()
    if "split" not in dataset.frame and not own:
        return np.ones(len(dataset), bool), f"all {len(dataset)} rows"
    test = which_test(dataset.frame, run.trained.cfg)
    if not test.any():
        raise InputError("the table has a `split` column and no test row: nothing may be judged")
    why = "split = test" if "split" in dataset.frame else "test rows of the run's own table"
    return test, f"{int(test.sum())} of {len(dataset)} rows ({why})"


def _check(frame: pd.DataFrame, label: str, groups: list[str], classes: list[str]) -> None:
    refuse_written((label, *groups))
    for column in (label, *groups):
        if column not in frame:
            raise InputError(f"the table has no column {column!r}: name its columns with --label and --group")
    strange = frame.loc[~frame[label].isin(classes), label]
    if len(strange):
        raise InputError(
            f"{len(strange)} rows have {label} = {strange.iloc[0]!r} or the like; the run knows the classes "
            f"{', '.join(map(repr, classes))}"
        )
