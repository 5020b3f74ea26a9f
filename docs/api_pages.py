"""The API reference, made by pdoc from docstrings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pdoc
from pygments.formatters import HtmlFormatter

import fvlfp
import fvlfp.audit


def resolve_named_tuples(package: Any) -> None:
    """Types in place of their names: a NamedTuple's constructor lies in a module of its own, where pdoc looks
    for the names in vain.
    """
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and value.__module__ == module.name and hasattr(value, "_fields"):
                value.__new__.__annotations__ = get_type_hints(value)


def write_api(out: Path, templates: Path) -> None:
    """A page for each module into `out`."""
    # pdoc shows what __all__ names: here the modules, in which each public name has its place.
    for package in (fvlfp, fvlfp.audit):
        package.__all__ = [module.name for module in pkgutil.iter_modules(package.__path__)]
    resolve_named_tuples(fvlfp)
    pdoc.render.configure(docformat="google", search=False, template_directory=templates)
    pdoc.render.env.globals["dark_code"] = HtmlFormatter(style="monokai").get_style_defs(".pdoc-code")
    # Keys of a TypedDict have no place of their own; pdoc says so for each, and shows them all the same.
    warnings.filterwarnings("ignore", message="Cannot determine where fvlfp.audit.schema")
    pdoc.pdoc("fvlfp", output_directory=out)
    here = f"{Path(fvlfp.__path__[0]).resolve().parent}/"  # in the values of constants that are paths
    for page in out.rglob("*.html"):
        page.write_text(page.read_text(encoding="utf-8").replace(here, ""), encoding="utf-8")


def api_entries(out: Path) -> Iterator[dict[str, str]]:
    """The search index's entries for the pages in `out`: modules, and the functions and classes they show."""
    for info in pkgutil.walk_packages(fvlfp.__path__, "fvlfp."):
        module = importlib.import_module(info.name)
        place = f"{info.name.replace('.', '/')}.html"
        href, page = f"api/{place}", (out / place).read_text(encoding="utf-8")
        yield {"title": info.name, "where": "module", "href": href, "text": inspect.getdoc(module) or ""}
        for name, value in vars(module).items():
            own = (inspect.isfunction(value) or inspect.isclass(value)) and value.__module__ == info.name
            if own and value.__doc__ and f'id="{name}"' in page:
                text = inspect.getdoc(value) or ""
                yield {"title": name, "where": info.name, "href": f"{href}#{name}", "text": text}
