"""Run the cells that are not finished, each in a process of its own, and keep what they recorded.

A cell is finished when its `cell.json` is there, which is written (whole or not at all) after its notebook
has ended. Killing the sweep therefore loses the cells that were running and nothing else. Several sweeps, on
one machine or on many that share the folder, share the cells: each locks the cells that it runs.
What this module does not do: it does not look into a lesson; what a lesson found is what it recorded.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import connection, forkserver, get_all_start_methods, get_context, resource_tracker
from pathlib import Path
from typing import Any, cast

import pandas as pd
from filelock import BaseFileLock
from tqdm import tqdm

from fvlfp.course.sweep.cell import run_cell
from fvlfp.course.sweep.grid import Cell, CellResult
from fvlfp.course.sweep.index_page import show, traceback_of
from fvlfp.files import write_atomically
from fvlfp.output_folder import check_own, lock_on, release

_POLL = 1.0  # seconds between two looks at cells that another sweep runs, and at the limit
_PATIENCE = 20.0  # seconds that a stopped cell may take to shut its kernel down


def sweep(
    cells: list[Cell],
    out: Path,
    *,
    workers: int = 1,
    limit: float | None = None,
    say: Callable[[str], None] = tqdm.write,
) -> tuple[Path, int]:
    """Run what is left of `cells`; returns the index page and the number of failed cells.

    Writes `out/cells/<name>/` (the executed notebook, its results, `cell.json`), `out/records.csv` (tidy:
    one row a cell and recorded key), `out/cells.csv` (one row a cell) and `out/index.html`. Cells that
    failed before are tried again. Tables and page are written again after every cell, so that they can be
    looked at meanwhile.

    Args:
        workers: cells that this sweep runs at the same time.
        limit: seconds after which a cell is stopped and counts as failed.
        say: gets one line for each cell.

    Raises:
        InputError: `out` is a file, or holds something that is no sweep. KeyboardInterrupt: passed on,
            after the running notebooks were stopped and the tables written.
    """
    check_own(out, marker="sweep.json", what="sweep")
    out.mkdir(parents=True, exist_ok=True)
    _tell_changes(cells, out, say)
    write_atomically(
        out / "sweep.json", json.dumps({"cells": [cell.name for cell in cells]}, indent=1).encode()
    )
    results = {cell.name: read_result(out, cell) for cell in cells}
    left = [cell for cell in cells if results[cell.name].get("status") != "done"]
    if len(left) < len(cells):
        say(f"{len(cells) - len(left)} of {len(cells)} cells are finished already")
    summarise = partial(_summarise, cells, results, out)
    summarise()
    run = Sweep(out, results, workers, limit, say, summarise)
    try:
        run.run(left, len(cells))
    finally:
        summarise()  # Ctrl-C may have come between a cell's end and the tables
    return out / "index.html", sum(result.get("status") == "failed" for result in results.values())


def read_result(out: Path, cell: Cell) -> CellResult:
    """What `cell.json` says: status, seconds, recorded, error; {} where there is none."""
    try:
        text = (out / "cells" / cell.name / "cell.json").read_text(encoding="utf-8")
        return cast(CellResult, json.loads(text))
    except (FileNotFoundError, ValueError):
        return {}


def describe(cell: Cell) -> str:
    """The lesson and the parameters, in words."""
    return " ".join([cell.what, *(f"{key}={value}" for key, value in cell.parameters.items())])


@dataclass
class _Running:
    """A cell at work: when it began, the lock on its folder, and whether its limit has stopped it."""

    cell: Cell
    began: float
    lock: BaseFileLock
    stopped: bool = False


class Sweep:
    """The cells at work. `results` is kept up to date for `summarise`, which writes the tables."""

    def __init__(
        self,
        out: Path,
        results: dict[str, CellResult],
        workers: int,
        limit: float | None,
        say: Callable[[str], None],
        summarise: Callable[[], None],
    ) -> None:
        self.out, self.results, self.before = out, results, dict(results)
        self.workers, self.limit = workers, limit
        self.say, self.summarise = say, summarise
        self.running: dict[Any, _Running] = {}
        self.interrupt = Interrupt()
        # Nothing of this process's threads and loops goes into a cell's; a server imports papermill once.
        served = "forkserver" in get_all_start_methods()
        self.context: Any = get_context("forkserver" if served else "spawn")
        if served:
            self.context.set_forkserver_preload(["papermill", "fvlfp.course.sweep.cell"])
            _start_server()

    def run(self, left: list[Cell], n: int) -> None:
        """Run `left`, of a grid of `n` cells; no process is left behind, however this ends."""
        waiting = list(left)
        bar = tqdm(total=n, initial=n - len(left), desc="cells", unit="cell", disable=None)
        try:
            with self.interrupt.watched():
                while waiting or self.running:
                    self.interrupt.go_on()
                    waiting = self._start(waiting)
                    self._wait(elsewhere=bool(waiting))
                    for process in [p for p in self.running if not p.is_alive()]:
                        self._end(process, n)
                    bar.update(sum("status" in r for r in self.results.values()) - bar.n)
        finally:
            bar.close()
            for process in self.running:
                process.terminate()
            for process, at_work in self.running.items():
                process.join(_PATIENCE)
                process.kill()  # one that did not stop its kernel in time; the kernel then stops itself
                release(at_work.lock)

    def _start(self, waiting: list[Cell]) -> list[Cell]:
        """Start what can be started; returns the cells that still wait, or that another sweep runs."""
        later = []
        for cell in waiting:
            if len(self.running) >= self.workers:
                later.append(cell)
                continue
            home = self.out.resolve() / "cells" / cell.name
            lock = lock_on(home)
            if lock is None:
                later.append(cell)
                continue
            found = read_result(self.out, cell)
            if found != self.before[cell.name]:  # another sweep has run it meanwhile
                self.results[cell.name] = found
                release(lock)
                continue
            arguments = (cell.notebook, cell.parameters, home, self.workers)
            process = self.context.Process(target=run_cell, args=arguments)
            with self.interrupt.held():  # else the server of processes ends with a traceback of its own
                process.start()
                self.running[process] = _Running(cell, time.perf_counter(), lock)
        return later

    def _wait(self, *, elsewhere: bool) -> None:
        """Until a cell ends, or, where there is something else to look at, a second."""
        free = elsewhere and len(self.running) < self.workers
        patience = _POLL if free or self.limit is not None else None
        if self.running:
            connection.wait([process.sentinel for process in self.running], patience)
        elif elsewhere:
            time.sleep(_POLL)
        for process, at_work in self.running.items():
            took = time.perf_counter() - at_work.began
            if self.limit is not None and took > self.limit and process.is_alive():
                process.kill() if at_work.stopped and took > self.limit + _PATIENCE else process.terminate()
                at_work.stopped = True

    def _end(self, process: Any, n: int) -> None:
        at_work = self.running.pop(process)
        process.join()
        cell, seconds = at_work.cell, time.perf_counter() - at_work.began
        why = f"stopped after {self.limit:g} s, the limit of a cell" if at_work.stopped else ""
        result = _collect(cell, self.out, process.exitcode, seconds, why)
        self.results[cell.name] = result
        release(at_work.lock)
        self.summarise()
        done = sum("status" in r for r in self.results.values())
        ended = f"{result['status']} after {result['seconds']:.1f} s"
        self.say(f"{done}/{n} {describe(cell)}: {ended}{_short(result)}")


class Interrupt:
    """Ctrl-C raises KeyboardInterrupt as ever, but never within `held`, and it is not lost.

    Python drops it where it falls into a callback or a destructor, and the sweep would go on: `go_on` raises
    it again. Signals reach the main thread only; in another one this does nothing.
    """

    def __init__(self) -> None:
        self._seen = self._held = False

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While this is the handler of Ctrl-C."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGINT, self._handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Ctrl-C after this block, not within it."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self.go_on()

    def go_on(self) -> None:
        """Raise what was held or lost."""
        if self._seen:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: Any) -> None:
        self._seen = True
        if not self._held:
            raise KeyboardInterrupt


def _start_server() -> None:
    """Start the server of processes with Ctrl-C blocked; in what it starts it is so too, until `run_cell`.

    A terminal sends Ctrl-C to all of them. One that has just begun would end with a traceback of its own.
    """
    resource_tracker.ensure_running()  # the server starts it otherwise, which unblocks Ctrl-C
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _collect(cell: Cell, out: Path, exitcode: int | None, seconds: float, stopped: str) -> CellResult:
    home = out / "cells" / cell.name
    result: CellResult = {
        "lesson": cell.what,
        "parameters": cell.parameters,
        "status": "failed" if exitcode else "done",
        "seconds": round(seconds, 3),
        "recorded": {},
        "error": "",
    }
    if exitcode:
        failure = home / "failure.txt"
        result["error"] = (
            stopped
            or traceback_of(home / cell.shown)
            or (failure.read_text(encoding="utf-8") if failure.is_file() else "")
            or f"the cell's process ended with status {exitcode}"
        )
    elif (home / "record.json").is_file():
        result["recorded"] = json.loads((home / "record.json").read_text(encoding="utf-8"))
    home.mkdir(parents=True, exist_ok=True)
    write_atomically(home / "cell.json", json.dumps(result, indent=1).encode())
    return result


def _summarise(cells: list[Cell], results: dict[str, CellResult], out: Path) -> None:
    for cell in cells:
        if "status" not in results[cell.name]:  # perhaps another sweep has run it
            results[cell.name] = read_result(out, cell)
    about = {c.name: {"cell": c.name, "lesson": c.what, **c.parameters} for c in cells}
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
    write_atomically(out / "records.csv", table.to_csv(index=False).encode())
    write_atomically(out / "cells.csv", pd.DataFrame(rows).to_csv(index=False).encode())
    write_atomically(out / "index.html", show(cells, results, out).encode())


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


def _short(result: CellResult) -> str:
    last = result["error"].strip().split("\n")[-1]
    return f" ({last[:200]})" if last else ""
