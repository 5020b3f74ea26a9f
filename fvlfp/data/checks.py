"""The table contract: every way in which an examples table can be wrong, found in one pass.

Row numbers are those a spreadsheet shows: row 2 is the first data row of a CSV. A Parquet file or a
saved data set has no header line, its first row is row 1.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from fvlfp.data.card import Card
from fvlfp.data.cells import read_values, rows_of
from fvlfp.data.folders import SUFFIXES
from fvlfp.data.images import Stored, inside, open_image
from fvlfp.data.source import Source
from fvlfp.errors import InputError, did_you_mean

RESERVED = ("path", "split", "client")
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Problem:
    """What is wrong and what to do. row: as `Source.rows` calls it; None for the whole file.

    bad_image: the image cannot be read; such rows can be left out (skip_bad). judging: does not matter for a
    table that is not judged, as that of one client, or of pictures to be predicted. doubt: one picture with
    two labels; it is told, and stops no run.
    """

    message: str
    row: int | str | None = None
    column: str | None = None
    bad_image: bool = False
    judging: bool = False
    doubt: bool = False

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
    seen: Counter[str],
) -> list[Problem]:
    """All problems of a table, in the order file, columns, rows. seen: counts how pictures were read."""
    frame, rows = source.frame, source.rows
    named = [*([label] if label else []), *groups]
    problems = [_no_column(c, frame.columns) for c in named if c not in frame.columns]
    columns = checked_columns(source, card, label, groups)
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
    if source.stored is None and "path" not in frame.columns:
        problems += _other_path_column(frame)
    else:
        problems += _picture_problems(source, [c for c in columns if c in frame.columns], root, seen)
    return problems


def _categories(frame: pd.DataFrame, card: Card | None) -> list[str]:
    """The columns to check when none is named: the card's, else all that look like categories."""
    if card:
        return [c for c in (*card.classes, *card.groups) if c in frame.columns]
    rest = [str(c) for c in frame.columns if c not in RESERVED]
    return [c for c in rest if frame[c].nunique() <= min(100, max(2, len(frame) // 2))]


def _no_column(name: str, columns: Iterable[str]) -> Problem:
    names = [str(c) for c in columns]
    hint = did_you_mean(name, names) or f"; the columns are {', '.join(names)}"
    return Problem(f"no column {name!r}{hint}")


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


def checked_columns(source: Source, card: Card | None, label: str | None, groups: Sequence[str]) -> list[str]:
    """The label and group columns that `find_problems` looks at."""
    named = [c for c in [*([label] if label else []), *groups] if c in source.frame.columns]
    return named or _categories(source.frame, card)


def _other_path_column(frame: pd.DataFrame) -> Iterator[Problem]:
    """A table without `path` whose other column holds picture files is no table of predictions."""
    for column in frame.columns:
        values = frame[column]
        if values.str.lower().str.endswith(tuple(SUFFIXES)).mean() > 0.5:
            yield Problem(
                f"names picture files (as {values[0]!r}), but only 'path' is read: rename it", None, column
            )


def _picture_problems(
    source: Source, columns: Sequence[str], root: Path, seen: Counter[str]
) -> Iterator[Problem]:
    """Pictures that cannot be read, that are in two splits, or that have two labels.

    Two pictures are the same when they are the same file, or when their bytes are.
    """
    column = "path" if source.stored is None else None
    first: dict[object, int] = {}
    broken: dict[int, str] = {}
    for i, row in enumerate(source.rows):
        try:
            picture, key, name = _picture(source, i, root)
        except InputError as e:
            yield Problem(str(e), row, column, bad_image=source.stored is not None)
            continue
        earlier = first.setdefault(key, i)
        try:
            if earlier == i:
                open_image(picture, small=True, seen=seen)
                content = hashlib.sha256(picture.read_bytes()).digest()
                earlier = first.setdefault(content, i)
        except InputError as e:
            broken[i] = str(e)
        if earlier in broken:
            yield Problem(broken[earlier], row, column, bad_image=True)
        elif earlier != i:
            yield from _twice(source, i, earlier, name, columns, column)


def _picture(source: Source, i: int, root: Path) -> tuple[Path | Stored, object, str]:
    """Picture i, what tells it from others before it is read, and what to call it."""
    if source.stored is not None:
        return source.stored[i], i, "this picture"
    path = source.frame["path"].iloc[i]
    if path == "":
        raise InputError("missing value: name the image or delete the row")
    full = inside(root, path)
    return full, str(full), repr(path)


def _twice(
    source: Source, i: int, j: int, name: str, columns: Sequence[str], where: str | None
) -> Iterator[Problem]:
    """What rows i and j, which show one picture, say differently. It is told of row i."""
    frame, row, other = source.frame, source.rows[i], source.rows[j]
    if source.stored is None and frame["path"].iloc[i] != frame["path"].iloc[j]:
        name += f", the same picture as {frame['path'].iloc[j]!r},"
    if "split" in frame.columns and frame["split"].iloc[i] != frame["split"].iloc[j]:
        here, there = frame["split"].iloc[i], frame["split"].iloc[j]
        yield Problem(f"{name} is in {here} here and in {there} in row {other}", row, where)
    for column in columns:
        here, there = frame[column].iloc[i], frame[column].iloc[j]
        if here != there:
            yield Problem(f"{name} is {here!r} here and {there!r} in row {other}", row, column, doubt=True)
