"""The parts of a report that are about the model, the data and the audit itself, from provenance."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from typing import Any

from fvlfp.audit.report.markup import Html, esc, table

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
LIMITS = Html("""<ul>
<li>Groups are <i>perceived</i> groups, given by annotators or by the table's owner. They are not identities,
and some are wrong.</li>
<li>Intervals say which values other examples from the same source might have given. They say nothing about
another source, another time, or other training seeds.</li>
<li>"No difference found" does not mean equality: look at the minimum detectable gap.</li>
<li>Equal error rates do not make it right to use the model. Whether a gap does harm depends on what is
decided with the prediction.</li>
<li>Parity is not always the aim: where base rates differ, a perfect classifier has a parity gap.</li>
</ul>""")


def card(document: Mapping[str, Any], fields: Mapping[str, Iterable[str]]) -> Html:
    """A model card or data sheet; what nobody stated is said to be not stated."""
    known = dict(_flat(document["provenance"]))
    rows, silent = [], []
    for title, keys in fields.items():
        found = next((known[k] for k in keys if known.get(k) not in (None, "", [], {})), None)
        if found is None:
            silent.append(title.lower())
        else:
            rows.append((title, _plain(found)))
    if silent:
        rows.append(("Not stated", ", ".join(silent)))
    return table([], rows)


def _flat(provenance: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
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


def recompute(document: Mapping[str, Any]) -> Html:
    """The one command that gives every number again."""
    return Html(
        "<p>With the same table and the versions named above, this gives every number of this report "
        "again:</p>"
        f"<pre>{esc(command(document))}</pre><p class='note'>audit.json beside this page holds all numbers "
        "at full precision, with the contingency counts; groups.csv and gaps.csv hold them as tables.</p>"
    )


def command(document: Mapping[str, Any]) -> str:
    """The command from provenance, or the one that audits the same columns with the same seed."""
    provenance, s = document["provenance"], document["settings"]
    if provenance.get("command"):
        return str(provenance["command"])
    path = provenance.get("table") or "TABLE.csv"
    if isinstance(path, Mapping):
        path = path.get("file") or "TABLE.csv"
    comparison = document.get("kind") == "comparison"
    parts = (
        ["fvlfp", "compare", *document["names"]]
        if comparison
        else ["fvlfp", "audit", "predictions", str(path)]
    )
    for option in ("label", "prediction", "score", "threshold", "weight", "positive", "key"):
        if s.get(option) is not None:
            parts += [f"--{option}", str(s[option])]
    for group in s["groups"]:
        parts += ["--group", group]
    for name, cuts in s.get("bins", {}).items():
        parts += ["--bin", f"{name}:{','.join(f'{cut:g}' for cut in cuts)}"]
    parts += ["--cross"] if s["cross"] else []
    return shlex.join([*parts, "--draws", str(s["draws"]), "--seed", str(s["seed"]), "--out", "DIR"])
