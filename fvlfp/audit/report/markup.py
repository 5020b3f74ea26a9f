"""The pages' templates, and numbers with intervals as markup. Text from data is escaped wherever it is shown.

What this module does not do: choose what a page shows (see ``page``, ``change_page``, ``embedding_page``).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from fvlfp.audit.report import plots
from fvlfp.audit.schema import RateChange

UNDEFINED = Markup("<span class='undefined'>undefined</span>")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fvlfp.audit.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "capitalize_first": lambda text: text[:1].upper() + text[1:],
        "number": num,
        "percent": lambda share: f"{share:.0%}",
        "signed": signed,
        "thousands": lambda n: f"{n:,}",
    }
    return environment


def render(template: str, /, **values: Any) -> Markup:
    """A page or a part of one from ``templates/``."""
    return Markup(_environment().get_template(template).render(**values))


def encoded(drawing: Figure) -> str:
    """A figure as SVG in base64, for a page that refers to no other file."""
    return base64.b64encode(plots.svg(drawing)).decode()


def num(x: float | None) -> str:
    """Three decimals, or the word undefined."""
    return "undefined" if x is None else f"{x:.3f}"


def num_or_blank(x: float | None) -> str:
    """Three decimals, or nothing."""
    return "" if x is None else num(x)


def interval(entry: Mapping[str, Any]) -> Markup:
    """value [low, high] (band) as markup; undefined as such."""
    if entry["value"] is None:
        return UNDEFINED
    text, band, low = Markup(num(entry["value"])), entry.get("band"), entry.get("low")
    if low is not None:
        text += Markup(" <span class='ci'>[{}, {}]</span>").format(num(low), num(entry.get("high")))
    if band:
        text += Markup(" <span class='band'>({} to {})</span>").format(num(band[0]), num(band[1]))
    return text


def signed(entry: RateChange) -> Markup:
    """change [low, high] as markup."""
    change, low, high = entry["change"], entry["low"], entry["high"]
    return UNDEFINED if change is None else signed_interval(change, low, high)


def signed_interval(change: float, low: float | None, high: float | None) -> Markup:
    """A difference with its sign and interval."""
    text = Markup(f"{change:+.3f}")
    if low is None or high is None:
        return text
    return text + Markup(f" <span class='ci'>[{low:+.3f}, {high:+.3f}]</span>")


def p_text(p: float | None) -> str:
    """A p-value as readers expect it; nothing where there is none."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
