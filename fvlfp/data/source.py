"""What a table is read from: a CSV, a Parquet file, or a Hugging Face data set saved to disk.

`Dataset.save_to_disk` writes a folder: `state.json` names Arrow stream files, whose schema metadata says
which columns are pictures (a struct of `bytes` and `path`) and what the numbers of a class label mean;
a `DatasetDict` is a folder of such folders, named in `dataset_dict.json`. This was compared with what
datasets 5.2.0 writes. pyarrow reads all of it, so that library is not needed. Parquet files of the Hugging
Face hub carry the same struct and the same metadata.

Values are read as text exactly as written ("NA" and "None" may be names of groups); empty cells and nan
count as missing. What this module does not do: it judges no value; that is `checks`.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fvlfp.data.images import Stored, inside
from fvlfp.errors import InputError

_MISSING = {"", "nan", "NaN", "<NA>", "#N/A"}
#: Names of splits in a saved `DatasetDict` -> ours.
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_AGAIN = "load it with the datasets library and call save_to_disk again"


@dataclass(frozen=True)
class Source:
    """A table as text, before any check.

    frame: n rows of text columns, missing is "". rows: what to call each row in a message: the number that
    a spreadsheet shows (2 is the first data row of a CSV), in Parquet and saved data sets counted from 1,
    there with its split if there are several. stored: the n pictures when the table itself holds them.
    """

    frame: pd.DataFrame
    rows: Sequence[int | str]
    stored: list[Stored] | None = None


def read_source(path: Path) -> Source:
    """Read any of the three. Raises InputError when it is no table."""
    try:
        if path.is_dir():
            source = _read_saved(path)
        elif not path.is_file():
            raise InputError(
                f"no table at {path}: give a CSV or Parquet file, or a folder that save_to_disk wrote"
            )
        elif path.suffix.lower() == ".parquet":
            frame, stored = _from_arrow(pq.ParquetFile(path).read(), path)
            source = Source(frame, range(1, len(frame) + 1), stored)
        else:
            frame = _read_csv(path)
            source = Source(frame, range(2, len(frame) + 2))
    except UnicodeDecodeError as e:
        raise InputError(f"{path}: not UTF-8 text (byte {e.start}); save it as UTF-8 CSV") from None
    except InputError:
        raise
    except (csv.Error, OSError, ValueError) as e:  # pyarrow's errors are of these kinds as well
        raise InputError(f"{path}: cannot be read as a table: {e}") from None
    if source.frame.empty:
        raise InputError(f"{path}: the table has no rows")
    return Source(source.frame.map(lambda v: "" if v in _MISSING else v), source.rows, source.stored)


def _read_csv(path: Path) -> pd.DataFrame:
    with path.open(newline="", encoding="utf-8-sig") as f:
        rows = list(csv.reader(f))
    while rows and not any(rows[-1]):
        rows.pop()  # blank lines at the end
    if not rows:
        raise InputError(f"{path}: the file is empty")
    header = rows[0]
    twice = sorted({c for c in header if header.count(c) > 1})
    if twice:
        raise InputError(f"{path}: the column {twice[0]!r} occurs twice; rename one")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise InputError(
                f"{path}: row {number} has {len(row)} cells, the header has {len(header)}; "
                "put values that contain a comma in double quotes"
            )
    return pd.DataFrame(rows[1:], columns=header, dtype=object)


def _read_saved(folder: Path) -> Source:
    """A folder that `save_to_disk` wrote, of one `Dataset` or of a `DatasetDict`."""
    splits = _json(folder / "dataset_dict.json").get("splits") if _has(folder, "dataset_dict.json") else None
    if splits is None:
        if not _has(folder, "state.json"):
            tables = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in (".csv", ".parquet"))
            hint = f": give {folder / tables[0]} itself" if tables else ""
            raise InputError(f"{folder} is a folder, but none that save_to_disk wrote{hint}")
        frame, stored = _read_arrow(folder)
        return Source(frame, range(1, len(frame) + 1), stored)
    parts = [(name, *_read_arrow(inside(folder, name))) for name in splits]
    if len(parts) == 1:  # load_dataset calls a lonely split "train": that says nothing about a split
        return Source(parts[0][1], range(1, len(parts[0][1]) + 1), parts[0][2])
    for name, frame, stored in parts:
        if name not in _SPLITS:
            raise InputError(f"{folder}: split {name!r} must be called train, validation or test")
        if set(frame.columns) != set(parts[0][1].columns) or (stored is None) != (parts[0][2] is None):
            raise InputError(f"{folder}: split {name!r} has other columns than {parts[0][0]!r}")
    return Source(
        pd.concat([frame.assign(split=_SPLITS[name]) for name, frame, _ in parts], ignore_index=True),
        [f"{i} of {name}" for name, frame, _ in parts for i in range(1, len(frame) + 1)],
        None if parts[0][2] is None else [one for _, _, stored in parts for one in stored or ()],
    )


def _read_arrow(folder: Path) -> tuple[pd.DataFrame, list[Stored] | None]:
    """One saved `Dataset`: its Arrow streams, memory-mapped, so that pictures stay on the disk."""
    state = _json(folder / "state.json")
    names = [file["filename"] for file in state.get("_data_files", [])]
    if not names or state.get("_indices_data_files"):
        raise InputError(f"{folder}: no Arrow file of its own in state.json; {_AGAIN}")
    tables = []
    for name in names:
        file = inside(folder, name)
        if not file.is_file():
            raise InputError(f"{folder}: {name} is missing; {_AGAIN}")
        tables.append(pa.ipc.open_stream(pa.memory_map(str(file))).read_all())
    return _from_arrow(pa.concat_tables(tables), folder)


def _from_arrow(table: pa.Table, path: Path) -> tuple[pd.DataFrame, list[Stored] | None]:
    """The columns of an Arrow table as text, and its pictures if a column holds them."""
    if twice := sorted({n for n in table.column_names if table.column_names.count(n) > 1}):
        raise InputError(f"{path}: the column {twice[0]!r} occurs twice; rename one")
    features = _features(table)
    kinds = {field.name: field.type for field in table.schema}
    held = [name for name, kind in kinds.items() if pa.types.is_struct(kind) and _is_image(kind)]
    if len(held) > 1:
        raise InputError(f"{path}: the columns {' and '.join(held)} both hold pictures: keep one")
    frame = pd.DataFrame(
        {
            str(name): _as_text(table[name].to_pandas(), features.get(name, {}).get("names"))
            for name, kind in kinds.items()
            if not pa.types.is_nested(kind)  # boxes, key points: neither labels nor groups
        },
        dtype=object,
    )
    if not held:
        return frame, None
    pictures = table[held[0]]
    if "path" not in frame:
        names = pc.struct_field(pictures, "path").to_pylist()
        frame.insert(0, "path", [name or "" for name in names])
    content = pc.struct_field(pictures, "bytes")
    return frame, [Stored(content, i) for i in range(len(content))]


def _is_image(kind: pa.StructType) -> bool:
    return {kind.field(i).name for i in range(kind.num_fields)} == {"bytes", "path"}


def _features(table: pa.Table) -> dict[str, Any]:
    """What the datasets library wrote about the columns, {} where it did not."""
    try:
        return json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}


def _as_text(column: pd.Series, names: list[str] | None) -> list[str]:
    """names: those of a class label, which is stored as a number; -1 is missing there."""
    whole = pd.api.types.is_float_dtype(column.dtype) and (column.dropna() % 1 == 0).all()
    # integers with a gap in them are stored as floats: 1.0 was 1
    text = ["" if pd.isna(v) else str(int(v)) if whole else str(v) for v in column]
    meaning = {str(i): str(name) for i, name in enumerate(names)} | {"-1": ""} if names else {}
    return [meaning.get(v, v) for v in text]


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{file.parent}: {file.name} is missing; {_AGAIN}") from None
    if not isinstance(content, dict):
        raise InputError(f"{file} is not what save_to_disk writes; {_AGAIN}")
    return content
