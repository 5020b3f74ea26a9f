"""Which rows a client may count, so that no cell under `min_cell` can be had by subtraction.

Leaving a small cell out of a table is not enough where another table counts the same rows: a class's total
less the cells that are there is the cell that is not. So a row in a small cell of *any* table is left out of
*all* of them, again and again until no cell is small (complementary suppression). All tables of a client then
have the same totals by class, whatever attributes they are about.

What this module does not do: it hides no row in a cell of `min_cell` or more, and it knows nothing of other
runs (`fvlfp.runs.ledger`).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def countable(labels: Tensor, groups: Iterable[Tensor], min_cell: int) -> Tensor:
    """(n,) bool: rows in no cell (class, group) of fewer than `min_cell` countable rows.

    labels: (n,) class numbers. groups: one (n,) of group numbers for each attribute; without any, cells are
    whole classes.

    >>> labels = torch.tensor([0, 0, 0, 0, 1, 1, 1])
    >>> shape, tint = torch.tensor([0, 0, 0, 1, 0, 0, 1]), torch.tensor([0, 0, 1, 1, 0, 0, 0])
    >>> countable(labels, [shape], 2).tolist()  # the only row of class 0, group 1, and of class 1, group 1
    [True, True, True, False, True, True, False]
    >>> countable(labels, [shape, tint], 2).tolist()  # then the third row is alone with its tint
    [True, True, False, False, True, True, False]
    """
    cells = [labels, *(labels * (int(g.max()) + 1 if len(g) else 1) + g for g in groups)]
    keep = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    while True:
        before = int(keep.sum())
        for cell in cells:
            size = torch.bincount(cell[keep], minlength=int(cell.max()) + 1 if len(cell) else 0)
            keep &= size[cell] >= min_cell
        if int(keep.sum()) == before:
            return keep
