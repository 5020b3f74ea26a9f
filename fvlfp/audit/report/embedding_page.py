"""The sections of a report that only a CLIP has, made from the document's ``embedding`` entry."""

from __future__ import annotations

from markupsafe import Markup

from fvlfp.audit.clip.clip_options import TARGETS
from fvlfp.audit.clip.embeddings import overlaps, scatter
from fvlfp.audit.report.markup import encoded, interval, num, p_text, render
from fvlfp.audit.schema import AuditDocument, Embedding, EmbeddingAttribute, Row

TITLES = {
    "retrieval": "who comes up first",
    "leakage": "what gives the group away",
    "flips": "predictions under a counterfactual embedding",
    "subspaces": "subspaces",
    "associations": "harmful words",
}
Rows = list[tuple[str | Markup, ...]]


def embedding_sections(document: AuditDocument) -> list[tuple[str, str]]:
    """(title, html) of one section for each attribute."""
    embedding = document["embedding"]
    return [
        (f"The embedding, by perceived {attribute}", _section(embedding, attribute, entry))
        for attribute, entry in embedding["attributes"].items()
    ]


def reasons(document: AuditDocument) -> list[str]:
    """What could not be judged about the embedding, and why."""
    if "embedding" not in document:
        return []
    return [
        f"{attribute}, {TITLES[part]}: {reason}"
        for attribute, entry in document["embedding"]["attributes"].items()
        for part, reason in entry["reasons"].items()
    ]


def _section(embedding: Embedding, attribute: str, entry: EmbeddingAttribute) -> Markup:
    shown = sum(group is not None for group in entry["shown"])
    spaces, harmful = entry["subspaces"], entry.get("associations")
    return render(
        "embedding.html.j2",
        embedding=embedding,
        attribute=attribute,
        entry={"associations": None, **entry},
        titles=TITLES,
        target=TARGETS[embedding["target"]],
        shown=shown,
        picture=encoded(scatter(embedding, entry["shown"])) if shown > 1 else None,
        leakage=[_probe(row) for row in entry["leakage"] or ()],
        flips=[(r["group"], f"{r['n']:,}", f"{r['flips']:,}", interval_of(r)) for r in entry["flips"] or ()],
        retrieval=[_ranking(row) for row in entry["retrieval"] or ()],
        overlaps=encoded(overlaps(spaces)) if spaces else None,
        word_rates=_word_rates(harmful["rates"]) if harmful else [],
        word_gaps=_word_gaps(harmful["gaps"]) if harmful else [],
        words=[f"{name}: {', '.join(words)}" for name, words in harmful["words"].items()] if harmful else [],
    )


def interval_of(row: Row, value: str = "value") -> Markup:
    """A row's value with its interval and band, where it has them."""
    return interval(
        {"value": row[value], "low": row.get("low"), "high": row.get("high"), "band": row.get("band")}
    )


def _probe(row: Row) -> tuple[str | Markup, ...]:
    accuracy = interval_of(row, "balanced_accuracy")
    return row["probe"], accuracy, num(row["chance"]), f"{row['n']:,}"


def _ranking(row: Row) -> tuple[str | Markup, ...]:
    return (
        row["query"],
        "NDKL" if row["measure"] == "ndkl" else row["measure"].replace("max_skew", "MaxSkew"),
        interval({"value": row["value"], "band": [row["band_low"], row["band_high"]]}),
        num(row["expected_null"]),
        num(row["null_95"]),
        row["group"],
        p_text(row["p_adjusted"]),
    )


def _word_rates(rows: list[Row]) -> Rows:
    return [(r["category"], r["group"], f"{r['n']:,}", f"{r['hits']:,}", interval_of(r)) for r in rows]


def _word_gaps(rows: list[Row]) -> Rows:
    return [(r["category"], interval_of(r), num(r["expected_null"]), p_text(r["p_adjusted"])) for r in rows]
