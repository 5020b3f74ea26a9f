"""How fast is the audit? A million rows; and fairlearn's bootstrap on equal rows with equal draws.

    python -m benchmarks.audit [--rows 1000000] [--draws 10000] [--out benchmarks/results]

Writes audit.json and audit.md. fairlearn's MetricFrame resamples rows, so its time grows with rows times
draws. Both are run in full, one after the other in one process, on as many rows and draws as fairlearn
can do in minutes; nothing is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fairlearn.metrics as fl
import numpy as np
import pandas as pd

from benchmarks.machine import machine
from benchmarks.markdown import table
from fvlfp.audit import audit


def predictions(n: int, seed: int = 0) -> pd.DataFrame:
    """Text columns, three attributes with 2, 3 and 7 groups, a TPR gap in the last."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    seven = rng.integers(0, 7, n)
    right = rng.random(n) < 0.8 - 0.02 * seven * label
    words = np.array(["no", "yes"])
    return pd.DataFrame(
        {
            "two": rng.choice(["a", "b"], n),
            "three": rng.choice(["a", "b", "c"], n),
            "seven": np.array(list("abcdefg"))[seven],
            "label": words[label],
            "prediction": words[np.where(right, label, 1 - label)],
        }
    )


def ours(frame: pd.DataFrame, groups: list[str], draws: int) -> float:
    start = time.perf_counter()
    audit(frame, label="label", prediction="prediction", groups=groups, positive="yes", draws=draws)
    return time.perf_counter() - start


def theirs(frame: pd.DataFrame, group: str, draws: int) -> float:
    """MetricFrame with the rates behind the audit's gaps, on ready-made 0/1 arrays."""
    y, p = (frame[c].eq("yes").astype(int).to_numpy() for c in ("label", "prediction"))
    metrics = {
        "selection_rate": fl.selection_rate,
        "tpr": fl.true_positive_rate,
        "fpr": fl.false_positive_rate,
    }
    start = time.perf_counter()
    fl.MetricFrame(
        metrics=metrics,
        y_true=y,
        y_pred=p,
        sensitive_features=frame[group],
        n_boot=draws,
        ci_quantiles=[0.025, 0.975],
        random_state=0,
    )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--fairlearn-rows", type=int, default=30_000)
    parser.add_argument("--fairlearn-draws", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    frame = predictions(args.rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ours(frame.head(1000), ["seven"], 100)  # imports and first calls
    full = ours(frame, ["two", "three", "seven"], args.draws)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    small = predictions(args.fairlearn_rows)
    ours_s = min(ours(small, ["seven"], args.fairlearn_draws) for _ in range(3))
    theirs_s = theirs(small, "seven", args.fairlearn_draws)
    found = {
        "machine": machine(),
        "rows": args.rows,
        "draws": args.draws,
        "three_attributes_s": full,
        "peak_mib": peak,
        "peak_before_audit_mib": before,
        "fairlearn": version("fairlearn"),
        "both_rows": args.fairlearn_rows,
        "both_draws": args.fairlearn_draws,
        "ours_s": ours_s,
        "fairlearn_s": theirs_s,
        "ratio": theirs_s / ours_s,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "audit.json").write_text(json.dumps(found, indent=1) + "\n")
    (args.out / "audit.md").write_text(page(found))
    print(page(found))


def page(f: Mapping[str, Any]) -> str:
    three = f"{f['rows']:,} rows x 3 attributes, {f['draws']:,} draws"
    n = f["both_draws"]
    both = f"{f['both_rows']:,} rows, one attribute of 7 groups, {n} draws"
    rows = [
        (f"{three}: everything", f"{f['three_attributes_s']:.1f} s"),
        ("peak memory of that process, table included", f"{f['peak_mib']:,.0f} MiB"),
        (f"{both}: everything, best of 3", f"{f['ours_s']:.3f} s"),
        (f"... fairlearn {f['fairlearn']}, MetricFrame(n_boot={n}) of 3 rates", f"{f['fairlearn_s']:.1f} s"),
        ("ratio at equal rows and draws", f"{f['ratio']:,.0f}"),
    ]
    measured = "\n".join(table(["what", "measured"], rows))
    return f"""# How fast the audit is

Written by `python -m benchmarks.audit` on {f["machine"]["cpu"]}, {f["machine"]["cores"]} cores.

{measured}

Nothing is extrapolated. The two do not compute the same: fairlearn gives percentile intervals of rates and of
max - min, which miss a zero gap; the audit tries hypothetical truths from both sides with this number of
draws each, and permutes as often. One draw means one sample of counts for one hypothetical truth.
"""


if __name__ == "__main__":
    main()
