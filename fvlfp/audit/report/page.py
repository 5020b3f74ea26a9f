"""The sections of an audit report as HTML, made from its document alone, verdict first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from markupsafe import Markup

from fvlfp.audit.report import plots
from fvlfp.audit.report.cards import closing_sections
from fvlfp.audit.report.change_page import change_sections
from fvlfp.audit.report.embedding_page import embedding_sections, reasons
from fvlfp.audit.report.markup import (
    encoded,
    interval,
    num,
    num_or_blank,
    p_text,
    render,
    signed_interval,
)
from fvlfp.audit.report.plots import measure_name
from fvlfp.audit.schema import (
    Attribute,
    AuditDocument,
    ComparisonDocument,
    Gap,
    GroupRates,
    Pair,
    ScoreEstimate,
)
from fvlfp.audit.stats.sanity import too_fine
from fvlfp.metrics import GAPS

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
    methods = render(
        "methods.html.j2",
        formulas=[(measure_name(name), formula) for name, formula in GAPS.items()],
        settings=document["settings"],
    )
    return [*parts, ("How the numbers are made", methods), *closing_sections(document)]


def verdict(document: AuditDocument) -> Markup:
    """What was judged and, per attribute, the gaps that the data can tell from chance."""
    level, overall = document["settings"]["level"], document["overall"]["rates"]
    rates = ["accuracy", "balanced_accuracy"] if "accuracy" in overall else ["selection_rate"]
    return render(
        "verdict.html.j2",
        document=document,
        level=level,
        left_out=sum(len(entry["left_out"]) for entry in document["attributes"].values()),
        overview=[(measure_name(rate), interval(overall[rate])) for rate in rates if rate in overall],
        templates=len(document["settings"].get("templates", {})),
        cards=[_card(name, entry, level) for name, entry in document["attributes"].items()],
    )


@dataclass(frozen=True)
class Card:
    """The verdict on one attribute; ``state`` is a key of `MARKS` and the card's colour."""

    attribute: str
    state: str
    word: str
    rows: list[tuple[str | Markup, ...]]
    lines: list[str | Markup]

    @property
    def mark(self) -> str:
        """The state as a sign, for eyes that do not see its colour."""
        return MARKS[self.state]


def _card(attribute: str, entry: Attribute, level: float) -> Card:
    tested = {g: e for g, e in entry["gaps"].items() if e["tested_as"] is None and e["value"] is not None}
    found = {g for g, e in tested.items() if e["p_adjusted"] is not None and e["p_adjusted"] <= 1 - level}
    rows: list[tuple[str | Markup, ...]] = [
        (f"{MARKS['found'] if g in found else ''} {measure_name(g)}", interval(e), num(e["expected_null"]))
        for g, e in tested.items()
    ]
    lines: list[str | Markup] = []
    if tested:
        lines += _lines(tested, found)
    else:
        lines.append("; ".join(sorted({e["reason"] for e in entry["gaps"].values() if e["reason"]})))
    worst = entry["worst_cell_recall"]
    if worst:
        cell = worst["cell"]
        text = Markup("lowest recall of any cell: {} ({}, class {})")
        lines.append(text.format(interval(worst), cell["group"], cell["class"]))
    return Card(attribute, *_state(entry, tested, found), rows, lines)


def _state(entry: Attribute, tested: Mapping[str, Gap], found: set[str]) -> tuple[str, str]:
    """A key of `MARKS`, and what it means here."""
    if not tested:
        return "none", "could not be judged"
    if found:
        return "found", "differences found"
    if too_fine(np.array([group["n"] for group in entry["groups"].values()])):
        return "none", "the groups are too fine to judge"
    if any(gap["low"] is not None and gap["low"] > 0 for gap in tested.values()):
        return "hint", "not significant after Holm's correction for many tests"
    return "quiet", "no difference found"


def _lines(tested: Mapping[str, Gap], found: set[str]) -> list[str]:
    """The groups at the ends of the largest gap, the gap of a perfect classifier, the smallest one seen."""
    lines = []
    top = max(tested, key=lambda name: (name in found, tested[name].get("excess") or 0))
    pair = tested[top].get("pair")
    if pair:
        lines.append(f"{measure_name(top)}: highest {pair['groups'][0]}, lowest {pair['groups'][1]}")
    for gap in tested.values():
        if gap.get("perfect_classifier") is not None:
            perfect = num(gap["perfect_classifier"])
            lines.append(f"a perfect classifier would have a parity gap of {perfect} here")
            break
    detect = [e["minimum_detectable"] for e in tested.values() if e["minimum_detectable"] is not None]
    if detect:
        low, high = num(min(detect)), num(max(detect))
        lines.append(f"minimum detectable gap: {low} to {high}, depending on the measure")
    return lines


