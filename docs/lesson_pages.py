"""Lessons and texts as HTML: equations as MathML, figures described, and no path of the machine that built.

Every figure gets its description, the *Picture: ...* line above it, as alt text. What this module does not
do: it runs no lesson, and it knows no page around the body.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from fvlfp.course.student import SOLUTION, folded, without_solution

MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$([^$\n]+?)\$", re.DOTALL)
PICTURE = re.compile(r"\*Pictures?: (.+?)\*(?=\s|$)", re.DOTALL)
LINK = re.compile(r'(<(?:a|img)\b[^>]*?(?:href|src)=")(?!https?:|#|data:|mailto:)([^"#]+)')
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
#: several letters that are one name, as \mathrm{TPR}: one <mtext>, or browsers set them apart
NAME = re.compile(r"\\(?:mathrm|mathit|operatorname|text)\{([A-Za-z]{2,})\}")
WIDGET = "application/vnd.jupyter.widget-view+json"


def title_of(notebook: Path) -> str:
    """A notebook's first heading."""
    first = nbformat.read(notebook, as_version=4).cells[0].source.splitlines()[0]
    return str(first).removeprefix("# ")


def with_mathml(text: str) -> str:
    """Markdown whose TeX is MathML; equations of their own line scroll where they are wider than the page."""

    def draw(found: re.Match[str]) -> str:
        tex = NAME.sub(r"\\text{\1}", found[1] or found[2])
        drawn = convert(tex, display="block" if found[1] else "inline")
        return f'<div class="equation">{drawn}</div>' if found[1] else drawn

    return "".join(part if i % 2 else MATH.sub(draw, part) for i, part in enumerate(CODE.split(text)))


def with_local_links(body: str) -> str:
    """Links to notebooks and texts become links to their pages."""

    def there(found: re.Match[str]) -> str:
        target = re.sub(r"\.(ipynb|md)$", ".html", found[2])
        target = re.sub(r"(^|/)README\.html$", r"\1index.html", target)
        return found[1] + target

    return LINK.sub(there, body)


def with_github_anchors(body: str) -> str:
    """Every heading can be linked to by the name that GitHub gives it, from this page or another."""

    def named(heading: re.Match[str]) -> str:
        slug = re.sub(r"[^\w-]", "", heading[1].lower())
        return heading[0] if slug == heading[1] else f'<a id="{slug}"></a>{heading[0]}'

    return re.sub(r'<h[1-6][^>]* id="([^"]+)"', named, body)


def with_alt_texts(notebook: Any) -> Any:
    """The notebook, each figure described by the last *Picture: ...* above it."""
    alt = ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            found = PICTURE.findall(cell.source)
            alt = " ".join(found[-1].split()).replace("*", "") if found else alt
        for output in cell.get("outputs", []):
            for kind in output.get("data", {}):
                if kind.startswith("image/"):
                    output.setdefault("metadata", {}).setdefault(kind, {})["alt"] = alt
    return notebook


def without_traces(notebook: Any, folder: Path) -> Any:
    """Without the cell that papermill put in, live widgets, and paths of the machine that ran the lesson.

    folder: of the executed lesson; its path becomes `runs/<lesson>`.
    """
    notebook.cells = [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]
    paths = {str(folder.resolve()): f"runs/{folder.name}", str(folder): f"runs/{folder.name}"}
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = in_one_piece([o for o in cell.outputs if WIDGET not in o.get("data", {})])
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            for holder, key in [(output, "text")] * ("text" in output) + [(data, kind) for kind in data]:
                if isinstance(holder[key], str):
                    for path, short in paths.items():
                        holder[key] = holder[key].replace(path, short)
    return notebook


def in_one_piece(outputs: list[Any]) -> list[Any]:
    """Outputs, printed lines that follow one another joined: they came as the lesson ran."""
    joined: list[Any] = []
    for output in outputs:
        before = joined[-1] if joined else {}
        if output.get("name") and output.get("name") == before.get("name"):
            before["text"] += output["text"]
        else:
            joined.append(output)
    return joined


def with_reports(body: str, folder: Path, files: Path) -> str:
    """Links to files that the lesson wrote lead to copies of them in the site."""

    def there(found: re.Match[str]) -> str:
        source = folder / found[2]
        if not source.is_file():
            return found[0]
        copy = files / found[2]
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, copy)
        return f"{found[1]}files/{folder.name}/{found[2]}{found[3]}"

    return re.sub(rf"""((?:href|src)=["'])runs/{re.escape(folder.name)}/([^"']+)(["'])""", there, body)


def with_folded_solutions(notebook: Any) -> Any:
    """Steps as a learner meets them, each followed by its solution behind a fold."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "code" and SOLUTION.search(cell.source):
            cells.append(nbformat.v4.new_markdown_cell(folded(cell.source, "Solution")))
            cell.source = without_solution(cell.source)
    notebook.cells = cells
    return notebook


def lesson_body(source: Path, folder: Path, files: Path) -> str:
    """One notebook as HTML without a page around it.

    folder: where the lesson was executed. files: for copies of the reports that it links to.
    """
    notebook = with_alt_texts(without_traces(nbformat.read(source, as_version=4), folder))
    notebook = with_folded_solutions(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathml(cell.source)
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    return with_reports(body, folder, files)
