"""The rendered pages: complete, linked, described, and without anything from a network; examples that run."""

import base64
import doctest
import importlib
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from docs.build import with_alt_texts, with_mathml, write_lesson
from docs.diagrams import DRAWINGS, drawn
from fvlfp.course.tour import lessons

ROOT = Path(__file__).resolve().parent.parent
MODULES = [path for path in (ROOT / "fvlfp").rglob("*.py") if ">>> " in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_examples_in_docstrings_run(path):
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0 and found.failed == 0


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "pages"
    words = [sys.executable, "docs/build.py", "--out", str(out), "--run", str(out / "none")]
    made = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert made.stdout.strip() == f"start page: {out / 'index.html'}"
    assert "UserWarning" not in made.stderr, made.stderr
    return out


def test_every_lesson_text_and_module_has_its_page(pages):
    for lesson in lessons():
        assert (pages / "notebooks" / f"{lesson.stem}.html").is_file()
    for name in ("index", "TEACHING", "ETHICS", "METHOD", "notebooks/contents", "data_prep/index"):
        assert (pages / f"{name}.html").is_file(), name
    for module in (ROOT / "fvlfp").rglob("*.py"):
        place = module.relative_to(ROOT).with_suffix("")
        place = place.parent if place.name == "__init__" else place
        assert (pages / "api" / place).with_suffix(".html").is_file(), place


def test_pages_load_nothing_from_elsewhere_and_their_links_lead_somewhere(pages):
    for page in pages.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'<[^>]+ src="(https?:)?//|<link[^>]*href="(https?:)?//', text), page
        if "api" in page.parts:
            continue
        for target in re.findall(r'<(?:a|img)\b[^>]*?(?:href|src)="([^"#]+)', text):
            if not re.match(r"https?:|data:", target):
                linked = (page.parent / target).resolve()
                assert linked.exists() or (ROOT / linked.relative_to(pages)).exists(), (page.name, target)


def test_equations_are_drawn(pages):
    for lesson in lessons():
        text = (pages / "notebooks" / f"{lesson.stem}.html").read_text(encoding="utf-8")
        equations = re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)
        assert "$" not in re.sub(r"<style>.*?</style>", "", equations, flags=re.DOTALL), lesson.stem
    assert with_mathml("`$a$` and $x_1$").startswith("`$a$` and <math")


def test_figures_are_described(tmp_path):
    pixel = base64.b64encode(b"png").decode()
    figure = new_output("display_data", data={"image/png": pixel})
    told = new_markdown_cell("Text.\n\n*Picture: two bars, one\nlonger.*")
    notebook = new_notebook(cells=[told, new_code_cell("draw()", outputs=[figure])])
    assert (
        with_alt_texts(notebook).cells[1].outputs[0].metadata["image/png"]["alt"] == "two bars, one longer."
    )
    nbformat.write(notebook, tmp_path / "a.ipynb")
    write_lesson(tmp_path / "a.ipynb", tmp_path / "a.html")
    assert 'alt="two bars, one longer."' in (tmp_path / "a.html").read_text()


def test_every_figure_of_a_lesson_has_a_description_above_it():
    """A cell that draws comes after a *Picture: ...* of its own."""
    for lesson in lessons():
        waiting = 0
        for cell in nbformat.read(lesson, as_version=4).cells:
            if cell.cell_type == "markdown":
                waiting += len(re.findall(r"\*Pictures?: ", cell.source))
            elif re.search(r"plt\.subplots|^plots\.", cell.source, re.MULTILINE):
                assert waiting > 0, f"{lesson.stem}: {cell.source[:60]}"
                waiting -= 1


def test_notebooks_hold_the_diagrams_that_the_script_draws():
    """Every diagram that a cell shows is attached, as docs/diagrams.py draws it, and described in words."""
    shown = set()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            wanted = drawn(cell.source) if cell.cell_type == "markdown" else {}
            assert cell.get("attachments", {}) == wanted, f"{path.name}: run python docs/diagrams.py"
            assert cell.source.count("(attachment:") == len(wanted)
            assert len(re.findall(r"!\[[^\]]{40,}\]\(attachment:", cell.source)) == len(wanted)
            shown |= set(wanted)
    assert shown == {f"{name}.svg" for name in DRAWINGS}
