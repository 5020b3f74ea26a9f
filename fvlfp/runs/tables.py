"""Audits of predictions that somebody else made: tables in, folders with a report out.

What this module does not do: it needs no model and loads none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fvlfp.audit import Audit, Comparison, compare, write_audit, write_comparison
from fvlfp.audit.assess import judge
from fvlfp.audit.audit_options import AuditOptions
from fvlfp.audit.document import common_key, refuse_other_choices
from fvlfp.audit.report.write import check_free
from fvlfp.audit.schema import AuditDocument, Settings
from fvlfp.audit.stats.bins import bin_words
from fvlfp.audit.stats.columns import encode
from fvlfp.data.predictions import read_predictions
from fvlfp.errors import InputError
from fvlfp.files import as_utf8, file_sha256

#: What a comparison remarks that was given no key.
BY_ORDER = (
    "Rows are paired by their order, and nothing in the tables confirms it. Name a key column with --key, in "
    "the audits as well."
)


def audit_table(table: Path, out: Path, options: AuditOptions) -> Audit:
    """Audit a table of predictions into the folder `out`; the rows stay there, for `compare_tables`.

    Raises:
        InputError: bad input, named with its row.
    """
    o = options
    check_free(out, "audit")
    if o.prediction != "prediction" and "prediction" in (o.label, *o.groups, o.weight, o.key):
        raise InputError("the column 'prediction' has the name of one that this audit writes: rename it")
    classes = tuple(name for name in (o.label, o.prediction) if name is not None)
    floats = [name for name in (o.score, o.weight) if name is not None]
    keys = () if o.key is None else (o.key,)
    frame = read_predictions(table, [*classes, *o.groups, *keys], numbers=floats, alike=classes, keys=keys)
    columns = encode(frame, o)
    result = judge(columns, o, {"table": frame.attrs["facts"]})
    write_audit(result, out, notebook=True, rows=columns.rows)
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
    weight: str | None,
    bins: Mapping[str, Sequence[float]],
    again: Callable[..., str],
    **options: Any,
) -> Comparison:
    """Compare two folders of audits, or two tables of predictions, into the folder `out`.

    label, groups, weight: where None, the first audit's. key: where None, the one that both audits name; the
    comparison remarks that rows were paired by their order where no key was, unless they are of one file.
    again: options -> the command that does the same.

    Raises:
        InputError: bad input, named with its row.
    """
    check_free(out, "comparison")
    own_weight = weight
    audits = {path: Audit.read(path).document for path in (before, after) if path.is_dir()}
    if before in audits:
        first = audits[before]["settings"]
        label, groups = label or _label_of(before, first), groups or first["groups"]
        weight = weight or first.get("weight")
        options["positive"] = options["positive"] or first["positive"]
        options["cross"] = options["cross"] or first["cross"]
        key = key or (common_key(audits.values()) if after in audits else None)
    if not label or not groups:
        raise InputError(f"{before} is no folder of an audit: name the columns with --label and --group")
    paths = [path / "predictions.csv" if path.is_dir() else path for path in (before, after)]
    columns = [label, prediction, *groups, *([key] if key else [])]
    numbers = [weight] if weight else []
    refuse_other_choices(audits, positive=options["positive"], weight=own_weight)
    exact = () if key is None or key in (label, prediction, *groups) else (key,)
    read = partial(read_predictions, numbers=numbers, alike=(label, prediction), keys=exact)
    a, b = (read(path, columns) for path in paths)
    options = {"label": label, "prediction": prediction, "key": key, "weight": weight, **options}
    facts = {
        "command": again(group=list(groups), bin=bin_words(bins), **options),
        "tables": {"before": a.attrs["facts"], "after": b.attrs["facts"]},
    }
    names = _told_apart(before, after)
    result = compare(a, b, groups=groups, names=names, bins=bins, provenance=facts, **options)
    if names[0] == names[1]:
        result.document["remarks"].append(f"{names[0]} is compared with itself: every change is 0.")
    if key is None and not _one_table(before, after, audits):
        result.document["remarks"].append(BY_ORDER)
    write_comparison(result, out, notebook=True)
    return result


def _told_apart(before: Path, after: Path) -> tuple[str, str]:
    """What the report calls them: as many of their paths' last parts as it takes."""
    a, b = (Path(as_utf8(os.path.abspath(path))).parts for path in (before, after))
    k = next((k for k in range(1, max(len(a), len(b)) + 1) if a[-k:] != b[-k:]), 1)
    return Path(*a[-k:]).as_posix(), Path(*b[-k:]).as_posix()


def _label_of(folder: Path, settings: Settings) -> str:
    if not settings["label"]:
        raise InputError(
            f"{folder} was audited without true classes, which a comparison needs: audit both again with "
            "--label"
        )
    return settings["label"]


def _one_table(before: Path, after: Path, audits: Mapping[Path, AuditDocument]) -> bool:
    """Whether both are one file, or audits of one: the order of the rows is then the same."""
    sums = []
    for path in (before, after):
        table = audits[path]["provenance"].get("table") if path in audits else {"sha256": file_sha256(path)}
        sums.append(table.get("sha256") if isinstance(table, Mapping) else None)
    return sums[0] == sums[1] is not None
