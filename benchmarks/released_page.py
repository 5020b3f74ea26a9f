"""The page on released CLIPs, from `results/released.json` alone.

    python -m benchmarks.released_page

What this module does not do: it computes no rate and no test, see `benchmarks.released`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from benchmarks import RESULTS
from benchmarks.machine import named
from benchmarks.markdown import table

ODDS, ACCURACY = "equalized_odds_difference_worst", "accuracy_gap"
AGES = ("0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "more than 70")
Found = dict[str, Any]
FAMILIES = {
    "A": "five checkpoints, one list of prompts; hard answers",
    "B": 'three ViT-L/14; scores of "a photo of a man" and "a photo of a woman"',
    "C": "two ViT-B/32, another list of prompts; hard answers",
}
LIMITS = """\
- **The source does not state the crop.** FairFace comes with a margin of 0.25 or 1.25 around the face. Which
  of them these models saw is unknown, and it may change every number.
- **Compare within a family only.** The source asked with three lists of prompts (A, B, C below). The same
  checkpoint, OpenAI ViT-L/14, has an accuracy of {a:.3f} in A and {b:.3f} in B, and an odds gap by race of
  {gap_a:.3f} and {gap_b:.3f}. So a difference between families says nothing about the models.
- **One list of prompts for each family.** How much other words would change is not shown here.
- **A difference between two checkpoints is not its cause.** They differ in more than size or data: LAION's
  were trained with other settings than OpenAI's.
- **Race was asked of two checkpoints only.** They differ in size and data, so no cause can be named.
- **Small groups:** {small}. Their intervals are wide.
- Gender is a perceived label of two values, also for infants. Race is a perceived label of seven values.
  Annotators gave both; nobody in the pictures was asked.
