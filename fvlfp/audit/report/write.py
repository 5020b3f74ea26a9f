"""Write an audit or a comparison: audit.json, CSV tables and one offline HTML page.

Nothing is half-written: all files are made in a hidden folder beside the target and moved in only
when every one of them is complete.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup

from fvlfp.audit.compare import Comparison
from fvlfp.audit.document import Audit, read_document
from fvlfp.audit.report import page
from fvlfp.audit.report.markup import render
from fvlfp.audit.schema import AuditDocument, ComparisonDocument
from fvlfp.errors import InputError
from fvlfp.kernel import OUTPUTS, START, on_a_kernel
from fvlfp.output_folder import WRITTEN, no_formula


def write_audit(
    result: Audit,
    out: str | Path,
    *,
    title: str = "Audit by perceived group",
    notebook: bool = False,
    rows: pd.DataFrame | None = None,
    by_template: pd.DataFrame | None = None,
) -> Path:
    """Write audit.json, groups.csv, gaps.csv and report.html into `out`; the report's path.

    The files of an earlier audit there go, those too that this one does not have.

    Args:
        notebook: make the page by executing report.ipynb with papermill, in a fresh process from
            the JSON file alone, as the command line does. It takes some seconds longer and gives the
            same page to the byte (a test holds it to that).
        rows: the audited rows, written as predictions.csv with the rest, so that ``compare`` can pair them.
        by_template: the gaps under every template of a CLIP, written as templates.csv.

    Raises:
        InputError: `out` is a file or cannot be made.
    """
    tables = {"groups": result.groups, "gaps": result.gaps}
    tables |= {} if by_template is None else {"templates": by_template}
    report = _write(result.document, tables, out, title, notebook, rows)
    for name, given in (("predictions", rows), ("templates", by_template)):
        if given is None:
            (Path(out) / f"{name}.csv").unlink(missing_ok=True)
    return report


def write_comparison(
    result: Comparison,
    out: str | Path,
    *,
    title: str = "Paired comparison by perceived group",
    notebook: bool = False,
) -> Path:
    """Write audit.json, groups.csv, gaps.csv (the changes) and report.html into `out`."""
    return _write(result.document, {"groups": result.groups, "gaps": result.changes}, out, title, notebook)


def check_free(out: str | Path, kind: str) -> None:
    """Refuse a folder whose files would be lost; an earlier result of the same kind may be replaced.

    Args:
        kind: "audit" or "comparison".

    Raises:
        InputError: `out` holds a file of one of our names without an audit, or a result of the other kind.
    """
    out = Path(out)
    there = [name for name in WRITTEN if (out / name).exists()]
    if not there:
        return
    try:
        held = read_document(out).get("kind", "audit")
    except InputError:
        raise InputError(
            f"{out} holds {there[0]} and no audit: it would be written over; remove it, or choose another "
            "--out"
        ) from None
    if held != kind:
        raise InputError(f"{out} holds the audit.json of another kind ({held}): choose another --out")


def _write(
    document: AuditDocument | ComparisonDocument,
    tables: dict[str, pd.DataFrame],
    out: str | Path,
    title: str,
    notebook: bool,
    rows: pd.DataFrame | None = None,
) -> Path:
    check_free(out, str(document.get("kind", "audit")))
    with _together(out) as folder:
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
        (folder / "audit.json").write_text(text + "\n", encoding="utf-8")
        for name, frame in tables.items():
            _csv(frame, folder / f"{name}.csv")
        if rows is not None:
            rows.to_csv(folder / "predictions.csv", index=False)
        page_text = _page(folder / "audit.json", title, notebook)
        (folder / "report.html").write_text(page_text, encoding="utf-8")
    return Path(out) / "report.html"


def _page(document: Path, title: str, notebook: bool) -> str:
    """The page by the notebook; where no kernel starts, made here: what was computed is not lost."""
    if notebook:
        try:
            return execute(document, title)
        except (RuntimeError, OSError, KeyError) as error:  # the kernel died, or there is none
            reason = " ".join(str(error).split())[:200]
            print(f"the report notebook did not run ({reason}); same page, made here", file=sys.stderr)
    return in_process(document, title)


def in_process(document: Path, title: str) -> str:
    """The page of an audit.json, made here."""
    sections = page.sections(json.loads(document.read_text(encoding="utf-8")))
    return join(title, "".join(section(name, text) for name, text in sections))


def execute(document: Path, title: str) -> str:
    """The page of an audit.json, made by report.ipynb in a fresh kernel; no code is shown in it."""
    import nbformat
    import papermill

    with tempfile.TemporaryDirectory() as scratch, _quiet():
        done = Path(scratch) / "report.ipynb"
        with as_file(files("fvlfp.audit.report").joinpath("report.ipynb")) as template:
            on_a_kernel(
                lambda kernel: papermill.execute_notebook(
                    template,
                    done,
                    parameters={"document": str(document.resolve())},
                    kernel_name=kernel,
                    progress_bar=False,
                    start_timeout=START,
                    iopub_timeout=OUTPUTS,
                    extra_arguments=["--log-level=50"],  # its own chatter
                )
            )
        return export(nbformat.read(done, as_version=4), title)


def export(notebook: Any, title: str) -> str:
    """An executed report notebook as one offline page: its HTML outputs, without code."""
    from nbconvert.exporters.templateexporter import TemplateExporter

    outputs = (
        "{%- for cell in nb.cells if cell.cell_type == 'code' -%}{%- for o in cell.outputs -%}"
        "{%- if 'data' in o and 'text/html' in o.data -%}{{ o.data['text/html'] }}{%- endif -%}"
        "{%- endfor -%}{%- endfor -%}"
    )
    body, _ = TemplateExporter(raw_template=outputs).from_notebook_node(notebook)
    return join(title, body)


def section(name: str, text: str) -> str:
    """One titled section of the page; `text` is markup already."""
    return render("section.html.j2", title=name, body=Markup(text))


def join(title: str, body: str) -> str:
    """One HTML page without any reference to another file or host; `body` is markup already."""
    css = files("fvlfp.audit.report").joinpath("report.css").read_text(encoding="utf-8")
    return render("page.html.j2", title=title, body=Markup(body), style=Markup(css))


@contextmanager
def _quiet() -> Iterator[None]:
    """Papermill and its kernel warn about their own internals; errors still come through."""
    logger = logging.getLogger("papermill")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextmanager
def _together(out: str | Path) -> Iterator[Path]:
    """A scratch folder whose files move into `out` together when the block ends well."""
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file, not a folder to write an audit into")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error}") from None
    try:
        yield scratch
        _move_in(scratch, out)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _move_in(scratch: Path, out: Path) -> None:
    """Put the files of `scratch` into `out`, which another command may have made meanwhile."""
    if not out.exists():
        scratch.chmod(0o755)
        try:
            os.replace(scratch, out)
            return
        except OSError:
            if not out.is_dir():
                raise
    for file in sorted(scratch.iterdir()):
        os.replace(file, out / file.name)


def _csv(frame: pd.DataFrame, path: Path) -> None:
    """Names as they are, except that a leading ' keeps a spreadsheet from running them as formulas."""
    safe = frame.copy()
    for column in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[column]):
            safe[column] = safe[column].map(lambda v: no_formula(v) if isinstance(v, str) else v)
    safe.to_csv(path, index=False)
