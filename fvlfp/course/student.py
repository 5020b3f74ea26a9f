"""`fvlfp student`: copies of the lessons without solutions.

What stands between `### BEGIN SOLUTION: task` and `### END SOLUTION` (nbgrader's markers) is replaced by a
stub that stops with the task in words. No later cell of a lesson uses an answer, so whoever leaves an
exercise open can still go on; the tests run every lesson that way. What this module does not do: it grades
nothing; the lessons' own checks do, and `grade` collects them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import nbformat

from fvlfp.course.tour import lessons
from fvlfp.errors import InputError
from fvlfp.output_folder import claimed

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


def beside_itself(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its results in its own folder, where in a checkout they lie beside the lessons."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace('out = "../runs/', 'out = "runs/')
    return notebook


def write_student_copies(
    out: Path, folder: Path | None = None, *, say: Callable[[str], None] = lambda line: None
) -> list[Path]:
    """Write a copy of each lesson, and of the contents and glossary, into `out`; returns the lessons' paths.

    A file that is there and differs is somebody's work: it stays, and `say` gets a line about it.

    Raises:
        InputError: no lessons, `out` is the folder of the lessons themselves, or it cannot be written to.
    """
    found = lessons(folder)
    if found[0].parent.resolve() == out.resolve():
        raise InputError(f"{out} holds the lessons themselves: choose another --out")
    texts = {path.name: nbformat.writes(beside_itself(student_copy(path))) + "\n" for path in found}
    contents = found[0].with_name("contents.ipynb")
    if contents.is_file():
        texts[contents.name] = contents.read_text(encoding="utf-8")
    with claimed(out):
        for name, text in texts.items():
            path = out / name
            if not path.exists():
                path.write_text(text, encoding="utf-8")
            elif not _same(path, text):
                say(f"kept as it is: {path} (there already, and changed)")
    return [out / path.name for path in found]


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()
