"""The table contract: every way in which an examples table can be wrong, found in one pass.

Values are read as text exactly as written ("NA" and "None" may be names of groups); empty cells
and nan count as missing. Row numbers are those a spreadsheet shows: row 2 is the first data row of
a CSV. A Parquet file has no header line, its first row is row 1.
"""

import csv
import difflib
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from fvlfp.data.card import Card
from fvlfp.errors import InputError

RESERVED = ("path", "split", "client")
SPLITS = ("train", "val", "test")
_MISSING = {"", "nan", "NaN", "<NA>", "#N/A"}
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")


@dataclass(frozen=True)
class Problem:
    """What is wrong and what to do. row: as a spreadsheet counts; None for the whole file.

    bad_image: the image cannot be read; such rows can be left out (skip_bad).
    """

    message: str
    row: int | None = None
    column: str | None = None
    bad_image: bool = False

    def __str__(self) -> str:
        where = [f"row {self.row}"] if self.row is not None else []
        where += [f"column {self.column}"] if self.column is not None else []
        return f"{', '.join(where)}: {self.message}" if where else self.message


def read_frame(path: Path) -> pd.DataFrame:
    """A CSV or Parquet file as text columns; missing is "". Raises InputError when it is no table."""
    if not path.is_file():
        raise InputError(f"no table at {path}: give the path of a CSV or Parquet file")
    try:
        if path.suffix.lower() == ".parquet":
            frame = pd.read_parquet(path)
            frame = pd.DataFrame({str(c): _as_text(frame[c]) for c in frame.columns}, dtype=object)
        else:
            frame = _read_csv(path)
    except UnicodeDecodeError as e:
        raise InputError(f"{path}: not UTF-8 text (byte {e.start}); save it as UTF-8 CSV") from None
    except InputError:
        raise
    except (csv.Error, OSError, ValueError) as e:  # pyarrow's errors are of these kinds as well
        raise InputError(f"{path}: cannot be read as a table: {e}") from None
    if frame.empty:
        raise InputError(f"{path}: the table has no rows")
    return frame.map(lambda v: "" if v in _MISSING else v)


def first_row(path: Path) -> int:
    """The number by which problems name the first data row of this file."""
    return 1 if path.suffix.lower() == ".parquet" else 2


def find_problems(
    frame: pd.DataFrame,
    *,
    start: int,
    card: Card | None,
    label: str | None,
    groups: Sequence[str],
    root: Path,
) -> list[Problem]:
    """All problems of a table, in the order file, columns, rows. start: number of the first row."""
    named = [*([label] if label else []), *groups]
    problems = [_no_column(c, frame.columns) for c in named if c not in frame.columns]
    columns = [c for c in named if c in frame.columns] or _categories(frame, card)
    if card and label in frame.columns and label not in card.classes:
        problems.append(Problem(f"the data card has no words for label {label!r}"))
    if card and not any(c in frame.columns for c in card.classes):
        problems.append(Problem(f"no column is a label of the data card: {', '.join(card.classes)}"))
    for column in columns:
        problems += _column_problems(frame[column], column, start, card)
    if "split" in frame.columns:
        for i, value in enumerate(frame["split"]):
            if value not in SPLITS:
                text = f"{value!r} must be one of {', '.join(SPLITS)}"
                problems.append(Problem(text, start + i, "split"))
    if "path" in frame.columns:
        problems += _image_problems(frame, start, root)
    return problems


def inside(root: Path, path: str) -> Path:
    """The file `path` under the folder root, links followed. Raises InputError if it lies outside."""
    try:
        full = (root / path).resolve()
    except (ValueError, OSError, RuntimeError):  # a null byte, a name too long, a loop of links
        raise InputError(f"{path!r} is no file name") from None
    if not full.is_relative_to(root.resolve()):
        raise InputError(f"{path!r} leaves the folder {root}: use paths inside it, or give --images")
    return full


