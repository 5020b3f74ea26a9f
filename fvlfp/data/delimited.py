"""Text tables: CSV and its kin, with commas, semicolons, tabs or bars, in UTF-8 or UTF-16, gzipped or not.

Every row must have as many cells as the header, and quotes must be closed where they should be: a reader that
fills up, cuts or shifts rows gives wrong numbers in silence. What this module does not do: it guesses no
column's meaning.
"""

from __future__ import annotations

import csv
import functools
import gzip
import io
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv as pc

from fvlfp.data.opened import Opened
from fvlfp.errors import InputError

BLOCK = 1 << 23  # bytes parsed at once; no row may be longer
_HEAD = 1 << 16  # bytes from which the layout is read
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_OTHER_FILES = {
    b"\xff\xfe\0\0": "text in UTF-32: save it as UTF-8 CSV",
    b"\0\0\xfe\xff": "text in UTF-32: save it as UTF-8 CSV",
    b"PK\x03\x04": "a zip archive or an Excel workbook: save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save the sheet as CSV",
    b"BZh": "compressed with bzip2: unpack it, or use gzip",
    b"\xfd7zXZ": "compressed with xz: unpack it, or use gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd: unpack it, or use gzip",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"%PDF": "a PDF document",
}
csv.field_size_limit(1 << 30)  # a long text in a column that nobody reads is no mistake


@dataclass(frozen=True)
class Layout:
    """separator: one character. mark: 1 where the first line is Excel's `sep=;`, which is no row."""

    separator: str
    encoding: str
    gzipped: bool
    mark: int

    @property
    def how(self) -> str:
        """In words, for reports."""
        name = _SEPARATORS.get(self.separator, f"{self.separator!r}")
        coding = "UTF-16" if "16" in self.encoding else "UTF-8"
        return f"text, {name} between cells, {coding}" + (", gzip" if self.gzipped else "")


def open_delimited(path: Path) -> Opened:
    """Find out how the file is written and read its header.

    Raises:
        InputError: empty, no text, or a column that is named twice.
    """
    layout = _layout(path)
    with _text(path, layout) as file:
        rows = csv.reader(file, delimiter=layout.separator)
        header = next(rows, None)
        header = next(rows, None) if layout.mark else header
    names = [name.strip() or f"column {i}" for i, name in enumerate(header or [], 1)]
    if not any(name.strip() for name in header or []):
        raise InputError(f"{path}: the file is empty" if not header else f"{path}: row 1 names no column")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path}: the column {twice[0]!r} occurs twice; rename one")

    def batches(wanted: Sequence[str]) -> Iterator[pa.RecordBatch]:
        places = {name: str(names.index(name)) for name in wanted}
        _check_quotes(path, layout)
        for batch in _batches(path, layout, len(names), list(places.values())):
            yield pa.record_batch({name: batch[place] for name, place in places.items()})

    decimal = "," if layout.separator == ";" else "."  # as spreadsheets in much of Europe write it
    return Opened(
        path, tuple(names), 2, layout.how, batches, {}, decimal, functools.partial(_blank_tail, path, layout)
    )


