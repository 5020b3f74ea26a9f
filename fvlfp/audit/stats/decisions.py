"""Scores and a threshold as predictions: positive from the threshold on.

What this module does not do: choose the threshold. One chosen on the audited rows flatters the audit.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fvlfp.audit.audit_options import AuditOptions
from fvlfp.audit.stats.counts import require_column
from fvlfp.audit.stats.scores import read_scores
from fvlfp.errors import InputError
from fvlfp.values import code, value_name


def with_decisions(frame: pd.DataFrame, options: AuditOptions) -> tuple[pd.DataFrame, str]:
    """The table and its column of predictions, made from the scores where a threshold is given.

    Raises:
        InputError: more than two true classes and no positive one.
    """
    if options.prediction is not None:
        return frame, options.prediction
    assert options.score is not None and options.threshold is not None
    require_column(frame, options.score, "score")
    yes, no = _classes(frame, options)
    scores = read_scores(frame, options.score, yes)
    name = f"{options.score} >= {options.threshold:g}"
    return frame.assign(**{name: np.where(scores >= options.threshold, yes, no)}), name


def _classes(frame: pd.DataFrame, options: AuditOptions) -> tuple[str, str]:
    """What a score from the threshold on means, and what a lower one means."""
    positive = None if options.positive is None else value_name(options.positive)
    if options.label is None:
        yes = positive or "selected"
        return yes, f"not {yes}"
    require_column(frame, options.label, "label")
    names = code(frame[options.label]).names
    if positive is None and len(names) != 2:
        raise InputError(
            f"a threshold needs the class that high scores mean: name the positive class "
            f"({len(names)} classes in {options.label!r})"
        )
    yes = positive or names[1]
    return yes, next((name for name in names if name != yes), f"not {yes}")
