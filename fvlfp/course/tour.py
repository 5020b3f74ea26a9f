"""Every lesson in order, through papermill: the kit's own demonstration and its regression test.

What this module does not do: it does not read what a lesson found; that is in each lesson's `record.json`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fvlfp.errors import InputError
from fvlfp.kernel import OUTPUTS, START, on_a_kernel
from fvlfp.output_folder import claimed

_INSTALLED = Path(__file__).resolve().parent / "lessons"  # setup.py puts them there
_CHECKOUT = Path(__file__).resolve().parents[2] / "notebooks"
#: The folder of the lessons.
NOTEBOOKS = _INSTALLED if _INSTALLED.is_dir() else _CHECKOUT


def lessons(folder: Path | None = None) -> list[Path]:
    """The lessons, in order.

    Raises:
        InputError: the folder has none.
    """
    folder = folder or NOTEBOOKS
    found = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not found:
        raise InputError(f"no lessons in {folder}: install fvlfp again, or work in a checkout of it")
    return found


def run_lesson(notebook: Path, out: Path, **parameters: Any) -> Path:
    """Execute one lesson on a fresh kernel; returns the executed copy, `out/<lesson>/<lesson>.ipynb`.

    parameters: profile, seed, device; `out` of the lesson itself is its folder.

    Raises:
        papermill.PapermillExecutionError: a cell failed; the executed copy shows where.
    """
    return execute(notebook, out / notebook.stem, parameters)


def execute(notebook: Path, folder: Path, parameters: Mapping[str, object]) -> Path:
    """As `run_lesson`, into this folder.

    The copy is there when the notebook has ended, well or badly; an interrupted one leaves none.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    executed, part = folder / notebook.name, folder / f".part-{notebook.name}"
    part.unlink(missing_ok=True)  # of a run that was killed
    try:
        _run(notebook.resolve(), part, {**parameters, "out": str(folder)})
        part.replace(executed)
    except Exception:  # a cell's, or the kernel died: what ran until then is worth a look
        if part.is_file():
            part.replace(executed)
        raise
    finally:
        part.unlink(missing_ok=True)
    return executed


def _run(notebook: Path, part: Path, parameters: Mapping[str, object]) -> None:
    """Papermill in the folder of `part`."""
    import papermill

    on_a_kernel(
        lambda kernel: papermill.execute_notebook(
            str(notebook),
            str(part),
            parameters=parameters,
            kernel_name=kernel,
            cwd=str(part.parent),
            progress_bar=False,
            start_timeout=START,
            iopub_timeout=OUTPUTS,
            extra_arguments=["--log-level=50"],  # its own chatter; errors of cells are in the copy
        )
    )


def tour(
    out: Path,
    *,
    profile: str = "lesson",
    seed: int = 0,
    device: str = "auto",
    folder: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path:
    """All lessons, one line each; returns the report that lesson 10 wrote.

    A second tour into the same folder goes on from the stages that the first one saved; lessons keep the
    stages of each profile and seed apart.

    Raises:
        InputError: no lessons, or another command is at work in `out`.
        papermill.PapermillExecutionError: a cell failed.
    """
    started = time.perf_counter()
    with claimed(out):
        for notebook in lessons(folder):
            began = time.perf_counter()
            run_lesson(notebook, out, profile=profile, seed=seed, device=device)
            say(f"{notebook.stem:<32} {time.perf_counter() - began:6.1f} s")
    (report,) = sorted(out.glob(f"10_*/{profile}-seed{seed}/report/report.html"))[:1] or [out]
    say(f"{'all lessons':<32} {time.perf_counter() - started:6.1f} s")
    return report
