"""The sections of a report as HTML fragments, made from an audit's document alone.

`audit_sections` and `comparison_sections` return (title, html) pairs; report.ipynb shows them one
by one and `report` joins them to one page. Every text that comes from data goes through `esc`.
"""

from __future__ import annotations

import base64
import html
import json
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from fvlfp.audit import plots
from fvlfp.audit.metrics import GAPS
from fvlfp.audit.plots import say

Document = Mapping[str, Any]
ROWS = 40  # rows of a table shown before the rest is left to groups.csv


def esc(value: Any) -> str:
    """Text from data, safe inside HTML."""
    return html.escape(str(value), quote=True)


def audit_sections(document: Document) -> list[tuple[str, str]]:
    """All sections of an audit report, verdict first."""
    parts = [("Verdict", verdict(document)), ("What could not be judged", not_judged(document))]
    for attribute in document["attributes"]:
        parts.append((f"By {attribute}", attribute_section(document, attribute)))
    return [
        *parts,
        ("How the numbers are made", methods(document)),
        ("Model", card(document, MODEL_CARD)),
        ("Data", card(document, DATA_SHEET)),
        ("Limits", LIMITS),
        ("Recompute", recompute(document)),
    ]


def verdict(document: Document) -> str:
    """What was judged and, per attribute, the gaps that the data can tell from chance."""
    n, level = document["n"], document["settings"]["level"]
    judged = document["positive"] is not None
    what = f"positive class {document['positive']!r}" if judged else f"{len(document['classes'])} classes"
    names = ", ".join(f"{a} ({len(p['groups'])} groups)" for a, p in document["attributes"].items())
    overall = document["overall"]["rates"]
    lines = [
        f"<p><b>Judged:</b> {n:,} predictions, {esc(what)}, by perceived {esc(names)}. "
        f"Accuracy {interval(overall['accuracy'])}, "
        f"balanced accuracy {interval(overall['balanced_accuracy'])}.</p>"
    ]
    cards = [_verdict_card(attribute, part, level) for attribute, part in document["attributes"].items()]
    lines.append(f'<div class="cards">{"".join(cards)}</div>')
    lines.append(
        f"<p class='note'>Square brackets hold {level:.0%} intervals. “By chance” is the gap to expect at "
        "this number of examples if the groups were treated alike. A difference is called found when its "
        f"p-value, corrected over every test of this report (Holm), is at most {1 - level:.2g}.</p>"
    )
    return "".join(lines)


def _verdict_card(attribute: str, part: Mapping[str, Any], level: float) -> str:
    tested = {g: e for g, e in part["gaps"].items() if e["tested_as"] is None and e["value"] is not None}
    found = {g: e for g, e in tested.items() if e["p_adjusted"] is not None and e["p_adjusted"] <= 1 - level}
    if not tested:
        state, word = "none", "could not be judged"
    elif found:
        state, word = "found", "differences found"
    elif any(e["low"] is not None and e["low"] > 0 for e in tested.values()):
        state, word = "hint", "a hint: some intervals leave out 0, but not after correction"
    else:
        state, word = "quiet", "no difference found"
    items = []
    for gap, entry in list(found.items() or tested.items()):
        line = f"{say(gap)} {interval(entry)}, by chance {num(entry['expected_null'])}"
        if entry.get("perfect_classifier") is not None:
            line += f", a perfect classifier {num(entry['perfect_classifier'])}"
        if entry["pair"]:
            high, low = entry["pair"]["groups"]
            line += f"; highest {esc(high)}, lowest {esc(low)}"
        items.append(f"<li>{line}</li>")
    if state in ("quiet", "hint"):
        smallest = [e["minimum_detectable"] for e in tested.values() if e["minimum_detectable"] is not None]
        if smallest:
            items.append(
                f"<li>This audit would have found gaps from about {num(min(smallest))} to "
                f"{num(max(smallest))} on (80 % power, depending on the measure).</li>"
            )
    if state == "none":
        reasons = sorted({e["reason"] for e in part["gaps"].values() if e["reason"]})
        items.append(f"<li>{esc('; '.join(reasons))}</li>")
    worst = part["worst_cell_recall"]
    where = f"{esc(worst['cell']['group'])}, class {esc(worst['cell']['class'])}"
    items.append(f"<li>worst cell: recall {interval(worst)} ({where})</li>")
    mark = {"found": "▲", "hint": "△", "quiet": "○", "none": "–"}[state]
    return (
        f'<div class="card {state}"><h3>{esc(attribute)}</h3>'
        f'<p class="word"><span aria-hidden="true">{mark}</span> {word}</p><ul>{"".join(items)}</ul></div>'
    )


