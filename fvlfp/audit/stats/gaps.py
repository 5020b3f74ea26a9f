"""The gaps of one attribute with interval, null expectation, floor, power and signed pair."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fvlfp import metrics
from fvlfp.audit.schema import ClassGaps, Gap, Pair
from fvlfp.audit.stats.counts import Counts
from fvlfp.audit.stats.families import families
from fvlfp.audit.stats.intervals import newcombe
from fvlfp.audit.stats.inversion import GapInference
from fvlfp.audit.stats.rates import number
from fvlfp.audit.stats.resampling import affordable, infer

# One test a hypothesis: other measures of the same inequality carry the p-value of the first, and
# are not counted again in the correction.
TESTED_AS = {
    "demographic_parity_ratio": "demographic_parity_difference",
    "equalized_odds_difference_sum": "equalized_odds_difference_worst",
    "equalized_odds_difference_mean": "equalized_odds_difference_worst",
}


@dataclass
class AttributeGaps:
    """The gaps of one attribute; ``classes`` for more than two classes; ``notes`` are warnings."""

    gaps: dict[str, Gap]
    classes: dict[str, ClassGaps] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def attribute_gaps(counts: Counts, *, draws: int, rng: np.random.Generator, level: float) -> AttributeGaps:
    """Entries of every gap, and for more than two classes the gaps of each class."""
    sampled = families(counts)
    made = affordable(sampled, draws)
    notes = []
    if made < draws:
        notes.append(
            f"{counts.attribute}: {len(counts.groups)} groups; {made} instead of {draws} draws were made"
        )
    values: dict[str, float] = {}
    inferences: dict[str, GapInference] = {}
    for family in sampled:
        values |= family.observed()
        inferences |= infer(family, draws=made, rng=rng, level=level)
    floors = _perfect(counts) if counts.truth else {}
    entries = {
        name: _entry(counts, name, value, inferences.get(name, GapInference()), floors, level)
        for name, value in values.items()
    }
    order = [name for name in _names(counts) if name in entries]
    overall = {name: entries[name] for name in order}
    for entry in overall.values():
        if entry["tested_as"]:
            entry["p_value"] = overall[entry["tested_as"]]["p_value"]
    if len(counts.classes) == 2:
        return AttributeGaps(overall, notes=notes)
    classes: dict[str, ClassGaps] = {}
    for k in counts.judged:
        mine = {n.split("[")[0]: e for n, e in entries.items() if n.endswith(f"[{k}]")}
        for entry in mine.values():  # described, not tested: the family is what stands in "gaps"
            entry["p_value"] = entry["p_adjusted"] = None
        classes[counts.classes[k]] = {"gaps": {n: mine[n] for n in metrics.GAPS if n in mine}}
    return AttributeGaps(overall, classes, notes)


def _names(counts: Counts) -> list[str]:
    if len(counts.classes) == 2:
        return list(metrics.GAPS)
    ends = [(n, ("_class_min" if metrics.is_ratio(n) else "_class_max", "_class_mean")) for n in metrics.GAPS]
    return [n + end for n, pair in ends for end in pair if n != "accuracy_gap"] + ["accuracy_gap"]


def _perfect(counts: Counts) -> dict[str, float]:
    """Parity of a classifier that is always right: what the base rates alone bring about."""
    shares = counts.table.sum(-1)  # labels stand in for predictions
    perfect = np.einsum("gc,cd->gcd", shares, np.eye(len(counts.classes), dtype=np.int64))
    parity = families(Counts("", counts.groups, counts.classes, perfect))[0]
    return parity.observed()


def _entry(
    counts: Counts, name: str, value: float, inference: GapInference, floors: dict[str, float], level: float
) -> Gap:
    base, _, rest = name.partition("_class_")
    base = base.partition("[")[0]
    ratio = metrics.is_ratio(name)

    def shown(x: float) -> float | None:
        """A ratio is inferred as 1 - ratio, which grows with inequality as every gap does."""
        return number(1 - x if ratio else x)

    low, high = (inference.high, inference.low) if ratio else (inference.low, inference.high)
    same = TESTED_AS.get(base)
    if same:
        same += f"_class_{rest.replace('min', 'max')}" if rest else ""
    floor = floors.get(name, np.nan)
    entry: Gap = {
        "value": shown(value),
        "low": shown(low),
        "high": shown(high),
        "reason": None if np.isfinite(value) else _why(counts, base),
        "p_value": number(inference.p_value),
        "p_adjusted": None,
        "tested_as": same,
        "expected_null": shown(inference.expected_null),
        "null_95": shown(inference.null_95),
        "excess": number((-1 if ratio else 1) * (value - inference.expected_null)),
        "minimum_detectable": shown(inference.minimum_detectable),
    }
    if base.startswith("demographic_parity"):
        entry["perfect_classifier"] = shown(floor)
        entry["excess_over_perfect"] = number((-1 if ratio else 1) * (value - floor))
    entry["pair"] = _pair(counts, name, base, level) if np.isfinite(value) else None
    return entry


def _why(counts: Counts, base: str) -> str:
    if len(counts.groups) < 2:
        return "only one group"
    if (counts.n > 0).sum() < 2:
        return "fewer than two groups have a row with a weight above 0"
    if base == "demographic_parity_ratio":
        return "no group is ever selected"
    if base.startswith("equal"):
        return "fewer than two groups have every rate it needs: see left_out"
    return "fewer than two groups"


def _pair(counts: Counts, name: str, base: str, level: float) -> Pair | None:
    """The two groups that span a gap, highest first, and their signed difference.

    The interval is Newcombe's for two groups named beforehand; picking the extremes afterwards
    makes it optimistic, which is why the gap has its own.
    """
    picks = {
        "demographic_parity_difference": ["selection_rate"],
        "equal_opportunity_difference": ["tpr"],
        "equalized_odds_difference_worst": ["tpr", "fpr"],
    }
    options: list[tuple[str, str | None, np.ndarray, np.ndarray]]
    if base == "accuracy_gap":
        options = [("accuracy", None, counts.hits.sum(-1), counts.n)]
    elif base in picks and not name.endswith("_mean"):
        inside = name.partition("[")[2].rstrip("]")
        ks = [int(inside)] if inside else counts.judged
        options = [
            (rate, counts.classes[k], *metrics.parts(counts.binary(k))[rate])
            for k in ks
            for rate in picks[base]
        ]
    else:
        return None
    gaps = [float(metrics.spread(metrics.divide(k, n))) for *_, k, n in options]
    rate, judged, k, n = options[int(np.nanargmax(gaps))]
    p = metrics.divide(k, n)
    hi, lo = int(np.nanargmax(p)), int(np.nanargmin(p))
    if p[hi] == p[lo]:
        return None  # all groups are equal: no two of them span the gap
    low, high = newcombe(k[hi], n[hi], k[lo], n[lo], level)
    return {
        "groups": [counts.groups[hi], counts.groups[lo]],
        "rate": rate,
        "class": judged,
        "difference": float(p[hi] - p[lo]),
        "low": float(low),
        "high": float(high),
    }
