"""Test the audit as an instrument: plant gaps of known size and count how often it is right.

    python -m benchmarks.instrument [--runs 800] [--out benchmarks/results]

Coverage: how often the interval holds the true gap (should be 95 %). False alarms: how often an
audit without any gap reports one after Holm's correction (at most 5 %). Power: how often a planted
TPR gap is reported after correction. Runs are numbered and seeded by number, so a later call with
more runs only adds the missing ones, a round of STEP runs in every cell at a time; stop it whenever.
Writes instrument.json and instrument.md.

Truth: base rate 0.5 in every group, FPR 0.2, TPR 0.8 minus the planted gap times a pattern. Group
shares are unequal; at n = 200 the smallest of seven groups has 10 rows and some 5 positives.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from benchmarks.markdown import table
from fvlfp import metrics
from fvlfp.audit.stats.counts import Counts
from fvlfp.audit.stats.families import families, joints
from fvlfp.audit.stats.gaps import TESTED_AS
from fvlfp.audit.stats.intervals import holm
from fvlfp.audit.stats.inversion import GapInference
from fvlfp.audit.stats.paired import Change, infer_changes
from fvlfp.audit.stats.resampling import Family, infer

DRAWS = 200
STEP = 100
SHARES = {2: [0.6, 0.4], 7: [0.30, 0.20, 0.15, 0.12, 0.10, 0.08, 0.05]}
PATTERNS: dict[int, dict[str, list[float]]] = {
    2: {"two": [0, 1]},
    7: {
        "one apart": [0, 0, 0, 0, 0, 0, 1],
        "evenly spread": [0, 1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6, 1],
        "two camps": [0, 1, 0, 1, 0, 1, 0],
    },
}
SIZES = (200, 2000, 20_000)
GAPS = (0.0, 0.05, 0.1, 0.3)
PAIRS = ((0.0, 0.0), (0.1, 0.1), (0.2, 0.1), (0.3, 0.0))
JUDGED = (
    "demographic_parity_difference",
    "equal_opportunity_difference",
    "equalized_odds_difference_worst",
    "equalized_odds_difference_sum",
    "accuracy_gap",
)
TPR = "equal_opportunity_difference"
ODDS = "equalized_odds_difference_worst"


def cells() -> Iterator[dict[str, Any]]:
    """Every planted truth: single audits, then paired changes."""
    for k, n, gap in itertools.product(SHARES, SIZES, GAPS):
        for pattern in PATTERNS[k] if gap else list(PATTERNS[k])[:1]:
            yield {"kind": "audit", "groups": k, "n": n, "gap": gap, "pattern": pattern}
    for k, n, (a, b) in itertools.product(SHARES, (200, 20_000), PAIRS):
        pattern = list(PATTERNS[k])[-1 if k == 2 else 1]
        yield {"kind": "change", "groups": k, "n": n, "gap_a": a, "gap_b": b, "pattern": pattern}


def truth(k: int, gap: float, pattern: str) -> np.ndarray:
    """Cell probabilities (G, 2, 2) of label and prediction within each group."""
    tpr = 0.8 - gap * np.array(PATTERNS[k][pattern])
    rows = [np.full(k, 0.4), np.full(k, 0.1), 0.5 * (1 - tpr), 0.5 * tpr]
    return np.stack(rows, -1).reshape(k, 2, 2)


def sizes(k: int, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.multinomial(n, SHARES[k])


def judged_only(family: Family) -> Family:
    """The same draws for fewer gaps: what is not judged here need not be computed."""
    return replace(family, statistic=lambda f: {k: v for k, v in family.statistic(f).items() if k in JUDGED})


def one_audit(cell: dict[str, Any], rng: np.random.Generator) -> dict[str, float]:
    """One data set audited; what was right about it."""
    k = cell["groups"]
    p = truth(k, cell["gap"], cell["pattern"])
    table = rng.multinomial(sizes(k, cell["n"], rng), p.reshape(k, 4)).reshape(k, 2, 2)
    true = metrics.gaps(p)
    counts = Counts("", tuple(map(str, range(k))), ("0", "1"), table)
    found: dict[str, GapInference] = {}
    for family in map(judged_only, families(counts)):
        found |= infer(family, draws=DRAWS, rng=rng)
    out: dict[str, float] = {}
    for name in JUDGED:
        if name not in found or not np.isfinite(found[name].low):
            continue
        got, value = found[name], float(true[name])
        out[f"known {name}"] = 1
        out[f"covered {name}"] = got.low - 1e-9 <= value <= got.high + 1e-9
        out[f"too high {name}"] = got.low - 1e-9 > value
        out[f"width {name}"] = got.high - got.low
    p_values = {n: found[n].p_value for n in JUDGED if n in found and n not in TESTED_AS}
    adjusted = holm(p_values)
    out["alarm"] = min(adjusted.values()) <= 0.05
    out["raw alarm"] = p_values.get(TPR, 1.0) <= 0.05
    out["found"] = adjusted.get(TPR, 1.0) <= 0.05
    out["plain bootstrap"] = _plain_bootstrap(table, float(true[TPR]), rng)
    return out


def _plain_bootstrap(table: np.ndarray, true: float, rng: np.random.Generator) -> bool:
    """The usual percentile bootstrap of max - min, for comparison."""
    n, hits = table[:, 1].sum(-1), table[:, 1, 1]
    known = n > 0
    drawn = rng.binomial(n[known], hits[known] / n[known], size=(DRAWS, int(known.sum()))) / n[known]
    low, high = np.quantile(metrics.spread(drawn), [0.025, 0.975])
    return bool(low <= true <= high)


def one_change(cell: dict[str, Any], rng: np.random.Generator) -> dict[str, float]:
    """Two models on the same rows that agree on 70 % of their chances; is the change covered?"""
    k = cell["groups"]
    joint = np.zeros((k, 2, 2, 2), int)
    n = sizes(k, cell["n"], rng)
    positives = rng.binomial(n, 0.5)
    pattern = np.array(PATTERNS[k][cell["pattern"]])
    flat = np.full(k, 0.2)
    for y, m, a, b in (
        (0, n - positives, flat, flat),
        (1, positives, 0.8 - cell["gap_a"] * pattern, 0.8 - cell["gap_b"] * pattern),
    ):
        both = 0.7 * np.minimum(a, b) + 0.3 * a * b
        joint[:, y] = rng.multinomial(m, np.stack([1 - a - b + both, b - both, a - both, both], -1)).reshape(
            -1, 2, 2
        )
    counts = Counts("", tuple(map(str, range(k))), ("0", "1"), joint.sum(-1))
    found: dict[str, Change] = {}
    for pairs, family in zip(joints(joint), families(counts), strict=True):
        found |= infer_changes(pairs, judged_only(family), draws=DRAWS, rng=rng)
    true = cell["gap_b"] - cell["gap_a"]
    out: dict[str, float] = {"found": found[TPR].p_value <= 0.05} if TPR in found else {}
    for name, scale in (
        (TPR, 1.0),
        (ODDS, 1.0),
        ("demographic_parity_difference", 0.5),
        ("accuracy_gap", 0.5),
    ):
        if name in found and np.isfinite(found[name].low):
            got = found[name]
            out[f"known {name}"] = 1
            out[f"covered {name}"] = got.low - 1e-9 <= scale * true <= got.high + 1e-9
            out[f"width {name}"] = got.high - got.low
    return out


def measure(cell: dict[str, Any], done: int, runs: int) -> dict[str, float]:
    """Sums over runs `done` to `runs` of one planted truth."""
    name = zlib.crc32(json.dumps(cell, sort_keys=True).encode())
    one = one_audit if cell["kind"] == "audit" else one_change
    total: dict[str, float] = {}
    for run in range(done, runs):
        for key, value in one(cell, np.random.default_rng([name, run])).items():
            total[key] = total.get(key, 0.0) + float(value)
    return total


def rate(row: dict[str, Any], key: str, of: str | None = None) -> float:
    return row["sums"].get(key, 0.0) / max(row["sums"].get(of, 0.0) if of else row["runs"], 1)


def coverage(row: dict[str, Any], name: str = TPR) -> float:
    return rate(row, f"covered {name}", f"known {name}")


def page(rows: list[dict[str, Any]]) -> str:
    """The measured numbers as Markdown; what fails is listed first."""
    audits = [r for r in rows if r["kind"] == "audit"]
    changes = [r for r in rows if r["kind"] == "change"]
    runs = min(r["runs"] for r in rows)
    error = 1.96 * np.sqrt(0.95 * 0.05 / runs)
    everything = [(r, name, coverage(r, name)) for r in audits for name in JUDGED]
    low = sorted(
        (c, r["groups"], r["n"], r["gap"], r["pattern"], name) for r, name, c in everything if c < 0.935
    )
    high = [c for *_, c in everything if c > 0.965]
    mean = float(np.mean([c for *_, c in everything]))
    chance = float(binom.cdf(np.ceil(0.935 * runs) - 1, runs, 0.95))
    alarms = [rate(r, "alarm") for r in audits if r["gap"] == 0]
    out = [
        "# The audit, tested with planted truth",
        "",
        f"Written by `python -m benchmarks.instrument`; at least {runs} data sets per line, {DRAWS} draws "
        "each. A "
        f"measured coverage "
        f"of 95 % is itself uncertain by ± {100 * error:.1f} points. Base rate 0.5, FPR 0.2, TPR 0.8 minus "
        f"the planted gap.",
        "",
        "## In short",
        "",
        f"- Coverage over all {len(everything)} combinations of truth and measure: mean {mean:.1%}; "
        f"{sum(0.935 <= c <= 0.965 for *_, c in everything)} lie within 95 ± 1.5 %, {len(high)} above "
        f"(conservative), {len(low)} below; were all of them exactly 95 %, {runs} data sets would by chance "
        f"put {chance * len(everything):.0f} below.",
        f"- False alarms after Holm's correction without any gap: at most {max(alarms):.1%}, mean "
        f"{np.mean(alarms):.1%}.",
        f"- The usual percentile bootstrap of the same counts covers a zero TPR gap in "
        f"{min(rate(r, 'plain bootstrap') for r in audits if r['gap'] == 0):.0%} to "
        f"{max(rate(r, 'plain bootstrap') for r in audits if r['gap'] == 0):.0%} of the data sets.",
        f"- Changes between two models: coverage {min(map(coverage, changes)):.1%} to "
        f"{max(map(coverage, changes)):.1%}.",
        "",
        "## Where it fails",
        "",
    ]
    if low:
        worst = [(k, n, g, p, name, f"{c:.1%}") for c, k, n, g, p, name in low]
        heads = ["groups", "n", "gap", "pattern", "measure", "coverage"]
        out += ["Coverage below 93.5 %:", "", *table(heads, worst)]
    else:
        out.append("No combination covers less than 93.5 %.")
    out += [
        "",
        f"Coverage above 96.5 % (wider than needed) in {len(high)} combinations, at most "
        f"{max(high, default=0):.1%}.",
        "",
    ]
    out += ["## Coverage, pooled", "", "Target: 95 ± 1.5 %. Each line pools data sets over all else.", ""]
    lines = []
    pools: list[tuple[str, dict[str, Any]]] = [
        (f"{k} groups, n = {n:,}", {"groups": k, "n": n}) for k, n in itertools.product(SHARES, SIZES)
    ]
    pools += [(f"gap {g}", {"gap": g}) for g in GAPS]
    pools += [(f"{p}, 7 groups", {"pattern": p, "groups": 7}) for p in PATTERNS[7]]
    pools += [(name, {"measure": name}) for name in JUDGED]
    for title, where in pools:
        found = [
            (c, r["runs"])
            for r, name, c in everything
            if all({**r, "measure": name}[key] == value for key, value in where.items())
        ]
        values, weights = zip(*found, strict=True)
        mean = np.average(values, weights=weights)
        lines.append([title, f"{sum(weights):,}", *(f"{c:.1%}" for c in (mean, min(values), max(values)))])
    out += table(["pool", "data sets", "mean", "lowest line", "highest line"], lines)
    out += [
        "",
        "## TPR gap: coverage, power, false alarms",
        "",
        "“Found” is after correction over the audit's four tests; in lines with gap 0 it is a false alarm "
        "of this test.",
        "",
    ]
    place = ["groups", "pattern", "n", "gap"]
    places = [(r["groups"], r["pattern"] if r["gap"] else "–", f"{r['n']:,}", r["gap"]) for r in audits]
    shown = [
        (
            f"{coverage(r):.1%}",
            f"{rate(r, f'too high {TPR}', f'known {TPR}'):.1%}",
            f"{rate(r, f'width {TPR}', f'known {TPR}'):.3f}",
            *(f"{rate(r, key):.1%}" for key in ("found", "alarm", "plain bootstrap")),
        )
        for r in audits
    ]
    heads = ["coverage", "interval too high", "width", "found", "any alarm", "plain bootstrap covers"]
    out += table([*place, *heads], [(*a, *b) for a, b in zip(places, shown, strict=True)])
    others = [n for n in JUDGED if n != TPR]
    covered = [[f"{coverage(r, n):.1%}" for n in others] for r in audits]
    out += ["", "## Coverage of the other measures", ""]
    out += table([*place, *others], [(*a, *b) for a, b in zip(places, covered, strict=True)])
    out += [
        "",
        "## Paired change of the TPR gap",
        "",
        "“Found” is one uncorrected test; with equal gaps it is a false alarm.",
        "",
        *table(
            ["groups", "n", "gap before", "gap after", "coverage", "width", "found"],
            [
                (
                    *(r["groups"], f"{r['n']:,}", r["gap_a"], r["gap_b"], f"{coverage(r):.1%}"),
                    f"{rate(r, f'width {TPR}', f'known {TPR}'):.3f}",
                    f"{rate(r, 'found'):.1%}",
                )
                for r in changes
            ],
        ),
    ]
    return "\n".join(out) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=800)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "instrument.json"
    known = {}
    if file.exists():
        known = {json.dumps(r["cell"], sort_keys=True): r for r in json.loads(file.read_text())["rows"]}
    for runs in [*range(STEP, args.runs, STEP), args.runs]:
        start = time.perf_counter()
        for cell in cells():
            key = json.dumps(cell, sort_keys=True)
            old = known.get(key, {"runs": 0, "sums": {}})
            new = measure(cell, old["runs"], runs)
            if not new:
                continue
            sums = {k: old["sums"].get(k, 0.0) + new.get(k, 0.0) for k in sorted({*old["sums"], *new})}
            known[key] = {"cell": cell, "runs": runs, "sums": sums}
            part = file.with_suffix(".part")
            part.write_text(json.dumps({"draws": DRAWS, "rows": list(known.values())}, indent=1) + "\n")
            part.replace(file)
        print(f"{runs} data sets a cell, {time.perf_counter() - start:.0f} s", flush=True)
        write_page(args.out, known)
    write_page(args.out, known)


def write_page(out: Path, known: dict[str, Any]) -> None:
    """instrument.md from the sums of every cell."""
    rows = [known[json.dumps(cell, sort_keys=True)] for cell in cells()]
    (out / "instrument.md").write_text(
        page([{**r["cell"], "runs": r["runs"], "sums": r["sums"]} for r in rows])
    )


if __name__ == "__main__":
    main()
