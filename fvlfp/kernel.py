"""The Jupyter kernel that notebooks run on: this interpreter's, started with patience.

What this module does not do: it runs no notebook.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: Seconds until a kernel must answer, and until a cell's outputs must have come once it has ended. The
#: libraries' own 60 and 4 are too few for a busy machine: what comes later is an error, or is lost.
START, OUTPUTS = 180, 60


def on_a_kernel(run: Callable[[str], T], *, tries: int = 3) -> T:
    """`run` with the name of a kernel of this interpreter, again where that dies before its first answer.

    No cell has run then. It happens where another program takes a port between its choice and its use.
    """
    with this_python() as kernel:
        try:
            return run(kernel)
        except RuntimeError as error:
            if tries == 1 or "died before replying" not in str(error):
                raise
    return on_a_kernel(run, tries=tries - 1)


@contextmanager
def this_python() -> Iterator[str]:
    """The name of a kernel of this interpreter, whatever other environments have installed."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "kernels" / "python3"
        spec.mkdir(parents=True)
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        kernel = {"argv": argv, "display_name": "Python 3", "language": "python"}
        (spec / "kernel.json").write_text(json.dumps(kernel), encoding="utf-8")
        before = os.environ.get("JUPYTER_PATH")
        os.environ["JUPYTER_PATH"] = os.pathsep.join([folder, *([before] if before else [])])
        try:
            yield "python3"
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before
