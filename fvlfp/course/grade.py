"""`fvlfp grade`: a class's notebooks in, one table of exercises out.

A submitted notebook is recognised by the lesson's file name, an exercise by its cell's id, which JupyterLab
keeps. Nothing is run: what counts are the ticks that `check` left in the saved outputs, below a check that is
still the lesson's. What this module does not do: it detects no forged output. To be sure, run that notebook.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from fvlfp.course.student import SOLUTION
from fvlfp.course.tour import lessons
from fvlfp.errors import InputError


def grades(folder: Path, lessons_folder: Path | None = None) -> pd.DataFrame:
    """One row an exercise: student, lesson, exercise (its number in the lesson), result.

    folder: holds the notebooks in any depth; what stands before the lesson's name in a path, folders or a
    prefix, names the student (`ann/03_….ipynb`, `ann_03_….ipynb`).
    result: "passed"; "open" (the stub is still there); "wrong" (a check said no); "failed" (another error);
    "not run"; "check changed"; "missing" (the cell is gone); "unreadable" (no notebook).

    Raises:
        InputError: no such folder, or no lesson in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name the one that holds the class's notebooks")
    rows = []
    for lesson in lessons(lessons_folder):
        wanted = [cell for cell in nbformat.read(lesson, as_version=4).cells if SOLUTION.search(cell.source)]
        for path in sorted(folder.rglob(f"*{lesson.name}")):
            if ".ipynb_checkpoints" in path.parts:
                continue
            student = path.relative_to(folder).as_posix().removesuffix(lesson.name).strip("/_- ")
            cells = _cells(path)
            for number, cell in enumerate(wanted, start=1):
                result = "unreadable" if cells is None else _result(cell.source, cells.get(cell.id))
                rows.append((student or folder.name, lesson.stem, number, result))
    if not rows:
        raise InputError(f"{folder} holds no notebook named like a lesson, such as 00_start_here.ipynb")
    return pd.DataFrame(rows, columns=["student", "lesson", "exercise", "result"]).sort_values(
        ["student", "lesson", "exercise"], ignore_index=True
    )


def _cells(path: Path) -> dict[str, Any] | None:
    try:
        return {cell.get("id", ""): cell for cell in nbformat.read(path, as_version=4).cells}
    except (ValueError, KeyError, AttributeError):
        return None


def _result(lesson: str, cell: Any) -> str:
    """lesson: the exercise's source with its solution; cell: the submitted one, None if it is gone."""
    if cell is None or cell.cell_type != "code":
        return "missing"
    check = lesson[[found.end() for found in SOLUTION.finditer(lesson)][-1] :].strip()
    if not cell.source.rstrip().endswith(check):
        return "check changed"
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if errors:
        said = errors[0].evalue if errors[0].ename == "NotYet" else ""
        return {"✎": "open", "✗": "wrong"}.get(said[:1], "failed")
    printed = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
    ticks = sum(line.startswith("✓ ") for line in printed.splitlines())
    return "passed" if ticks >= check.count("check(") else "not run"
