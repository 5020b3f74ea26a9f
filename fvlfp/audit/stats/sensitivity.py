"""What if some of the perceived-group labels are wrong?

Wrong group labels mix the groups and so hide differences: the true gap is larger than the one seen.
`corrected` undoes the mixing for an assumed share of wrong labels, under the assumption that errors
have nothing to do with label or prediction and fall on groups in proportion to their size. Errors
that do depend on them can move a gap either way; that this module cannot know.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from fvlfp import metrics
from fvlfp.audit.schema import LabelNoise
from fvlfp.audit.stats.counts import Counts
from fvlfp.audit.stats.families import FEW, families

WRONG = (0.01, 0.02, 0.05, 0.10, 0.20)


def corrected(table: np.ndarray, wrong: float) -> tuple[np.ndarray, bool]:
    """Expected counts had no group label been wrong, and whether the assumption fits the data.

    A wrong label is one drawn anew from the observed shares s_g, so a share x of redrawn labels is
    x (1 - sum s_g^2) = `wrong`; then observed_g = (1 - x) true_g + x s_g total, cell by cell. Where
    this asks for fewer than -1 examples the data contradict so many errors.

    Args:
        table: counts (G, C, C). wrong: share of wrong labels in [0, 1).
    """
    n = table.sum((-1, -2))
    share = n / n.sum()
    mixed = 1 - (share**2).sum()
    x = wrong / mixed if mixed > 0 else 1.0
    if x >= 1:
        return np.full(table.shape, np.nan), False
    true = (table - x * share[:, None, None] * table.sum(0)) / (1 - x)
    return np.maximum(true, 0), bool(true.min() >= -1)


def label_noise(counts: Counts) -> LabelNoise | None:
    """Gaps after correction for each share in ``WRONG``; None when there is only one group."""
    if len(counts.groups) < 2:
        return None
    names = [n for f in families(counts) for n in f.observed() if "[" not in n and not metrics.is_ratio(n)]
    gaps: dict[str, list[float | None]] = {name: [] for name in names}
    possible = []
    for wrong in WRONG:
        table, fits = corrected(counts.shared, wrong)
        possible.append(fits)
        values = _gaps(replace(counts, table=table)) if fits else {}
        for name in names:
            value = float(values.get(name, np.nan))
            gaps[name].append(value if np.isfinite(value) else None)
    return {"wrong": list(WRONG), "gaps": gaps, "possible": possible}


def _gaps(counts: Counts) -> dict[str, np.ndarray]:
    if len(counts.classes) <= FEW:
        by_class = [metrics.gaps(counts.table, k) for k in counts.judged]
    else:  # each class without another pass over all of them
        by_class = [metrics.gaps(counts.binary(k)) for k in counts.judged]
    if len(by_class) == 1:
        return by_class[0]
    return {
        **metrics.over_classes(by_class),
        "accuracy_gap": metrics.spread(metrics.divide(counts.hits.sum(-1), counts.n)),
    }
