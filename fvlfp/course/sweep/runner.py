"""Run the cells that are not finished, each in a process of its own, and keep what they recorded.

A cell is finished when its `cell.json` is there, which is written (whole or not at all) after its notebook
has ended. Killing the sweep therefore loses the cells that were running and nothing else.
What this module does not do: it does not look into a lesson; what a lesson found is what it recorded.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, get_all_start_methods, get_context
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from fvlfp.course.sweep.cell import run_cell
from fvlfp.course.sweep.grid import Cell
from fvlfp.course.sweep.index_page import show, traceback_of
from fvlfp.errors import InputError

Result = dict[str, Any]


def sweep(
    cells: list[Cell], out: Path, *, workers: int = 1, say: Callable[[str], None] = tqdm.write
) -> tuple[Path, int]:
    """Run what is left of `cells`; returns the index page and the number of failed cells.

    Writes `out/cells/<name>/` (the executed notebook, its results, `cell.json`), `out/records.csv` (tidy:
    one row a cell and recorded key), `out/cells.csv` (one row a cell) and `out/index.html`. Cells that
    failed before are tried again. say: gets one line a cell.

    Tables and page are written again after every cell, so that they can be looked at meanwhile.

    Raises:
        InputError: `out` is a file, or holds something that is no sweep. KeyboardInterrupt: passed on,
            after the running notebooks were stopped and the tables written.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / "sweep.json").is_file()):
        raise InputError(f"{out} holds something that is no sweep: choose another --out")
    out.mkdir(parents=True, exist_ok=True)
    _tell_changes(cells, out, say)
    _write(out / "sweep.json", json.dumps({"cells": [cell.name for cell in cells]}, indent=1))
    results = {cell.name: read_result(out, cell) for cell in cells}
    left = [cell for cell in cells if results[cell.name].get("status") != "done"]
    if len(left) < len(cells):
        say(f"{len(cells) - len(left)} of {len(cells)} cells are finished already")
    summarise = partial(_summarise, cells, results, out)
    summarise()
    try:
        _run(left, len(cells), out, results, workers, say, summarise)
    finally:
        summarise()  # Ctrl-C may have come between a cell's end and the tables
    return out / "index.html", sum(result.get("status") == "failed" for result in results.values())


def read_result(out: Path, cell: Cell) -> Result:
    """What `cell.json` says: status, seconds, recorded, error; {} where there is none."""
    try:
        return json.loads((out / "cells" / cell.name / "cell.json").read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def describe(cell: Cell) -> str:
    """The lesson and the parameters, in words."""
    return " ".join([cell.notebook.stem, *(f"{key}={value}" for key, value in cell.parameters.items())])


def _run(
    left: list[Cell],
    n: int,
    out: Path,
    results: dict[str, Result],
    workers: int,
    say: Callable[[str], None],
    summarise: Callable[[], None],
) -> None:
    """At most `workers` processes at a time; none is left behind, however this ends."""
    # Nothing of this process's threads and loops goes into a cell's; a server imports papermill once.
    context: Any = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    if hasattr(context, "set_forkserver_preload"):
        context.set_forkserver_preload(["papermill", "fvlfp.course.sweep.cell"])
    running: dict[Any, tuple[Cell, float]] = {}
    waiting = list(reversed(left))
    bar = tqdm(total=n, initial=n - len(left), desc="cells", unit="cell", disable=None)
    try:
        with remembered_interrupt() as go_on:
            while waiting or running:
                go_on()
                while waiting and len(running) < workers:
                    cell = waiting.pop()
                    arguments = (cell.notebook, cell.parameters, out.resolve() / "cells" / cell.name, workers)
                    process = context.Process(target=run_cell, args=arguments)
                    process.start()
                    running[process] = (cell, time.perf_counter())
                connection.wait([process.sentinel for process in running])
                for process in [p for p in running if not p.is_alive()]:
                    cell, began = running.pop(process)
                    process.join()
                    result = _collect(cell, out, process.exitcode, time.perf_counter() - began)
                    results[cell.name] = result
                    summarise()
                    bar.update()
                    done = sum("status" in r for r in results.values())
                    ended = f"{result['status']} after {result['seconds']:.1f} s"
                    say(f"{done}/{n} {describe(cell)}: {ended}{_short(result)}")
    finally:
        bar.close()
        for process in running:
            process.terminate()
        for process in running:
            process.join(15)
            process.kill()  # one that did not stop its kernel in time; the kernel then stops itself


@contextmanager
def remembered_interrupt() -> Iterator[Callable[[], None]]:
    """Ctrl-C raises KeyboardInterrupt as ever; the function given raises it again if it got lost.

    Python drops it where it falls into a callback or a destructor, and the sweep would go on.
    """
    seen: list[int] = []

    def handler(number: int, frame: Any) -> None:
        seen.append(number)
        raise KeyboardInterrupt

    def again() -> None:
        if seen:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield again
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield again
    finally:
        signal.signal(signal.SIGINT, before)


def _collect(cell: Cell, out: Path, exitcode: int | None, seconds: float) -> Result:
    home = out / "cells" / cell.name
    result: Result = {
        "lesson": cell.notebook.stem,
        "parameters": cell.parameters,
        "status": "failed" if exitcode else "done",
        "seconds": round(seconds, 3),
        "recorded": {},
        "error": "",
    }
    if exitcode:
        failure = home / "failure.txt"
        result["error"] = (
            traceback_of(home / cell.notebook.name)
            or (failure.read_text(encoding="utf-8") if failure.is_file() else "")
            or f"the notebook's process ended with status {exitcode}"
        )
    elif (home / "record.json").is_file():
        result["recorded"] = json.loads((home / "record.json").read_text(encoding="utf-8"))
    home.mkdir(parents=True, exist_ok=True)
    _write(home / "cell.json", json.dumps(result, indent=1))
    return result


def _summarise(cells: list[Cell], results: dict[str, Result], out: Path) -> None:
    about = {c.name: {"cell": c.name, "lesson": c.notebook.stem, **c.parameters} for c in cells}
    records = [
        {**about[name], "key": key, "value": value}
        for name, result in results.items()
        for key, value in result.get("recorded", {}).items()
    ]
    rows = [
        {
            **about[name],
            "status": result.get("status", "not run"),
            "seconds": result.get("seconds"),
            "error": result.get("error", "").strip().split("\n")[-1],
        }
        for name, result in results.items()
    ]
    columns = list(dict.fromkeys(key for row in about.values() for key in row))
    table = pd.DataFrame(records, columns=[*columns, "key", "value"])
    _write(out / "records.csv", table.to_csv(index=False))
    _write(out / "cells.csv", pd.DataFrame(rows).to_csv(index=False))
    _write(out / "index.html", show(cells, results, out))


def _tell_changes(cells: list[Cell], out: Path, say: Callable[[str], None]) -> None:
    """A grid, notebook or code that is not that of the last call is said, and why cells run again."""
    if not (out / "sweep.json").is_file():
        return
    before = set(json.loads((out / "sweep.json").read_text(encoding="utf-8"))["cells"])
    now = {cell.name for cell in cells}
    if before != now:
        say(
            f"the grid, a notebook or fvlfp itself has changed since the last call: {len(now - before)} "
            f"cells are new, {len(now & before)} stay, {len(before - now)} are left out of the tables"
        )


def _short(result: Result) -> str:
    last = result["error"].strip().split("\n")[-1]
    return f" ({last[:200]})" if last else ""


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="")
    part.replace(path)