def open_image(path: Path, *, small: bool = False) -> Image.Image:
    """Read an image file wholly. Raises InputError. small: a JPEG may be read at reduced size."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # damaged EXIF data does no harm here
            image = Image.open(path, formats=_FORMATS)
            if small:
                image.draft("RGB", (1, 1))
            image.load()
    except FileNotFoundError:
        raise InputError(f"no image at {path}") from None
    except Exception as e:  # Pillow's readers raise many kinds on damaged files
        raise InputError(f"image {path} cannot be read ({type(e).__name__})") from None
    return image


def undo_spreadsheet(value: str) -> str | None:
    """What a value was before a spreadsheet took it for a date; None if it looks untouched.

    >>> undo_spreadsheet("03-Sep"), undo_spreadsheet("Oct-19"), undo_spreadsheet("20-29")
    ('3-9', '10-19', None)
    """
    if found := re.fullmatch(r"(\d{1,2})-([A-Za-z]{3})", value):
        first, second = found[1], found[2].lower()
        return f"{int(first)}-{_MONTHS.index(second) + 1}" if second in _MONTHS else None
    if found := re.fullmatch(r"([A-Za-z]{3})-(\d{2})", value):
        first, second = found[1].lower(), found[2]
        return f"{_MONTHS.index(first) + 1}-{int(second)}" if first in _MONTHS else None
    return None


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


def _as_text(column: pd.Series) -> list[str]:
    whole = pd.api.types.is_float_dtype(column.dtype) and (column.dropna() % 1 == 0).all()
    # integers with a gap in them are stored as floats: 1.0 was 1
    return ["" if pd.isna(v) else str(int(v)) if whole else str(v) for v in column]


def _categories(frame: pd.DataFrame, card: Card | None) -> list[str]:
    """The columns to check when none is named: the card's, else all that look like categories."""
    if card:
        return [c for c in (*card.classes, *card.groups) if c in frame.columns]
    rest = [str(c) for c in frame.columns if c not in RESERVED]
    return [c for c in rest if frame[c].nunique() <= min(100, max(2, len(frame) // 2))]


def _no_column(name: str, columns: Iterable[str]) -> Problem:
    names = [str(c) for c in columns]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join(names)}"
    return Problem(f"no column {name!r}; {hint}")


def _column_problems(values: pd.Series, column: str, start: int, card: Card | None) -> Iterator[Problem]:
    for i, value in enumerate(values):
        if value == "":
            yield Problem("missing value: fill it in or delete the row", start + i, column)
    counts = {str(v): int(k) for v, k in values[values != ""].value_counts(sort=False).items()}
    if len(counts) == 1:
        yield Problem(f"all values are {min(counts)!r}: two at least are needed", None, column)
    words: dict[str, object] = {}
    if card:
        words |= card.classes.get(column, {})
        words |= card.groups[column].words if column in card.groups else {}
    first = {value: start + i for i, value in reversed(list(enumerate(values)))}
    spelt: dict[str, str] = {}
    for value, count in counts.items():
        was, other = undo_spreadsheet(value), spelt.setdefault(value.strip().casefold(), value)
        here = f"{value!r} ({count} row{'s' if count > 1 else ''})"
        if was:
            text = f"{here} looks like {was!r} after a spreadsheet took it for a date: restore it"
        elif other != value:
            text = f"{here} differs from {other!r} by spaces or capitals only: spell them alike"
        elif count == 1:
            text = f"{here}: a misspelling? A class or group needs two members at least"
        elif words and value not in words:
            text = f"{here}: the data card has no words for it, only for {', '.join(words)}"
        else:
            continue
        yield Problem(text, first[value], column)


def _image_problems(frame: pd.DataFrame, start: int, root: Path) -> Iterator[Problem]:
    first: dict[str, tuple[int, str]] = {}
    splits = frame["split"] if "split" in frame.columns else [""] * len(frame)
    for row, (path, split) in enumerate(zip(frame["path"], splits, strict=True), start):
        if path == "":
            yield Problem("missing value: name the image or delete the row", row, "path")
            continue
        try:
            full = inside(root, path)
        except InputError as e:
            yield Problem(str(e), row, "path")
            continue
        earlier, other = first.setdefault(str(full), (row, split))
        if other != split:
            yield Problem(f"{path!r} is in {split} here and in {other} in row {earlier}", row, "path")
        if earlier == row:
            try:
                open_image(full, small=True).close()
            except InputError as e:
                yield Problem(str(e), row, "path", bad_image=True)
