"""The project as a site of static pages that works without a network, from a folder or from a web server.

    python -m docs.build [--out build/docs] [--run runs/tour] [--repository OWNER/NAME]     (make docs)

nbconvert renders the lessons, pdoc the API from docstrings, one jinja2 template the page around them. Lessons
are taken as they were executed by `fvlfp tour` if `--run` holds them, with figures and numbers, else as
committed. All links are relative. `--repository` adds links to Binder and Colab, which need a public one.
"""

from __future__ import annotations

import argparse
import html
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import jinja2
import markupsafe
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter

from docs.api_pages import api_entries, write_api
from docs.lesson_pages import lesson_body, title_of, with_github_anchors, with_local_links, with_mathml
from fvlfp.course.tour import NOTEBOOKS, lessons

ROOT = Path(__file__).resolve().parent.parent
THEME = Path(__file__).parent / "theme"
#: texts beside the lessons: file, name in the contents
TEXTS = {
    "README.md": "Start",
    "TEACHING.md": "Teaching",
    "METHOD.md": "Method",
    "ETHICS.md": "Ethics",
    "docs/using_a_run.md": "Using a run",
    "deploy/README.md": "Deploying",
    "data_prep/README.md": "Preparing data",
    "benchmarks/RESULTS.md": "Results",
    "CONTRIBUTING.md": "Contributing",
    "CHANGELOG.md": "Changelog",
}
#: The first cell on a machine that has nothing: the kit, with a CPU build of torch if there is none yet.
INSTALL = (
    "%pip install --quiet --extra-index-url https://download.pytorch.org/whl/cpu "
    '"fvlfp @ git+https://github.com/{}"'
)
Page = tuple[str, str]  # where it lies in the site, its name


def place_of(source: str) -> str:
    """Where the page of a text or notebook lies: a README is the index of its folder."""
    return re.sub(r"\.(md|ipynb)$", ".html", re.sub(r"README\.md$", "index.md", source))


class Site:
    """The pages and what all of them share: contents, template, search index."""

    def __init__(self, out: Path, repository: str | None) -> None:
        self.out, self.repository = out, repository
        loader = jinja2.FileSystemLoader(THEME)
        self.template = jinja2.Environment(loader=loader, autoescape=True).get_template("page.html.j2")
        found = [("notebooks/contents.html", "Contents and glossary")]
        found += [(f"notebooks/{p.stem}.html", f"{p.stem[:2]} {title_of(p)}") for p in lessons()]
        texts = [(place_of(source), name) for source, name in TEXTS.items()]
        self.contents: dict[str, list[Page]] = {
            "Lessons": found,
            "Texts": texts,
            "Reference": [("api/fvlfp.html", "API")],
        }
        self.index: list[dict[str, str]] = []

    def write(self, here: str, title: str, body: str, source: str = "") -> None:
        """One page at `here`, and its sections in the search index."""
        order = self.contents["Texts"][:1] + self.contents["Lessons"]
        places = [place for place, _ in order]
        i = places.index(here) if here in places else -1
        page = self.template.render(
            title=title,
            body=markupsafe.Markup(with_github_anchors(with_local_links(body))),
            here=here,
            up="../" * here.count("/"),
            contents=self.contents,
            before=order[i - 1] if i > 0 else None,
            after=order[i + 1] if 0 <= i < len(order) - 1 else None,
            open_in=self.open_in(source),
            install=INSTALL.format(self.repository),
        )
        target = self.out / here
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page, encoding="utf-8")
        self.index += sections(here, title, body)

    def open_in(self, source: str) -> dict[str, str]:
        """Where a lesson can be opened to be run, by name; nothing without a public repository."""
        if not self.repository or not source:
            return {}
        return {
            "open in Colab": f"https://colab.research.google.com/github/{self.repository}/blob/main/{source}",
            "open in Binder": f"https://mybinder.org/v2/gh/{self.repository}/main?urlpath=lab/tree/{source}",
        }

    def finish(self) -> None:
        """The files that all pages load."""
        for name in ("site.css", "search.js"):
            shutil.copy(THEME / name, self.out / name)
        light, dark = (HtmlFormatter(style=s).get_style_defs(".highlight") for s in ("friendly", "monokai"))
        plain = re.compile(r"^\.highlight \{.*\}$|^(pre|td\.|span\.).*$", re.MULTILINE)
        light, dark = plain.sub("", light), plain.sub("", dark)
        with (self.out / "site.css").open("a", encoding="utf-8") as css:
            css.write(f"{light}\n@media (prefers-color-scheme: dark) {{\n{dark}\n}}\n")
        index = json.dumps(self.index, ensure_ascii=False).replace("</", "<\\/")
        (self.out / "search-index.js").write_text(f"const INDEX = {index};\n", encoding="utf-8")


