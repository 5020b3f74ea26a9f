"""The rendered pages: complete, linked, described, and without anything from a network; examples that run."""

import base64
import doctest
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from docs.build import INSTALL, Site
from docs.diagrams import DRAWINGS, drawn
from docs.lesson_pages import lesson_body, with_alt_texts, with_mathml
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
    words = [sys.executable, "-m", "docs.build", "--out", str(out), "--run", str(out / "none")]
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


def stands(place, text):
    """Whether a folder of this machine is named, not only the end of another: `/app`, not `docs/app`."""
    return len(place.parts) > 1 and re.search(rf"(?<![\w.-]){re.escape(str(place))}(?![\w-])", text)


def test_pages_load_nothing_from_elsewhere_and_their_links_lead_somewhere(pages):
    for page in pages.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'<[^>]+ src="(https?:)?//|<link[^>]*href="(https?:)?//', text), page
        assert not any(stands(place, text) for place in (ROOT, pages, Path.home())), page
        if "api" in page.relative_to(pages).parts:
            continue
        for target in re.findall(r'<(?:a|img|link|script)\b[^>]*?(?:href|src)="([^"#]+)', text):
            assert not target.startswith("/"), (page.name, target)
            if not re.match(r"https?:|data:", target):
                assert (page.parent / target).exists(), (page.name, target)
        for target, anchor in re.findall(r'<a\b[^>]*?href="([^"#:]*)#([^"]+)"', text):
            there = (page.parent / target).resolve() if target else page
            names = re.findall(r'\b(?:id|name)="([^"]+)"', there.read_text(encoding="utf-8"))
            assert {anchor, unquote(anchor)} & set(names), (page.name, target, anchor)


def test_each_lesson_leads_to_the_one_before_and_the_next(pages):
    stems = [lesson.stem for lesson in lessons()]
    for before, here, after in zip(stems, stems[1:], stems[2:], strict=False):
        text = (pages / "notebooks" / f"{here}.html").read_text(encoding="utf-8")
        assert f'rel="prev" href="../notebooks/{before}.html"' in text
        assert f'rel="next" href="../notebooks/{after}.html"' in text
        assert f'href="../notebooks/{here}.html" aria-current="page"' in text


def test_the_search_finds_lessons_and_api_and_its_entries_are_there(pages):
    script = (pages / "search-index.js").read_text(encoding="utf-8")
    index = json.loads(script.removeprefix("const INDEX = ").removesuffix(";\n"))
    for entry in index:
        page, _, anchor = entry["href"].partition("#")
        text = (pages / page).read_text(encoding="utf-8")
        assert not anchor or f'id="{anchor}"' in text, entry["href"]
    named = {entry["title"]: entry["href"] for entry in index}
    assert named["fusion_weights"] == "api/fvlfp/fpf.html#fusion_weights"
    assert named["Glossary"] == "notebooks/contents.html#Glossary"


def test_equations_are_drawn(pages):
    for lesson in lessons():
        text = (pages / "notebooks" / f"{lesson.stem}.html").read_text(encoding="utf-8")
        assert not re.search(r"<mi>[TF]</mi>\s*<mi>[PN]</mi>", text), "TPR is one name, not T times P times R"
        equations = re.sub(r"<pre>.*?</pre>", "", text, flags=re.DOTALL)
        assert "$" not in re.sub(r"<style>.*?</style>", "", equations, flags=re.DOTALL), lesson.stem
    assert with_mathml("`$a$` and $x_1$").startswith("`$a$` and <math")
    assert with_mathml("$$a$$").startswith('<div class="equation"><math'), "wide ones scroll"
    assert "<mtext>TPR</mtext>" in with_mathml(r"$\mathrm{TPR}$"), "a name in one piece"


def test_figures_are_described(tmp_path):
    pixel = base64.b64encode(b"png").decode()
    figure = new_output("display_data", data={"image/png": pixel})
    told = new_markdown_cell("Text.\n\n*Picture: two bars, one\nlonger.*")
    notebook = new_notebook(cells=[told, new_code_cell("draw()", outputs=[figure])])
    assert (
        with_alt_texts(notebook).cells[1].outputs[0].metadata["image/png"]["alt"] == "two bars, one longer."
    )
    nbformat.write(notebook, tmp_path / "a.ipynb")
    body = lesson_body(tmp_path / "a.ipynb", tmp_path, tmp_path / "files")
    assert 'alt="two bars, one longer."' in body


