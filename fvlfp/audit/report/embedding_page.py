"""The sections of a report that only a CLIP has, made from the document's ``embedding`` entry."""

from __future__ import annotations

from fvlfp.audit.clip.clip_options import TARGETS
from fvlfp.audit.clip.embeddings import overlaps, scatter
from fvlfp.audit.report.markup import Html, bullets, esc, figure, interval, note, num, p_text, table
from fvlfp.audit.schema import AuditDocument, Embedding, EmbeddingAttribute, HarmfulWords, Row, Subspaces

TITLES = {
    "retrieval": "who comes up first",
    "leakage": "what gives the group away",
    "flips": "predictions under a counterfactual embedding",
    "subspaces": "subspaces",
    "associations": "harmful words",
}


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


def _section(embedding: Embedding, attribute: str, entry: EmbeddingAttribute) -> Html:
    harmful = entry.get("associations")
    parts = {
        "leakage": _leakage(entry["leakage"]) if entry["leakage"] else None,
        "flips": _flips(entry["flips"]) if entry["flips"] else None,
        "retrieval": _retrieval(entry["retrieval"], embedding["target"]) if entry["retrieval"] else None,
        "subspaces": _subspaces(entry["subspaces"]) if entry["subspaces"] else None,
        "associations": _associations(harmful) if harmful else None,
    }
    out = [_picture(embedding, attribute, entry)]
    for name, html in parts.items():
        if html is not None:
            out += [Html(f"<h3>{esc(TITLES[name].capitalize())}</h3>"), html]
        elif name in entry["reasons"]:
            out.append(note(f"{TITLES[name].capitalize()} could not be judged: {entry['reasons'][name]}"))
    return Html("".join(out))


def _picture(embedding: Embedding, attribute: str, entry: EmbeddingAttribute) -> Html:
    known = [i for i, group in enumerate(entry["shown"]) if group is not None]
    if len(known) < 2:
        return note("Too few images for a picture.")
    low, high = embedding["modality_gap_band"]
    return Html(
        figure(
            scatter(embedding, entry["shown"]),
            f"{len(known):,} images by perceived {attribute}, and the texts of the classes",
        )
        + note(
            "Modality gap, the distance of the mean image and the mean text: "
            f"{num(embedding['modality_gap'])} ({num(low)} to {num(high)} over the templates). "
            "Two components show little of many dimensions."
        )
    )


def _leakage(rows: list[Row]) -> Html:
    shown = [
        (r["probe"], interval({**r, "value": r["balanced_accuracy"]}), num(r["chance"]), f"{r['n']:,}")
        for r in rows
    ]
    return Html(
        table(["probe", "balanced accuracy", "chance", "n"], shown)
        + note(
            "How well a probe that never saw an image reads its perceived group from the embedding. At "
            "chance, this kind of probe reads nothing; another might."
        )
    )


def _flips(rows: list[Row]) -> Html:
    shown = [(r["group"], f"{r['n']:,}", f"{r['flips']:,}", interval(r)) for r in rows]
    return Html(
        table(["group", "n", "flips", "flip rate"], shown)
        + note(
            "Each embedding is moved by the difference of two groups' means (balanced over classes) to "
            "another group, drawn at random. A flip is a prediction that changes: the group, as the "
            "embedding holds it, decided."
        )
    )


def _retrieval(rows: list[Row], target: str) -> Html:
    shown = [
        (
            r["query"],
            "NDKL" if r["measure"] == "ndkl" else r["measure"].replace("max_skew", "MaxSkew"),
            interval({"value": r["value"], "band": [r["band_low"], r["band_high"]]}),
            num(r["expected_null"]),
            num(r["null_95"]),
            r["group"],
            p_text(r["p_adjusted"]),
        )
        for r in rows
    ]
    heads = ["query", "measure", "value", "by chance", "95 % of chance below", "most favoured", "p (Holm)"]
    return Html(
        table(heads, shown)
        + note(
            f"Target distribution: {TARGETS[target]} ({target}). 0 is the target; "
            "MaxSkew@k is in nats: 0.69 is twice the share. Holm's correction is over this table."
        )
    )


def _subspaces(entry: Subspaces) -> Html:
    return Html(
        figure(overlaps(entry), "Overlap of subspaces: mean squared cosine of their principal angles")
        + note(
            "0: the directions have nothing in common; 1: one contains the other. Images of the groups and "
            "words of the classes: how much of the task's directions the group moves along."
        )
    )


def _associations(entry: HarmfulWords) -> Html:
    rates = [
        (r["category"], r["group"], f"{r['n']:,}", f"{r['hits']:,}", interval(r)) for r in entry["rates"]
    ]
    gaps = [
        (r["category"], interval(r), num(r["expected_null"]), p_text(r["p_adjusted"])) for r in entry["gaps"]
    ]
    words = [f"{category}: {', '.join(listed)}" for category, listed in entry["words"].items()]
    return Html(
        table(["category", "group", "n", "given such a word", "share"], rates)
        + table(["gap", "value", "by chance", "p (Holm)"], gaps)
        + bullets(words)
        + note(
            "These words hurt. They are the lists of the CLIP paper's own experiment (Radford et al. 2021, "
            "section 7.1), offered to the model beside the groups' words because somebody asked for it."
        )
    )
