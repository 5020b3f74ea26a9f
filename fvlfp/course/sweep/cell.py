"""One cell of a sweep, in a process of its own.

What this module does not do: it prints nothing. The exit status says how it went, the executed notebook or
`failure.txt` why.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from fvlfp.course.tour import execute


def run_cell(notebook: Path, parameters: dict[str, Any], folder: Path, workers: int) -> None:
    """Run one notebook into `folder`. Exit status 0 when all its cells ran, else 1.

    workers: how many such processes share the machine's cores.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the sweep's to handle
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # unwinds, which shuts the kernel down
    threading.Thread(target=_stop_with_the_sweep, daemon=True).start()
    if workers > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
    for name in ("record.json", "failure.txt"):
        (folder / name).unlink(missing_ok=True)  # of an earlier attempt
    logging.disable()  # papermill repeats on stderr what the notebook or failure.txt says
    try:
        execute(notebook, folder, parameters)
    except Exception as error:  # of any kind: it fails this cell, not the sweep
        (folder / "failure.txt").write_text(f"{type(error).__name__}: {error}", encoding="utf-8")
        sys.exit(1)


def _stop_with_the_sweep() -> None:
    """A sweep that was killed leaves nobody behind who goes on writing into its folders."""
    sweep = multiprocessing.parent_process()
    if sweep is not None:
        sweep.join()
        os.kill(os.getpid(), signal.SIGTERM)
