"""Write an audit or a comparison: audit.json, CSV tables and one offline HTML page.

Nothing is half-written: all files are made in a hidden folder beside the target and moved in only
when every one of them is complete.
"""

from __future__ import annotations

import html
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pandas as pd

from fvlfp.audit import page
from fvlfp.audit.assess import Audit
from fvlfp.audit.compare import Comparison
from fvlfp.errors import InputError

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet takes for the start of a formula


def write_audit(result: Audit, out: str | Path, *, title: str = "Audit by perceived group") -> Path:
    """Write audit.json, groups.csv, gaps.csv and report.html into `out`; the report's path.

    Raises InputError when `out` is a file or cannot be made.
    """
    with _together(out) as folder:
        _json(result.document, folder)
        _csv(result.groups, folder / "groups.csv")
        _csv(result.gaps, folder / "gaps.csv")
        _page(title, page.audit_sections(result.document), folder)
    return Path(out) / "report.html"


def write_comparison(
    result: Comparison, out: str | Path, *, title: str = "Paired comparison by perceived group"
) -> Path:
    """Write audit.json, groups.csv, gaps.csv (the changes) and report.html into `out`."""
    with _together(out) as folder:
        _json(result.document, folder)
        _csv(result.groups, folder / "groups.csv")
        _csv(result.changes, folder / "gaps.csv")
        _page(title, page.comparison_sections(result.document), folder)
    return Path(out) / "report.html"


def join(title: str, sections: list[tuple[str, str]]) -> str:
    """One HTML page without any reference to another file or host."""
    css = files("fvlfp.audit").joinpath("report.css").read_text(encoding="utf-8")
    body = "".join(f"<section><h2>{html.escape(name)}</h2>{text}</section>" for name, text in sections)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{html.escape(title)}</title><style>{css}</style></head>"
        f"<body><h1>{html.escape(title)}</h1>{body}</body></html>"
    )


@contextmanager
def _together(out: str | Path) -> Iterator[Path]:
    """A scratch folder whose files move into `out` together when the block ends well."""
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, not a folder to write an audit into")
    new = not out.exists()
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error}") from None
    try:
        yield scratch
        if new:
            scratch.chmod(0o755)
            os.replace(scratch, out)
        else:
            for file in sorted(scratch.iterdir()):
                os.replace(file, out / file.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _json(document: dict, folder: Path) -> None:
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "audit.json").write_text(text + "\n", encoding="utf-8")


def _csv(frame: pd.DataFrame, path: Path) -> None:
    """Names as they are, except that a leading ' keeps a spreadsheet from running them as formulas."""
    safe = frame.copy()
    for column in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[column]):
            safe[column] = safe[column].map(
                lambda v: f"'{v}" if isinstance(v, str) and v.startswith(FORMULA) else v
            )
    safe.to_csv(path, index=False)


def _page(title: str, sections: list[tuple[str, str]], folder: Path) -> None:
    (folder / "report.html").write_text(join(title, sections), encoding="utf-8")
