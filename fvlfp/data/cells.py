"""Label and group columns of a file, by the rules of `fvlfp.values` and four more.

- The texts nan, <NA> and #N/A are missing, as empty cells are.
- Two spellings that differ by spaces, capitals, dashes, quotes, a full stop at the end, the coding of a
  letter or signs that do not show alone are a mistake to mend. So is a control character other than a tab.
- So is a text such as `03-Sep` among values that are no dates: a spreadsheet made it.
- So is a list or an array of one value, such as `[1]` or `tensor(1)`: a program wrote its wrapping as well.

What this module does not do: it decides nothing about a column as a whole; that is `checks` for a table of
images and the audit for predictions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from fvlfp.values import SPACES, rank, value_name

_MISSING = {"", "nan", "NaN", "NAN", "<NA>", "#N/A", "NaT"}
#: Names that some programs write for missing cells, and that others give to a group.
_PERHAPS_MISSING = {"NA", "N/A", "n/a", "NULL", "null", "None", "?", "-", "--", "."}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
#: What Python prints of a list of one value, or of an array; `[20, 30]` may be an interval's name.
_WRAPPED = re.compile(r"\[[^\[\],]*\]|(?:tensor|array|np\.\w+)\(.*\)")
_SHOWN = 10  # remarks told about one column
#: How two names may differ that are a mistake, in words.
ALIKE = "spaces, capitals, dashes, quotes, a full stop or signs that do not show"
#: Dashes and quotes that programs put in place of those of a keyboard -> these.
_TYPED = str.maketrans(dict.fromkeys("‐‑‒–—−", "-") | dict.fromkeys("‘’ʼ", "'") | dict.fromkeys("“”", '"'))
#: Letters and marks that do not show: Hangul fillers, variation selectors.
_UNSEEN = {"\u115f", "\u1160", "\u3164", *map(chr, range(0xFE00, 0xFE10))}


@dataclass(frozen=True)
class Values:
    """One column of n cells. names: its values, sorted. codes: (n,) int32, -1 where missing.

    notes: what was merged, or read as missing. mistakes: position of the first row, and what is wrong.
    """

    names: tuple[str, ...]
    codes: np.ndarray
    notes: tuple[str, ...]
    mistakes: tuple[tuple[int, str], ...]

    def texts(self) -> np.ndarray:
        """(n,) object: the value of every row, "" where missing."""
        return np.array([*self.names, ""], dtype=object)[self.codes]


def read_values(column: pd.Series) -> Values:
    """Read a column by the rules above; it is looked at once for each different cell, not for each row."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        raw, found = column.cat.codes.to_numpy(), list(column.cat.categories)
    else:
        raw, uniques = pd.factorize(column)
        found = list(uniques)
    count = np.bincount(raw[raw >= 0], minlength=len(found))
    written = [str(value) for value in found]
    names = [_name(value) if k else "" for value, k in zip(found, count, strict=True)]
    order = sorted({name for name in names if name}, key=rank)
    place = {name: i for i, name in enumerate(order)} | {"": -1}
    lookup = np.array([*(place[name] for name in names), -1], np.int32)
    here = [(w, n, int(k), i) for i, (w, n, k) in enumerate(zip(written, names, count, strict=True)) if k]
    mistakes = [(int((raw == i).argmax()), text) for i, text in _mistakes(here)]
    return Values(tuple(order), lookup[raw], tuple(_notes(here)), tuple(sorted(mistakes)))


def spelt_alike(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ only in what `_fold` takes away."""
    first: dict[str, str] = {}
    pairs = [(name, first.setdefault(_fold(name), name)) for name in names]
    return [(name, other) for name, other in pairs if name != other]


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


def rows_of(count: int) -> str:
    """A count in words: "1 row", "2 rows"."""
    return f"{count:,} row{'' if count == 1 else 's'}"


Cell = tuple[str, str, int, int]  # as written, its name, rows, which of the different cells it is


def _mistakes(cells: Sequence[Cell]) -> Iterable[tuple[int, str]]:
    spelt: dict[str, tuple[str, str]] = {}  # folded -> (as written, its name) of the first such cell
    dates = [undo_spreadsheet(name) for _, name, _, _ in cells if name]
    for written, name, count, i in (cell for cell in cells if cell[1]):
        here = f"{written!r} ({rows_of(count)})"
        other, other_name = spelt.setdefault(_fold(name), (written, name))
        was = undo_spreadsheet(name)
        if "\n" in name or "\r" in name:
            yield i, f"{here} holds a line break: is a quote not closed?"
        elif any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in name.replace("\t", "")):
            yield i, f"{here} holds a control character: take it out"
        elif _WRAPPED.fullmatch(name):
            yield i, f"{here} is a list or an array written as text: write the value in it"
        elif was and not all(dates):
            yield i, f"{here} looks like {was!r} after a spreadsheet took it for a date: restore it"
        elif name != other_name or (written != other and _strip(written) == _strip(other)):
            yield i, f"{here} differs from {other!r} by {ALIKE} only: spell them alike"


def _notes(cells: Sequence[Cell]) -> list[str]:
    notes = []
    spaced = sum(count for written, name, count, _ in cells if name and written != _strip(written))
    if spaced:
        notes.append(f"spaces around a value are dropped ({rows_of(spaced)})")
    for written, name, count, _ in cells:
        if not name and _strip(written):
            notes.append(f"{written!r} ({rows_of(count)}) is read as missing")
        elif name and name != _strip(written) and any(name == w for w, *_ in cells):
            notes.append(f"{written!r} ({rows_of(count)}) is read as {name!r}")
        elif name in _PERHAPS_MISSING:
            notes.append(
                f"{written!r} ({rows_of(count)}) is read as a name; leave such cells empty if it is none"
            )
        elif name.startswith("[") and name.endswith("]"):
            notes.append(f"{written!r} ({rows_of(count)}) is read as one name, not as a list")
    more = len(notes) - _SHOWN
    return notes[:_SHOWN] + ([f"and {more} more such values"] if more > 0 else [])


def _name(value: object) -> str:
    name = value_name(value) or ""
    return "" if name in _MISSING else name


def _strip(text: str) -> str:
    return text.strip(SPACES)


def _fold(name: str) -> str:
    """Equal for two names that a reader of a page would take for one."""
    text = unicodedata.normalize("NFKC", name.translate(_TYPED))
    seen = (c for c in text if unicodedata.category(c) != "Cf" and c not in _UNSEEN)
    folded = " ".join("".join(seen).casefold().split())
    return folded.rstrip(".") or folded