def test_a_lesson_page_folds_its_solutions(tmp_path):
    cell = "def two():\n    ### BEGIN SOLUTION\n    return 2\n    ### END SOLUTION\n\ncheck(two)"
    nbformat.write(new_notebook(cells=[new_code_cell(cell)]), tmp_path / "a.ipynb")
    before, _, after = lesson_body(tmp_path / "a.ipynb", tmp_path, tmp_path).partition("<details>")
    assert "..." in re.sub("<[^>]+>", "", before) and "return" not in before and "return" in after


def test_a_lesson_page_holds_no_trace_of_where_it_was_run(tmp_path):
    """Papermill's parameters go, paths are shortened, and a report that a cell links to comes along."""
    folder = tmp_path / "10_a"
    (folder / "report").mkdir(parents=True)
    (folder / "report" / "report.html").write_text("the report")
    link = new_output("display_data", data={"text/html": f"<a href='{folder}/report/report.html'>report</a>"})
    injected = new_code_cell(f"out = '{folder}'", metadata={"tags": ["injected-parameters"]})
    said = new_code_cell("x", outputs=[link, new_output("stream", name="stdout", text=f"in {folder}\n")])
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A?"), injected, said]), folder / "a.ipynb")
    body = lesson_body(folder / "a.ipynb", folder, tmp_path / "site" / "files" / "10_a")
    assert str(tmp_path) not in body and "out =" not in body and "in runs/10_a" in body
    assert 'href="files/10_a/report/report.html"' in body
    assert (tmp_path / "site" / "files" / "10_a" / "report" / "report.html").read_text() == "the report"


def test_a_lesson_page_drops_live_widgets_and_joins_printed_lines(tmp_path):
    lines = [new_output("stream", name="stdout", text=text) for text in ("round 1\n", "round 2\n")]
    data = {"text/plain": "SelectionSlider()", "application/vnd.jupyter.widget-view+json": {"model_id": "a"}}
    cell = new_code_cell("x", outputs=[*lines, new_output("display_data", data=data)])
    nbformat.write(new_notebook(cells=[new_markdown_cell("# A?"), cell]), tmp_path / "a.ipynb")
    body = lesson_body(tmp_path / "a.ipynb", tmp_path, tmp_path)
    assert "round 1\nround 2\n" in body and "SelectionSlider" not in body


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
    """Every diagram that a cell shows is attached, as docs/diagrams.py draws it, and described in words.
    A lesson has two to four."""
    shown = set()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        count = path.read_text(encoding="utf-8").count("](attachment:")
        assert 2 <= count <= 4 or path.stem == "contents", f"{path.name} has {count}"
        for cell in nbformat.read(path, as_version=4).cells:
            wanted = drawn(cell.source) if cell.cell_type == "markdown" else {}
            assert cell.get("attachments", {}) == wanted, f"{path.name}: run python -m docs.diagrams"
            assert cell.source.count("(attachment:") == len(wanted)
            assert len(re.findall(r"!\[[^\]]{40,}\]\(attachment:", cell.source)) == len(wanted)
            shown |= set(wanted)
    assert shown == {f"{name}.svg" for name in DRAWINGS}


def test_links_to_run_a_lesson_elsewhere_need_a_repository():
    """Without one there is none; with one, both services and the cell that Colab needs."""
    assert Site(Path("unused"), None).open_in("notebooks/a.ipynb") == {}
    site = Site(Path("unused"), "owner/name")
    assert list(site.open_in("notebooks/a.ipynb")) == ["open in Colab", "open in Binder"]
    assert all("owner/name" in target for target in site.open_in("notebooks/a.ipynb").values())
    cell = INSTALL.format("OWNER/NAME")
    assert cell in (ROOT / "README.md").read_text(encoding="utf-8")
    index = re.search(r"--extra-index-url \S+", cell)
    assert index and index[0] in (ROOT / "binder" / "requirements.txt").read_text()
