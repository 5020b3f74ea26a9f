"""`fvlfp student`: copies of the lessons without solutions.

What stands between `### BEGIN SOLUTION` and `### END SOLUTION` (nbgrader's markers) is replaced by a line
that stops with the task in words. What this module does not do: it grades nothing; the lessons' own checks
do.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

from fvlfp.errors import InputError
from fvlfp.tour import lessons

_SOLUTION = re.compile(r"^([ \t]*)### BEGIN SOLUTION\n.*?^[ \t]*### END SOLUTION$", re.MULTILINE | re.DOTALL)
_STUB = (
    r"\1from fvlfp.lesson import exercise"
    "\n"
    r'\1exercise("write what the text above asks for; the check below says whether it is right")'
)


def without_solution(source: str) -> str:
    """A cell's source with every solution replaced by a stub; unchanged where there is none."""
    return _SOLUTION.sub(_STUB, source)


def write_student_copies(out: Path, folder: Path | None = None) -> list[Path]:
    """Write a copy of each lesson into `out`; returns the paths.

    Raises:
        InputError: no lessons, or `out` is the folder of the lessons themselves.
    """
    made = []
    for path in lessons(folder):
        if path.parent.resolve() == out.resolve():
            raise InputError(f"{out} holds the lessons themselves: choose another --out")
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.source = without_solution(cell.source)
        out.mkdir(parents=True, exist_ok=True)
        made.append(out / path.name)
        nbformat.write(notebook, made[-1])
    return made