def not_judged(document: AuditDocument) -> Markup:
    """Undefined rates with their reasons, and every warning."""
    rows = [
        [attribute, out["group"], out.get("class", ""), measure_name(out["rate"]), out["reason"]]
        for attribute, entry in document["attributes"].items()
        for out in entry["left_out"]
    ]
    heads = ["attribute", "group", "class", "rate", "reason"]
    if document["positive"] is not None:
        heads, rows = heads[:2] + heads[3:], [row[:2] + row[3:] for row in rows]
    remarks = [*reasons(document), *document["warnings"]]
    return render("not_judged.html.j2", heads=heads, rows=rows, remarks=remarks)


def attribute_section(document: AuditDocument, attribute: str) -> Markup:
    """Figures and tables of one perceived-group attribute."""
    entry = document["attributes"][attribute]
    rates = list(next(iter(entry["groups"].values()))["rates"])
    binary, truth = document["positive"] is not None, document["settings"]["label"] is not None
    counted = ["n", "positives", "negatives"] if binary and truth else ["n"]
    judged = any(gap["value"] is not None for gap in entry["gaps"].values())
    return render(
        "attribute.html.j2",
        attribute=attribute,
        templates=document["settings"].get("templates"),
        rates=encoded(plots.rates(document, attribute)) if rates else None,
        gaps=encoded(plots.gaps(document, attribute)) if judged else None,
        group_heads=["group", *counted, *map(measure_name, rates)],
        group_rows=[
            (
                name,
                *_sizes(group)[: len(counted)],
                *(interval(group["rates"][r]) + (" *" if group["rates"][r]["small"] else "") for r in rates),
            )
            for name, group in entry["groups"].items()
        ],
        small=any(rate["small"] for group in entry["groups"].values() for rate in group["rates"].values()),
        gap_rows=[_gap_row(name, gap) for name, gap in entry["gaps"].items()],
    )


def _sizes(group: GroupRates) -> list[str]:
    """Examples of a group, and how many of them have the positive and the negative label."""
    return [f"{n:,.10g}" for n in (group["n"], group["positives"], group["negatives"]) if n is not None]


def _gap_row(name: str, gap: Gap) -> tuple[str | Markup, ...]:
    excess, pair = gap.get("excess"), gap.get("pair")
    return (
        measure_name(name),
        interval(gap) if gap["value"] is not None else f"undefined: {gap['reason']}",
        num_or_blank(gap["expected_null"]),
        "" if excess is None else f"{excess:+.3f}",
        num_or_blank(gap.get("perfect_classifier")),
        p_text(gap["p_adjusted"]),
        num_or_blank(gap["minimum_detectable"]),
        _signed_pair(pair) if pair else "",
    )


def _signed_pair(pair: Pair) -> Markup:
    by = f", {measure_name(pair['rate'])}" + (f" of {pair['class']}" if pair["class"] else "")
    difference = signed_interval(pair["difference"], pair["low"], pair["high"])
    return Markup("{} – {}{}: {}").format(*pair["groups"], by, difference)


def score_section(document: AuditDocument, attribute: str) -> Markup:
    """Ranking and calibration by group, and what a threshold does to the gaps."""
    scores = document["attributes"][attribute]["scores"]
    binned = any(group["bins"] for group in scores["groups"].values())
    return render(
        "scores.html.j2",
        group_rows=[
            (
                name,
                f"{group['n']:,}",
                interval(group["roc_auc"]),
                interval(group["brier"]),
                _calibration(group["ece"]),
            )
            for name, group in scores["groups"].items()
        ],
        gap_rows=[
            (measure_name(name), interval(gap), num_or_blank(gap["expected_null"]), p_text(gap["p_adjusted"]))
            for name, gap in scores["gaps"].items()
        ],
        es_auc=interval(scores["es_auc"]),
        reliability=encoded(plots.reliability(document, attribute)) if binned else None,
        sweep=encoded(plots.sweep(document, attribute)),
    )


def _calibration(error: ScoreEstimate) -> Markup:
    """The error beside what chance alone would give a calibrated score."""
    chance = error.get("expected_if_calibrated")
    text = interval(error)
    return text if chance is None else Markup("{}, by chance {}").format(text, num(chance))


def noise_section(document: AuditDocument) -> Markup:
    """How large the gaps would be had a share of the perceived-group labels been wrong."""
    tables = []
    for attribute, entry in document["attributes"].items():
        noise, gaps = entry["label_noise"], entry["gaps"]
        if not noise:
            continue
        heads = [attribute, "as labelled", *(f"{wrong:.0%} wrong" for wrong in noise["wrong"])]
        rows = [
            (measure_name(g), num(gaps[g]["value"]), *("–" if v is None else num(v) for v in values))
            for g, values in noise["gaps"].items()
            if gaps[g]["tested_as"] is None
        ]
        tables.append({"heads": heads, "rows": rows, "possible": all(noise["possible"])})
    return render("label_noise.html.j2", tables=tables)
