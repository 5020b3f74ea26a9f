"""Read a table of predictions from CSV or Parquet: only the columns that are needed.

Columns become categories while they are read: four bytes a row and column stay. A CSV of a gigabyte
(34 million short rows, four columns read) was audited with 1.3 GB at the peak.
What it does not do: look at the values (see ``counts``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fvlfp.audit.stats.counts import FIRST_ROW, require_column
from fvlfp.errors import InputError

CHUNK = 500_000  # rows of a CSV parsed at once


def read_predictions(
    path: str | Path, columns: Iterable[str], *, numbers: Iterable[str] = ()
) -> pd.DataFrame:
    """Read the named columns of a CSV or Parquet file.

    Args:
        path: the file; ``.parquet`` or ``.pq`` is Parquet, anything else CSV with a header.
        columns: columns to read as categories of text (labels, predictions, groups).
        numbers: columns to read as float64 (scores).

    Raises:
        InputError: no such file, not readable as a table, a column missing (nearest name given),
            or a text where a number should stand (with its row number).
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such file: {path}")
    texts = list(dict.fromkeys(columns))
    floats = [c for c in dict.fromkeys(numbers) if c not in texts]
    try:
        if path.suffix.lower() in {".parquet", ".pq"}:
            return _parquet(path, texts, floats)
        return _csv(path, texts, floats)
    except (UnicodeDecodeError, pd.errors.ParserError) as error:
        raise InputError(f"{path} cannot be read as a table: {error}".strip()) from None


def sha256(path: str | Path) -> str:
    """Hash of a file, for the provenance of an audit."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _csv(path: Path, texts: list[str], floats: list[str]) -> pd.DataFrame:
    try:
        header = pd.read_csv(path, nrows=0, encoding="utf-8-sig")
    except pd.errors.EmptyDataError:
        raise InputError(f"{path} is empty") from None
    for name in texts + floats:
        require_column(header, name, "the")
    # Only an empty field is missing: a group may well be called "NA" or "None".
    options: dict[str, Any] = {
        "usecols": texts + floats,
        "dtype": dict.fromkeys(texts + floats, "str"),
        "keep_default_na": False,
        "na_values": [""],
        "encoding": "utf-8-sig",
        "chunksize": CHUNK,
    }
    names: dict[str, dict[str, int]] = {c: {} for c in texts}
    codes: dict[str, list[np.ndarray]] = {c: [] for c in texts}
    values: dict[str, list[np.ndarray]] = {c: [] for c in floats}
    start = 0
    with pd.read_csv(path, **options) as reader:
        for chunk in reader:
            for c in texts:
                local, uniques = pd.factorize(chunk[c])
                known = names[c]
                lookup = [known.setdefault(str(u), len(known)) for u in uniques]
                codes[c].append(np.array([*lookup, -1], np.int32)[local])
            for c in floats:
                values[c].append(_floats(chunk[c], c, start))
            start += len(chunk)
    if not start:
        return pd.DataFrame({c: pd.Series([], dtype="str") for c in texts + floats})
    out: dict[str, Any] = {
        c: pd.Categorical.from_codes(np.concatenate(codes[c]), pd.Index(list(names[c]), dtype="str"))
        for c in texts
    }
    return pd.DataFrame(out | {c: np.concatenate(values[c]) for c in floats})


def _parquet(path: Path, texts: list[str], floats: list[str]) -> pd.DataFrame:
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        schema = parquet.read_schema(path)
    except pyarrow.ArrowInvalid as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from None
    header = pd.DataFrame(columns=schema.names)
    for name in texts + floats:
        require_column(header, name, "the")
    frame = pd.read_parquet(path, columns=texts + floats)
    out: dict[str, Any] = {c: frame[c].astype("category") for c in texts}
    return pd.DataFrame(out | {c: _floats(frame[c], c, 0) for c in floats})


def _floats(column: pd.Series, name: str, start: int) -> np.ndarray:
    numbers = pd.to_numeric(column, errors="coerce").to_numpy(float)
    bad = np.flatnonzero(np.isnan(numbers) & column.notna().to_numpy())
    if len(bad):
        text = str(column.iloc[int(bad[0])])
        raise InputError(f"column {name!r}, row {start + int(bad[0]) + FIRST_ROW}: {text!r} is no number")
    return numbers