def _layout(path: Path) -> Layout:
    with path.open("rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
    with _bytes(path, gzipped) as file:
        head = file.read(_HEAD)
    for magic, what in _OTHER_FILES.items():
        if head.startswith(magic):
            raise InputError(f"{path} cannot be read as a table: it is {what}")
    encoding = _encoding(head)
    text = head.decode(encoding, errors="replace")
    if re.match(r"\s*(\{|\[\s*[\[{])", text):
        raise InputError(f"{path} cannot be read as a table: it is JSON; save it as CSV or Parquet")
    if marked := re.match(r'"?sep=(.)"?\r?\n', text):
        return Layout(marked[1], encoding, gzipped, 1)
    return Layout(_separator(text, whole=len(head) < _HEAD), encoding, gzipped, 0)


def _encoding(head: bytes) -> str:
    """UTF-16 by its mark, or, without one, by its zeros: every other byte of plain letters is 0."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    zeros = [head[start:100:2].count(0) for start in (0, 1)]
    if max(zeros) > 4 * min(zeros) and 10 * max(zeros) >= len(head[:100]):
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    return "utf-8-sig"


def _separator(text: str, *, whole: bool) -> str:
    """The one that cuts the header and the next rows into the same number of cells, the more the better.

    Where none does, the comma, whose odd rows are then named.
    """
    best, most = ",", 1
    for separator in _SEPARATORS:
        try:
            rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if row]
        except csv.Error:
            continue
        rows = rows if whole or len(rows) == 1 else rows[:-1]  # the last one may be cut
        sizes = {len(row) for row in rows[:20]}
        if len(sizes) == 1 and (cells := sizes.pop()) > most:
            best, most = separator, cells
    return best if most > 1 else _most_in_header(text)


def _most_in_header(text: str) -> str:
    header = text.partition("\n")[0]
    return max(_SEPARATORS, key=lambda s: (header.count(s), s == ","))


def _batches(path: Path, layout: Layout, width: int, places: list[str]) -> Iterator[pa.RecordBatch]:
    """Record batches of text; columns are named by their places. Every row is counted."""
    names = [str(i) for i in range(width)]
    read = pc.ReadOptions(use_threads=False, block_size=BLOCK, column_names=names, skip_rows=layout.mark)
    parse = pc.ParseOptions(
        delimiter=layout.separator,
        newlines_in_values=True,
        ignore_empty_lines=False,
    )
    convert = pc.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), include_columns=places)
    header = 1
    with _bytes(path, layout.gzipped) as file:
        source = pa.PythonFile(file, mode="r")
        if "16" in layout.encoding:
            source = pa.transcoding_input_stream(source, layout.encoding, "utf-8")
        try:
            for batch in pc.open_csv(source, read, parse, convert):
                yield batch.slice(header)
                header = max(0, header - len(batch))
        except (pa.ArrowException, UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
            if "Expected" in str(error) and (odd := _odd_row(path, layout, width)):
                row, cells = odd
                raise InputError(
                    f"{path}: row {row} has {cells} cells, the header has {width}; put "
                    f"values that contain a {layout.separator!r} in double quotes"
                ) from None
            raise InputError(f"{path} cannot be read as a table: {_reason(error)}") from None


def _odd_row(path: Path, layout: Layout, width: int) -> tuple[int, int] | None:
    """Number and length of the first row that is not `width` cells long."""
    with _text(path, layout) as text:
        for number, row in enumerate(csv.reader(text, delimiter=layout.separator), 1 - layout.mark):
            if number > 0 and row and len(row) != width:  # 0 is the mark of Excel
                return number, len(row)
    return None


def _reason(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    if isinstance(error, UnicodeDecodeError) or "UTF8" in text:
        where = re.search(r"Row #(\d+)", text)
        return f"not UTF-8 text{f' (row {where[1]})' if where else ''}; save it as UTF-8 CSV"
    if "straddl" in text:
        return f"a row is longer than {BLOCK >> 20} MiB: is a quote not closed?"
    return text


def _check_quotes(path: Path, layout: Layout) -> None:
    """Refuse a quote that is not closed, or closed in the middle of a cell: it swallows rows."""
    with _bytes(path, layout.gzipped) as file:
        if not any(b'"' in block for block in iter(lambda: file.read(1 << 24), b"")):
            return
    # Lines without a quote change nothing inside a quoted cell and hold none outside of one.
    with _text(path, layout) as text:
        try:
            quoted = (line for line in text if '"' in line)
            for _ in csv.reader(quoted, delimiter=layout.separator, strict=True):
                pass
            return
        except csv.Error as error:
            wrong = error
    row = 1 - layout.mark
    with _text(path, layout) as text:
        try:
            for _ in csv.reader(text, delimiter=layout.separator, strict=True):
                row += 1
        except csv.Error:
            pass
    raise InputError(
        f"{path} cannot be read as a table: row {row} has a double quote that is not closed where its "
        f"cell ends ({wrong}); write a quote inside a value twice"
    )


def _blank_tail(path: Path, layout: Layout) -> int:
    blank = 0
    with _text(path, layout) as text:
        for line in text:
            blank = 0 if line.strip("\r\n") else blank + 1
    return blank


def _bytes(path: Path, gzipped: bool) -> BinaryIO:
    return gzip.open(path, "rb") if gzipped else path.open("rb")  # type: ignore[return-value]


def _text(path: Path, layout: Layout) -> io.TextIOWrapper:
    """The file as text; what is no text in it is told by `_batches`, with its row."""
    return io.TextIOWrapper(_bytes(path, layout.gzipped), layout.encoding, errors="replace", newline="")
