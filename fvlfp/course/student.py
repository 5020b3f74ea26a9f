"""`fvlfp student`: copies of the lessons without solutions.

What stands between `### BEGIN SOLUTION: task` and `### END SOLUTION` (nbgrader's markers) is replaced by a
stub that stops with the task in words. No later cell of a lesson uses an answer, so whoever leaves an
exercise open can still go on; the tests run every lesson that way. What this module does not do: it grades
nothing; the lessons' own checks do, and `grade` collects them.
"""

from __future__ import annotations

import re
from pathlib import Path

import nbformat

from fvlfp.course.tour import lessons
from fvlfp.errors import InputError

#: indentation, task, solution
SOLUTION = re.compile(
    r"^([ \t]*)### BEGIN SOLUTION(?:: *([^\n]*))?\n(.*?)^[ \t]*### END SOLUTION$", re.MULTILINE | re.DOTALL
)


def without_solution(source: str) -> str:
    r"""A cell's source with every solution replaced by a stub; unchanged where there is none.

    >>> lines = ["### BEGIN SOLUTION: two: the number", "two = 2", "### END SOLUTION"]
    >>> print(without_solution("\n".join(lines)))
    from fvlfp.course.lesson import exercise
    exercise('two: the number')
    """

    def stub(found: re.Match[str]) -> str:
        indent, task = found[1], found[2] or "write what the text above asks for"
        return f"{indent}from fvlfp.course.lesson import exercise\n{indent}exercise({task!r})"

    return SOLUTION.sub(stub, source)


def student_copy(lesson: Path) -> nbformat.NotebookNode:
    """The notebook of one lesson, with a stub in place of each solution."""
    notebook = nbformat.read(lesson, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = without_solution(cell.source)
    return notebook


def write_student_copies(out: Path, folder: Path | None = None) -> list[Path]:
    """Write a copy of each lesson, and of the contents and glossary, into `out`; returns the lessons' paths.

    Raises:
        InputError: no lessons, or `out` is the folder of the lessons themselves.
    """
    made, found = [], lessons(folder)
    for path in found:
        if path.parent.resolve() == out.resolve():
            raise InputError(f"{out} holds the lessons themselves: choose another --out")
        out.mkdir(parents=True, exist_ok=True)
        made.append(out / path.name)
        nbformat.write(student_copy(path), made[-1])
    contents = found[0].with_name("contents.ipynb")
    if contents.is_file():
        (out / contents.name).write_bytes(contents.read_bytes())
    return made
