"""The whole audit on real faces: FaceCLIP-64, zero-shot, on FairFace's official val split.

    FVLFP_SHARED=DIR python -m benchmarks.audit_fairface [--reports runs/audit_fairface]

Perceived gender by perceived race, and age (20-39 against 40+) by perceived gender and race, crossed.
Writes full reports into --reports (they stay out of the repository) and the main numbers to
`benchmarks/results/audit_fairface.json` and `.md`, with published numbers of another model as context.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import RESULTS
from benchmarks.machine import machine
from benchmarks.markdown import table
from benchmarks.shared import load_encoder, shared_folder
from data_prep.fairface import convert
from fvlfp.audit import Audit, audit, write_audit
from fvlfp.audit.clip.probes import leakage
from fvlfp.audit.clip.retrieval import audit_retrieval
from fvlfp.clip.cache import features
from fvlfp.clip.encoder import Encoder
from fvlfp.data.table import Dataset, read_table
from fvlfp.runs.zero_shot import zero_shot

TASKS = {"gender": ("gender", ["race"], "Male"), "age": ("age_40", ["gender", "race"], "40+")}
K = 500
CONTEXT = (
    "Published for comparison of the task only: these are other models, far larger and trained on other "
    "data, so "
    "their numbers say nothing about FaceCLIP-64 and ours nothing about them."
)


def run_task(
    encoder: Encoder, dataset: Dataset, task: str, cache: Path, draws: int
) -> tuple[Audit, dict[str, Any]]:
    """Audit, leakage probes and retrieval skew of one task."""
    label, groups, positive = TASKS[task]
    frame = zero_shot(encoder, dataset, label, cache=cache)
    card = dataset.card
    result = audit(
        frame,
        label=label,
        prediction="prediction",
        score="score",
        groups=groups,
        positive=positive,
        templates={t: f"prediction: {t}" for t in card.templates},
        cross=len(groups) > 1,
        draws=draws,
        provenance={
            **encoder.provenance,
            **dataset.facts,
            "prompts": {"templates": card.templates, "classes": card.classes[label]},
            "training": "none: zero-shot with the first template",
            "split": "official val",
            "command": "FVLFP_SHARED=DIR python -m benchmarks.audit_fairface",
        },
    )
    z = features(encoder, dataset.images, cache=cache, quiet=True)
    texts = card.class_texts(label, card.templates[0])
    similarity = encoder.encode_texts(texts).cpu().numpy() @ z.T
    more: dict[str, Any] = {"leakage": {}, "retrieval": {}}
    for group in groups:
        names = frame[group].astype(str).tolist()
        more["leakage"][group] = leakage(z, names).to_dict("records")
        more["retrieval"][group] = audit_retrieval(similarity, names, queries=texts, k=K).to_dict("records")
    return result, more


def summary(result: Audit, more: dict[str, Any]) -> dict[str, Any]:
    """What goes into the committed JSON: no row of the data, no contingency counts."""
    document = result.document
    return {
        "n": document["n"],
        "overall": document["overall"],
        "attributes": {
            name: {k: part[k] for k in ("groups", "gaps", "worst_cell_recall", "label_noise", "left_out")}
            for name, part in document["attributes"].items()
        },
        "warnings": document["warnings"],
        **more,
    }


def page(found: dict[str, Any], published: dict[str, Any]) -> str:
    where = found["machine"]
    out = [
        "# FaceCLIP-64 on FairFace, zero-shot",
        "",
        f"Written by `python -m benchmarks.audit_fairface` on {where['cpu']}, {where['cores']} cores. "
        "All groups are *perceived*, given by annotators (FairFace, CC BY 4.0). [95 % interval]; (range over "
        "prompt templates).",
    ]
    for task, data in sorted(found["tasks"].items(), reverse=True):  # gender first
        label, groups, positive = TASKS[task]
        rates = data["overall"]["rates"]
        out += [
            "",
            f"## {label}, positive {positive}, {data['n']:,} images",
            "",
            f"Balanced accuracy {_cell(rates['balanced_accuracy'])}, accuracy {_cell(rates['accuracy'])}. "
            f"The whole "
            f"audit took {data['seconds']:.1f} s without encoding.",
        ]
        for attribute, part in data["attributes"].items():
            keys = ("expected_null", "perfect_classifier", "p_adjusted", "minimum_detectable")
            gaps = [[gap, _cell(e), *(_num(e.get(k)) for k in keys)] for gap, e in part["gaps"].items()]
            heads = ["gap", "value", "by chance", "perfect", "p (Holm)", "sees from"]
            out += ["", f"### by {attribute}", "", *table(heads, gaps)]
            worst = part["worst_cell_recall"]
            where = f"{worst['cell']['group']}, {worst['cell']['class']}"
            out += ["", f"Lowest recall: {_cell(worst)} ({where})."]
            if len(part["groups"]) <= 7:
                by_group = [
                    [group, f"{e['n']:,}", *(_cell(e["rates"][r]) for r in ("tpr", "fpr", "accuracy"))]
                    for group, e in part["groups"].items()
                ]
                out += ["", *table(["group", "n", "TPR", "FPR", "accuracy"], by_group)]
        out += ["", "Leakage: what a probe reads from the image embedding (five folds).", ""]
        probes = [
            [
                group,
                row["probe"],
                f"{row['balanced_accuracy']:.3f} [{row['low']:.3f}, {row['high']:.3f}]",
                f"{row['chance']:.3f}",
            ]
            for group in groups
            for row in data["leakage"][group]
        ]
        out += table(["perceived", "probe", "balanced accuracy", "chance"], probes)
        out += [
            "",
            f"Retrieval: skew of the ranking for each class text; target: the images' own shares; k = {K}.",
            "",
        ]
        skews = [
            [
                *(group, r["query"], r["measure"], f"{r['value']:.3f}", f"{r['expected_null']:.3f}"),
                *(r["group"], f"{r['p_adjusted']:.3f}"),
            ]
            for group in groups
            for r in data["retrieval"][group]
        ]
        heads = ["perceived", "query", "measure", "value", "by chance", "most favoured", "p (Holm)"]
        out += table(heads, skews)
    order, clip = published["order"], published["Zero-shot CLIP"]["All"]
    ours = found["tasks"]["gender"]["attributes"]["race"]["groups"]
    lower = {name.lower(): e for name, e in ours.items()}
    out += ["", "## Published numbers, as context", "", CONTEXT, ""]
    beside = []
    for name, theirs in zip(order, clip, strict=True):
        match = next((e for group, e in lower.items() if group.startswith(name.lower())), None)
        if match and theirs is not None:
            beside.append([name, _cell(match["rates"]["accuracy"]), f"{theirs / 100:.3f}"])
    radford = "zero-shot CLIP (Radford et al. 2021, table 5)"
    out += table(["perceived race", "accuracy for perceived gender", radford], beside)
    return "\n".join(out) + "\n"


def _num(x: float | None) -> str:
    return "" if x is None else f"{x:.3f}"


def _cell(e: dict[str, Any]) -> str:
    if e["value"] is None:
        return "undefined"
    band = f" ({e['band'][0]:.3f} to {e['band'][1]:.3f})" if e.get("band") else ""
    return f"{e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}]{band}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reports", type=Path, default=Path("runs/audit_fairface"))
    parser.add_argument("--draws", type=int, default=10_000)
    args = parser.parse_args()
    shared = shared_folder()
    encoder = load_encoder(shared)
    found: dict[str, Any] = {"machine": machine(), "draws": args.draws, "tasks": {}}
    with tempfile.TemporaryDirectory() as scratch:
        tables = convert(shared / "data" / "fairface", Path(scratch) / "fairface")
        for task, table in tables.items():
            label, groups, _ = TASKS[task]
            dataset = read_table(table, label=label, groups=groups)
            dataset = dataset.take(np.flatnonzero((dataset.frame["split"] == "test").to_numpy()))
            features(encoder, dataset.images, cache=Path(scratch) / "cache", quiet=False)
            start = time.perf_counter()
            result, more = run_task(encoder, dataset, task, Path(scratch) / "cache", args.draws)
            seconds = time.perf_counter() - start
            write_audit(
                result, args.reports / task, title=f"FaceCLIP-64, zero-shot: perceived {label}", notebook=True
            )
            for kind, parts in more.items():
                rows = [{"attribute": g, **row} for g, listed in parts.items() for row in listed]
                pd.DataFrame(rows).to_csv(args.reports / task / f"{kind}.csv", index=False)
            found["tasks"][task] = {"seconds": seconds, **summary(result, more)}
    published = json.loads((shared / "reference" / "published_clip_fairness.json").read_text())
    table5 = published["openai_clip_paper_arXiv2103.00020"]["table5_gender_acc_by_race"]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "audit_fairface.json").write_text(json.dumps(found, indent=1) + "\n")
    (RESULTS / "audit_fairface.md").write_text(page(found, table5))


if __name__ == "__main__":
    main()
