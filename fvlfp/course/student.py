"""`fvlfp student`: copies of the lessons without solutions.

What stands between `### BEGIN SOLUTION: task` and `### END SOLUTION` (nbgrader's markers) is left open: in
a function by `...`, elsewhere by a stub that stops with the task in words. No later cell of a lesson uses an
answer, so whoever leaves a step open can still go on; the tests run every lesson that way. The solutions,
each behind a fold, are notebooks of their own. What this module does not do: it grades nothing; the
lessons' own checks do, and `grade` collects them.
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
    r"""A cell's source with every solution left open; unchanged where there is none.

    >>> lines = ["### BEGIN SOLUTION: two: the number", "two = 2", "### END SOLUTION"]
    >>> print(without_solution("\n".join(lines)))
    from fvlfp.course.lesson import exercise
    exercise('two: the number')
    >>> lines = ["def two():", "    ### BEGIN SOLUTION", "    return 2", "    ### END SOLUTION"]
    >>> print(without_solution("\n".join(lines)).splitlines()[-1].strip() == "...")
    True
    """

    def stub(found: re.Match[str]) -> str:
        indent, task = found[1], found[2] or "write what the text above asks for"
        if indent and not found[2]:  # a function's body: its docstring says the task
            return f"{indent}..."
        return f"{indent}from fvlfp.course.lesson import exercise\n{indent}exercise({task!r})"

    return SOLUTION.sub(stub, source)


def folded(source: str, summary: str) -> str:
    """The code of a cell, without its marks, behind a fold, as markdown."""
    code = "\n".join(line for line in source.splitlines() if not line.strip().startswith("### "))
    return f"<details><summary>{summary}</summary>\n\n```python\n{code}\n```\n\n</details>"


def student_copy(lesson: Path) -> nbformat.NotebookNode:
    """The notebook of one lesson, with a stub in place of each solution.

    *Run All* goes on behind a step that is open or wrong: Jupyter's tag `raises-exception` says so.
    """
    notebook = nbformat.read(lesson, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code" and SOLUTION.search(cell.source):
            cell.source = without_solution(cell.source)
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "raises-exception"]
    return notebook


def solutions(lesson: Path) -> nbformat.NotebookNode:
    """The graded steps of one lesson, solved, each behind a fold."""
    notebook = nbformat.read(lesson, as_version=4)
    title = notebook.cells[0].source.splitlines()[0]
    texts = [f"{title}\n\nSolutions of [{lesson.stem}](../{lesson.name}). Try it yourself first."]
    for cell in notebook.cells:
        if cell.cell_type == "code" and SOLUTION.search(cell.source):
            texts.append(folded(cell.source, f"Step {len(texts)}"))
    cells = [nbformat.v4.new_markdown_cell(text, id=f"s{i:02d}") for i, text in enumerate(texts)]
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def beside_itself(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its results in its own folder, where in a checkout they lie beside the lessons."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = cell.source.replace('out = "../runs/', 'out = "runs/')
    return notebook


def write_student_copies(
    out: Path,
    folder: Path | None = None,
    *,
    solved: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[Path]:
    """Write a copy of each lesson, and of the contents and glossary, into `out`; returns the lessons' paths.

    A file that is there and differs is somebody's work: it stays, and `say` gets a line that names these
    files. solved: also write the solutions, into `out/solutions`.

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
    if solved:
        texts |= {f"solutions/{path.name}": nbformat.writes(solutions(path)) + "\n" for path in found}
    kept = []
    with claimed(out):
        for name, text in texts.items():
            path = out / name
            path.parent.mkdir(exist_ok=True)
            if not path.exists():
                path.write_text(text, encoding="utf-8")
            elif not _same(path, text):
                kept.append(name)
    if kept:
        say(f"kept as they are in {out} (there already, and changed): {', '.join(kept)}")
    return [out / path.name for path in found]


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()
