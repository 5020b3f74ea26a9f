"""Is this audit about what its reader thinks? Remarks that belong on the first page of the report.

Each function gives one sentence or nothing. What this module does not do: refuse input (see ``columns``), or
change a number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fvlfp.audit.stats.bins import bin_words
from fvlfp.audit.stats.columns import everyone
from fvlfp.audit.stats.intervals import z_score
from fvlfp.audit.stats.rates import SMALL
from fvlfp.audit.stats.scores import auc
from fvlfp.values import Coded


def constant_columns(classes: Sequence[str], label: np.ndarray | None, prediction: np.ndarray) -> list[str]:
    """Remarks on labels or predictions (n,) that hold one class only."""
    out = []
    if len(np.unique(prediction)) == 1:
        out.append(
            f"Every prediction is {classes[prediction[0]]!r}. A constant prediction has no parity, "
            "opportunity or odds gap, whatever it costs whom."
        )
    if label is not None and len(np.unique(label)) == 1:
        out.append(
            f"Every label is {classes[label[0]]!r}. Error rates of the other classes, and gaps that need "
            "them, are undefined."
        )
    return out


def weight_remark(weight: str | None) -> list[str]:
    """What weighted numbers mean; `weight` is the column of weights, if there is one."""
    if weight is None:
        return []
    return [
        f"Rates are weighted by {weight!r}; intervals and tests use each group's effective sample size "
        "(Kish), and counts are of that size."
    ]


def heavy_rows(groups: Mapping[str, Coded], weight: np.ndarray | None, first_row: int) -> list[str]:
    """Remarks where one row has most of the weight: of all rows, and of groups of ``SMALL`` rows or more.

    Args:
        groups: attribute -> its groups and codes (n,). weight: (n,), 0 or more.
    """
    if weight is None:
        return []
    attributes = {"": everyone(len(weight)), **groups}.items()
    return [s for name, coded in attributes for s in _heavy_rows(name, coded, weight, first_row)]


def _heavy_rows(attribute: str, coded: Coded, weight: np.ndarray, first_row: int) -> list[str]:
    names, codes = coded.names, coded.codes
    known = np.flatnonzero(codes >= 0)
    rows, total = (np.bincount(codes[known], w, len(names)) for w in (None, weight[known]))
    out = []
    for i in known[(weight[known] > total[codes[known]] / 2) & (rows[codes[known]] >= SMALL)].tolist():
        where = f"{attribute}: of the group {names[codes[i]]!r}, " if attribute else "Of all rows, "
        percent = np.floor(1000 * weight[i] / total[codes[i]]) / 10  # 100 is said of nothing less
        out.append(
            f"{where}row {i + first_row} alone has {percent:g} % of the weight: "
            "the weighted numbers are about little else. Is its weight right?"
        )
    return out


def lone_labels(classes: Sequence[str], label: np.ndarray, first_row: int) -> list[str]:
    """A remark on classes beyond the second that one row alone has as its label, (n,): a row of totals?"""
    counts = np.bincount(label, minlength=len(classes))
    lone = np.flatnonzero(counts == 1).tolist()
    if len(classes) < 3 or len(lone) > 3:
        return []
    rows = [int((label == k).argmax()) + first_row for k in lone]
    return [
        f"Only row {row} has the label {classes[k]!r}: is it a misspelling, or a row of totals?"
        for k, row in zip(lone, rows, strict=True)
    ]


def too_fine(sizes: np.ndarray) -> bool:
    """Whether most examples are in groups of fewer than ``SMALL``; sizes (G,)."""
    return len(sizes) > 2 and 2 * sizes[sizes < SMALL].sum() > sizes.sum()


def fine_groups(attribute: str, names: Sequence[str], sizes: np.ndarray) -> list[str]:
    """A remark on an attribute whose groups are too fine to judge, with a way to merge numbers."""
    if not too_fine(sizes):
        return []
    numbers = _numbers(names)
    if numbers is None:
        remedy = "merge groups before the audit."
    else:
        cuts = np.unique(np.quantile(np.repeat(numbers, sizes), [0.25, 0.5, 0.75]).round(_digits(numbers)))
        remedy = f"merge them, e.g. --bin {bin_words({attribute: cuts.tolist()})[0]}"
    return [
        f"{attribute}: most examples are in groups of fewer than {SMALL} ({len(names):,} groups in all). "
        f"That is too fine to judge; {remedy}"
    ]


def _numbers(names: Sequence[str]) -> np.ndarray | None:
    try:
        numbers = np.array([float(name) for name in names])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _digits(numbers: np.ndarray) -> int:
    """Decimals that leave about two digits of the range."""
    span = float(np.ptp(numbers))
    return 1 - int(np.floor(np.log10(span))) if span > 0 else 0


def score_remarks(
    score: np.ndarray, label: np.ndarray, prediction: np.ndarray, positive: str, level: float
) -> list[str]:
    """Remarks on scores (n,) beside labels and predictions (n,) of 0 and 1.

    Scores of the other class show in an AUC under 0.5 against the predictions that go with them.
    """
    out = []
    low, high = float(score.min()), float(score.max())
    if low == high:
        out.append(f"Every score is {low:g}: they rank nothing.")
    elif low < 0 or high > 1:
        out.append(
            f"Scores run from {low:.3g} to {high:.3g}, outside [0, 1]: they are ranked, but Brier score and "
            "calibration are not judged."
        )
    against = [_surely_under_half(score, truth, level) for truth in (prediction, label)]
    if against[0] is not None:
        out.append(
            f"Higher scores go with predictions of the other class (ROC-AUC of the scores against the "
            f"predictions: {against[0]:.3f}). Are they scores of a class other than {positive!r}?"
        )
    elif against[1] is not None:
        out.append(
            f"The scores rank {positive!r} below the other class (ROC-AUC {against[1]:.3f}). Are they scores "
            "of the other class, or is the positive class another one?"
        )
    return out


def _surely_under_half(score: np.ndarray, truth: np.ndarray, level: float) -> float | None:
    value, error = auc(score, truth)
    return value if np.isfinite(error) and value + z_score(level) * error < 0.5 else None
