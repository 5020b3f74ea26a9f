"""The table contract: every way in which an examples table can be wrong, found in one pass.

Row numbers are those a spreadsheet shows: row 2 is the first data row of a CSV. A Parquet file or a
saved data set has no header line, its first row is row 1.
"""

import difflib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fvlfp.data.card import Card
from fvlfp.data.cells import read_values, rows_of
from fvlfp.data.images import Stored, inside, open_image
from fvlfp.data.source import Source
from fvlfp.errors import InputError

RESERVED = ("path", "split", "client")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Problem:
    """What is wrong and what to do. row: as `Source.rows` calls it; None for the whole file.

    bad_image: the image cannot be read; such rows can be left out (skip_bad). judging: does not matter for a
    table that is not judged, as that of one client, or of pictures to be predicted.
    """

    message: str
    row: int | str | None = None
    column: str | None = None
    bad_image: bool = False
    judging: bool = False

    def __str__(self) -> str:
        where = [f"row {self.row}"] if self.row is not None else []
        where += [f"column {self.column}"] if self.column is not None else []
        return f"{', '.join(where)}: {self.message}" if where else self.message


def find_problems(
    source: Source,
    *,
    card: Card | None,
    label: str | None,
    groups: Sequence[str],
    root: Path,
) -> list[Problem]:
    """All problems of a table, in the order file, columns, rows."""
    frame, rows = source.frame, source.rows
    named = [*([label] if label else []), *groups]
    problems = [_no_column(c, frame.columns) for c in named if c not in frame.columns]
    columns = [c for c in named if c in frame.columns] or _categories(frame, card)
    if card and label in frame.columns and label not in card.classes:
        problems.append(Problem(f"the data card has no words for label {label!r}"))
    if card and not any(c in frame.columns for c in card.classes):
        text = f"no column is a label of the data card: {', '.join(card.classes)}"
        problems.append(Problem(text, judging=True))
    for column in columns:
        problems += _column_problems(frame[column], column, rows, card)
    if "split" in frame.columns:
        for i, value in enumerate(frame["split"]):
            if value not in SPLITS:
                text = f"{value!r} must be one of {', '.join(SPLITS)}"
                problems.append(Problem(text, rows[i], "split"))
    if source.stored is not None:
        problems += _stored_problems(source.stored, source)
    elif "path" in frame.columns:
        problems += _image_problems(frame, rows, root)
    return problems


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


def _column_problems(
    column: pd.Series, name: str, rows: Sequence[int | str], card: Card | None
) -> Iterator[Problem]:
    values = read_values(column)
    for i in np.flatnonzero(values.codes < 0):
        yield Problem("missing value: fill it in or delete the row", rows[int(i)], name)
    if len(values.names) == 1:
        text = f"all values are {values.names[0]!r}: two at least are needed"
        yield Problem(text, None, name, judging=True)
    for position, text in values.mistakes:
        yield Problem(text, rows[position], name)
    if values.mistakes:
        return
    words: dict[str, object] = {}
    if card:
        words |= card.classes.get(name, {})
        words |= card.groups[name].words if name in card.groups else {}
    counts = np.bincount(values.codes + 1, minlength=len(values.names) + 1)[1:].tolist()
    for code, (value, count) in enumerate(zip(values.names, counts, strict=True)):
        here, row = f"{value!r} ({rows_of(count)})", rows[int((values.codes == code).argmax())]
        if count == 1:
            text = f"{here}: a misspelling? A class or group needs two members at least"
            yield Problem(text, row, name, judging=value in words)
        elif words and value not in words:
            known = ", ".join(words)
            yield Problem(f"{here}: the data card has no words for it, only for {known}", row, name)


def _image_problems(frame: pd.DataFrame, rows: Sequence[int | str], root: Path) -> Iterator[Problem]:
    first: dict[str, tuple[int | str, str]] = {}
    splits = frame["split"] if "split" in frame.columns else [""] * len(frame)
    for row, path, split in zip(rows, frame["path"], splits, strict=True):
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


def _stored_problems(stored: list[Stored], source: Source) -> Iterator[Problem]:
    """As `_image_problems`, for pictures in the table: two are the same when their bytes are."""
    first: dict[bytes, tuple[int | str, str]] = {}
    splits = source.frame["split"] if "split" in source.frame.columns else [""] * len(stored)
    for row, picture, split in zip(source.rows, stored, splits, strict=True):
        try:
            earlier, other = first.setdefault(hashlib.sha256(picture.read_bytes()).digest(), (row, split))
            if other != split:
                yield Problem(f"this picture is in {split} here and in {other} in row {earlier}", row)
            if earlier == row:
                open_image(picture, small=True).close()
        except InputError as e:
            yield Problem(str(e), row, bad_image=True)