def not_judged(document: Document) -> str:
    """Undefined rates with their reasons, and every warning."""
    rows = [
        (attribute, entry["group"], entry.get("class", ""), say(entry["rate"]), entry["reason"])
        for attribute, part in document["attributes"].items()
        for entry in part["left_out"]
    ]
    out = []
    if rows:
        out.append(table(["attribute", "group", "class", "rate", "reason"], rows))
    else:
        out.append("<p>Every rate of every group could be computed.</p>")
    if document["warnings"]:
        out.append("<ul>" + "".join(f"<li>{esc(w)}</li>" for w in document["warnings"]) + "</ul>")
    return "".join(out)


def attribute_section(document: Document, attribute: str) -> str:
    """Figures and tables of one perceived-group attribute."""
    part = document["attributes"][attribute]
    out = [figure(plots.rates(document, attribute), f"Rates by perceived {attribute}, with intervals")]
    out.append(_group_table(document, part))
    if any(e["value"] is not None for e in part["gaps"].values()):
        out.append(figure(plots.gaps(document, attribute), f"Gaps by perceived {attribute} against chance"))
    out.append(_gap_table(part))
    return "".join(out)


def _group_table(document: Document, part: Mapping[str, Any]) -> str:
    binary = document["positive"] is not None
    rates = list(next(iter(part["groups"].values()))["rates"])
    counts = ["n", "positives", "negatives"] if binary else ["n"]
    rows = []
    for group, entry in part["groups"].items():
        cells = [entry["rates"][r] for r in rates]
        shown = [Html(interval(c) + (" *" if c["small"] else "")) for c in cells]
        rows.append((group, *(f"{entry[c]:,}" for c in counts), *shown))
    note = "<p class='note'>* fewer than 10 examples</p>" if any("*" in str(r) for r in rows) else ""
    return table(["group", *counts, *map(say, rates)], rows) + note


def _gap_table(part: Mapping[str, Any]) -> str:
    rows = []
    for gap, e in part["gaps"].items():
        pair = e["pair"]
        spans = f"{pair['groups'][0]} – {pair['groups'][1]}" if pair else ""
        value = Html(interval(e)) if e["value"] is not None else f"undefined: {e['reason']}"
        p = "" if e["p_adjusted"] is None else p_text(e["p_adjusted"])
        detect = "" if e["minimum_detectable"] is None else num(e["minimum_detectable"])
        floor = "" if e.get("perfect_classifier") is None else num(e["perfect_classifier"])
        expected = "" if e["expected_null"] is None else num(e["expected_null"])
        excess = "" if e["excess"] is None else f"{e['excess']:+.3f}"
        rows.append((say(gap), value, expected, excess, floor, p, detect, spans))
    heads = [
        "gap",
        "value",
        "by chance",
        "excess",
        "perfect",
        "p (Holm)",
        "detectable from",
        "highest – lowest",
    ]
    return table(heads, rows)


def methods(document: Document) -> str:
    """Formulas of the measures and how intervals and tests were made."""
    s = document["settings"]
    rows = [(say(name), formula) for name, formula in GAPS.items()]
    return (
        table(["gap", "formula"], rows)
        + f"<p>Rates: Wilson intervals. Pairs of groups: Newcombe's. Gaps: test inversion over "
        f"{s['draws']:,} draws of the contingency counts per hypothetical truth, so that a gap of zero is "
        f"covered in {s['level']:.0%} of cases although a gap can never be negative. Null: the same number "
        "of permutations of the group labels (within classes for odds), drawn as hypergeometric counts. "
        f"Seed {s['seed']}. An undefined rate (denominator 0) takes part in no gap. "
        "“Detectable from” is the gap of the observed shape that a single test at this n would find with "
        "80 % probability. “Perfect” is the parity gap of a classifier that is always right: it comes from "
        "the base rates alone.</p>"
    )


