"""The sections of a comparison report as HTML, made from its document alone, verdict first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fvlfp.audit.report import plots
from fvlfp.audit.report.cards import DATA_SHEET, LIMITS, MODEL_CARD, card, recompute
from fvlfp.audit.report.markup import Html, bullets, esc, figure, note, num, p_text, remark_box, signed, table
from fvlfp.audit.report.plots import say
from fvlfp.audit.stats.gaps import TESTED_AS

Document = Mapping[str, Any]


def change_sections(document: Document) -> list[tuple[str, str]]:
    """(title, html) of every section."""
    return [
        ("Verdict", verdict(document)),
        *((f"By perceived {a}", attribute_section(document, a)) for a in document["attributes"]),
        ("How the numbers are made", methods(document)),
        ("Model", card(document, MODEL_CARD)),
        ("Data", card(document, DATA_SHEET)),
        ("Limits", LIMITS),
        ("Recompute", recompute(document)),
    ]


def verdict(document: Document) -> Html:
    """Whether gaps shrank, and at what price."""
    first, second = map(esc, document["names"])
    balanced = document["overall"]["rates"]["balanced_accuracy"]
    cards = [_card(attribute, part) for attribute, part in document["attributes"].items()]
    return Html(
        remark_box(document)
        + f"<p><b>Compared:</b> {second} with {first}, on the same {document['n']:,} examples. Balanced "
        f"accuracy "
        f"{num(balanced['a'])} → {num(balanced['b'])}, change {signed(balanced)}.</p>"
        f"<div class='cards'>{''.join(cards)}</div>"
        + note(
            f"Square brackets: {document['settings']['level']:.0%} intervals of the change itself. ▼ "
            f"smaller, "
            "▲ larger: the interval leaves out 0. A gap that shrinks because the lowest recall falls is no "
            "gain."
        )
        + (bullets(document["warnings"]) if document["warnings"] else "")
    )


def _card(attribute: str, part: Mapping[str, Any]) -> str:
    rows, words = [], set()
    for gap, e in part["changes"].items():
        if e["change"] is None or gap.partition("_class_")[0] in TESTED_AS:
            continue
        mark = "▼" if e["high"] < 0 else "▲" if e["low"] > 0 else ""
        words.add(mark)
        rows.append((f"{mark} {say(gap)}", f"{num(e['a'])} → {num(e['b'])}", signed(e)))
    state, word = {
        (True, False): ("quiet", "▼ smaller gaps, none larger"),
        (False, True): ("found", "▲ larger gaps, none smaller"),
        (True, True): ("hint", "▼▲ some gaps are smaller, some larger"),
    }.get(("▼" in words, "▲" in words), ("none", "– indistinguishable from no change"))
    worst = part["worst_cell_recall"]
    line = f"lowest recall of any cell {num(worst['a'])} → {num(worst['b'])}: {signed(worst)}"
    return (
        f"<div class='card {state}'><h3>{esc(attribute)}</h3><p class='word'>{word}</p>"
        + table(["gap", "", "change"], rows)
        + bullets([Html(line)])
        + "</div>"
    )


def attribute_section(document: Document, attribute: str) -> Html:
    """Figures and tables of the changes for one attribute."""
    part, (first, second) = document["attributes"][attribute], document["names"]
    out = []
    if any(e["change"] is not None for e in part["changes"].values()):
        out.append(figure(plots.changes(document, attribute), f"Change of gaps by perceived {attribute}"))
    out.append(figure(plots.dumbbells(document, attribute), f"Rates by perceived {attribute}, both models"))
    changes = [
        (say(g), num(e["a"]), num(e["b"]), signed(e), p_text(e["p_adjusted"]))
        for g, e in part["changes"].items()
    ]
    out.append(table(["gap", first, second, "change", "p (Holm)"], changes))
    rates = [
        (g, f"{entry['n']:,}", say(rate), num(c["a"]), num(c["b"]), signed(c))
        for g, entry in part["groups"].items()
        for rate, c in entry["rates"].items()
    ]
    out.append(table(["group", "n", "rate", first, second, "change"], rates))
    return Html("".join(out))


def methods(document: Document) -> Html:
    """How the numbers of a comparison were made, in words."""
    s = document["settings"]
    return bullets(
        [
            "Both models were judged on the same examples and every interval is of the change itself.",
            "Rates: Bonett and Price's paired interval.",
            f"Gaps: test inversion over {s['draws']:,} multinomial draws of the joint counts (group, class, "
            f"prediction of one, prediction of the other). Seed {s['seed']}.",
            "Lowest recall: reflected bootstrap of the same counts.",
            "The spread over training seeds is not in these intervals.",
        ]
    )
