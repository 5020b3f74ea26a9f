"""The sections of an audit report as HTML, made from its document alone, verdict first."""

from __future__ import annotations

from typing import cast

import numpy as np

from fvlfp.audit.report import plots
from fvlfp.audit.report.cards import DATA_SHEET, LIMITS, MODEL_CARD, card, recompute
from fvlfp.audit.report.change_page import change_sections
from fvlfp.audit.report.embedding_page import embedding_sections, reasons
from fvlfp.audit.report.markup import (
    Html,
    bullets,
    esc,
    figure,
    interval,
    note,
    num,
    p_text,
    remark_box,
    signed,
    table,
)
from fvlfp.audit.report.plots import say
from fvlfp.audit.schema import Attribute, AuditDocument, ComparisonDocument, GroupRates, Pair
from fvlfp.audit.stats.metrics import GAPS
from fvlfp.audit.stats.sanity import too_fine

Document = AuditDocument
MARKS = {"found": "▲", "hint": "△", "quiet": "○", "none": "–"}


@plots.own_style()
def sections(document: AuditDocument | ComparisonDocument) -> list[tuple[str, str]]:
    """(title, html) of every section, of an audit or of a comparison."""
    if document.get("kind") == "comparison":
        return change_sections(cast(ComparisonDocument, document))
    return audit_sections(cast(AuditDocument, document))


def audit_sections(document: AuditDocument) -> list[tuple[str, str]]:
    """(title, html) of every section of an audit."""
    parts: list[tuple[str, str]] = [
        ("Verdict", verdict(document)),
        ("What could not be judged", not_judged(document)),
    ]
    for attribute, part in document["attributes"].items():
        parts.append((f"By perceived {attribute}", attribute_section(document, attribute)))
        if "scores" in part:
            parts.append((f"Scores by perceived {attribute}", score_section(document, attribute)))
    if "embedding" in document:
        parts += embedding_sections(document)
    if any(part["label_noise"] for part in document["attributes"].values()):
        parts.append(("If some group labels are wrong", noise_section(document)))
    return [
        *parts,
        ("How the numbers are made", methods(document)),
        ("Model", card(document, MODEL_CARD)),
        ("Data", card(document, DATA_SHEET)),
        ("Limits", LIMITS),
        ("Recompute", recompute(document)),
    ]


def verdict(document: Document) -> Html:
    """What was judged and, per attribute, the gaps that the data can tell from chance."""
    level, overall = document["settings"]["level"], document["overall"]["rates"]
    judged = document["positive"] is not None
    what = f"positive class “{document['positive']}”" if judged else f"{len(document['classes'])} classes"
    sizes = [f"{a} ({len(p['groups']):,} groups)" for a, p in document["attributes"].items()]
    left_out = sum(len(p["left_out"]) for p in document["attributes"].values())
    missing = (
        f"{left_out} rates could not be judged and are listed below."
        if left_out
        else "Every rate of every group could be judged."
    )
    banded = document["settings"]["templates"]
    over = f" Round brackets: the range over {len(banded)} prompt templates." if banded else ""
    cards = [_card(attribute, part, level) for attribute, part in document["attributes"].items()]
    rates = ["accuracy", "balanced_accuracy"] if "accuracy" in overall else ["selection_rate"]
    overview = ", ".join(f"{say(rate)} {interval(overall[rate])}" for rate in rates if rate in overall)
    return Html(
        remark_box(document) + f"<p><b>Judged:</b> {document['n']:,} predictions, {esc(what)}, by perceived "
        f"{esc(', '.join(sizes))}. "
        f"{missing}</p><p>{overview[:1].upper()}{overview[1:]}</p>"
        f"<div class='cards'>{''.join(cards)}</div>"
        + note(
            f"Square brackets: {level:.0%} intervals.{over} “By chance”: the gap to expect at this number of "
            f"examples if groups were treated alike. ▲: p ≤ {1 - level:.2g} after Holm's correction over "
            f"every "
            "test of this report."
        )
    )


