"""Which counts decide which gap: the sampling model behind every interval and test.

Parity rests on how many of each group are predicted as each class, opportunity and odds on the same
within every true class (whose sizes are held fixed), accuracy on right against wrong.

Up to ``FEW`` classes the outcomes of a stratum are drawn together, as one multinomial. With more classes each
class against the rest is a stratum with two outcomes, drawn for itself: time and memory then grow with the
number of classes and not with its square. That leaves out that a row predicted as one class is not
predicted as another, which matters little where each class is a small part of all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fvlfp import metrics
from fvlfp.audit.stats.counts import Counts
from fvlfp.audit.stats.resampling import Family

FEW = 10  # classes up to which all outcomes of a stratum are drawn together

#: From frequencies (..., G, S, outcomes) to the rates a gap is about, each (..., G, K) for K judged classes.
Rates = Callable[[np.ndarray], tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class GapStatistic:
    """Named gaps (...) of frequencies (..., G, S, outcomes).

    rates: see above. measure: from rates (..., K, G) to gaps (..., K) by name. single: one class is judged,
    so names carry no class; otherwise there are the maximum and the mean over classes, and ``name[k]`` of
    each class. ends: only names that end so. Every value grows with inequality: 1 - ratio for a ratio.
    """

    rates: Rates
    measure: Callable[..., dict[str, np.ndarray]]
    single: bool
    ends: tuple[str, ...] = ("",)

    def __call__(self, f: np.ndarray) -> dict[str, np.ndarray]:
        """Gap name -> values (...) of frequencies f."""
        gaps = self.measure(*(np.swapaxes(rate, -1, -2) for rate in self.rates(f)))
        if self.single:
            named = {name: value[..., 0] for name, value in gaps.items()}
        else:
            named = metrics.summed_up(gaps)
            k = next(iter(gaps.values())).shape[-1]
            named |= {f"{name}[{i}]": value[..., i] for i in range(k) for name, value in gaps.items()}
        return {
            name: 1 - value if metrics.is_ratio(name) else value
            for name, value in named.items()
            if name.endswith(self.ends)
        }


def opportunity(tpr: np.ndarray) -> dict[str, np.ndarray]:
    """The gap of the true positive rate (..., G)."""
    return {"equal_opportunity_difference": metrics.spread(tpr)}


def accuracy(right: np.ndarray) -> dict[str, np.ndarray]:
    """The gap of the accuracy (..., G)."""
    return {"accuracy_gap": metrics.spread(right)}


def one_outcome(f: np.ndarray) -> tuple[np.ndarray]:
    """The second outcome of the first stratum."""
    return (f[..., 0, 1:2],)


def families(counts: Counts) -> list[Family]:
    """The counts that decide each group of gaps, with the gaps as functions of frequencies.

    Without truth there is parity alone.
    """
    c = len(counts.classes)
    three = _binary(counts) if c == 2 else _together(counts) if c <= FEW else _one_vs_rest(counts)
    if not counts.truth:
        return three[:1]
    right = np.stack([counts.n - counts.hits.sum(-1), counts.hits.sum(-1)], -1)
    return [*three, Family(right[:, None, :], GapStatistic(one_outcome, accuracy, True), "accuracy_gap")]


def _binary(counts: Counts) -> list[Family]:
    table = counts.table

    def by_label(f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return f[..., 1, 1:2], f[..., 0, 1:2]

    # A maximum and a sum of two gaps are inflated most by different truths, so each is drawn for itself.
    worst = GapStatistic(by_label, metrics.odds, True, ("worst",))
    summed = GapStatistic(by_label, metrics.odds, True, ("sum", "mean"))
    parity = GapStatistic(one_outcome, metrics.parity, True)
    return [
        Family(table.sum(1)[:, None, :], parity, "demographic_parity_difference"),
        Family(table[:, 1:], GapStatistic(one_outcome, opportunity, True), "equal_opportunity_difference"),
        Family(table, worst, "equalized_odds_difference_worst", "max"),
        Family(table, summed, "equalized_odds_difference_sum", "sum"),
    ]


def _together(counts: Counts) -> list[Family]:
    """Strata are true classes, outcomes are predicted classes."""
    table = counts.table
    weight = table.sum(-1)  # (G, C) label counts; fixed in every draw
    rest = weight.sum(-1, keepdims=True) - weight

    def selected(f: np.ndarray) -> tuple[np.ndarray]:
        return (f[..., 0, :],)

    def recalls(f: np.ndarray) -> tuple[np.ndarray]:
        return (np.einsum("...gkk->...gk", f),)

    def by_label(f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        hits = np.nan_to_num(f) * weight[..., None]
        wrong = hits.sum(-2) - np.einsum("...gkk->...gk", hits)  # (..., G, C) wrongly predicted as each class
        return *recalls(f), metrics.divide(wrong, rest)

    return _three(
        [table.sum(1)[:, None, :], table, table],
        GapStatistic(selected, metrics.parity, False),
        GapStatistic(recalls, opportunity, False),
        GapStatistic(by_label, metrics.odds, False),
    )


def _one_vs_rest(counts: Counts) -> list[Family]:
    """Strata are classes (for odds: rows of each class, then rows of the others), outcomes no and yes."""
    table, c = counts.one_vs_rest, len(counts.classes)  # (G, C, 2, 2)

    def yes(f: np.ndarray) -> tuple[np.ndarray]:
        return (f[..., -1],)

    def by_label(f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return f[..., :c, -1], f[..., c:, -1]

    return _three(
        [table.sum(2), table[:, :, 1], np.concatenate([table[:, :, 1], table[:, :, 0]], axis=1)],
        GapStatistic(yes, metrics.parity, False),
        GapStatistic(yes, opportunity, False),
        GapStatistic(by_label, metrics.odds, False),
    )


def _three(tables: list[np.ndarray], *statistics: GapStatistic) -> list[Family]:
    scales = ["demographic_parity_difference", "equal_opportunity_difference"]
    scales += ["equalized_odds_difference_worst"]
    parts = zip(tables, statistics, scales, strict=True)
    return [Family(table, statistic, f"{scale}_class_max") for table, statistic, scale in parts]


def joints(joint: np.ndarray) -> list[np.ndarray]:
    """The joint counts (G, S, C, C) of two models for each of `families`, from (G, C, C, C); few classes."""
    c = joint.shape[1]
    both = np.einsum("gyyy->g", joint)
    a, b = np.einsum("gyyj->g", joint), np.einsum("gyiy->g", joint)
    right = np.stack([joint.sum((1, 2, 3)) - a - b + both, b - both, a - both, both], -1)
    odds = [joint, joint] if c == 2 else [joint]
    return [joint.sum(1)[:, None], joint[:, 1:] if c == 2 else joint, *odds, right.reshape(-1, 1, 2, 2)]


def joints_by_class(by_class: np.ndarray) -> list[np.ndarray]:
    """The same for many classes, from (G, C, 2, 2, 2): label is the class, and so say a, and b."""
    hits = by_class[:, :, 1].sum(1)  # (G, 2, 2): right by neither, b, a, both
    odds = np.concatenate([by_class[:, :, 1], by_class[:, :, 0]], axis=1)
    return [by_class.sum(2), by_class[:, :, 1], odds, hits[:, None]]
