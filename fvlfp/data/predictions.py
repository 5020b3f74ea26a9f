"""Read a table of predictions: only the columns that are needed, by the rules of `fvlfp.values`.

A CSV of 0.97 GB (33.7 million rows of five cells, three of them read) was audited in 37 s of one
core, with 1.29 GB at the peak.
What this module does not do: it counts nothing (`audit` does).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from fvlfp.data.cells import ALIKE, read_values, rows_of, spelt_alike
from fvlfp.data.opened import read_columns
from fvlfp.data.source import open_table
from fvlfp.errors import InputError
from fvlfp.files import as_utf8, file_sha256


def read_predictions(
    path: str | Path,
    columns: Iterable[str],
    *,
    numbers: Iterable[str] = (),
    alike: tuple[str, ...] = (),
    keys: Iterable[str] = (),
) -> pd.DataFrame:
    """Read the named columns of any table that `open_table` opens.

    Args:
        columns: columns to read as categories of text (labels, predictions, groups).
        numbers: columns to read as float64 (scores).
        alike: columns of `columns` that hold the same values, as labels and predictions do.
        keys: columns of `columns` that name rows: "aB" and "Ab" may be two rows, and are no mistake.

    Returns:
        (n, columns) frame. Its `attrs` hold `first_row`, what messages call the first row, and `facts`: the
        file, its sha256, how it was read, rows, and what was merged or read as missing, for reports.

    Raises:
        InputError: no such file, not readable as a table, a row that does not fit the header, a column
            missing (nearest name given), a spelling mistake, or a text where a number should stand (row
            named).
    """
    path = Path(path)
    table, exact = open_table(path), set(keys)
    texts = list(dict.fromkeys(columns))
    floats = [c for c in dict.fromkeys(numbers) if c not in texts]
    categories, values = read_columns(table, texts, floats)
    out = {}
    notes = []
    for name in texts:
        read = read_values(pd.Series(categories.pop(name)))
        if read.mistakes and name not in exact:
            position, text = read.mistakes[0]
            raise InputError(f"{path}: column {name!r}, row {position + table.first_row}: {text}")
        notes += [f"{name}: {note}" for note in read.notes]
        out[name] = pd.Categorical.from_codes(read.codes, pd.Index(read.names, dtype="str"))
    spellings = {value: name for name in alike for value in out[name].categories}
    for value, other in spelt_alike(spellings):
        raise InputError(
            f"{path}: {value!r} in column {spellings[value]!r} differs from {other!r} in column "
            f"{spellings[other]!r} by {ALIKE} only: spell them alike"
        )
    frame = pd.DataFrame({**out, **values})
    frame.attrs["first_row"] = table.first_row
    frame.attrs["facts"] = {
        "file": as_utf8(path.name),
        **({} if path.is_dir() else {"sha256": file_sha256(path)}),
        "read": f"{rows_of(len(frame))} ({table.how})",
        **({"merged": notes} if notes else {}),
    }
    return frame
