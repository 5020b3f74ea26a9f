"""`fvlfp grade`: a class's notebooks in, one table of exercises out.

A submitted notebook is recognised by the lesson's name in its file name, an exercise by its cell's id, which
JupyterLab keeps and Colab moves into the cell's metadata, or else by the check at its end. What counts are
the ticks that `check` left in the outputs, below a check that is still the lesson's. Nothing is run unless it
is asked for (`fvlfp.course.rerun`). What this module does not do: it detects no forged output.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pandas as pd

from fvlfp.course.rerun import read_quietly, rerun
from fvlfp.course.student import SOLUTION
from fvlfp.course.tour import lessons
from fvlfp.errors import InputError
from fvlfp.files import is_hidden
from fvlfp.output_folder import check_local, no_formula

#: From best to worst; of several copies of one notebook the best result of each exercise counts.
RESULTS = ("passed", "wrong", "failed", "open", "not run", "check changed", "missing", "unreadable")
COLUMNS = ("student", "lesson", "exercise", "result")
#: What browsers, JupyterLab, Colab and desktops add to the name of a copy.
_COPY = re.compile(
    r"^(copy of|kopie von|copia de|copie de)\b|([ _-]*(copy ?\d*|\(\d+\)|\(copy\)))+$", re.IGNORECASE
)


def grades(
    folder: Path,
    lessons_folder: Path | None = None,
    *,
    limit: float | None = None,
    copies_to: Path | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> pd.DataFrame:
    """One row an exercise: student, lesson, exercise (its number in the lesson), result.

    Args:
        folder: holds the notebooks in any depth; folders, and what surrounds the lesson's name in a file
            name, name the student (`ann/03_….ipynb`, `ann_03_….ipynb`); marks of a copy, as ` (1)`, do not.
        limit: run each notebook again, for so many seconds at most. None: read saved outputs, run nothing.
        copies_to: a folder for the notebooks that were run again; needed with `limit`.
        say: gets one line for each lesson that a student handed in more than once, and for each run.

    Returns:
        result: "passed"; "open" (the stub is still there); "wrong" (a check said no); "failed" (another
        error); "not run"; "check changed"; "missing" (the cell is gone); "unreadable" (no notebook).

    Raises:
        InputError: no such folder, or no lesson in it.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is no folder: name the one that holds the class's notebooks")
    found_in = sorted(path.relative_to(folder) for path in folder.rglob("*.ipynb"))
    handed_in = [folder / path for path in found_in if not any(map(is_hidden, path.parts))]

    def outputs_of(path: Path) -> Path:
        if limit is None or copies_to is None:
            return path
        say(f"running {path.relative_to(folder)}")
        return rerun(path, copies_to / path.relative_to(folder), limit=limit)

    rows = []
    for lesson in lessons(lessons_folder):
        wanted = [cell for cell in nbformat.read(lesson, as_version=4).cells if SOLUTION.search(cell.source)]
        copies: dict[str, list[list[str]]] = {}
        for path in handed_in:
            student = student_of(path.relative_to(folder), lesson.stem)
            if student is not None:
                copies.setdefault(student or folder.name, []).append(_results(path, wanted, outputs_of))
        for student, found in copies.items():
            if len(found) > 1:
                said = f"{len(found)} copies of {lesson.stem}; the best result of each exercise counts"
                say(f"{student}: {said}")
            for number, results in enumerate(zip(*found, strict=True), start=1):
                rows.append((student, lesson.stem, number, min(results, key=RESULTS.index)))
    if not rows:
        raise InputError(f"{folder} holds no notebook named like a lesson, such as 00_start_here.ipynb")
    return pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(
        ["student", "lesson", "exercise"], ignore_index=True
    )


