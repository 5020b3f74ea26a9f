"""Small pieces of HTML: tables, figures, numbers with intervals. Text from data is always escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from fvlfp.audit.report import plots

ROWS = 40  # rows of a table shown before the rest is left to the CSV files


class Html(str):
    """A piece that is markup already."""


def esc(value: Any) -> Html:
    """Text from data, safe inside HTML."""
    return Html(html.escape(str(value), quote=True))


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Html:
    """An HTML table; cells are escaped unless they are `Html`. Without heads its first column is one."""
    shown = [
        "<tr>" + "".join(f"<td>{c if isinstance(c, Html) else esc(c)}</td>" for c in row) + "</tr>"
        for row in rows[:ROWS]
    ]
    head = "<thead><tr>" + "".join(f"<th>{esc(h)}</th>" for h in heads) + "</tr></thead>" if heads else ""
    rest = len(rows) - len(shown)
    more = (
        f"<p class='note'>{rest:,} more rows are in the CSV files beside this page.</p>" if rest > 0 else ""
    )
    return Html(f"<div class='scroll'><table>{head}<tbody>{''.join(shown)}</tbody></table></div>{more}")


def bullets(items: Sequence[str]) -> Html:
    """A list of texts, escaped unless they are `Html`."""
    return Html("<ul>" + "".join(f"<li>{i if isinstance(i, Html) else esc(i)}</li>" for i in items) + "</ul>")


def figure(drawing: Figure, alt: str) -> Html:
    """A figure as an embedded SVG image with a text alternative and a caption."""
    data = base64.b64encode(plots.svg(drawing)).decode()
    return Html(
        f'<figure><div class="scroll"><img alt="{esc(alt)}" src="data:image/svg+xml;base64,{data}"></div>'
        f"<figcaption>{esc(alt)}</figcaption></figure>"
    )


def note(text: str) -> Html:
    """A small remark, escaped unless it is `Html`."""
    return Html(f"<p class='note'>{text if isinstance(text, Html) else esc(text)}</p>")


def remark_box(document: Mapping[str, Any]) -> Html:
    """What to look at before any number; nothing where there is nothing."""
    remarks = document.get("remarks", [])
    if not remarks:
        return Html("")
    return Html(f"<div class='remarks' role='note'><b>Before you read on</b>{bullets(remarks)}</div>")


def num(x: float | None) -> str:
    """Three decimals, or the word undefined."""
    return "undefined" if x is None else f"{x:.3f}"


def interval(entry: Mapping[str, Any]) -> Html:
    """value [low, high] as markup; undefined as such."""
    if entry["value"] is None:
        return Html("<span class='undefined'>undefined</span>")
    band = entry.get("band")
    over = f" <span class='band'>({num(band[0])} to {num(band[1])})</span>" if band else ""
    if entry.get("low") is None:
        return Html(num(entry["value"]) + over)
    return Html(
        f"{num(entry['value'])} <span class='ci'>[{num(entry['low'])}, {num(entry['high'])}]</span>{over}"
    )


def signed(entry: Mapping[str, Any]) -> Html:
    """change [low, high] as markup."""
    if entry["change"] is None:
        return Html("<span class='undefined'>undefined</span>")
    if entry["low"] is None:
        return Html(f"{entry['change']:+.3f}")
    return Html(f"{entry['change']:+.3f} <span class='ci'>[{entry['low']:+.3f}, {entry['high']:+.3f}]</span>")


def p_text(p: float | None) -> str:
    """A p-value as readers expect it; nothing where there is none."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
