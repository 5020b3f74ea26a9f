"""Lesson 11: what a check of somebody's table looks for."""

from __future__ import annotations

from math import ceil
from pathlib import PurePosixPath

import numpy as np
import pandas as pd

from fvlfp.course.lesson import Step


def _lonely_rows(values: list[str]) -> list[int]:
    return [2 + i for i, value in enumerate(values) if values.count(value) == 1]


def _values(rng: np.random.Generator) -> tuple[list[str]]:
    values = rng.choice(["round", "square"], int(rng.integers(8, 20))).tolist()
    values[:4] = ["round", "round", "square", "square"]
    for place, typo in zip(
        rng.permutation(np.arange(4, len(values)))[:3], ("Round", "square ", "rund"), strict=True
    ):
        values[place] = typo
    return (values,)


def _escapes(path: str) -> bool:
    depth = 0
    for part in PurePosixPath(path).parts:
        depth += -1 if part == ".." else part not in (".", "/")
        if depth < 0:
            return True
    return path.startswith("/")


_PATHS = (
    "images/1.png",
    "../1.png",
    "images/../../x.png",
    "/etc/x.png",
    "a/../b.png",
    "a..b/c.png",
    "./a.png",
)


def _path(rng: np.random.Generator) -> tuple[str]:
    return (_PATHS[int(rng.integers(0, 2**31)) % len(_PATHS)],)


def _smallest_cell(table: pd.DataFrame, label: str, group: str) -> int:
    return int(pd.crosstab(table[label], table[group]).to_numpy().min())


def _table(rng: np.random.Generator) -> tuple[pd.DataFrame, str, str]:
    n = int(rng.integers(20, 40))
    labels, groups = rng.choice(["no", "yes"], n), rng.choice(["round", "square"], n, p=[0.8, 0.2])
    if rng.random() < 0.5:  # a cell that is not there at all
        groups[labels == "yes"] = "round"
    table = pd.DataFrame({"smiling": labels, "shape": groups, "path": ""})
    table.loc[:1, ["smiling", "shape"]] = [["no", "square"], ["no", "round"]]
    return table, "smiling", "shape"


def _needed(rate: float, half: float) -> int:
    return ceil(1.96**2 * rate * (1 - rate) / half**2)


def _wanted(rng: np.random.Generator) -> tuple[float, float]:
    return float(np.round(rng.uniform(0.5, 0.95), 2)), float(rng.choice([0.01, 0.02, 0.05, 0.1]))


#: values of a column -> spreadsheet rows (the header is row 1) of the values that occur once.
lonely_rows = Step(_lonely_rows, _values)
#: a path in a table -> does it leave the table's folder?
escapes = Step(_escapes, _path, cases=20)
#: (table, label, group) -> rows in the smallest cell; 0 where a class and a group never meet.
smallest_cell = Step(_smallest_cell, _table, cases=8)
#: (rate, half width of a 95 % interval) -> pictures needed.
needed = Step(_needed, _wanted)
