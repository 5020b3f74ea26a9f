"""Which counts decide which gap: the sampling model behind every interval and test.

Parity rests on how many of each group are predicted as each class, opportunity and odds on the same
within every true class (whose sizes are held fixed), accuracy on right against wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fvlfp.audit.stats import metrics
from fvlfp.audit.stats.counts import Counts
from fvlfp.audit.stats.resampling import Family, Statistic


def families(counts: Counts) -> list[Family]:
    """The counts that decide each group of gaps, with the gaps as functions of frequencies."""
    table, judged = counts.table, counts.judged
    binary = judged == (1,)
    ks = range(len(judged))
    weight = table.sum(-1)  # (G, C) label counts; fixed in every draw

    def parity(f: np.ndarray) -> list[dict[str, np.ndarray]]:
        return [metrics.parity(f[..., 0, k]) for k in judged]

    def opportunity(f: np.ndarray) -> list[dict[str, np.ndarray]]:
        tpr = [f[..., 0, 1]] if binary else [f[..., k, k] for k in judged]
        return [{"equal_opportunity_difference": metrics.spread(t)} for t in tpr]

    def odds(f: np.ndarray) -> list[dict[str, np.ndarray]]:
        if binary:
            return [metrics.odds(f[..., 1, 1], f[..., 0, 1])]
        hits = np.nan_to_num(f) * weight[..., None]
        total = hits.sum(-2)  # (..., G, C) predicted as each class
        n = weight.sum(-1)
        return [
            metrics.odds(f[..., k, k], metrics.divide(total[..., k] - hits[..., k, k], n - weight[:, k]))
            for k in judged
        ]

    def named(per_class: Callable[[np.ndarray], list[dict[str, np.ndarray]]]) -> Statistic:
        def statistic(f: np.ndarray) -> dict[str, np.ndarray]:
            found = per_class(f)
            out = found[0] if binary else metrics.over_classes(found)
            if not binary:
                out |= {f"{name}[{k}]": found[k][name] for k in ks for name in found[k]}
            # inference needs measures that grow with inequality
            return {name: 1 - v if "ratio" in name else v for name, v in out.items()}

        return statistic

    def only(statistic: Statistic, ends: tuple[str, ...]) -> Statistic:
        return lambda f: {name: value for name, value in statistic(f).items() if name.endswith(ends)}

    def accuracy(f: np.ndarray) -> dict[str, np.ndarray]:
        return {"accuracy_gap": metrics.spread(f[..., 0, 1])}

    end = "" if binary else "_class_max"
    # A maximum and a sum of two gaps are inflated most by different truths, so each is drawn for itself.
    ways = [("max", ("worst",)), ("sum", ("sum", "mean"))] if binary else [("", ("",))]
    odds_families = [
        Family(table, only(named(odds), ends), f"equalized_odds_difference_{ends[0] or 'worst'}{end}", across)
        for across, ends in ways
    ]
    right = np.einsum("gcc->g", table)
    n = table.sum((-1, -2))
    return [
        Family(table.sum(1)[:, None, :], named(parity), f"demographic_parity_difference{end}"),
        Family(table[:, 1:] if binary else table, named(opportunity), f"equal_opportunity_difference{end}"),
        *odds_families,
        Family(np.stack([n - right, right], -1)[:, None, :], accuracy, "accuracy_gap"),
    ]


def joints(joint: np.ndarray) -> list[np.ndarray]:
    """The joint counts (G, S, C, C) of two models for each of `families`, from (G, C, C, C)."""
    c = joint.shape[1]
    both = np.einsum("gyyy->g", joint)
    a, b = np.einsum("gyyj->g", joint), np.einsum("gyiy->g", joint)
    right = np.stack([joint.sum((1, 2, 3)) - a - b + both, b - both, a - both, both], -1)
    odds = [joint, joint] if c == 2 else [joint]
    return [joint.sum(1)[:, None], joint[:, 1:] if c == 2 else joint, *odds, right.reshape(-1, 1, 2, 2)]
