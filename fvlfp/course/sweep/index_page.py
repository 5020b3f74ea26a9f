"""The index page of a sweep: every cell with its parameters, what it recorded, its figures or its error.

One HTML file without scripts that needs no network. Texts from notebooks and parameters are escaped; a
figure is shown small and links to the executed notebook. What this module does not do: it draws nothing.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Mapping
from functools import cache
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image

from fvlfp.course.sweep.grid import Cell, CellResult

_MOST_FIGURES = 4  # a cell; the others are in its notebook
_WIDTH = 320  # pixels of a thumbnail
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 70rem; background: #fff; color: #1a1a1a;
  font: 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1rem; margin: 0 0 .4rem; overflow-wrap: anywhere; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
section { border: 1px solid #bbb; border-left: 6px solid #0173b2; border-radius: 4px; padding: .7rem .9rem;
  min-width: 0; }
section.failed { border-left: 6px dashed #d55e00; } section.waiting { border-left: 6px dotted #8c8c8c; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .1rem .8rem; margin: .4rem 0; font-size: .88rem;
  font-variant-numeric: tabular-nums; }
dd { margin: 0; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; border: 1px solid #ddd; margin: .2rem .2rem 0 0; }
pre { overflow-x: auto; background: #f4f4f4; padding: .6rem; font-size: .75rem; max-height: 24rem; }
p { margin: .3rem 0; } .note { color: #555; font-size: .88rem; }
"""


def show(cells: list[Cell], results: Mapping[str, CellResult], out: Path) -> str:
    """The whole page as text."""
    states = [results[cell.name].get("status", "not run") for cell in cells]
    counts = ", ".join(f"{states.count(s)} {s}" for s in ("done", "failed", "not run") if s in states)
    parts = "\n".join(_section(cell, results[cell.name], out) for cell in cells)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>fvlfp sweep</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>Sweep of {len(cells)} cells</h1>"
        f"<p>{counts}. All recorded values: <a href='records.csv'>records.csv</a>; times and states: "
        f"<a href='cells.csv'>cells.csv</a>.</p>\n<main>\n{parts}\n</main></body></html>\n"
    )


def traceback_of(notebook: Path) -> str:
    """The traceback of the notebook's first error, without colours; "" where there is none."""
    for output in _outputs(notebook):
        if output.get("output_type") == "error":
            lines = output.get("traceback") or [f"{output.get('ename')}: {output.get('evalue')}"]
            return _ANSI.sub("", "\n".join(lines))
    return ""


def _section(cell: Cell, result: CellResult, out: Path) -> str:
    home = Path("cells") / cell.name
    shown = home / cell.shown
    link = quote(shown.as_posix())
    status = result.get("status", "not run")
    kind = {"done": "done", "failed": "failed"}.get(status, "waiting")
    took = f" in {result['seconds']:.1f} s" if "seconds" in result else ""
    body = (
        _pairs(cell.parameters) + f"<p class='note'>{status}{took}</p>" + _pairs(result.get("recorded", {}))
    )
    if status == "failed":
        last = result["error"].strip().split("\n")[-1]
        body += (
            f"<p><strong>{escape(last[:300])}</strong></p>"
            f"<details><summary>traceback</summary><pre>{escape(result['error'])}</pre></details>"
        )
    if "status" in result and (out / shown).is_file():
        small = _thumbnails(out / shown, (out / shown).stat().st_mtime_ns) if cell.notebook else []
        body += "".join(
            f"<a href='{link}'><img alt='figure {i} of {escape(cell.what)}' src='{source}'></a>"
            for i, source in enumerate(small[:_MOST_FIGURES], 1)
        )
        more = len(small) - _MOST_FIGURES
        body += f"<p class='note'>{more} more figures are in the notebook</p>" if more > 0 else ""
        body += (
            f"<p class='note'><a href='{link}'>{'executed notebook' if cell.notebook else 'report'}</a></p>"
        )
    return f"<section class='{kind}'><h2>{escape(cell.what)}</h2>{body}</section>"


def _pairs(values: Mapping[str, object]) -> str:
    rows = "".join(f"<dt>{escape(str(k))}</dt><dd>{escape(_plain(v))}</dd>" for k, v in values.items())
    return f"<dl>{rows}</dl>" if rows else ""


def _plain(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _outputs(notebook: Path) -> list[Mapping[str, Any]]:
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    except (OSError, ValueError, KeyError):
        return []
    return [output for cell in cells for output in cell.get("outputs", [])]


@cache  # the page is written after every cell; a notebook that has ended stays as it is
def _thumbnails(notebook: Path, _changed: int) -> list[str]:
    found = [output.get("data", {}).get("image/png") for output in _outputs(notebook)]
    small = [_thumbnail("".join(image)) for image in found if image]
    return [thumbnail for thumbnail in small if thumbnail]


def _thumbnail(encoded: str) -> str:
    """A small PNG as a data address; "" for what is no picture."""
    try:
        image = Image.open(io.BytesIO(base64.b64decode(encoded)), formats=("PNG",)).convert("RGB")
    except Exception:  # Pillow's readers raise many kinds on damaged data
        return ""
    image.thumbnail((_WIDTH, _WIDTH))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
