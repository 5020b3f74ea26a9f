"""The model card of an export, in the format of the Hugging Face hub: model, training, data, audit.

What this module does not do: it computes no number; those of the audit are read from the run's `audit`.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fvlfp.audit import Audit, Comparison
from fvlfp.audit.schema import Gap, GapChange
from fvlfp.errors import InputError
from fvlfp.runs.experiment import privacy_of
from fvlfp.runs.loaded_run import LoadedRun

ODDS = "equalized_odds_difference_worst"


def _text(value: object) -> str:
    """A value as text in a Markdown table: no markup, no cell border."""
    return " ".join(html.escape(str(value), quote=False).replace("|", "\\|").split())


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("fvlfp.runs"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    made.filters |= {"text": _text, "capitalize_first": lambda text: text[:1].upper() + text[1:]}
    return made


def render(template: str, /, **values: Any) -> str:
    """A file of the export from its template."""
    return _environment().get_template(template).render(**values)


def model_card(run: LoadedRun, folder: Path, *, kind: str, exact: str) -> str:
    """The card as Markdown.

    Args:
        folder: the run's folder; its audit is quoted where there is one.
        kind: the library that the export is for. exact: how close the export is to the run.
    """
    cfg, saved = run.trained.cfg, run.provenance
    keys = ("model", "pretrained", "weights_sha256", "activation", "transform")
    data = ("data", "source", "licence", "label_origin", "notes", "split")
    read = cfg.labels_read()
    return render(
        "model_card.md.j2",
        kind=kind,
        exact=exact,
        label=cfg.label,
        method=cfg.method,
        model={key: run.encoder.provenance[key] for key in keys},
        classes=run.classes,
        new_classes=run.new_classes,
        template=run.card.templates[0],
        rounds=len(run.trained.history),
        clients=cfg.clients,
        partition=cfg.partition,
        seed=cfg.seed,
        labels_read=", ".join(read) or "none",
        epsilon=privacy_of(run.trained) if cfg.dp_noise > 0 else "",
        data={key: saved.get(key, "") for key in data},
        audit=_audited(folder, new_classes=run.new_classes),
    )


@dataclass(frozen=True)
class GapRow:
    """The odds gap of one attribute and its change against the baseline, as texts."""

    attribute: str
    value: str
    interval: str
    chance: str
    change: str
    change_interval: str
    found: bool
    changed: bool


@dataclass(frozen=True)
class RunAudit:
    """What the card quotes of the run's own audit."""

    n: int
    gaps: list[GapRow]
    verdict: str
    baseline: str


def _audited(folder: Path, *, new_classes: bool) -> RunAudit | None:
    """Numbers of the run's own audit; none where the class words have changed since."""
    try:
        audit = Audit.read(folder / "audit" / "method").document
        change = Comparison.read(folder / "audit" / "comparison").document
    except InputError:
        return None
    if new_classes:
        return None
    rows = [
        _row(name, part["gaps"][ODDS], change["attributes"][name]["changes"][ODDS])
        for name, part in audit["attributes"].items()
    ]
    return RunAudit(audit["n"], rows, _verdict(rows), change["names"][0])


def _row(attribute: str, gap: Gap, change: GapChange) -> GapRow:
    low, high = change["low"], change["high"]
    return GapRow(
        attribute=attribute,
        value=_number(gap["value"]),
        interval=_interval(gap),
        chance=_number(gap["expected_null"]),
        change=_number(change["change"], sign=True),
        change_interval=_interval(change, sign=True),
        found=gap["low"] is not None and gap["low"] > 0,
        changed=low is not None and high is not None and low * high > 0,
    )


def _verdict(rows: list[GapRow]) -> str:
    found = ", ".join(_text(row.attribute) for row in rows if row.found)
    gap = f"The interval of the gap excludes 0 for: {found}." if found else "No interval excludes 0."
    changed = ", ".join(_text(row.attribute) for row in rows if row.changed)
    change = f"The change excludes 0 for: {changed}." if changed else "No change excludes 0."
    return f"{gap} {change}"


def _number(value: float | None, *, sign: bool = False) -> str:
    return "undefined" if value is None else f"{value:{'+' if sign else ''}.3f}"


def _interval(entry: Gap | GapChange, *, sign: bool = False) -> str:
    return f"[{_number(entry['low'], sign=sign)}, {_number(entry['high'], sign=sign)}]"
