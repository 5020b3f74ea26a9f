"""Parquet files and Hugging Face data sets saved to disk, through pyarrow.

`Dataset.save_to_disk` writes a folder: `state.json` names Arrow stream files, whose schema metadata says
which columns are pictures (a struct of `bytes` and `path`) and what the numbers of a class label mean;
a `DatasetDict` is a folder of such folders, named in `dataset_dict.json`. This was compared with what
datasets 5.2.0 writes. pyarrow reads all of it, so that library is not needed. Parquet files of the Hugging
Face hub carry the same struct and the same metadata.

What this module does not do: it judges no value; a column of lists (boxes, key points) is neither label nor
group and is no column here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fvlfp.data.images import Stored, inside
from fvlfp.data.opened import Opened
from fvlfp.errors import InputError

#: Names of splits -> ours.
SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_AGAIN = "load it with the datasets library and call save_to_disk again"


def is_parquet(path: Path) -> bool:
    """By its name, or by how it begins."""
    if path.suffix.lower() in {".parquet", ".pq"}:
        return True
    with path.open("rb") as file:
        return file.read(4) == b"PAR1"


def open_parquet(path: Path) -> Opened:
    """Raises InputError when it is no Parquet file, or a column is named twice."""
    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"{path} cannot be read as a table: it cannot be read as Parquet ({error})"
        ) from None

    def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        try:
            yield from file.iter_batches(columns=list(wanted))
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read as a table: damaged Parquet ({error})") from None

    return Opened(path, _flat(schema, path), 1, "Parquet", batches, meanings(schema))


def read_pictures(path: Path) -> tuple[list[Stored], list[str]] | None:
    """The pictures that a Parquet file holds and their names; None where it holds none."""
    try:
        file = pq.ParquetFile(path)
        name = picture_column(file.schema_arrow, path)
        return stored_in(file.read(columns=[name])[name]) if name else None
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} cannot be read as a table: damaged Parquet ({error})") from None


def open_arrow(table: pa.Table, path: Path) -> Opened:
    """A table that is in memory, or mapped into it."""

    def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from table.select(list(wanted)).combine_chunks().to_batches()

    return Opened(path, _flat(table.schema, path), 1, "saved data set", batches, meanings(table.schema))


def saved_parts(folder: Path) -> list[tuple[str, pa.Table]] | None:
    """(split, table) of a folder that `save_to_disk` wrote; the split is "" for a single `Dataset`.

    None when the folder is something else.

    Raises:
        InputError: damaged, or splits that do not fit each other.
    """
    if not (folder / "dataset_dict.json").is_file():
        return [("", _read_arrow(folder))] if (folder / "state.json").is_file() else None
    splits = _json(folder / "dataset_dict.json").get("splits")
    if not isinstance(splits, list) or not splits or not all(isinstance(name, str) for name in splits):
        raise InputError(f"{folder}: dataset_dict.json names no splits; {_AGAIN}")
    parts = [(name, _read_arrow(inside(folder, name))) for name in splits]
    if len(parts) == 1:  # load_dataset calls a lonely split "train": that says nothing about a split
        return [("", parts[0][1])]
    for name, table in parts:
        if name not in SPLITS:
            raise InputError(f"{folder}: split {name!r} must be called train, validation or test")
        if set(table.column_names) != set(parts[0][1].column_names):
            raise InputError(f"{folder}: split {name!r} has other columns than {parts[0][0]!r}")
    return parts


def picture_column(schema: pa.Schema, path: Path) -> str | None:
    """The column that holds pictures, if one does."""
    held = [field.name for field in schema if _is_image(field.type)]
    if len(held) > 1:
        raise InputError(f"{path}: the columns {' and '.join(held)} both hold pictures: keep one")
    return held[0] if held else None


def stored_in(pictures: pa.ChunkedArray) -> tuple[list[Stored], list[str]]:
    """Pictures of a struct column, and the names they had as files ("" where unknown)."""
    content = pc.struct_field(pictures, "bytes")
    names = [name or "" for name in pc.struct_field(pictures, "path").to_pylist()]
    return [Stored(content, i) for i in range(len(content))], names


def meanings(schema: pa.Schema) -> dict[str, list[str]]:
    """Class labels: column -> the names of 0, 1, ...; {} where the datasets library wrote none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            str(column): [str(name) for name in told["names"]]
            for column, told in features.items()
            if isinstance(told, dict) and isinstance(told.get("names"), list)
        }
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _flat(schema: pa.Schema, path: Path) -> tuple[str, ...]:
    if twice := sorted({name for name in schema.names if schema.names.count(name) > 1}):
        raise InputError(f"{path}: the column {twice[0]!r} occurs twice; rename one")
    flat = (field.name for field in schema if not pa.types.is_nested(field.type))
    return tuple(name for name in flat if not name.startswith("__index_level_"))


def _is_image(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {field.name for field in kind} == {"bytes", "path"}


def _read_arrow(folder: Path) -> pa.Table:
    """One saved `Dataset`: its Arrow streams, memory-mapped, so that pictures stay on the disk."""
    state = _json(folder / "state.json")
    try:
        names = [str(file["filename"]) for file in state["_data_files"]]
    except (KeyError, TypeError):
        names = []
    if not names or state.get("_indices_data_files"):
        raise InputError(f"{folder}: no Arrow file of its own in state.json; {_AGAIN}")
    tables = []
    for name in names:
        file = inside(folder, name)
        if not file.is_file():
            raise InputError(f"{folder}: {name} is missing; {_AGAIN}")
        tables.append(pa.ipc.open_stream(pa.memory_map(str(file))).read_all())
    table = pa.concat_tables(tables)
    table.validate(full=True)  # damaged offsets would end the process where a cell is read
    return table


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file.parent}: {file.name} is missing; {_AGAIN}") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} is not what save_to_disk writes; {_AGAIN}")
    return content
