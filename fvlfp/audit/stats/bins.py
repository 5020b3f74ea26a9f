"""Numbers as perceived groups: cut a column such as an age into a few bands.

What this module does not do: choose the cuts. They decide what the audit can find, so they are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd

from fvlfp.errors import InputError
from fvlfp.values import first_row, value_name


def parse_bins(words: Sequence[str]) -> dict[str, list[float]]:
    """``["age:0,20,40"]`` as ``{"age": [0, 20, 40]}``.

    Raises:
        InputError: no colon, no number, or a column named twice.
    """
    bins: dict[str, list[float]] = {}
    for word in words:
        name, colon, cuts = word.rpartition(":")
        try:
            found = [float(cut) for cut in cuts.split(",")]
        except ValueError:
            found = []
        if not colon or not name or not found:
            raise InputError(f"--bin {word!r}: write COLUMN:CUT,CUT,..., for instance age:20,40,60")
        if name in bins:
            raise InputError(f"--bin names {name!r} twice")
        bins[name] = found
    return bins


def bin_words(bins: Mapping[str, Sequence[float]]) -> list[str]:
    """What ``parse_bins`` reads as `bins`."""
    return [f"{name}:{','.join(map(_written, cuts))}" for name, cuts in bins.items()]


def _written(cut: float) -> str:
    """All digits of a cut: 19700101 and 19700102 are two."""
    return str(value_name(float(cut)))


def bin_groups(
    frame: pd.DataFrame, bins: Mapping[str, Sequence[float]], groups: Sequence[str]
) -> pd.DataFrame:
    """The table with each column in `bins` cut into bands "under A", "A to under B", "B or more".

    Args:
        bins: group column -> rising cuts; a cut belongs to the band above it.

    Raises:
        InputError: a column that is not one of `groups`, cuts that do not rise, or an entry that is not a
            number (row named). Missing entries stay missing.
    """
    out = frame.copy(deep=False)
    for name, cuts in bins.items():
        if name not in groups:
            raise InputError(f"bins for {name!r}, which is not a group column ({', '.join(groups)})")
        out[name] = _bands(frame[name], np.asarray(cuts, float), name, first_row(frame))
    return out


def _bands(column: pd.Series, cuts: np.ndarray, name: str, first: int) -> pd.Categorical:
    if not len(cuts) or not np.isfinite(cuts).all() or (np.diff(cuts) <= 0).any():
        raise InputError(f"bins for {name!r}: cuts must be numbers that rise, not {cuts.tolist()}")
    texts = column.astype(object).where(column.notna())
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(float)
    blank = column.isna().to_numpy() | (texts.astype("str").str.strip() == "").to_numpy()
    bad = np.flatnonzero(~np.isfinite(numbers) & ~blank)
    if len(bad):
        row = int(bad[0])
        raise InputError(f"group {name!r} in row {row + first} is {column.iloc[row]!r}: bins need numbers")
    shown = [_written(cut) for cut in cuts]
    names = [f"under {shown[0]}", *(f"{a} to under {b}" for a, b in pairwise(shown))]
    codes = np.where(blank, -1, np.searchsorted(cuts, np.where(blank, 0, numbers), side="right"))
    bands = pd.Index([*names, f"{shown[-1]} or more"], dtype="str")
    return pd.Categorical.from_codes(codes, bands, ordered=True)
