"""The sections of a report that only a CLIP has, made from the document's ``embedding`` entry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fvlfp.audit.clip.embeddings import overlaps, scatter
from fvlfp.audit.report.markup import Html, bullets, esc, figure, interval, note, num, p_text, table

TARGETS = {"population": "the images' own shares", "uniform": "equal shares"}
SAID = {
    "retrieval": "who comes up first",
    "leakage": "what gives the group away",
    "flips": "predictions under a counterfactual embedding",
    "subspaces": "subspaces",
    "associations": "harmful words",
}


def embedding_sections(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(title, html) of one section for each attribute."""
    found = document["embedding"]
    return [
        (f"The embedding, by perceived {attribute}", _section(found, attribute, entry))
        for attribute, entry in found["attributes"].items()
    ]


def reasons(document: Mapping[str, Any]) -> list[str]:
    """What could not be judged about the embedding, and why."""
    return [
        f"{attribute}, {SAID[part]}: {reason}"
        for attribute, entry in document.get("embedding", {"attributes": {}})["attributes"].items()
        for part, reason in entry["reasons"].items()
    ]


def _section(found: Mapping[str, Any], attribute: str, entry: Mapping[str, Any]) -> Html:
    out = [_picture(found, attribute, entry)]
    for part, show in (
        ("leakage", _leakage),
        ("flips", _flips),
        ("retrieval", _retrieval),
        ("subspaces", _subspaces),
        ("associations", _associations),
    ):
        if entry.get(part):
            out += [Html(f"<h3>{esc(SAID[part].capitalize())}</h3>"), show(found, entry[part])]
        elif part in entry["reasons"]:
            out.append(note(f"{SAID[part].capitalize()} could not be judged: {entry['reasons'][part]}"))
    return Html("".join(out))


def _picture(found: Mapping[str, Any], attribute: str, entry: Mapping[str, Any]) -> Html:
    known = [i for i, group in enumerate(entry["shown"]) if group is not None]
    if len(known) < 2:
        return note("Too few images for a picture.")
    shown = {**found, "images": [found["images"][i] for i in known]}
    low, high = found["modality_gap_band"]
    return Html(
        figure(
            scatter(shown, [entry["shown"][i] for i in known]),
            f"{len(known):,} images by perceived {attribute}, and the texts of the classes",
        )
        + note(
            f"Modality gap, the distance of the mean image and the mean text: {num(found['modality_gap'])} "
            f"({num(low)} to {num(high)} over the templates). Two components show little of many dimensions."
        )
    )


def _leakage(found: Mapping[str, Any], rows: list[dict[str, Any]]) -> Html:
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


def _flips(found: Mapping[str, Any], rows: list[dict[str, Any]]) -> Html:
    shown = [(r["group"], f"{r['n']:,}", f"{r['flips']:,}", interval(r)) for r in rows]
    return Html(
        table(["group", "n", "flips", "flip rate"], shown)
        + note(
            "Each embedding is moved by the difference of two groups' means (balanced over classes) to "
            "another group, drawn at random. A flip is a prediction that changes: the group, as the "
            "embedding holds it, decided."
        )
    )


def _retrieval(found: Mapping[str, Any], rows: list[dict[str, Any]]) -> Html:
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
            f"Target distribution: {TARGETS[found['target']]} ({found['target']}). 0 is the target; "
            "MaxSkew@k is in nats: 0.69 is twice the share. Holm's correction is over this table."
        )
    )


def _subspaces(found: Mapping[str, Any], entry: Mapping[str, Any]) -> Html:
    return Html(
        figure(overlaps(entry), "Overlap of subspaces: mean squared cosine of their principal angles")
        + note(
            "0: the directions have nothing in common; 1: one contains the other. Images of the groups and "
            "words of the classes: how much of the task's directions the group moves along."
        )
    )


def _associations(found: Mapping[str, Any], entry: Mapping[str, Any]) -> Html:
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
