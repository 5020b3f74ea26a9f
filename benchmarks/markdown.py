"""Markdown tables, as every results page writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> list[str]:
    """The lines of a table; the first `left` columns stand left, numbers right."""
    marks = ["---" if i < left else "--:" for i in range(len(head))]
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [f"| {' | '.join(head)} |", f"|{'|'.join(marks)}|", *lines]