def sections(here: str, title: str, body: str) -> Iterator[dict[str, str]]:
    """A page's entries of the search index: one for each heading with an anchor."""
    parts = re.split(r'(<h[123][^>]* id="[^"]+"[^>]*>.*?</h[123]>)', body, flags=re.DOTALL)
    heading, anchor = title, ""
    for part in parts:
        if found := re.match(r'<h[123][^>]* id="([^"]+)"[^>]*>(.*?)</h[123]>', part, flags=re.DOTALL):
            anchor, heading = f"#{found[1]}", words(found[2]).removesuffix("¶").strip()
        elif text := words(part):
            where = "" if heading == title else title
            yield {"title": heading, "where": where, "href": here + anchor, "text": text[:4000]}


def words(markup: str) -> str:
    """The words of a piece of HTML: no tags, no pictures, no styles."""
    without = re.sub(r"<(style|script|svg|math)\b.*?</\1>|<[^>]+>", " ", markup, flags=re.DOTALL)
    return " ".join(html.unescape(without).split())


def write_texts(site: Site) -> None:
    """README and the other texts, the result pages, and every file of the project that they link to."""
    pages = {ROOT / name for name in TEXTS} | set((ROOT / "docs").glob("*.md"))
    pages |= set((ROOT / "benchmarks").rglob("*.md"))
    for text in sorted(pages):
        source = text.read_text(encoding="utf-8")
        heading = re.search(r"^# (.+)$", source, re.MULTILINE)
        place = text.relative_to(ROOT).as_posix()
        title = heading[1] if heading else text.stem
        site.write(place_of(place), re.sub(r"[`*]", "", title), markdown2html(with_mathml(source)))


def copy_linked_files(out: Path) -> None:
    """Files that pages link to or show and that are no pages: figures, data, code."""
    for page in list(out.rglob("*.html")):
        if "api" in page.relative_to(out).parts:
            continue
        for target in re.findall(r'(?:href|src)="([^"#:?]+)', page.read_text(encoding="utf-8")):
            wanted = (page.parent / target).resolve()
            if wanted.exists() or not wanted.is_relative_to(out.resolve()):
                continue
            source = ROOT / wanted.relative_to(out.resolve())
            if source.is_file():
                wanted.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, wanted)


def build(out: Path, run: Path, repository: str | None = None) -> Path:
    """Write all pages into `out`; returns the start page."""
    shutil.rmtree(out, ignore_errors=True)
    site = Site(out, repository)
    for lesson in [*lessons(), NOTEBOOKS / "contents.ipynb"]:
        executed = run / lesson.stem / lesson.name
        source = executed if executed.is_file() else lesson
        body = lesson_body(source, run / lesson.stem, out / "notebooks" / "files" / lesson.stem)
        here = f"notebooks/{lesson.stem}.html"
        site.write(here, title_of(lesson), body, f"notebooks/{lesson.name}")
    write_texts(site)
    write_api(out / "api", THEME / "pdoc")
    site.index += api_entries(out / "api")
    site.finish()
    copy_linked_files(out)
    return out / "index.html"


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--out", type=Path, default=Path("build/docs"))
    options.add_argument("--run", type=Path, default=Path("runs/tour"))
    options.add_argument("--repository", help="OWNER/NAME on GitHub, for links to Binder and Colab")
    chosen = options.parse_args()
    print(f"start page: {build(chosen.out, chosen.run, chosen.repository)}")
