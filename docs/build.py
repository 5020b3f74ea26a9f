"""The project as static pages that open without a network: API reference, lessons, and the texts.

    python docs/build.py [--out build/docs] [--run runs/tour]     (make docs)

pdoc renders the API from docstrings, nbconvert the lessons. Lessons are taken as they were executed by
`fvlfp tour` if `--run` holds them, with figures and numbers, else as committed. Equations become MathML,
which browsers draw themselves. Every figure gets its description, the *Picture: ...* line above it, as
alt text.
"""

from __future__ import annotations

import argparse
import html
import importlib
import pkgutil
import re
import shutil
from pathlib import Path
from typing import Any, get_type_hints

import nbformat
import pdoc
from latex2mathml.converter import convert
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter

import fvlfp.audit
from fvlfp.course.tour import NOTEBOOKS, lessons

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ("README", "METHOD", "TEACHING", "ETHICS", "CONTRIBUTING", "CHANGELOG")
MATH = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$([^$\n]+?)\$", re.DOTALL)
PICTURE = re.compile(r"\*Pictures?: (.+?)\*(?=\s|$)", re.DOTALL)
LINK = re.compile(r'(<(?:a|img)\b[^>]*?(?:href|src)=")(?!https?:|#|data:|mailto:)([^"#]+)')
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
STYLE = """
body { max-width: 60rem; margin: auto; padding: 1rem; font: 17px/1.55 system-ui, sans-serif; }
nav a { margin-right: 1rem; } nav { border-bottom: 1px solid #999; padding-bottom: .5rem; }
pre, code { font-family: ui-monospace, monospace; font-size: .85em; }
pre { overflow-x: auto; padding: .6rem; }
.highlight, .output_area pre { background: #f6f6f6; } .jp-OutputPrompt, .prompt { display: none; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; }
td, th { border: 1px solid #ccc; padding: .25rem .6rem; text-align: left; vertical-align: top; }
img { max-width: 100%; background: white; } a { color: #0b5fa5; } .anchor-link { display: none; }
math[display=block] { margin: 1rem 0; }
"""


def page(title: str, body: str, depth: int) -> str:
    """A whole page; depth: how many folders below the start it lies."""
    up = "../" * depth
    links = {"start": "index", "contents and glossary": "notebooks/contents", "method": "METHOD"}
    links |= {"teaching": "TEACHING", "API": "api/fvlfp"}
    nav = "".join(f'<a href="{up}{target}.html">{name}</a>' for name, target in links.items())
    colours = HtmlFormatter(style="friendly").get_style_defs(".highlight")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{colours}{STYLE}</style>'
        f"<nav>{nav}</nav><main>{body}</main></html>\n"
    )


def with_mathml(text: str) -> str:
    """Markdown whose TeX is MathML; code stays as it is."""

    def draw(found: re.Match[str]) -> str:
        return convert(found[1] or found[2], display="block" if found[1] else "inline")

    return "".join(part if i % 2 else MATH.sub(draw, part) for i, part in enumerate(CODE.split(text)))


def with_local_links(body: str) -> str:
    """Links to notebooks and texts become links to their pages."""

    def there(found: re.Match[str]) -> str:
        target = re.sub(r"\.(ipynb|md)$", ".html", found[2])
        target = re.sub(r"(^|/)README\.html$", r"\1index.html", target)
        return found[1] + target

    return LINK.sub(there, body)


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


def write_lesson(source: Path, out: Path) -> None:
    """One notebook as a page."""
    notebook = with_alt_texts(nbformat.read(source, as_version=4))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = with_mathml(cell.source)
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)
    title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
    out.write_text(page(title, with_local_links(body), 1), encoding="utf-8")


def write_texts(out: Path) -> None:
    """README and the other texts, and the result pages with their figures."""
    texts = [ROOT / f"{name}.md" for name in TEXTS]
    texts += [ROOT / folder / "README.md" for folder in ("data_prep", "deploy")]
    texts += sorted((ROOT / "docs").glob("*.md"))
    texts += sorted((ROOT / "benchmarks").rglob("*.md"))
    for text in texts:
        place = text.relative_to(ROOT)
        target = out / place.with_name("index.html" if text.stem == "README" else f"{text.stem}.html")
        target.parent.mkdir(parents=True, exist_ok=True)
        body = with_local_links(markdown2html(with_mathml(text.read_text(encoding="utf-8"))))
        target.write_text(page(text.stem, body, len(place.parents) - 1), encoding="utf-8")
    for image in (ROOT / "benchmarks" / "results").glob("*.png"):
        shutil.copy(image, out / "benchmarks" / "results" / image.name)


def resolve_named_tuples(package: Any) -> None:
    """Types in place of their names: a NamedTuple's constructor lies in a module of its own, where pdoc looks
    for the names in vain.
    """
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and value.__module__ == module.name and hasattr(value, "_fields"):
                value.__new__.__annotations__ = get_type_hints(value)


def build(out: Path, run: Path) -> Path:
    """Write all pages into `out`; returns the start page."""
    shutil.rmtree(out, ignore_errors=True)
    (out / "notebooks").mkdir(parents=True)
    for lesson in [*lessons(), NOTEBOOKS / "contents.ipynb"]:
        executed = run / lesson.stem / lesson.name
        source = executed if executed.is_file() else lesson
        write_lesson(source, out / "notebooks" / f"{lesson.stem}.html")
    write_texts(out)
    # pdoc shows what __all__ names: here the modules, in which each public name has its place.
    for package in (fvlfp, fvlfp.audit):
        package.__all__ = [module.name for module in pkgutil.iter_modules(package.__path__)]
    resolve_named_tuples(fvlfp)
    pdoc.render.configure(docformat="google", search=True)
    pdoc.pdoc("fvlfp", output_directory=out / "api")
    return out / "index.html"


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("build/docs"))
    options.add_argument("--run", type=Path, default=Path("runs/tour"))
    chosen = options.parse_args()
    print(f"start page: {build(chosen.out, chosen.run)}")