def _card(attribute: str, part: Attribute, level: float) -> str:
    tested = {g: e for g, e in part["gaps"].items() if e["tested_as"] is None and e["value"] is not None}
    found = [g for g, e in tested.items() if e["p_adjusted"] is not None and e["p_adjusted"] <= 1 - level]
    if not tested:
        state, word = "none", "could not be judged"
    elif not found and too_fine(np.array([entry["n"] for entry in part["groups"].values()])):
        state, word = "none", "the groups are too fine to judge"
    elif found:
        state, word = "found", "differences found"
    elif any(e["low"] is not None and e["low"] > 0 for e in tested.values()):
        state, word = "hint", "not significant after Holm's correction for many tests"
    else:
        state, word = "quiet", "no difference found"
    rows = [
        (Html(f"{MARKS['found'] if g in found else ''} {esc(say(g))}"), interval(e), num(e["expected_null"]))
        for g, e in tested.items()
    ]
    lines: list[str] = []
    if tested:
        top = max(tested, key=lambda g: (g in found, tested[g]["excess"] or 0))
        pair = tested[top]["pair"]
        if pair:
            lines.append(f"{say(top)}: highest {pair['groups'][0]}, lowest {pair['groups'][1]}")
        floor = next((e for e in tested.values() if e.get("perfect_classifier") is not None), None)
        if floor:
            lines.append(
                f"a perfect classifier would have a parity gap of {num(floor['perfect_classifier'])} here"
            )
        detect = [e["minimum_detectable"] for e in tested.values() if e["minimum_detectable"] is not None]
        if detect:
            lines.append(
                f"minimum detectable gap: {num(min(detect))} to {num(max(detect))}, depending on the measure"
            )
    else:
        lines.append("; ".join(sorted({e["reason"] for e in part["gaps"].values() if e["reason"]})))
    worst = part["worst_cell_recall"]
    if worst:
        where = f"({esc(worst['cell']['group'])}, class {esc(worst['cell']['class'])})"
        lines.append(Html(f"lowest recall of any cell: {interval(worst)} {where}"))
    return (
        f"<div class='card {state}'><h3>{esc(attribute)}</h3>"
        f"<p class='word'><span aria-hidden='true'>{MARKS[state]}</span> {word}</p>"
        + (table(["gap", "value", "by chance"], rows) if rows else "")
        + bullets(lines)
        + "</div>"
    )


def not_judged(document: Document) -> Html:
    """Undefined rates with their reasons, and every warning."""
    rows = [
        [attribute, entry["group"], entry.get("class", ""), say(entry["rate"]), entry["reason"]]
        for attribute, part in document["attributes"].items()
        for entry in part["left_out"]
    ]
    heads = ["attribute", "group", "class", "rate", "reason"]
    if document["positive"] is not None:
        heads, rows = heads[:2] + heads[3:], [row[:2] + row[3:] for row in rows]
    shown = table(heads, rows) if rows else "<p>Nothing: every rate of every group has examples.</p>"
    remarks = [*reasons(document), *document["warnings"]]
    return Html(shown + (bullets(remarks) if remarks else ""))


def attribute_section(document: Document, attribute: str) -> Html:
    """Figures and tables of one perceived-group attribute."""
    part = document["attributes"][attribute]
    out = []
    if next(iter(part["groups"].values()))["rates"]:
        out.append(figure(plots.rates(document, attribute), _caption(document, attribute)))
    out.append(_group_table(document, part))
    if any(e["value"] is not None for e in part["gaps"].values()):
        out.append(figure(plots.gaps(document, attribute), f"Gaps by perceived {attribute} against chance"))
    out.append(_gap_table(part))
    return Html("".join(out))


def _caption(document: Document, attribute: str) -> str:
    bands = "; pale: range over the prompt templates" if document["settings"]["templates"] else ""
    return (
        f"Rates by perceived {attribute}; dashed: everybody together; hollow: fewer than 10 examples{bands}"
    )


def _group_table(document: Document, part: Attribute) -> Html:
    binary = document["positive"] is not None
    rates = list(next(iter(part["groups"].values()))["rates"])
    truth = document["settings"]["label"] is not None
    heads = ["n", "positives", "negatives"] if binary and truth else ["n"]

    def sizes(entry: GroupRates) -> tuple[float, ...]:
        n, positives, negatives = entry["n"], entry["positives"], entry["negatives"]
        return (n,) if positives is None or negatives is None else (n, positives, negatives)

    rows = [
        (
            group,
            *(f"{size:,.10g}" for size in sizes(entry)),
            *(
                Html(interval(entry["rates"][r]) + (" *" if entry["rates"][r]["small"] else ""))
                for r in rates
            ),
        )
        for group, entry in part["groups"].items()
    ]
    small = any(c["small"] for e in part["groups"].values() for c in e["rates"].values())
    return Html(
        table(["group", *heads, *map(say, rates)], rows) + (note("* fewer than 10 examples") if small else "")
    )


