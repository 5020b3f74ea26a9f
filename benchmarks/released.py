"""What released CLIPs answered on FairFace val, audited: gender and race by perceived group.

    FVLFP_SHARED=DIR python -m benchmarks.released

DIR holds `data/clip_outputs`: answers that others published, one row an image, no images and no embeddings.
Writes `results/released.json` and `results/released.md`, and counts for lessons to
`fvlfp/course/released_clips.csv`. Every number comes from `fvlfp.audit`.

What this module does not do: it runs no model and chooses no checkpoint; all in the source's two files are
here. The page is written by `benchmarks.released_page`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import RESULTS
from benchmarks.machine import machine
from benchmarks.released_page import page
from benchmarks.shared import command, shared_folder
from fvlfp.audit import audit, compare
from fvlfp.audit.schema import Attribute, AuditDocument
from fvlfp.audit.stats.intervals import holm
from fvlfp.course.released import COUNTS

DRAWS = 10_000
KEY = "file"
ODDS, ACCURACY = "equalized_odds_difference_worst", "accuracy_gap"
#: the gaps whose p-values are corrected across checkpoints; of several classes, the largest counts
TESTED = (ODDS, ACCURACY)
SOURCE = "groovy-lizard/vlms_bias_explore, clip-bias-explore and clip-face-attribs (GitHub)"
#: Spellings of the source's columns end so where the second list of prompts was used.
OTHER = "_other_prompts"


@dataclass(frozen=True)
class Checkpoint:
    """One column of answers.

    family: columns made with one list of prompts and one way of handling texts; only these may be compared.
    column: in predictions.csv, or the first part of two columns in the file of scores.
    """

    name: str
    data: str
    family: str
    column: str


GENDER = (
    Checkpoint("OpenAI ViT-B/32", "WIT-400M", "A", "ViT-B-32_openai"),
    Checkpoint("OpenAI ViT-B/16", "WIT-400M", "A", "ViT-B-16_openai"),
    Checkpoint("OpenAI ViT-L/14", "WIT-400M", "A", "ViT-L-14_openai"),
    Checkpoint("LAION ViT-H/14", "LAION-2B", "A", "ViT-H-14_laion2b_s32b_b79k"),
    Checkpoint("LAION ViT-g/14", "LAION-2B", "A", "ViT-g-14_laion2b_s34b_b88k"),
    Checkpoint("OpenAI ViT-L/14", "WIT-400M", "B", "openai"),
    Checkpoint("LAION ViT-L/14", "LAION-2B", "B", "laion2b_s32b_b82k"),
    Checkpoint("CommonPool-XL ViT-L/14", "CommonPool, 12.8B pairs", "B", "commonpool_xl_s13b_b90k"),
    Checkpoint("LAION ViT-B/32", "LAION-2B", "C", f"ViT-B-32_laion2b_s34b_b79k{OTHER}"),
    Checkpoint(
        "CommonPool-M ViT-B/32", "CommonPool, 128M pairs", "C", f"ViT-B-32_commonpool_m_clip_s128m_b4k{OTHER}"
    ),
)
RACE = (
    Checkpoint("OpenAI ViT-B/16", "WIT-400M", "race", "race_ViT-B-16_openai"),
    Checkpoint("LAION ViT-H/14", "LAION-2B", "race", "race_ViT-H-14_laion2b_s32b_b79k"),
)
#: (what changes, from, to): positions in GENDER; always within one family
SIZE = ((0, 1), (1, 2), (0, 2), (3, 4))
DATA = ((5, 6), (5, 7), (6, 7), (8, 9))


def read_answers(folder: Path) -> pd.DataFrame:
    """One row an image: file, age, gender, race, and one column of answers a checkpoint."""
    frame = pd.read_csv(folder / "predictions.csv", dtype=str)
    scores = pd.read_csv(folder / "scores_ViT-L-14_gender.csv").set_index(KEY).loc[frame[KEY]]
    for name in ("gender", "race", "age"):
        if (scores[name].to_numpy() != frame[name].to_numpy()).any():
            raise ValueError(f"{folder}: the two files disagree on {name}")
    for c in (c for c in GENDER if c.family == "B"):
        man, woman = scores[f"{c.column}__man"], scores[f"{c.column}__woman"]
        if (man == woman).any():
            raise ValueError(f"{c.column}: an image with equal scores has no answer")
        frame[c.column] = (man > woman).map({True: "Male", False: "Female"}).to_numpy()
    return frame


def one_audit(frame: pd.DataFrame, c: Checkpoint, draws: int) -> AuditDocument:
    """The document of one checkpoint's gender answers, by race and by age."""
    return audit(
        frame, label="gender", prediction=c.column, groups=["race", "age"], positive="Male", draws=draws
    ).document


def condensed(document: AuditDocument) -> dict[str, Any]:
    """What the page shows of one audit; counts stay out."""
    return {
        "overall": _rates(document["overall"], "accuracy", "balanced_accuracy"),
        "attributes": {name: _attribute(part) for name, part in document["attributes"].items()},
        "warnings": document["warnings"],
    }


