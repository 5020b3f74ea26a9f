"""Markdown tables, as every results page writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NUMBER = re.compile(r"[*<+−-]* ?\.?\d")
NO_NUMBER = {"", "–", "undefined", "not run", "not measured"}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table; after the first column, those that hold numbers alone stand right."""
    cells = [[str(cell) for cell in row] for row in rows]
    columns = list(zip(*cells, strict=True)) or [()] * len(head)
    marks = ["---", *("--:" if _numbers(column) else "---" for column in columns[1:])]
    return [_line(head), f"|{'|'.join(marks)}|", *map(_line, cells)]


def _line(cells: Sequence[str]) -> str:
    return f"|{'|'.join(f' {cell} ' if cell else ' ' for cell in cells)}|"


def _numbers(column: Sequence[str]) -> bool:
    known = [cell for cell in column if cell not in NO_NUMBER]
    return bool(known) and all(map(NUMBER.match, known))
