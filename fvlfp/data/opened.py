"""A table that is open for reading, whatever it is stored as; and its columns, read in one pass.

Columns of text become categories while they are read: four bytes a row and column stay, and every different
cell is kept once. What this module does not do: it knows no file format (`delimited`, `arrow` do) and judges
no value (`fvlfp.values` does).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from fvlfp.errors import InputError, did_you_mean, first_line
from fvlfp.values import doubles


@dataclass(frozen=True)
class Opened:
    """names: of all columns. first_row: what messages call the first row. how: the format, in words.

    batches: column names -> record batches of these columns. meanings: column -> what its whole numbers 0, 1,
    ... mean, -1 being missing. decimal: the decimal point of numbers written as text. blank_tail: counts
    blank lines at the end, which are no rows.
    """

    path: Path
    names: tuple[str, ...]
    first_row: int
    how: str
    batches: Callable[[Sequence[str]], Iterator[pa.RecordBatch]]
    meanings: dict[str, list[str]]
    decimal: str = "."
    blank_tail: Callable[[], int] = lambda: 0


def require(name: str, names: Sequence[str]) -> None:
    """Raise InputError, naming the nearest column, when there is no column `name`."""
    if name not in names:
        hint = did_you_mean(name, names)
        shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise InputError(f"the column {name!r} is not in the table{hint} (columns: {shown})")


def read_columns(
    table: Opened, texts: Sequence[str], numbers: Sequence[str] = ()
) -> tuple[dict[str, pd.Categorical], dict[str, np.ndarray]]:
    """The columns `texts` as categories of text and the columns `numbers` as float64, each of n rows.

    A null is missing (code -1, nan); an empty text cell stays "" in `texts` and is nan in `numbers`.

    Raises:
        InputError: a column is not there, or a text stands where a number should (row named).
    """
    for name in (*texts, *numbers):
        require(name, table.names)
    wanted = list(dict.fromkeys([*texts, *numbers]))
    known: dict[str, dict[str | None, int]] = {name: {None: -1} for name in texts}
    codes: dict[str, list[np.ndarray]] = {name: [] for name in texts}
    floats: dict[str, list[np.ndarray]] = {name: [] for name in numbers}
    signs: dict[str, dict[str, int]] = {name: {} for name in numbers}
    grouped = dict.fromkeys(numbers, True)
    row = table.first_row
    for batch in table.batches(wanted):
        for name in texts:
            try:
                codes[name].append(_codes(batch[name], known[name], table.meanings.get(name)))
            except (pa.ArrowException, ValueError, OverflowError) as error:  # bytes, dates out of range
                why = first_line(error)
                raise InputError(f"{table.path}: column {name!r} cannot be read as text: {why}") from None
        for name in numbers:
            if table.decimal != ".":
                _refuse_two_signs(batch[name], name, row, table.decimal, signs[name])
                grouped[name] = grouped[name] and _are_grouped(batch[name])
            floats[name].append(_floats(batch[name], name, row, table.decimal))
        row += len(batch)
    for name in numbers:
        if grouped[name] and "." in signs[name]:
            raise InputError(
                f"column {name!r}, row {signs[name]['.']}: in a file with semicolons '.' may stand between "
                "thousands, and nothing in this column rules it out: write whole numbers without it, "
                f"or {table.decimal!r} as the decimal sign"
            )
    text = {
        name: pd.Categorical.from_codes(
            np.concatenate([np.empty(0, np.int32), *codes[name]]),
            pd.Index([value for value in known[name] if value is not None], dtype=object),
        )
        for name in texts
    }
    value = {name: np.concatenate([np.empty(0), *floats[name]]) for name in numbers}
    _refuse_second_header(table, text)
    return _without_tail(table, text, value)


def _refuse_two_signs(column: pa.Array, name: str, first: int, decimal: str, rows: dict[str, int]) -> None:
    """Beside 0,5 nobody can tell whether 1.000 is one or a thousand. rows: sign -> its first row so far."""
    texts = column.cast(pa.string())
    for sign in (".", decimal):
        at = pc.index(pc.match_substring(texts, sign), True).as_py()
        if at >= 0:
            rows.setdefault(sign, first + at)
    if len(rows) == 2:
        raise InputError(
            f"column {name!r} has numbers with {decimal!r} (row {rows[decimal]}) and with '.' "
            f"(row {rows['.']}): write all of them with one decimal sign, and none between thousands"
        )


def _are_grouped(column: pa.Array) -> bool:
    """Whether all are whole numbers, with '.' between thousands if it is there: 987 and 4.342."""
    fits = pc.match_substring_regex(column.cast(pa.string()), r"^(0|-?[1-9]\d{0,2}(\.\d{3})*)?$")
    return bool(pc.all(fits).as_py() is not False)


def _refuse_second_header(table: Opened, texts: dict[str, pd.Categorical]) -> None:
    """Two files put below each other leave the header of the second one as a row."""
    if len(texts) < 2 or not all(name in column.categories for name, column in texts.items()):
        return
    same = [column.codes == column.categories.get_loc(name) for name, column in texts.items()]
    rows = np.flatnonzero(np.logical_and.reduce(same))
    if len(rows):
        row = int(rows[0]) + table.first_row
        raise InputError(f"{table.path}: row {row} repeats the names of the columns: delete it")


def _without_tail(
    table: Opened, texts: dict[str, pd.Categorical], numbers: dict[str, np.ndarray]
) -> tuple[dict[str, pd.Categorical], dict[str, np.ndarray]]:
    """The columns without the blank lines that follow the last row."""
    columns: list[Any] = [*texts.values(), *numbers.values()]
    n = len(columns[0]) if columns else 0
    empty = n and all(t[-1] == "" for t in texts.values()) and all(np.isnan(v[-1]) for v in numbers.values())
    keep = n - (table.blank_tail() if empty else 0)
    return {k: v[:keep] for k, v in texts.items()}, {k: v[:keep] for k, v in numbers.items()}


def _codes(column: pa.Array, known: dict[str | None, int], meanings: list[str] | None) -> np.ndarray:
    """(n,) int32: the place of each cell in `known`, which grows by what is new."""
    if not pa.types.is_dictionary(column.type):
        column = _plain_type(column).dictionary_encode()
    text = [_meaning(t, meanings) for t in _texts(column.dictionary)]
    lookup = [known[t] if t in known else known.setdefault(t, len(known) - 1) for t in text]
    places = column.indices.fill_null(len(lookup)).to_numpy(zero_copy_only=False)
    return np.array([*lookup, -1], np.int32)[places]


def _meaning(text: str | None, meanings: list[str] | None) -> str | None:
    if meanings is None or text is None or not text.removeprefix("-").isdecimal():
        return text
    number = int(text)
    return None if number < 0 else meanings[number] if number < len(meanings) else text


def _plain_type(column: pa.Array) -> pa.Array:
    """A column of a kind that pyarrow can put into a dictionary."""
    if pa.types.is_float16(column.type):
        return column.cast(pa.float32())
    return column.cast(pa.string()) if pa.types.is_null(column.type) else column


def _texts(values: pa.Array) -> list[str | None]:
    """Different cells as text. A float that is whole was an integer in a column with gaps: 1.0 is "1"."""
    kind = values.type
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        values = values.cast(pa.large_string())
    if pa.types.is_floating(kind):
        found = values.to_numpy(zero_copy_only=False)
        return [None if np.isnan(v) else str(int(v)) if float(v).is_integer() else str(v) for v in found]
    return [None if value is None else str(value) for value in values.to_pylist()]


def _floats(column: pa.Array, name: str, first: int, decimal: str) -> np.ndarray:
    """(n,) float64, nan where missing; `first` is the row number of the batch's first cell."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    try:  # all cells of a batch at once, as nearly always
        if pa.types.is_string(column.type):
            column = pc.if_else(pc.equal(column, ""), None, column)
        if pa.types.is_float32(column.type) or pa.types.is_float16(column.type):  # 0.7 is 0.7, not 0.69999999
            return doubles(column.to_numpy(zero_copy_only=False))
        return column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        pass
    cells = column.to_pandas()
    if not pd.api.types.is_numeric_dtype(cells):
        cells = cells.where(~cells.isin(["", "nan", "NaN"]))
    numbers = pd.to_numeric(cells, errors="coerce").to_numpy(float, na_value=np.nan).copy()
    bad = np.flatnonzero(np.isnan(numbers) & cells.notna().to_numpy())
    if len(bad) and decimal != ".":
        again = cells.iloc[bad].str.replace(decimal, ".", regex=False)
        numbers[bad] = pd.to_numeric(again, errors="coerce").to_numpy(float, na_value=np.nan)
        bad = bad[np.isnan(numbers[bad])]
    if len(bad):
        i = int(bad[0])
        raise InputError(f"column {name!r}, row {first + i}: {str(cells.iloc[i])!r} is no number")
    return numbers
