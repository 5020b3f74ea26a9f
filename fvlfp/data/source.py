"""What a table of examples is read from: a text table, Parquet, a saved data set, or a folder of pictures.

Cells are read as text exactly as written ("NA" and "None" may be names of groups); empty cells and nan count
as missing. What this module does not do: it judges no value; that is `checks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from fvlfp.data import arrow, folders
from fvlfp.data.delimited import open_delimited
from fvlfp.data.images import Stored
from fvlfp.data.opened import Opened, read_columns
from fvlfp.errors import InputError
from fvlfp.files import is_hidden

_MISSING = {"", "nan", "NaN", "<NA>", "#N/A"}
#: A column that names pictures, in the words of the Hugging Face hub -> ours.
_FILE_NAME = "file_name"


@dataclass(frozen=True)
class Source:
    """A table as text, before any check.

    frame: n rows of text columns, missing is "". rows: what to call each row in a message: the number that
    a spreadsheet shows (2 is the first data row of a CSV), in Parquet and saved data sets counted from 1,
    there with its split if there are several; in a folder of class folders the picture's file. stored: the n
    pictures when the table itself holds them. how: what was read, in words.
    """

    frame: pd.DataFrame
    rows: Sequence[int | str]
    stored: list[Stored] | None = None
    how: str = ""


def open_table(path: Path) -> Opened:
    """Open a file, or a saved data set of one split. Raises InputError when it is none."""
    if path.is_dir():
        parts = arrow.saved_parts(path)
        if parts is None:
            raise InputError(_no_saved(path))
        if len(parts) > 1:
            raise InputError(f"{path} holds several splits: give the folder of one, {path / parts[-1][0]}")
        return arrow.open_arrow(parts[0][1], path)
    if not path.is_file():
        raise InputError(
            f"no table at {path}: no such file; give a CSV or Parquet file, a folder of pictures, or one "
            "that save_to_disk wrote"
        )
    return arrow.open_parquet(path) if arrow.is_parquet(path) else open_delimited(path)


def read_source(path: Path) -> Source:
    """Read any of them. Raises InputError when it is no table."""
    try:
        source = _read_folder(path) if path.is_dir() else _read_file(path)
    except InputError:
        raise
    except (OSError, ValueError, NotImplementedError, KeyError, TypeError) as e:  # pyarrow's errors are such
        raise InputError(f"{path}: cannot be read as a table: {e}") from None
    if source.frame.empty:
        raise InputError(f"{path}: the table has no rows")
    if "split" in source.frame:
        splits = [arrow.SPLITS.get(value, value) for value in source.frame["split"]]
        source = replace(source, frame=source.frame.assign(split=pd.Series(splits, dtype=object)))
    return source


def _read_file(path: Path) -> Source:
    table = open_table(path)
    frame = _frame(table)
    first = table.first_row
    for i in np.flatnonzero((frame == "").to_numpy().all(axis=1))[:1] if first > 1 else ():
        raise InputError(f"{path}: row {i + first} has 0 cells with a value: delete it")
    held = arrow.read_pictures(path) if arrow.is_parquet(path) else None
    return _with_pictures(Source(frame, range(first, first + len(frame)), how=table.how), held)


def _read_folder(path: Path) -> Source:
    if (parts := arrow.saved_parts(path)) is not None:
        return _join([(name, _from_arrow(table, path)) for name, table in parts])
    if (files := folders.metadata_parts(path)) is not None:
        return _join([(split, _below(split, _read_file(file))) for split, file in files])
    seen = [p.name for p in path.iterdir() if not is_hidden(p.name)]
    tables = sorted(name for name in seen if Path(name).suffix.lower() in (".csv", ".tsv", ".parquet"))
    if not tables and (found := folders.class_folders(path)) is not None:
        return Source(found[0], list(found[0]["path"]), how=found[1])
    raise InputError(_no_saved(path) + (f": give {path / tables[0]} itself" if tables else ""))


def _from_arrow(table: pa.Table, path: Path) -> Source:
    opened = arrow.open_arrow(table, path)
    name = arrow.picture_column(table.schema, path)
    frame = _frame(opened)
    if not len(frame.columns):
        frame = pd.DataFrame(index=range(len(table)))
    source = Source(frame, range(1, len(frame) + 1), how=opened.how)
    return _with_pictures(source, arrow.stored_in(table[name]) if name else None)


def _with_pictures(source: Source, held: tuple[list[Stored], list[str]] | None) -> Source:
    frame = source.frame
    if "path" not in frame and _FILE_NAME in frame:
        frame = frame.rename(columns={_FILE_NAME: "path"})
    if held and "path" not in frame:
        frame = frame.copy() if len(frame) else pd.DataFrame(index=range(len(held[1])))
        frame.insert(0, "path", pd.Series(held[1], dtype=object))
    return replace(source, frame=frame, stored=held[0] if held else None)


def _below(split: str, source: Source) -> Source:
    """The same with its pictures' names seen from the folder above."""
    if not split or "path" not in source.frame:
        return source
    names = [f"{split}/{name}" if name else "" for name in source.frame["path"]]
    return replace(source, frame=source.frame.assign(path=pd.Series(names, dtype=object)))


def _join(parts: list[tuple[str, Source]]) -> Source:
    """The rows of all splits below each other, in a column `split`; a lonely part is no split."""
    if len(parts) == 1:
        return parts[0][1]
    first = parts[0][1]
    for name, part in parts:
        same = set(part.frame.columns) == set(first.frame.columns)
        if not same or (part.stored is None) != (first.stored is None):
            raise InputError(f"split {name!r} has other columns than {parts[0][0]!r}")
    return Source(
        pd.concat([part.frame.assign(split=arrow.SPLITS[name]) for name, part in parts], ignore_index=True),
        [f"{row} of {name}" for name, part in parts for row in part.rows],
        None if first.stored is None else [one for _, part in parts for one in part.stored or ()],
        first.how,
    )


def _frame(table: Opened) -> pd.DataFrame:
    """All columns as text."""
    columns, _ = read_columns(table, table.names)
    frame = {}
    for name, column in columns.items():
        texts = ["" if text in _MISSING else text for text in column.categories]
        frame[name] = np.array([*texts, ""], dtype=object)[column.codes]
    return pd.DataFrame(frame, dtype=object)


def _no_saved(path: Path) -> str:
    return f"{path} is a folder, but none that save_to_disk wrote"