def _gap_table(part: Attribute) -> Html:
    rows = []
    for gap, e in part["gaps"].items():
        pair, floor = e["pair"], e.get("perfect_classifier")
        rows.append(
            (
                say(gap),
                interval(e) if e["value"] is not None else f"undefined: {e['reason']}",
                "" if e["expected_null"] is None else num(e["expected_null"]),
                "" if e["excess"] is None else f"{e['excess']:+.3f}",
                "" if floor is None else num(floor),
                p_text(e["p_adjusted"]),
                "" if e["minimum_detectable"] is None else num(e["minimum_detectable"]),
                _signed_pair(pair) if pair else "",
            )
        )
    heads = ["gap", "value", "by chance", "excess", "perfect", "p (Holm)", "detectable", "highest – lowest"]
    return Html(
        table(heads, rows)
        + note(
            "Highest – lowest: the two groups that span the gap, with their signed difference and the "
            "interval it would have had they been named beforehand; it may cross 0, the gap cannot."
        )
    )


def _signed_pair(pair: Pair) -> Html:
    by = f", {say(pair['rate'])}" + (f" of {pair['class']}" if pair["class"] else "")
    cell = {k: pair[k] for k in ("low", "high")} | {"change": pair["difference"]}
    return Html(f"{esc(pair['groups'][0])} – {esc(pair['groups'][1])}{esc(by)}: {signed(cell)}")


def score_section(document: Document, attribute: str) -> Html:
    """Ranking and calibration by group, and what a threshold does to the gaps."""
    part = document["attributes"][attribute]
    scores = part["scores"]
    rows = []
    for group, e in scores["groups"].items():
        chance = e["ece"].get("expected_if_calibrated")
        ece = interval(e["ece"])
        if chance is not None:
            ece = Html(f"{ece}, by chance {num(chance)}")
        rows.append((group, f"{e['n']:,}", interval(e["roc_auc"]), interval(e["brier"]), ece))
    gaps = [
        (
            say(g),
            interval(e),
            "" if e["expected_null"] is None else num(e["expected_null"]),
            p_text(e["p_adjusted"]),
        )
        for g, e in scores["gaps"].items()
    ]
    pictures = []
    if any(e["bins"] for e in scores["groups"].values()):
        pictures.append(figure(plots.reliability(document, attribute), "Observed share against score"))
    pictures.append(figure(plots.sweep(document, attribute), "Gaps and balanced accuracy at every threshold"))
    return Html(
        table(["group", "n", "ROC-AUC", "Brier score", "calibration error"], rows)
        + table(["gap", "value", "by chance", "p (Holm)"], gaps)
        + note(Html(f"ES-AUC = AUC / (1 + Σ |AUC − AUC of the group|) = {interval(scores['es_auc'])}"))
        + "".join(pictures)
    )


def noise_section(document: Document) -> Html:
    """How large the gaps would be had a share of the perceived-group labels been wrong."""
    out = [
        "<p>Wrong group labels mix the groups and hide differences. Each column assumes that this share of "
        "the "
        "labels is wrong, whatever the class and the prediction, and shows the gap without those errors.</p>"
    ]
    for attribute, part in document["attributes"].items():
        noise = part["label_noise"]
        if not noise:
            continue
        rows = [
            (say(gap), num(part["gaps"][gap]["value"]), *("–" if v is None else num(v) for v in values))
            for gap, values in noise["gaps"].items()
            if part["gaps"][gap]["tested_as"] is None
        ]
        heads = [attribute, "as labelled", *(f"{w:.0%} wrong" for w in noise["wrong"])]
        out.append(table(heads, rows))
        if not all(noise["possible"]):
            out.append(note("–: so many errors do not fit these counts"))
    return Html("".join(out))


def methods(document: Document) -> Html:
    """Formulas of the measures and how intervals and tests were made."""
    s = document["settings"]
    return Html(
        table(["gap", "formula"], [(say(name), formula) for name, formula in GAPS.items()])
        + bullets(
            [
                "Rates: Wilson intervals. Pairs of groups: Newcombe's. A rate without examples is undefined "
                "and takes part in no gap.",
                f"Gaps: test inversion over {s['draws']:,} draws of the contingency counts per hypothetical "
                f"truth, so that a gap of zero is covered in {s['level']:.0%} of cases although no gap can "
                f"be "
                "negative.",
                f"By chance: {s['draws']:,} permutations of the group labels (odds: within classes). The "
                f"same "
                "draws give the p-values. Seed "
                f"{s['seed']}.",
                "Excess: the gap minus what chance gives. Perfect: the parity gap of a classifier that is "
                "always "
                "right, which comes from the base rates alone.",
                "Detectable: the smallest gap of the observed shape that one test at this n finds with 80 % "
                "probability.",
            ]
        )
    )