MODEL_CARD = {
    "Model": ("model", "pretrained"),
    "Weights (sha256)": ("weights_sha256", "sha256"),
    "Activation": ("activation", "quick_gelu"),
    "Image transform": ("transform", "image_transform"),
    "Precision": ("dtype",),
    "Prompts": ("prompts", "templates"),
    "Training": ("training", "method"),
    "Seeds": ("seeds", "seed"),
    "Selection": ("selection",),
    "Intended use": ("intended_use",),
    "Versions": ("versions",),
}
DATA_SHEET = {
    "Data": ("data", "dataset", "table"),
    "File hash (sha256)": ("table_sha256",),
    "Source": ("source",),
    "Licence": ("licence", "license"),
    "Origin of the labels": ("label_origin",),
    "Split": ("split",),
    "Skipped rows": ("skipped",),
    "Notes": ("notes",),
}


def card(document: Document, fields: Mapping[str, Iterable[str]]) -> str:
    """A model card or data sheet from provenance; what nobody stated is said to be unknown."""
    known = dict(_flat(document["provenance"]))
    rows = []
    for title, keys in fields.items():
        found = next((known[k] for k in keys if known.get(k) not in (None, "", [], {})), None)
        rows.append((title, _plain(found) if found is not None else "not stated"))
    return table(["", ""], rows, plain=True)