- Nothing here was computed from images: we audited answers that others published."""


def page(found: Found) -> str:
    """The whole page as Markdown."""
    parts = [
        _head(found),
        _short(found),
        _by(found, "race", "1. Gender, by perceived race"),
        _by(found, "age", "2. Gender, by perceived age"),
        _cells(found),
        _race(found),
        _compared(found, "size", "5. Does a larger model help, and whom?"),
        _compared(found, "data", "6. Do other training data help, and whom?"),
        _source(found),
    ]
    return "\n\n".join(parts) + "\n"


def _head(found: Found) -> str:
    twice = {e["family"]: e for e in found["gender"] if e["name"] == "OpenAI ViT-L/14"}
    ages = found["gender"][0]["attributes"]["age"]["groups"]
    small = ", ".join(f"{age} years ({e['n']} images)" for age, e in ages.items() if e["n"] < 350)
    accuracy = {k: e["overall"]["accuracy"]["value"] for k, e in twice.items()}
    gap = {k: e["attributes"]["race"]["gaps"][ODDS]["value"] for k, e in twice.items()}
    limits = LIMITS.format(a=accuracy["A"], b=accuracy["B"], gap_a=gap["A"], gap_b=gap["B"], small=small)
    return (
        "# What released CLIPs answered on FairFace\n\n"
        f"Written by `python -m benchmarks.released`; do not edit. {found['n']:,} images, all of FairFace "
        f"val. Brackets: 95 % intervals; tests and gaps: {found['draws']:,} draws. A gap is the largest "
        'difference between two groups; "by chance" is what equal groups of these sizes would show.\n\n'
        f"## Read this first\n\n{limits}"
    )


def _short(found: Found) -> str:
    lines = [
        "## In short",
        "",
        *_sentences(found),
        "",
    ]
    rows = []
    for e in found["gender"]:
        told = [e["name"], e["family"], e["data"], _num(e["overall"]["accuracy"])]
        for attribute in ("race", "age"):
            part = e["attributes"][attribute]
            told += [_num(part["gaps"][ODDS]), _worst(part)]
        rows.append(told)
    heads = ["", "family", "trained on", "accuracy"]
    heads += [
        f"{what} by {attribute}" for attribute in ("race", "age") for what in ("odds gap", "lowest cell")
    ]
    lines += [
        *table(heads, rows),
        "",
        "Lowest cell: the group and gender found least often. Families: "
        + "; ".join(f"{k}: {v}" for k, v in FAMILIES.items())
        + ".",
    ]
    return "\n".join(lines)


def _sentences(found: Found) -> list[str]:
    told = []
    for attribute in ("race", "age"):
        clear = [e for e in found["gender"] if e["attributes"][attribute]["gaps"][ODDS]["p_across"] < 0.05]
        told.append(
            f"- By {attribute}, {len(clear)} of {len(found['gender'])} sets of answers have an odds gap that "
            "chance does not explain (Holm over all tests of sections 1 and 2)."
        )
    lowest = [_lowest(e["attributes"]["race"], "accuracy") for e in found["gender"]]
    often = max(set(lowest), key=lowest.count)
    told.append(
        f"- Accuracy is lowest for people perceived as {often} in {lowest.count(often)} of {len(lowest)} "
        f"and for the youngest, 0 to 2 years, in "
        f"{[_lowest(e['attributes']['age'], 'accuracy') for e in found['gender']].count('0-2')}."
    )
    for question, what in (("size", "A larger model"), ("data", "Other training data")):
        told += [f"- {what}, {_verdict(e)}" for e in found[question]]
    return told


def _verdict(e: Found) -> str:
    """One comparison in a sentence."""
    changes = {
        f"{word} gap by {a}": part["changes"][gap]
        for a, part in e["attributes"].items()
        for gap, word in ((ODDS, "odds"), (ACCURACY, "accuracy"))
    }
    clear = {name: c["change"] for name, c in changes.items() if c["p_across"] < 0.05}
    words = {True: "falls", False: "grows"}
    said = " and ".join(f"the {name} {words[c < 0]} by {abs(c):.3f}" for name, c in clear.items())
    return f"{e['a']} to {e['b']} ({e['family']}): accuracy changes by {_change(e['accuracy'])}. " + (
        f"Clearly, {said}." if clear else "No gap changes clearly."
    )


def _by(found: Found, attribute: str, title: str) -> str:
    groups = _order(found["gender"][0]["attributes"][attribute]["groups"], attribute)
    lines = [
        f"## {title}",
        "",
        "Accuracy of each group, and the two gaps with what chance would show and Holm's p-value over all "
        "checkpoints and both attributes.",
        "",
    ]
    sizes = found["gender"][0]["attributes"][attribute]["groups"]
    rows = [["images", "", *(f"{sizes[g]['n']:,}" for g in groups)]]
    for e in found["gender"]:
        values = {g: e["attributes"][attribute]["groups"][g]["accuracy"]["value"] for g in groups}
        low = min(values.values())
        told = [f"**{v:.3f}**" if v == low else f"{v:.3f}" for v in values.values()]
        rows.append([e["name"], e["family"], *told])
    gaps = []
    for e in found["gender"]:
        told = [e["name"], e["family"], *_gap_columns(e["attributes"][attribute]["gaps"], ODDS)]
        pair = e["attributes"][attribute]["gaps"][ACCURACY].get("pair") or {}
        gaps.append([*told, " and ".join(pair.get("groups", ()))])
    heads = ["", "family", "odds gap", "by chance", "p", "accuracy gap", "by chance", "p", "between"]
    return "\n".join([*lines, *table(["", "family", *groups], rows), "", *table(heads, gaps)])


def _gap_columns(gaps: Mapping[str, Any], odds: str) -> list[str]:
    """Value, chance and p of the gap called `odds`, then of the accuracy gap."""
    columns = []
    for g in (gaps[odds], gaps[ACCURACY]):
        columns += [_num(g), f"{g['expected_null']:.3f}", _p(g["p_across"])]
    return columns


def _cells(found: Found) -> str:
    groups = list(found["gender"][0]["attributes"]["race"]["groups"])
    lines = [
        "## 3. Men and women of each race",
        "",
        "How often women are called women and men are called men, in each of the 14 cells of gender and "
        "race: women / men. The lowest of a row is bold.",
        "",
    ]
    rows = []
    for e in found["gender"]:
        by = e["attributes"]["race"]["groups"]
        cells = {g: (1 - by[g]["fpr"]["value"], by[g]["tpr"]["value"]) for g in groups}
        low = min(min(pair) for pair in cells.values())
        told = [" / ".join(f"**{v:.3f}**" if v == low else f"{v:.3f}" for v in cells[g]) for g in groups]
        rows.append([e["name"], e["family"], *told])
    sizes = found["gender"][0]["attributes"]["race"]["groups"]
    told = [f"{sizes[g]['fpr']['denominator']:,} / {sizes[g]['tpr']['denominator']:,}" for g in groups]
    return "\n".join([*lines, *table(["", "family", *groups], [*rows, ["images", "", *told]])])


def _race(found: Found) -> str:
    classes = list(found["gender"][0]["attributes"]["race"]["groups"])
    lines = [
        "## 4. Race itself",
        "",
        "Asked to name one of seven races, how often is the perceived one named? By perceived gender: "
        "women / men.",
        "",
    ]
    rows = []
    for e in found["race"]:
        by = e["attributes"]["gender"]["groups"]
        told = [" / ".join(f"{by[g]['recall'][c]['value']:.3f}" for g in ("Female", "Male")) for c in classes]
        overall = e["overall"]
        rows.append([e["name"], *(_num(overall[k]) for k in ("accuracy", "balanced_accuracy")), *told])
    gaps = []
    for e in found["race"]:
        for attribute, part in e["attributes"].items():
            gaps.append([e["name"], attribute, *_gap_columns(part["gaps"], f"{ODDS}_class_max")])
    return "\n".join(
        [
            *lines,
            *table(["", "accuracy", "balanced accuracy", *classes], rows),
            "",
            "Gaps of the race answers, the largest of the seven classes against the rest:",
            "",
            *table(["", "by", "odds gap", "by chance", "p", "accuracy gap", "by chance", "p"], gaps),
            "",
            "p: Holm over these tests.",
        ]
    )


def _compared(found: Found, question: str, title: str) -> str:
    lines = [
        f"## {title}",
        "",
        "Both checkpoints answered the same images, so every change is paired. p: Holm over all tests of "
        "sections 5 and 6. Below the table stand all groups whose accuracy changed clearly; their intervals "
        "hold all at once, over both sections.",
        "",
    ]
    rows, who = [], []
    for e in found[question]:
        told = [f"{e['a']} → {e['b']} ({e['family']})", _change(e["accuracy"])]
        for attribute in ("race", "age"):
            for gap in (ODDS, ACCURACY):
                change = e["attributes"][attribute]["changes"][gap]
                told += [_change(change), _p(change["p_across"])]
        rows.append(told)
        groups = {
            name: x["accuracy"]
            for attribute in ("race", "age")
            for name, x in _named(e["attributes"][attribute]["groups"], attribute).items()
        }
        more = _list(f"{g} {x['change']:+.3f}" for g, x in groups.items() if x["low"] > 0)
        less = _list(f"{g} {x['change']:+.3f}" for g, x in groups.items() if x["high"] < 0)
        who.append(f"- {e['a']} to {e['b']}: more often right: {more}; less often right: {less}.")
    heads = ["from, to", "accuracy"]
    for attribute in ("race", "age"):
        heads += [f"odds gap by {attribute}", "p", f"accuracy gap by {attribute}", "p"]
    return "\n".join([*lines, *table(heads, rows), "", *who])


def _source(found: Found) -> str:
    return (
        "## Source\n\n"
        f"Answers: {found['source']}. Labels: FairFace (K. Karkkainen and J. Joo, WACV 2021), CC BY 4.0. The "
        "repository holds none of their files, only the numbers of this page and "
        "[counts](../../fvlfp/course/released_clips.csv) by group, label and answer. Which checkpoints are "
        f"here was settled before any gap was looked at. Made on {named(found['machine'])}."
    )


def _order(groups: dict[str, Any], attribute: str) -> list[str]:
    return [age for age in AGES if age in groups] if attribute == "age" else list(groups)


def _named(groups: dict[str, Any], attribute: str) -> dict[str, Any]:
    more = " years" if attribute == "age" else ""
    return {f"{g}{more}": groups[g] for g in _order(groups, attribute)}


def _lowest(part: Found, rate: str) -> str:
    return min(part["groups"], key=lambda g: part["groups"][g][rate]["value"])


def _worst(part: Found) -> str:
    worst = part["worst_cell_recall"]
    return f"{worst['value']:.3f} ({worst['cell']['group']}, {worst['cell']['class']})"


def _num(e: Found) -> str:
    return f"{e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}]"


def _change(e: Found) -> str:
    return f"{e['change']:+.3f} [{e['low']:+.3f}, {e['high']:+.3f}]"


def _p(p: float) -> str:
    return "< 0.01" if p < 0.01 else f"{p:.2f}"


def _list(words: Any) -> str:
    return ", ".join(words) or "none"


def main() -> None:
    """Write the page again, without auditing again."""
    found = json.loads((RESULTS / "released.json").read_text(encoding="utf-8"))
    (RESULTS / "released.md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
