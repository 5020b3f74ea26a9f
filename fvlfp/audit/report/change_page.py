"""The sections of a comparison report as HTML, made from its document alone, verdict first."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from fvlfp.audit.report import plots
from fvlfp.audit.report.cards import closing_sections
from fvlfp.audit.report.markup import encoded, num, p_text, render, signed
from fvlfp.audit.report.plots import measure_name
from fvlfp.audit.schema import ChangedAttribute, ComparisonDocument, RateChange
from fvlfp.audit.stats.gaps import TESTED_AS

#: (gaps that shrank, gaps that grew) -> colour and word of the verdict
WORDS = {
    (True, False): ("quiet", "▼ smaller gaps, none larger"),
    (False, True): ("found", "▲ larger gaps, none smaller"),
    (True, True): ("hint", "▼▲ some gaps are smaller, some larger"),
    (False, False): ("none", "– indistinguishable from no change"),
}


@dataclass(frozen=True)
class ChangeCard:
    """The verdict on one attribute."""

    attribute: str
    state: str
    word: str
    rows: list[tuple[str | Markup, ...]]
    worst: RateChange


def change_sections(document: ComparisonDocument) -> list[tuple[str, str]]:
    """(title, html) of every section."""
    return [
        ("Verdict", verdict(document)),
        *((f"By perceived {a}", attribute_section(document, a)) for a in document["attributes"]),
        ("How the numbers are made", render("change_methods.html.j2", settings=document["settings"])),
        *closing_sections(document),
    ]


def verdict(document: ComparisonDocument) -> Markup:
    """Whether gaps shrank, and at what price."""
    return render(
        "change_verdict.html.j2",
        document=document,
        balanced=document["overall"]["rates"]["balanced_accuracy"],
        cards=[_card(attribute, entry) for attribute, entry in document["attributes"].items()],
    )


def _card(attribute: str, entry: ChangedAttribute) -> ChangeCard:
    rows: list[tuple[str | Markup, ...]] = []
    marks = set()
    for gap, change in entry["changes"].items():
        low, high = change["low"], change["high"]
        if low is None or high is None or gap.partition("_class_")[0] in TESTED_AS:
            continue
        mark = "▼" if high < 0 else "▲" if low > 0 else ""
        marks.add(mark)
        values = f"{num(change['a'])} → {num(change['b'])}"
        rows.append((f"{mark} {measure_name(gap)}", values, signed(change)))
    state, word = WORDS["▼" in marks, "▲" in marks]
    return ChangeCard(attribute, state, word, rows, entry["worst_cell_recall"])


def attribute_section(document: ComparisonDocument, attribute: str) -> Markup:
    """Figures and tables of the changes for one attribute."""
    entry = document["attributes"][attribute]
    judged = any(change["change"] is not None for change in entry["changes"].values())
    return render(
        "change_attribute.html.j2",
        attribute=attribute,
        names=document["names"],
        changes=encoded(plots.changes(document, attribute)) if judged else None,
        rates=encoded(plots.dumbbells(document, attribute)),
        gap_rows=[
            (measure_name(gap), num(c["a"]), num(c["b"]), signed(c), p_text(c["p_adjusted"]))
            for gap, c in entry["changes"].items()
        ],
        rate_rows=[
            (name, f"{group['n']:,}", measure_name(rate), num(c["a"]), num(c["b"]), signed(c))
            for name, group in entry["groups"].items()
            for rate, c in group["rates"].items()
        ],
    )