def _flat(provenance: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Keys of the provenance, then those one level deeper where the name is still free."""
    yield from ((k, v) for k, v in provenance.items() if not isinstance(v, dict) or k == "versions")
    for value in provenance.values():
        if isinstance(value, dict):
            yield from ((k, v) for k, v in value.items() if k not in provenance)


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(_plain(v) for v in value)
    return str(value)


LIMITS = """<ul>
<li>Groups are <i>perceived</i> groups, given by annotators or by the table's owner. They are not identities,
and some are wrong.</li>
<li>Intervals describe which other examples might have been drawn from the same source. They say nothing about
another source, another time, or other training seeds.</li>
<li>No difference found is not equality: see from which size on this audit could have found one.</li>
<li>Equal error rates do not make a use of the model right. Which gap is a harm depends on what is decided
with the prediction.</li>
<li>Parity is not always the aim: where base rates differ, a perfect classifier has a parity gap.</li>
</ul>"""


def recompute(document: Document) -> str:
    """The one command that gives every number again."""
    return (
        f"<p>With the same table, this gives every number of this report again:</p>"
        f"<pre>{esc(command(document))}</pre><p class='note'>audit.json beside this page holds all numbers "
        "at full precision and the contingency counts; groups.csv and gaps.csv hold them as tables.</p>"
    )


def command(document: Document) -> str:
    """The command from provenance, or the one that audits the same columns with the same seed."""
    given = document["provenance"].get("command")
    if given:
        return str(given)
    s = document["settings"]
    path = str(document["provenance"].get("table") or "TABLE.csv")
    parts = ["fvlfp", "audit", "predictions", path, "--label", s["label"], "--prediction", s["prediction"]]
    for option in ("score", "positive"):
        if s.get(option) is not None:
            parts += [f"--{option}", str(s[option])]
    for group in s["groups"]:
        parts += ["--group", group]
    parts += ["--cross"] if s["cross"] else []
    parts += ["--draws", str(s["draws"]), "--seed", str(s["seed"]), "--level", f"{s['level']:g}"]
    return shlex.join([*parts, "--out", "DIR"])


def comparison_sections(document: Document) -> list[tuple[str, str]]:
    """All sections of a comparison report, verdict first."""
    parts = [("Verdict", change_verdict(document))]
    parts += [(f"By {a}", change_section(document, a)) for a in document["attributes"]]
    return [
        *parts,
        ("How the numbers are made", CHANGE_METHODS.format(**document["settings"])),
        ("Model", card(document, MODEL_CARD)),
        ("Data", card(document, DATA_SHEET)),
        ("Limits", LIMITS),
    ]


CHANGE_METHODS = """<p>Both models were judged on the same examples, and every interval is of the change
itself. Rates: Bonett and Price's paired interval. Gaps: test inversion over {draws:,} multinomial draws of
the joint counts (group, class, prediction of one, prediction of the other). Seed {seed}. The spread over
training seeds is not in these intervals.</p>"""


def change_verdict(document: Document) -> str:
    first, second = map(esc, document["names"])
    balanced = document["overall"]["rates"]["balanced_accuracy"]
    out = [
        f"<p><b>Compared:</b> {second} with {first} on the same {document['n']:,} examples. "
        f"Balanced accuracy {num(balanced['a'])} → {num(balanced['b'])}, change {signed(balanced)}.</p>"
    ]
    cards = []
    for attribute, part in document["attributes"].items():
        items = []
        for gap, e in part["changes"].items():
            if e["change"] is None or gap.endswith("difference_mean"):
                continue
            if e["high"] < 0:
                word = "<b>smaller</b>"
            elif e["low"] > 0:
                word = "<b>larger</b>"
            else:
                word = "not told apart from no change"
            items.append(f"<li>{say(gap)} {num(e['a'])} → {num(e['b'])}: {signed(e)}, {word}</li>")
        worst = part["worst_cell_recall"]
        items.append(f"<li>worst cell recall {num(worst['a'])} → {num(worst['b'])}: {signed(worst)}</li>")
        cards.append(f'<div class="card"><h3>{esc(attribute)}</h3><ul>{"".join(items)}</ul></div>')
    out.append(f'<div class="cards">{"".join(cards)}</div>')
    if document["warnings"]:
        out.append("<ul>" + "".join(f"<li>{esc(w)}</li>" for w in document["warnings"]) + "</ul>")
    return "".join(out)


def change_section(document: Document, attribute: str) -> str:
    """Figures and tables of the changes for one attribute."""
    part = document["attributes"][attribute]
    out = []
    if any(e["change"] is not None for e in part["changes"].values()):
        out.append(figure(plots.changes(document, attribute), f"Change of gaps by perceived {attribute}"))
    out.append(figure(plots.dumbbells(document, attribute), f"Rates by perceived {attribute}, both models"))
    rows = [
        (say(g), num(e["a"]), num(e["b"]), Html(signed(e)), p_text(e["p_adjusted"]))
        for g, e in part["changes"].items()
    ]
    first, second = document["names"]
    out.append(table(["gap", first, second, "change", "p (Holm)"], rows))
    rates = [
        (g, f"{entry['n']:,}", say(rate), num(c["a"]), num(c["b"]), Html(signed(c)))
        for g, entry in part["groups"].items()
        for rate, c in entry["rates"].items()
    ]
    out.append(table(["group", "n", "rate", first, second, "change"], rates))
    return "".join(out)


class Html(str):
    """A cell that is already markup."""


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], *, plain: bool = False) -> str:
    """An HTML table; cells are escaped unless they are `Html`. Long ones refer to the CSV."""
    shown = [
        "<tr>" + "".join(f"<td>{c if isinstance(c, Html) else esc(c)}</td>" for c in row) + "</tr>"
        for row in rows[:ROWS]
    ]
    head = "" if plain else "<tr>" + "".join(f"<th>{esc(h)}</th>" for h in heads) + "</tr>"
    rest = len(rows) - len(shown)
    more = (
        f"<p class='note'>{rest:,} more rows are in the CSV files beside this page.</p>" if rest > 0 else ""
    )
    return (
        f"<div class='scroll'><table><thead>{head}</thead><tbody>{''.join(shown)}</tbody></table></div>{more}"
    )


def figure(drawing: Figure, alt: str) -> str:
    """A figure as an embedded SVG image with a text alternative."""
    data = base64.b64encode(plots.svg(drawing)).decode()
    return (
        f'<figure><div class="scroll"><img alt="{esc(alt)}" src="data:image/svg+xml;base64,{data}"></div>'
        f"<figcaption>{esc(alt)}</figcaption></figure>"
    )


def num(x: float | None) -> str:
    return "undefined" if x is None else f"{x:.3f}"


def interval(entry: Mapping[str, Any]) -> str:
    """value [low, high] as markup."""
    if entry["value"] is None:
        return "<span class='undefined'>undefined</span>"
    if entry["low"] is None:
        return num(entry["value"])
    return f"{num(entry['value'])} <span class='ci'>[{num(entry['low'])}, {num(entry['high'])}]</span>"


def signed(entry: Mapping[str, Any]) -> str:
    """change [low, high] as markup."""
    if entry["change"] is None:
        return "<span class='undefined'>undefined</span>"
    if entry["low"] is None:
        return f"{entry['change']:+.3f}"
    return f"{entry['change']:+.3f} <span class='ci'>[{entry['low']:+.3f}, {entry['high']:+.3f}]</span>"


def p_text(p: float | None) -> str:
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


Sections = Callable[[Document], list[tuple[str, str]]]


def embed(document: Document) -> str:
    """The document as JSON text that no parser of HTML can mistake for markup."""
    return json.dumps(document, ensure_ascii=True).replace("<", "\\u003c")