def _attribute(part: Attribute) -> dict[str, Any]:
    kept = ("value", "low", "high", "expected_null", "p_value", "p_across", "pair")
    return {
        "gaps": {gap: _picked(e, *kept) for gap, e in part["gaps"].items() if gap.startswith(TESTED)},
        "worst_cell_recall": part["worst_cell_recall"],
        "groups": {
            g: {
                "n": e["n"],
                **_rates(e, "accuracy", "tpr", "fpr"),
                "recall": {k: _rates(block, "tpr")["tpr"] for k, block in e.get("classes", {}).items()},
            }
            for g, e in part["groups"].items()
        },
        "left_out": part["left_out"],
    }


def _rates(entry: Mapping[str, Any], *names: str) -> dict[str, Any]:
    rates = _picked(entry["rates"], *names)
    return {name: _picked(e, "value", "low", "high", "denominator") for name, e in rates.items()}


def _picked(entry: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: entry[key] for key in keys if key in entry}


def across(audits: Sequence[AuditDocument], gaps: Sequence[str]) -> None:
    """Holm's correction over all checkpoints, attributes and these gaps together, as `p_across`."""
    tests = {
        (i, name, gap): p
        for i, document in enumerate(audits)
        for name, part in document["attributes"].items()
        for gap in gaps
        if (p := part["gaps"][gap]["p_value"]) is not None
    }
    for (i, name, gap), p in holm(tests).items():
        audits[i]["attributes"][name]["gaps"][gap]["p_across"] = p


def one_comparison(
    frame: pd.DataFrame, a: Checkpoint, b: Checkpoint, draws: int, level: float
) -> dict[str, Any]:
    """Paired changes from a to b. `level`: of the intervals of single groups, which hold all at once."""
    if a.family != b.family:
        raise ValueError(f"{a.column} and {b.column} were asked with different prompts")
    left, right = (
        frame[[KEY, "gender", "race", "age"]].assign(answer=frame[c.column].to_numpy()) for c in (a, b)
    )
    common: dict[str, Any] = {
        "label": "gender",
        "prediction": "answer",
        "groups": ["race", "age"],
        "positive": "Male",
        "key": KEY,
    }
    changes = compare(left, right, draws=draws, **common).document
    groups = compare(left, right, draws=100, level=level, **common).document
    return {
        "a": a.name,
        "b": b.name,
        "family": a.family,
        "data": [a.data, b.data],
        "accuracy": changes["overall"]["rates"]["accuracy"],
        "attributes": {
            name: {
                "changes": {g: part["changes"][g] for g in TESTED},
                "worst_cell_recall": part["worst_cell_recall"],
                "groups": {
                    g: {"n": e["n"], "accuracy": e["rates"]["accuracy"]}
                    for g, e in groups["attributes"][name]["groups"].items()
                },
            }
            for name, part in changes["attributes"].items()
        },
    }


def compared(frame: pd.DataFrame, draws: int) -> dict[str, list[dict[str, Any]]]:
    """Both questions, with p-values corrected over all comparisons of the page."""
    m = (len(SIZE) + len(DATA)) * (frame["race"].nunique() + frame["age"].nunique())
    found = {
        question: [one_comparison(frame, GENDER[a], GENDER[b], draws, 1 - 0.05 / m) for a, b in pairs]
        for question, pairs in (("size", SIZE), ("data", DATA))
    }
    tests = {
        (question, i, name, gap): e["p_value"]
        for question, entries in found.items()
        for i, entry in enumerate(entries)
        for name, part in entry["attributes"].items()
        for gap, e in part["changes"].items()
    }
    for (question, i, name, gap), p in holm(tests).items():
        found[question][i]["attributes"][name]["changes"][gap]["p_across"] = p
    return found


def counts(frame: pd.DataFrame) -> pd.DataFrame:
    """Images by checkpoint, perceived group, label and answer: what a lesson needs, and no image's row."""
    parts = []
    for asked, checkpoints, groups in (
        ("gender", GENDER, ("race", "age")),
        ("race", RACE, ("gender", "age")),
    ):
        for c in checkpoints:
            for group in groups:
                columns = {"group": frame[group], "label": frame[asked], "answer": frame[c.column]}
                n = pd.DataFrame(columns).value_counts(sort=False).rename("n").reset_index()
                told = {"asked": asked, "prompts": c.family, "checkpoint": c.name, "attribute": group}
                parts.append(n.assign(**told)[[*told, "group", "label", "answer", "n"]])
    return pd.concat(parts, ignore_index=True)


def main() -> None:
    """Audit, compare, write."""
    frame = read_answers(shared_folder() / "data" / "clip_outputs")
    gender = [one_audit(frame, c, DRAWS) for c in GENDER]
    race = [
        audit(frame, label="race", prediction=c.column, groups=["gender", "age"], draws=DRAWS).document
        for c in RACE
    ]
    across(gender, TESTED)
    across(race, (f"{ODDS}_class_max", ACCURACY))
    found = {
        "n": len(frame),
        "draws": DRAWS,
        "machine": machine(),
        "source": SOURCE,
        "gender": [vars(c) | condensed(d) for c, d in zip(GENDER, gender, strict=True)],
        "race": [vars(c) | condensed(d) for c, d in zip(RACE, race, strict=True)],
        **compared(frame, DRAWS),
    }
    counts(frame).to_csv(COUNTS, index=False, lineterminator="\n")
    (RESULTS / "released.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (RESULTS / "released.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(command(main))
