"""Contingency counts of one perceived-group attribute, the only thing the rest of the audit looks at.

Every metric, interval and test of this package is a function of the counts
``table[group, label, prediction]``, so a million rows are read once and never again.
What it does not do: read a table (see ``columns``), judge anything (see ``fvlfp.metrics``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fvlfp import metrics


@dataclass(frozen=True)
class Counts:
    """Contingency counts of one perceived-group attribute.

    ``table`` has shape (G, C, C) and dtype int64: group, label, prediction. ``missing`` counts the
    rows whose group is not given; they are in no cell of ``table``. Without truth every row has label 0 and
    only selection rates mean something. Weighted rows make ``table`` float64, scaled so that each group's sum
    is its effective sample size (Kish 1965); ``rows`` (G,) are then the examples themselves, and
    ``total`` (G,) the sums of their weights.
    """

    attribute: str
    groups: tuple[str, ...]
    classes: tuple[str, ...]
    table: np.ndarray
    missing: int = 0
    truth: bool = True
    rows: np.ndarray | None = None
    total: np.ndarray | None = None

    @property
    def n(self) -> np.ndarray:
        """Examples of each group, (G,)."""
        return self.table.sum((-1, -2))

    @property
    def sizes(self) -> np.ndarray:
        """Rows of each group, weighted or not, (G,)."""
        return self.n if self.rows is None else self.rows

    @property
    def hits(self) -> np.ndarray:
        """Right predictions by group and class, (G, C)."""
        return np.einsum("gcc->gc", self.table)

    @property
    def shared(self) -> np.ndarray:
        """The table with groups in proportion to their weights, for what adds groups up; the same sum."""
        if self.total is None:
            return self.table
        n, total = self.n, self.total
        scale = metrics.divide(total, n) * metrics.divide(n.sum(), total.sum())
        return np.asarray(self.table * np.nan_to_num(scale)[:, None, None])

    @cached_property
    def one_vs_rest(self) -> np.ndarray:
        """Each class against the rest as binary tables, (G, C, 2, 2)."""
        return metrics.one_vs_rest(self.table)

    def binary(self, k: int) -> np.ndarray:
        """Class k against the rest, (G, 2, 2)."""
        return self.table if len(self.classes) == 2 and k == 1 else self.one_vs_rest[:, k]

    @property
    def judged(self) -> tuple[int, ...]:
        """Classes that rates are about: the positive one of two, or each one of many."""
        return (1,) if len(self.classes) == 2 else tuple(range(len(self.classes)))


def effective(weight: np.ndarray, codes: np.ndarray, groups: int) -> np.ndarray:
    """Weights (n,) scaled so that those of a group sum to its effective sample size (Kish); codes (n,)."""
    total, squares = (np.bincount(codes, weights=w, minlength=groups) for w in (weight, weight**2))
    return weight * np.nan_to_num(metrics.divide(total, squares))[codes]
