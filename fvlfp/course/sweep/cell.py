"""One cell of a sweep, in a process of its own.

What this module does not do: it prints nothing. The exit status says how it went, the executed notebook or
`failure.txt` why.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path

from filelock import FileLock

from fvlfp.course.sweep.grid import Parameters
from fvlfp.course.tour import execute


def run_cell(notebook: Path | None, parameters: Parameters, folder: Path, workers: int) -> None:
    """Run one notebook, or train, into `folder`. Exit status 0 when it went well, else 1.

    Args:
        notebook: None trains with `parameters` as config keys, as `fvlfp train` does.
        workers: how many such processes share the machine's cores.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the sweep's to handle
    if hasattr(signal, "pthread_sigmask"):  # blocked until now; Windows has none
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, which shuts the kernel down
    logging.disable()  # papermill repeats on stderr what the notebook or failure.txt says
    threading.Thread(target=_stop_with_the_sweep, daemon=True).start()
    if workers > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    folder.mkdir(parents=True, exist_ok=True)
    # A sweep that was killed may have left a process that is about to end; another sweep has this cell now.
    with FileLock(folder / ".cell.lock", timeout=60):
        _run(notebook, parameters, folder)


def _run(notebook: Path | None, parameters: Parameters, folder: Path) -> None:
    for name in ("record.json", "failure.txt"):
        (folder / name).unlink(missing_ok=True)  # of an earlier attempt
    try:
        if notebook:
            execute(notebook, folder, parameters)
        else:
            _train(parameters, folder)
    except Exception as error:  # of any kind: it fails this cell, not the sweep
        (folder / "failure.txt").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        sys.exit(1)


def _train(parameters: Parameters, folder: Path) -> None:
    """`fvlfp train` into `folder/run`, from its last checkpoint if there is one; the changes are recorded."""
    from fvlfp.audit import Comparison
    from fvlfp.config import Config
    from fvlfp.runs.experiment import run_and_audit

    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        report = run_and_audit(
            Config.make(**parameters),
            folder / "run",
            resume=True,
            say=lambda line: print(line, file=log, flush=True),
        )
    change = Comparison.read(report.parent)
    accuracy = change.document["overall"]["rates"]["balanced_accuracy"]
    record = {"balanced_accuracy": accuracy["b"], "balanced_accuracy_change": accuracy["change"]}
    for name in change.document["attributes"]:
        odds = change.odds_gap(name)
        record |= {f"odds_gap {name}": odds["b"], f"odds_gap_change {name}": odds["change"]}
        record |= {f"odds_gap_change_{end} {name}": odds[end] for end in ("low", "high")}
    (folder / "record.json").write_text(json.dumps(record, indent=1), encoding="utf-8")


def _stop_with_the_sweep() -> None:
    """A sweep that was killed leaves nobody behind who goes on writing into its folders."""
    sweep = multiprocessing.parent_process()
    if sweep is not None:
        sweep.join()
        os.kill(os.getpid(), signal.SIGTERM)
