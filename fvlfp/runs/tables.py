"""Audits of predictions that somebody else made: tables in, folders with a report out.

What this module does not do: it needs no model and loads none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fvlfp.audit import Audit, Comparison, audit, compare, write_audit, write_comparison
from fvlfp.audit.stats.bins import bin_groups
from fvlfp.data.predictions import read_predictions
from fvlfp.errors import InputError


def audit_table(
    table: Path,
    out: Path,
    *,
    label: str,
    prediction: str,
    groups: Sequence[str],
    score: str | None = None,
    bins: Mapping[str, Sequence[float]] | None = None,
    **options: Any,
) -> Audit:
    """Audit a table of predictions into the folder `out`; the rows stay there, for `compare_tables`.

    options: see ``fvlfp.audit.audit``.

    Raises:
        InputError: bad input, named with its row.
    """
    if prediction != "prediction" and "prediction" in (label, *groups):
        raise InputError("the column 'prediction' has the name of one that this audit writes: rename it")
    columns: dict[str, Any] = {"label": label, "prediction": prediction}
    frame = read_predictions(
        table,
        [label, prediction, *groups],
        numbers=[score] if score else [],
        alike=(label, prediction),
    )
    facts = {"table": frame.attrs["facts"]}
    result = audit(frame, **columns, groups=groups, score=score, bins=bins, **options, provenance=facts)
    write_audit(result, out, notebook=True)
    rows = bin_groups(frame, bins or {}, groups)[[label, prediction, *groups]]
    rows.rename(columns={prediction: "prediction"}).to_csv(out / "predictions.csv", index=False)
    return result


def compare_tables(
    before: Path,
    after: Path,
    out: Path,
    *,
    label: str | None,
    groups: Sequence[str] | None,
    prediction: str,
    key: str | None,
    again: Callable[..., str],
    **options: Any,
) -> Comparison:
    """Compare two folders of audits, or two tables of predictions, into the folder `out`.

    label, groups: where None, the first audit's. again: options -> the command that does the same.

    Raises:
        InputError: bad input, named with its row.
    """
    said = Audit.read(before).document["settings"] if before.is_dir() else {}
    label, groups = label or said.get("label"), groups or said.get("groups")
    if not label or not groups:
        raise InputError(f"{before} is no folder of an audit: name the columns with --label and --group")
    paths = [path / "predictions.csv" if path.is_dir() else path for path in (before, after)]
    columns = [label, prediction, *groups, *([key] if key else [])]
    a, b = (read_predictions(path, columns, alike=(label, prediction)) for path in paths)
    options = {"label": label, "prediction": prediction, "key": key, **options}
    options["positive"] = options["positive"] or said.get("positive")
    options["cross"] = options["cross"] or bool(said.get("cross"))
    facts = {name: frame.attrs["facts"] for name, frame in (("before", a), ("after", b))}
    known = {"command": again(group=list(groups), **options), "tables": facts}
    result = compare(a, b, groups=groups, names=(before.name, after.name), provenance=known, **options)
    write_comparison(result, out, notebook=True)
    return result
