"""The parts of a report that are about the model, the data and the audit itself, from provenance."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any, cast

from markupsafe import Markup

from fvlfp.audit.report.markup import render
from fvlfp.audit.schema import AuditDocument, ComparisonDocument, Facts
from fvlfp.audit.stats.bins import bin_words

MODEL_CARD = {
    "Model": ("model",),
    "Pretrained on, or weights file": ("pretrained",),
    "Weights (sha256)": ("weights_sha256",),
    "Activation": ("activation",),
    "Who states the activation": ("activation_origin",),
    "Image transform": ("transform",),
    "Who states the transform": ("transform_origin",),
    "Precision": ("dtype",),
    "Device": ("device",),
    "Prompts": ("prompts",),
    "Training": ("training",),
    "Projection": ("projection",),
    "How settings were chosen": ("selection",),
    "Clients that failed": ("failed_clients",),
    "Clients, on their own validation rows": ("clients_on_validation",),
    "Privacy": ("privacy",),
    "Seed": ("seed", "seeds"),
    "Intended use": ("intended_use",),
    "Versions": ("versions",),
}
DATA_SHEET = {
    "Data": ("data", "table"),
    "File": ("file",),
    "File hash (sha256)": ("sha256",),
    "Source": ("source",),
    "Licence": ("licence", "license"),
    "Origin of the labels": ("label_origin",),
    "Split": ("split",),
    "Read as": ("read",),
    "Pictures": ("pictures",),
    "Merged, or read as missing": ("merged",),
    "Rows left out": ("skipped",),
    "Notes": ("notes",),
}


def closing_sections(document: AuditDocument | ComparisonDocument) -> list[tuple[str, str]]:
    """The last sections of every report: model, data, limits, how to compute it again."""
    return [
        ("Model", card(document["provenance"], MODEL_CARD)),
        ("Data", card(document["provenance"], DATA_SHEET)),
        ("Limits", render("limits.html.j2")),
        ("Recompute", render("recompute.html.j2", command=command(document))),
    ]


def card(provenance: Facts, fields: Mapping[str, Iterable[str]]) -> Markup:
    """A model card or data sheet; fields that nobody stated are listed as not stated."""
    stated = dict(_flat(provenance))
    rows, unstated = [], []
    for title, keys in fields.items():
        value = next((stated[k] for k in keys if stated.get(k) not in (None, "", [], {})), None)
        if value is None:
            unstated.append(title.lower())
        else:
            rows.append((title, _plain(value)))
    if unstated:
        rows.append(("Not stated", ", ".join(unstated)))
    return render("card.html.j2", rows=rows)


def _flat(provenance: Facts) -> Iterable[tuple[str, Any]]:
    """Keys one level deep (a nested table of facts), then the top ones, which win."""
    for key, value in provenance.items():
        if isinstance(value, Mapping) and key not in ("versions", "prompts"):
            yield from value.items()
    yield from ((k, v) for k, v in provenance.items() if not (k == "table" and isinstance(v, Mapping)))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{k}: {_plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value)
    return str(value)


def command(document: AuditDocument | ComparisonDocument) -> str:
    """The command from provenance, or the one that audits the same columns with the same seed."""
    provenance, s = document["provenance"], document["settings"]
    if provenance.get("command"):
        return str(provenance["command"])
    path = provenance.get("table") or "TABLE.csv"
    if isinstance(path, Mapping):
        path = path.get("file") or "TABLE.csv"
    parts = ["fvlfp", "audit", "predictions", str(path)]
    if document.get("kind") == "comparison":
        parts = ["fvlfp", "compare", *cast(ComparisonDocument, document)["names"]]
    for option in ("label", "prediction", "score", "threshold", "weight", "positive", "key"):
        if s.get(option) is not None:
            parts += [f"--{option}", str(s[option])]
    for group in s["groups"]:
        parts += ["--group", group]
    for words in bin_words(s.get("bins", {})):
        parts += ["--bin", words]
    parts += ["--cross"] if s["cross"] else []
    return shlex.join([*parts, "--draws", str(s["draws"]), "--seed", str(s["seed"]), "--out", "DIR"])
