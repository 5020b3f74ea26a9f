"""Arrays, Series, dicts and frames as fairlearn and scikit-learn take them, turned into one table.

What this module does not do: check values (see ``stats.columns``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Required, TypedDict

import numpy as np
import pandas as pd
from pandas.api.extensions import ExtensionArray

from fvlfp.errors import InputError


class ColumnNames(TypedDict, total=False):
    """Arguments of ``AuditOptions`` that name columns."""

    groups: Required[Sequence[str]]
    label: str | None
    prediction: str | None
    score: str | None
    weight: str | None


#: One column without its index.
Column = np.ndarray | ExtensionArray

NAMES = {"label": "y_true", "prediction": "y_pred", "score": "y_score", "weight": "sample_weight"}


def table_of_arrays(
    *, y_true: Any, y_pred: Any, y_score: Any, sample_weight: Any, sensitive_features: Any
) -> tuple[pd.DataFrame, ColumnNames]:
    """One table from columns of n entries each, and the names of its columns as arguments of ``audit``.

    Args:
        y_true, y_pred, y_score, sample_weight: (n,) arrays, lists or Series, or None.
        sensitive_features: (n,) array, list or Series; (n, k) array; dict or frame of such columns. Columns
            without a name are called ``sensitive_feature_0`` and so on, as in fairlearn.

    Raises:
        InputError: no features, columns of different lengths, or more than one dimension.
    """
    given = {"label": y_true, "prediction": y_pred, "score": y_score, "weight": sample_weight}
    features = _features(sensitive_features)
    columns = {
        NAMES[what]: _column(NAMES[what], values) for what, values in given.items() if values is not None
    }
    taken = sorted(set(columns) & set(features))
    if taken:
        raise InputError(f"a sensitive feature is called {taken[0]!r}: give it another name")
    columns |= features
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError("different numbers of rows: " + ", ".join(f"{k} {n}" for k, n in lengths.items()))
    names = {what: NAMES[what] if values is not None else None for what, values in given.items()}
    return pd.DataFrame(columns), ColumnNames(
        label=names["label"],
        prediction=names["prediction"],
        score=names["score"],
        weight=names["weight"],
        groups=list(features),
    )


def _features(given: Any) -> dict[str, Column]:
    if given is None:
        raise InputError("name the groups: sensitive_features is missing")
    if isinstance(given, pd.DataFrame):
        given = {name: given[name] for name in given.columns}
    if isinstance(given, Mapping):
        return {str(name): _column(str(name), values) for name, values in given.items()}
    if isinstance(given, pd.Series) and given.name is not None:
        return {str(given.name): _column(str(given.name), given)}
    values = np.asarray(given, dtype=object) if isinstance(given, list | tuple) else np.asarray(given)
    if values.ndim == 2:
        return {f"sensitive_feature_{i}": values[:, i] for i in range(values.shape[1])}
    return {"sensitive_feature_0": _column("sensitive_features", given)}


def _column(name: str, values: Any) -> Column:
    """One column without its index: rows go together by their order, as in scikit-learn."""
    if isinstance(values, pd.Series):
        return values.array
    try:
        array = np.asarray(values)
    except ValueError:
        raise InputError(f"{name}: entries of unlike shapes: one entry per row is needed") from None
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}: one entry per row is needed")
    return pd.Series(list(values) if isinstance(values, list | tuple) else array).array