def by_student(table: pd.DataFrame) -> pd.DataFrame:
    """One row a student, one column a lesson: `passed/exercises`, "" where nothing was handed in; and `all`.

    >>> rows = [("ann", "00_a", 1, "passed"), ("ann", "00_a", 2, "open"), ("bob", "01_b", 1, "wrong")]
    >>> by_student(pd.DataFrame(rows, columns=["student", "lesson", "exercise", "result"]))["all"].to_dict()
    {'ann': '1/2', 'bob': '0/1'}
    """
    short = table.assign(lesson=table["lesson"].str[:2], passed=table["result"] == "passed")

    def passed(by: list[str]) -> pd.Series:
        found = short.groupby(by)["passed"]
        return found.sum().astype(str) + "/" + found.size().astype(str)

    return (
        passed(["student", "lesson"])
        .unstack(fill_value="")
        .rename_axis(columns=None)
        .assign(all=passed(["student"]))
    )


def check_grades_file(path: Path) -> None:
    """Refuse a file that grades cannot be written to, before notebooks are run.

    Raises:
        InputError: `path` is a folder, an address, or a file that is no table of grades.
    """
    check_local(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the CSV file to write, such as {path / 'grades.csv'}")
    if path.exists():
        with path.open("rb") as file:
            if not file.readline().startswith(",".join(COLUMNS).encode()):
                raise InputError(f"{path} is there and is no table of grades: choose another --out")


def write_grades(table: pd.DataFrame, path: Path) -> None:
    """Write the table as CSV, its folder too; a student whose name a spreadsheet would run gets a leading '.

    Raises:
        InputError: as `check_grades_file`, or `path` cannot be written.
    """
    check_grades_file(path)
    student = table["student"].map(no_formula)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        table.assign(student=student).to_csv(path, index=False)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def student_of(path: Path, lesson: str) -> str | None:
    """Who handed in the notebook at this relative path: "" where nothing says so, None for another notebook.

    >>> student_of(Path("ann/00_start_here (1).ipynb"), "00_start_here")
    'ann'
    >>> student_of(Path("Copy of 00_start_here_bob.ipynb"), "00_start_here")
    'bob'
    """
    before, found, after = path.stem.partition(lesson)
    if not found or after[:1].isalnum():
        return None
    parts = [_COPY.sub("", part.strip()).strip(" _-") for part in (before, after)]
    own = "_".join(part for part in parts if part)
    return "/".join([*path.parts[:-1], *([own] if own else [])])


def _results(path: Path, wanted: list[Any], outputs_of: Callable[[Path], Path]) -> list[str]:
    """The result of each exercise in one notebook."""
    try:
        cells = read_quietly(outputs_of(path)).cells
        known = {name: cell for cell in cells for name in (cell.metadata.get("id"), cell.get("id")) if name}
        return [_result(cell.source, known.get(cell.id) or _by_check(cell.source, cells)) for cell in wanted]
    except Exception:  # damaged notebooks break their readers in many ways; the class's others count
        return ["unreadable"] * len(wanted)


def _check_of(lesson: str) -> str:
    """What follows the solution in an exercise's source."""
    return lesson[[found.end() for found in SOLUTION.finditer(lesson)][-1] :].strip()


def _by_check(lesson: str, cells: list[Any]) -> Any:
    """The cell that ends with the lesson's check, for programs that give every cell a new id."""
    check = _check_of(lesson)
    return next((c for c in cells if c.cell_type == "code" and c.source.rstrip().endswith(check)), None)


def _result(lesson: str, cell: Any) -> str:
    """lesson: the exercise's source with its solution; cell: the submitted one, None if it is gone."""
    if cell is None or cell.cell_type != "code":
        return "missing"
    check = _check_of(lesson)
    if not cell.source.rstrip().endswith(check):
        return "check changed"
    errors = [output for output in cell.outputs if output.output_type == "error"]
    if errors:
        said = errors[0].evalue if errors[0].ename == "NotYet" else ""
        return {"✎": "open", "✗": "wrong"}.get(said[:1], "failed")
    printed = "".join(output.text for output in cell.outputs if output.get("name") == "stdout")
    ticks = sum(line.startswith("✓ ") for line in printed.splitlines())
    return "passed" if ticks >= check.count("check(") else "not run"
